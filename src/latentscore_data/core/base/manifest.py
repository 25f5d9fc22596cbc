"""Manifests: what a completed stage read, wrote and cost, and the check whether it is fresh or stale."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from latentscore.files import open_file, read_whole
from latentscore.json_search import JsonObject
from latentscore_data import __version__
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import replace_json
from latentscore_data.core.base.layers import leaves
from latentscore_data.core.base.names import made_printable, printable
from latentscore_data.core.base.rows import ROW_FORMAT_VERSION
from latentscore_data.core.base.summary import RETRYABLE_KINDS, Summary


def utc_now() -> str:
    """The time as records hold it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class FileFact:
    """The facts about a file in a manifest."""

    sha256: str
    bytes: int
    rows: int | None


def file_fact(path: Path) -> FileFact:
    """SHA-256, size and, for JSONL, the number of lines; read in blocks."""
    sha, size, lines = hashlib.sha256(), 0, 0
    with open_file(path) as file:
        while block := file.read(1 << 20):
            sha.update(block)
            size += len(block)
            lines += block.count(b"\n")
    return FileFact(sha.hexdigest(), size, lines if path.suffix == ".jsonl" else None)


@dataclass(frozen=True)
class StageFiles:
    """The inputs, outputs and settings of a stage that its manifest records."""

    stage: str
    manifest: Path
    inputs: Sequence[Path]
    settings: Mapping[str, Any]
    """Only settings that change the result: no folders, concurrency, time-outs or budgets."""
    versions: Mapping[str, str]
    """Fingerprints of everything else that determines the result: prompts, schema, renderer, scorers."""
    typed: Mapping[str, Any] = field(default_factory=dict)
    """The flags of this run, as sections of settings; ``status`` compares with them instead of the defaults."""
    replaced: Mapping[str, Any] = field(default_factory=dict)
    """The values of the settings file and the environment that the flags replaced; if one of them is changed after the run,
    ``status`` no longer uses its flag."""


class _Fact(BaseModel):
    model_config = ConfigDict(extra="allow")

    sha256: str
    rows: int | None = None


class _Manifest(BaseModel):
    """The required fields of a manifest; other fields are kept."""

    model_config = ConfigDict(extra="allow")

    settings: JsonObject = {}
    typed: JsonObject = {}
    replaced: JsonObject = {}
    versions: JsonObject = {}
    inputs: dict[str, _Fact] = {}
    outputs: dict[str, _Fact] = {}
    details: JsonObject = {}
    failed: dict[str, int] = {}
    finished: str = ""
    done: int = 0
    skipped: int = 0
    short: int = 0
    unfinished: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0


def read_manifest(path: Path) -> JsonObject | None:
    """Return a stage's manifest, or None if it is missing or unreadable. Raises :class:`InputError` for a newer format."""
    if not path.exists():
        return None
    try:
        manifest = json.loads(read_whole(path))
        version = manifest.get("row_format_version", 1) if isinstance(manifest, dict) else 1
        if isinstance(version, int) and version > ROW_FORMAT_VERSION:
            raise InputError(
                f"{path} was written by a newer lsdata (row format {version})",
                "upgrade latentscore-data, or use another --root",
            )
        return _Manifest.model_validate(manifest).model_dump(exclude_unset=True)
    except (OSError, ValueError, RecursionError):
        return None


NOT_COMPLETED = "not completed yet"
"""The reason for a stage without a manifest: it was never run to its end."""


