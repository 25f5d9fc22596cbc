"""Which file each stage reads and writes, whether it is still fresh, and who may write now."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from latentscore_data import __version__
from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.base.jsonl import replace_json, writing
from latentscore_data.core.base.loop import RETRYABLE_KINDS, Summary
from latentscore_data.core.base.rows import ROW_FORMAT_VERSION, SPLITS
from latentscore_data.core.base.seeds import digest

log = logging.getLogger(__name__)

LOGS_KEPT = 50


def dataset_slug(name: str) -> str:
    """A data set's name as a file name: readable, and unique by a short hash ("owner/name:config" is no file name)."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "dataset"
    return slug if slug == name else f"{slug}-{digest(name)[:8]}"


def sample_root(root: Path) -> Path:
    """Where the bundled samples are worked on, apart from everybody's own rows."""
    return root if root.name == "sample" else root / "sample"


class Workspace:
    """The files under one data root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.texts_dir = root / ".outputs"
        self.vibes_dir = root / ".vibes"
        self.configs_dir = root / ".processed"
        self.train_dir = root / ".modal_outputs"
        self.bench_dir = root / ".benchmarks"
        self.export_dir = root / ".exports"
        self.cache_dir = root / ".cache"
        self.logs_dir = root / ".logs"
        self.extracted = self.vibes_dir / "extracted.jsonl"
        self.candidates = self.configs_dir / "candidates.jsonl"
        self.llm_cache = self.cache_dir / "llm.sqlite"
        self.score_cache = self.cache_dir / "scores.sqlite"
        self.ledger = self.cache_dir / "ledger.jsonl"

    def texts(self, dataset: str) -> Path:
        slug = dataset_slug(dataset)
        twice, stem = self.texts_dir / f"{slug}.jsonl", slug.removesuffix(".jsonl")
        # A file rows.jsonl stays rows.jsonl, but where an older version doubled its ending, or its name means something here.
        if twice.exists() or stem in ("", "manifest") or stem.endswith(".failures"):
            return twice
        return self.texts_dir / f"{stem}.jsonl"

    def text_files(self) -> list[Path]:
        """The sampled texts, one file per data set, in a stable order."""
        return sorted(path for path in self.texts_dir.glob("*.jsonl") if not path.name.endswith(".failures.jsonl"))

    def vibes(self, split: str) -> Path:
        return self.vibes_dir / f"{split}.jsonl"

    def scored(self, split: str) -> Path:
        return self.configs_dir / f"{split}.jsonl"

    def vibe_files(self) -> list[Path]:
        return [path for split in SPLITS if (path := self.vibes(split)).exists()]

    def scored_files(self) -> list[Path]:
        return [path for split in SPLITS if (path := self.scored(split)).exists()]

    def failures(self, step: str) -> Path:
        """Where a step's failures go: beside its output, ``<step>.failures.jsonl``."""
        folder = {"download": self.texts_dir, "vibes": self.vibes_dir}.get(step, self.configs_dir)
        return folder / f"{step}.failures.jsonl"

    @contextlib.contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """One writer at a time. The lock dies with its process; a second run learns who holds it.

        Raises :class:`OutputError`.
        """
        from filelock import FileLock, Timeout

        path = self.root / ".lock"
        note = self.root / ".lock.json"
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            if not os.access(self.root, os.W_OK):
                raise PermissionError(13, "Permission denied")
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise OutputError(
                    f"{self.root} is in use {_holder(note)}", "wait for it, or use another --root"
                ) from None
        try:
            self._sweep_drafts()
            replace_json(note, {"pid": os.getpid(), "command": command, "since": _now()})
            with self._logging(command):
                yield
        finally:
            note.unlink(missing_ok=True)
            lock.release()

    def _sweep_drafts(self) -> None:
        """Remove the drafts that a killed run left behind; only the holder of the lock makes them."""
        stages = (self.texts_dir, self.vibes_dir, self.configs_dir, self.train_dir, self.bench_dir, self.export_dir)
        for folder in (self.root, *stages, *self.bench_dir.glob("*/")):
            for draft in folder.glob(".*.tmp"):
                shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _logging(self, command: str) -> Iterator[None]:
        """Everything that is said and logged also goes, without keys, to a file of this run; the newest are kept."""
        from latentscore_data.core.base.display import RedactingFormatter

        with writing(self.logs_dir):
            self.logs_dir.mkdir(parents=True, exist_ok=True)
            for old in sorted(self.logs_dir.glob("*.log"))[: -LOGS_KEPT + 1]:
                old.unlink(missing_ok=True)
            handler = logging.FileHandler(
                self.logs_dir / f"{stamp()}-{command.replace(' ', '-')}.log", encoding="utf-8"
            )
        handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        package = logging.getLogger("latentscore_data")
        package.addHandler(handler)
        log.info("lsdata %s %s, process %d", __version__, command, os.getpid())
        try:
            yield
        except BaseException as error:
            log.info("ended by %s: %s", type(error).__name__, error)
            raise
        finally:
            package.removeHandler(handler)
            handler.close()


