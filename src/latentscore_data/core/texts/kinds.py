"""The kinds of data sets (bundled, local, hub): how each is sampled, and what its sample depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from latentscore.seeds import digest
from latentscore_data.core.base.errors import require
from latentscore_data.core.base.manifest import file_fact
from latentscore_data.core.base.sample import PASSAGES, sample_texts
from latentscore_data.core.base.settings import DownloadSettings
from latentscore_data.core.texts.corpus import Kind, Sample, Source, draw_sample, local_files, sample_local, sha256_of
from latentscore_data.core.texts.hub import HubPlan, plan, sample_hub


@dataclass(frozen=True)
class Fetch:
    """The state of a download from the hub: the confirmed plan, and the file with the texts of an interrupted run."""

    plan: HubPlan | None
    partial: Path
    overwrite: bool


class TextSourceKind:
    """A kind of data set. The defaults are those of a local one without settings of its own."""

    def contents(self, source: Source) -> list[object]:
        """Return the identity of the current texts, as far as it is known without a network."""
        return []

    def decides(self, settings: DownloadSettings) -> Mapping[str, object]:
        """Return the settings of this kind that the sample depends on."""
        return {}

    def check(self, source: Source) -> None:
        """Raise :class:`MissingError` if a library is missing."""

    def plan(self, source: Source, settings: DownloadSettings) -> HubPlan | None:
        """Return the planned download; None if nothing is downloaded."""
        return None

    def sample(self, source: Source, settings: DownloadSettings, fetch: Fetch) -> Sample:
        """Return the sample."""
        raise NotImplementedError


class _Builtin(TextSourceKind):
    def contents(self, source: Source) -> list[object]:
        return [file_fact(PASSAGES).sha256]

    def sample(self, source: Source, settings: DownloadSettings, fetch: Fetch) -> Sample:
        texts, seen = draw_sample(sample_texts(), settings.sample_size, settings.seed)
        return Sample(texts, seen, f"{len(texts)} of the {seen} bundled passages")


class _Local(TextSourceKind):
    def contents(self, source: Source) -> list[object]:
        assert source.path is not None
        return [(file.name, sha256_of(file)) for file in local_files(source.path)]

    def decides(self, settings: DownloadSettings) -> Mapping[str, object]:
        return {} if settings.encoding is None else {"encoding": settings.encoding}

    def sample(self, source: Source, settings: DownloadSettings, fetch: Fetch) -> Sample:
        return sample_local(source, settings.sample_size, settings.seed, settings.text_field, settings.encoding)


class _Hub(TextSourceKind):
    def decides(self, settings: DownloadSettings) -> Mapping[str, object]:
        return {"shards": settings.shards, "oversample": settings.oversample}

    def check(self, source: Source) -> None:
        require("datasets", "hub", f"downloading {source.name}")

    def plan(self, source: Source, settings: DownloadSettings) -> HubPlan | None:
        return plan(source, settings)

    def sample(self, source: Source, settings: DownloadSettings, fetch: Fetch) -> Sample:
        assert fetch.plan is not None
        made_by = fingerprint(source, settings)
        return sample_hub(fetch.plan, settings, fetch.partial, made_by, overwrite=fetch.overwrite)


KINDS: dict[Kind, TextSourceKind] = {"builtin": _Builtin(), "local": _Local(), "hub": _Hub()}


def kind_of(source: Source) -> TextSourceKind:
    """Return the kind of a data set."""
    return KINDS[source.kind]


def fingerprint(source: Source, settings: DownloadSettings) -> str:
    """Return the identity of the sample: it changes with settings and texts. Local files are hashed."""
    kind = kind_of(source)
    sampling = (settings.sample_size, settings.seed, settings.text_field)
    return digest(source.name, source.kind, *sampling, kind.contents(source), sorted(kind.decides(settings).items()))[
        :32
    ]