def stale_reasons(stage: StageFiles, root: Path, facts: dict[Path, FileFact] | None = None) -> list[str]:
    """Return the reasons why the stage is stale; an empty list if it is fresh.

    ``facts`` caches the facts of files, for stages that share a file.
    """
    facts = {} if facts is None else facts

    def sha256(path: Path) -> str:
        if path not in facts:
            facts[path] = file_fact(path)
        return facts[path].sha256

    manifest = read_manifest(stage.manifest)
    if manifest is None:
        return [NOT_COMPLETED]
    reasons: list[str] = []
    reasons += _settings_changed(manifest, _plain(stage.settings))
    before, now = manifest.get("versions", {}), _plain(stage.versions)
    reasons += [f"{name} changed" for name in sorted(set(before) | set(now)) if before.get(name) != now.get(name)]
    known = manifest.get("inputs", {})
    given = {relative(path, root): path for path in stage.inputs}
    for name in sorted(set(known) | set(given)):
        if name not in given:
            reasons.append(f"input {name} is missing")
        elif name not in known:
            reasons.append(f"input {name} is new")
        elif not given[name].exists() or sha256(given[name]) != known[name]["sha256"]:
            reasons.append(f"input {name} changed")
    for name, fact in manifest.get("outputs", {}).items():
        path = root / name
        if not path.exists():
            reasons.append(f"output {name} is missing")
        elif sha256(path) != fact["sha256"]:
            reasons.append(f"output {name} was modified")
    retryable = {kind: n for kind, n in manifest.get("failed", {}).items() if kind in RETRYABLE_KINDS}
    if retryable:
        reasons.append(f"{sum(retryable.values())} rows failed and can be retried")
    if unfinished := manifest.get("unfinished"):
        reasons.append(f"{unfinished} rows are incomplete and can be retried")
    return reasons


def _settings_changed(manifest: JsonObject, settings: JsonObject) -> list[str]:
    """Return a reason for each changed setting, and one for all settings that the version of the manifest did not have."""
    before, now = dict(leaves(manifest.get("settings", {}))), dict(leaves(settings))
    version = manifest.get("lsdata_version", __version__)
    new = sorted(name for name in set(now) - set(before) if now[name] is not None) if version != __version__ else []
    changed = [name for name in sorted(set(before) | set(now)) if name not in new and before.get(name) != now.get(name)]
    reasons = [f"setting {name} changed from {before.get(name)!r} to {now.get(name)!r}" for name in changed]
    return [*reasons, f"version {version} did not have the settings {', '.join(new)}"] if new else reasons


NOT_RECORDED = ("stage", "pending", "fresh", "outputs", "next_step", "exit_code")
"""Fields of the summary that a manifest does not contain, or contains in another form."""


def write_manifest(
    stage: StageFiles,
    root: Path,
    outputs: Sequence[Path],
    summary: Summary,
    facts: Mapping[Path, FileFact] | None = None,
) -> None:
    """Write the manifest of a completed stage atomically. ``facts`` are known facts of files."""

    def fact(path: Path) -> JsonObject:
        return asdict((facts or {}).get(path) or file_fact(path))

    replace_json(
        stage.manifest,
        {
            "stage": stage.stage,
            "row_format_version": ROW_FORMAT_VERSION,
            "lsdata_version": __version__,
            "python_version": ".".join(map(str, sys.version_info[:3])),
            "git_commit": git_commit(),
            "finished": utc_now(),
            "settings": _plain(stage.settings),
            "typed": _plain(stage.typed),
            "replaced": _plain(stage.replaced),
            "versions": _plain(stage.versions),
            "inputs": {relative(path, root): fact(path) for path in stage.inputs},
            "outputs": {relative(path, root): fact(path) for path in outputs},
            **{name: value for name, value in summary.to_dict().items() if name not in NOT_RECORDED},
        },
    )


def note_flags(stage: StageFiles) -> None:
    """Update the flags in the manifest of a completed stage for a run that changed nothing else."""
    manifest = read_manifest(stage.manifest) or {}
    flags = {"typed": _plain(stage.typed), "replaced": _plain(stage.replaced)}
    if manifest != manifest | flags:
        replace_json(stage.manifest, manifest | flags)


def relative(path: Path, root: Path) -> str:
    """Return the path relative to the root, or the whole path for files outside the root."""
    try:
        return printable(path.resolve().relative_to(root.resolve()).as_posix())
    except ValueError:
        return printable(path)


def _plain(values: Mapping[str, Any]) -> JsonObject:
    return made_printable(json.loads(json.dumps(dict(values), default=str)))


def git_commit() -> str | None:
    """The commit of the source tree this runs from, or None for an installed package."""
    try:
        out = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.strip() or None if out.returncode == 0 else None