def _holder(note: Path) -> str:
    try:
        held = json.loads(note.read_text(encoding="utf-8"))
        return f"by process {held['pid']} (lsdata {held['command']}, since {held['since']})"
    except (OSError, ValueError, KeyError):
        return "by another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class FileFact:
    """What a manifest remembers of a file."""

    sha256: str
    bytes: int
    rows: int | None

    def to_dict(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "bytes": self.bytes, "rows": self.rows}


def file_fact(path: Path) -> FileFact:
    """SHA-256, size and, for JSONL, the number of lines; read in blocks."""
    sha, size, lines = hashlib.sha256(), 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
            size += len(block)
            lines += block.count(b"\n")
    return FileFact(sha.hexdigest(), size, lines if path.suffix == ".jsonl" else None)


@dataclass(frozen=True)
class StageFiles:
    """A stage as its manifest sees it: what it reads, what it writes, and the settings that decide its result."""

    stage: str
    manifest: Path
    inputs: Sequence[Path]
    settings: Mapping[str, Any]
    """Only what changes the result: no folders, concurrency, time-outs or budgets."""
    versions: Mapping[str, str]
    """Fingerprints of prompts, schema, renderer, scorers: whatever else decides the result."""


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A stage's manifest, or None where there is none. Raises :class:`InputError` for one of a newer format."""
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if isinstance(manifest, dict) and int(manifest.get("row_format_version", 1)) > ROW_FORMAT_VERSION:
        raise InputError(
            f"{path} was written by a newer lsdata (row format {manifest['row_format_version']})",
            "upgrade latentscore-data, or use another --root",
        )
    return manifest if isinstance(manifest, dict) else None


def stale_reasons(stage: StageFiles, root: Path) -> list[str]:
    """Why the stage must run (again); an empty list when it is fresh."""
    manifest = read_manifest(stage.manifest)
    if manifest is None:
        return ["it has not been completed yet"]
    reasons: list[str] = []
    before, now = manifest.get("settings", {}), _plain(stage.settings)
    for name in sorted(set(before) | set(now)):
        if before.get(name) != now.get(name):
            reasons.append(f"setting {name} changed from {before.get(name)!r} to {now.get(name)!r}")
    before, now = manifest.get("versions", {}), _plain(stage.versions)
    reasons += [f"{name} changed" for name in sorted(set(before) | set(now)) if before.get(name) != now.get(name)]
    known = manifest.get("inputs", {})
    given = {relative(path, root): path for path in stage.inputs}
    for name in sorted(set(known) | set(given)):
        if name not in given:
            reasons.append(f"input {name} is gone")
        elif name not in known:
            reasons.append(f"input {name} is new")
        elif not given[name].exists() or file_fact(given[name]).sha256 != known[name]["sha256"]:
            reasons.append(f"input {name} changed")
    for name, fact in manifest.get("outputs", {}).items():
        path = root / name
        if not path.exists():
            reasons.append(f"output {name} is gone")
        elif file_fact(path).sha256 != fact["sha256"]:
            reasons.append(f"output {name} was changed by hand")
    retryable = {kind: n for kind, n in manifest.get("failed", {}).items() if kind in RETRYABLE_KINDS}
    if retryable:
        reasons.append(f"{sum(retryable.values())} rows failed and can be tried again")
    return reasons


def write_manifest(
    stage: StageFiles,
    root: Path,
    outputs: Sequence[Path],
    summary: Summary,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Record what a completed stage read, wrote, cost and decided, in one move."""
    replace_json(
        stage.manifest,
        {
            "stage": stage.stage,
            "row_format_version": ROW_FORMAT_VERSION,
            "lsdata_version": __version__,
            "python_version": ".".join(map(str, sys.version_info[:3])),
            "git_commit": git_commit(),
            "finished": _now(),
            "settings": _plain(stage.settings),
            "versions": _plain(stage.versions),
            "inputs": {relative(path, root): file_fact(path).to_dict() for path in stage.inputs},
            "outputs": {relative(path, root): file_fact(path).to_dict() for path in outputs},
            "seconds": round(summary.seconds, 3),
            "done": summary.done,
            "skipped": summary.skipped,
            "failed": dict(summary.failed),
            "short": summary.short,
            "calls": summary.calls,
            "cached": summary.cached,
            "tokens_in": summary.tokens_in,
            "tokens_out": summary.tokens_out,
            "cost_usd": summary.cost_usd,
            "saved_usd": summary.saved_usd,
            "details": summary.details,
            **(extra or {}),
        },
    )


def relative(path: Path, root: Path) -> str:
    """The path below the root, or the whole path for files from elsewhere."""
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return str(path)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(values), default=str))


def git_commit() -> str | None:
    """The commit of the source tree this runs from, or None for an installed package."""
    try:
        out = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.strip() or None if out.returncode == 0 else None


def stamp() -> str:
    """A sortable name for a run: UTC date and time."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())
