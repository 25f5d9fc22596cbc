"""Provenance of rows: works and their licences, and the manifests of the stages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import read_lines, read_rows
from latentscore_data.core.base.manifest import read_manifest
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.texts.licenses import HUB_LICENSES

ATTRIBUTION_FILE = "ATTRIBUTION.md"
UNKNOWN = "unknown"

# Metadata keys that corpora use for these facts, the most specific first.
_LICENSE_KEYS = ("license", "licence", "license_name", "rights")
_AUTHOR_KEYS = ("author", "authors", "creator", "contributors")
_ADDRESS_KEYS = ("url", "address", "source_url", "link", "source")
_TITLE_KEYS = ("title", "book_title", "name")


@dataclass(frozen=True, order=True)
class Work:
    """A work that texts were taken from, with the facts that an attribution needs; an empty text for an unknown one."""

    dataset: str
    license: str
    title: str
    author: str
    address: str


@dataclass
class Provenance:
    """The origin of a set of rows."""

    works: Counter[Work]
    """Each work with the number of its texts that have rows."""
    rows_by_dataset: Counter[str]
    texts_by_dataset: Counter[str]
    manifests: dict[str, JsonObject] = field(default_factory=dict)
    """The manifests by stage, in the order of the stages."""

    def licenses(self, dataset: str | None = None) -> list[str]:
        """Return the licences of all works, or of those of one data set, sorted."""
        return sorted({work.license for work in self.works if dataset in (None, work.dataset)})

    def missing_notices(self) -> list[str]:
        """Return what prevents publication: unknown licences, and attributions without author or address."""
        problems: list[str] = []
        unlicensed = Counter(work.dataset for work in self.works if work.license == UNKNOWN)
        problems += [f"the licence of the texts of {name} is unknown" for name in unlicensed]
        unnamed = Counter(
            work.dataset for work in self.works if wants_attribution(work.license) and not (work.author or work.address)
        )
        problems += [f"texts of {name} require attribution but name neither author nor address" for name in unnamed]
        return problems


def stage_manifests(workspace: Workspace) -> dict[str, JsonObject]:
    """Return the manifests of the completed stages, in the order of the stages."""
    paths = {
        "download": workspace.texts_dir / "manifest.json",
        "vibes": workspace.vibes_dir / "manifest.json",
        "generate": workspace.configs_dir / "generate.manifest.json",
        "score": workspace.configs_dir / "score.manifest.json",
    }
    return {stage: manifest for stage, path in paths.items() if (manifest := read_manifest(path)) is not None}


class Origins:
    """Collects the origin of rows: call :meth:`note` for each row, then :meth:`joined`."""

    def __init__(self) -> None:
        self._rows_by_dataset: Counter[str] = Counter()
        self._texts: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        """(data set, id in it) -> the text's metadata, if the rows have it."""

    def note(self, row: ScoredRow) -> None:
        """Add a row."""
        self._rows_by_dataset[row.dataset] += 1
        key = (row.dataset, row.id_in_dataset)
        metadata = (row.model_extra or {}).get("metadata")
        if isinstance(metadata, Mapping):
            self._texts[key] = metadata
        else:
            self._texts.setdefault(key, None)

    def joined(self, workspace: Workspace, source_licenses: Sequence[str] = ()) -> Provenance:
        """Return the origin of the rows, with the metadata of the workspace's texts.

        ``source_licenses`` are ``DATASET=LICENCE`` for texts without a licence. Raises :class:`InputError` for other
        ones.
        """
        given = licenses_by_dataset(source_licenses)
        wanted = set(self._texts)
        works: Counter[Work] = Counter()
        for path in workspace.text_files():
            for _, line in read_lines(path, torn="drop"):
                key = (str(line.get("dataset")), str(line.get("id_in_dataset")))
                if key in wanted:
                    wanted.discard(key)
                    works[_work(key[0], line.get("metadata") or {}, given)] += 1
        for key in wanted:
            works[_work(key[0], self._texts[key] or {}, given)] += 1
        texts = Counter[str]()
        for work, count in works.items():
            texts[work.dataset] += count
        return Provenance(works, self._rows_by_dataset, texts, stage_manifests(workspace))


def provenance(workspace: Workspace, rows: Iterable[ScoredRow], source_licenses: Sequence[str] = ()) -> Provenance:
    """Return the origin of these rows (:meth:`Origins.joined`)."""
    origins = Origins()
    for row in rows:
        origins.note(row)
    return origins.joined(workspace, source_licenses)


def of_run(workspace: Workspace, run: Path | None, source_licenses: Sequence[str] = ()) -> Provenance | None:
    """Return the origin of the rows that a run was trained on, from its folder; None for a model without a run."""
    if run is None:
        return None
    rows = (row for path in sorted((run / "data").glob("*.jsonl")) for row in read_rows(path, ScoredRow))
    return provenance(workspace, rows, source_licenses)


def licenses_by_dataset(pairs: Sequence[str]) -> dict[str, str]:
    """Return ``["moby-dick=public domain"]`` as a mapping. Raises :class:`InputError` for other forms."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, license_name = pair.rpartition("=")
        if not (equals and name.strip() and license_name.strip()):
            raise InputError(
                f"export.source_licenses: {pair!r} is not DATASET=LICENCE", "write moby-dick=public domain"
            )
        found[name.strip()] = license_name.strip()
    return found


def _work(dataset: str, metadata: Mapping[str, Any], given: Mapping[str, str]) -> Work:
    return Work(
        dataset=dataset,
        license=_first(metadata, _LICENSE_KEYS) or given.get(dataset, UNKNOWN),
        title=_first(metadata, _TITLE_KEYS),
        author=_first(metadata, _AUTHOR_KEYS),
        address=_first(metadata, _ADDRESS_KEYS),
    )


def _first(metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    for key in keys:
        value = metadata.get(key)
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = ", ".join(str(part) for part in value)
        if value is not None and str(value).strip():
            return " ".join(str(value).split())
    return ""


_PUBLIC_DOMAIN = re.compile(
    r"\b(public[ -]domain|cc0|cc-zero|no known copyright|pd|pddl|unlicense|us government)\b", re.I
)


def wants_attribution(license_name: str) -> bool:
    """Return True except for unknown licences and those that require no attribution."""
    return license_name != UNKNOWN and not _PUBLIC_DOMAIN.search(license_name)


_SPELLED_OUT = (
    (r"creative\s*commons(?:\.org/licenses)?|licenses(?=/by)", "cc"),
    (r"attribution", "by"),
    (r"share[\s-]*alike", "sa"),
    (r"non[\s-]*commercial", "nc"),
    (r"no[\s-]*deriv\w*", "nd"),
)
_CREATIVE_COMMONS = re.compile(r"\bcc\W*by((?:\W*(?:sa|nc|nd)\b)*)\D*(\d\.\d)")
_NO_LICENSES = ("other", "unknown")


def hub_license(license_name: str) -> str | None:
    """Return the hub's identifier of a licence; None if the hub has none (for example, public domain)."""
    text = license_name.strip().lower()
    if re.search(r"\bcc0\b|cc-zero|publicdomain/zero", text):
        return "cc0-1.0"
    if text in HUB_LICENSES:
        return text if text not in _NO_LICENSES else None
    for spelled, short in _SPELLED_OUT:
        text = re.sub(spelled, short, text)
    if found := _CREATIVE_COMMONS.search(text):
        name = "-".join(["cc-by", *re.findall(r"sa|nc|nd", found[1]), found[2]])
        return name if name in HUB_LICENSES else None
    return None


def attribution(provenance: Provenance) -> str:
    """Return the content of ATTRIBUTION.md: the works by data set and licence, as far as the texts name them."""
    lines = [
        "# Attribution",
        "",
        "The vibes in this export were written by a model that read the texts below. The texts themselves are not part",
        "of it. Each work is listed with its licence, its author and its address as its source states them.",
    ]
    for dataset in sorted(provenance.texts_by_dataset):
        lines += ["", f"## {md(dataset)}"]
        for license_name in provenance.licenses(dataset):
            lines += ["", f"### {md(license_name)}", ""]
            for work, texts in sorted(provenance.works.items()):
                if (work.dataset, work.license) == (dataset, license_name):
                    lines.append(f"- {_citation(work, texts)}")
    return "\n".join(lines) + "\n"


def _citation(work: Work, texts: int) -> str:
    title = f"*{md(work.title)}*" if work.title else "untitled"
    parts = [title + (f" by {md(work.author)}" if work.author else "")]
    if work.address:
        parts.append(f"<{work.address}>" if re.fullmatch(r"https?://[^\s<>]+", work.address) else md(work.address))
    parts.append(f"{texts} text{'s' if texts != 1 else ''}")
    return ", ".join(parts)


def md(text: object) -> str:
    """Return untrusted text for one line of Markdown, without markup, links or line breaks."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|#{}$~])", r"\\\1", line).replace("&", "&amp;")
