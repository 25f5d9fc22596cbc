"""The workspace: the paths of all files, and the lock against concurrent writers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from latentscore.files import read_whole
from latentscore.seeds import digest
from latentscore_data import __version__
from latentscore_data.core.base.display import RedactingFormatter
from latentscore_data.core.base.errors import LsdataError, OutputError
from latentscore_data.core.base.jsonl import DRAFT_ENDING, is_draft, replace_json, writing
from latentscore_data.core.base.manifest import utc_now
from latentscore_data.core.base.rows import SPLITS

log = logging.getLogger(__name__)

LOGS_KEPT = 50


def dataset_slug(name: str) -> str:
    """A data set's name as a file name: readable, and unique by a short hash ("owner/name:config" is no file name)."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "dataset"
    return slug if slug == name else f"{slug}-{digest(name)[:8]}"


def sample_root(root: Path) -> Path:
    """Return the data root of the bundled samples, separate from the user's rows."""
    return root if root.name == "sample" else root / "sample"


class Workspace:
    """The files under one data root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.texts_dir = root / ".outputs"
        self.vibes_dir = root / ".vibes"
        self.configs_dir = root / ".processed"
        self.train_dir = root / ".modal_outputs"
        self.improve_dir = root / ".improve"
        self.bench_dir = root / ".benchmarks"
        self.export_dir = root / ".exports"
        self.cache_dir = root / ".cache"
        self.logs_dir = root / ".logs"
        self.extracted = self.vibes_dir / "extracted.jsonl"
        self.candidates = self.configs_dir / "candidates.jsonl"
        self.llm_cache = self.cache_dir / "llm.sqlite"
        self.score_cache = self.cache_dir / "scores.sqlite"
        self.ledger = self.cache_dir / "ledger.jsonl"

    def within(self, root: Path) -> Workspace:
        """Return a separate workspace at ``root`` that shares this one's caches, ledger and training runs."""
        inner = Workspace(root)
        inner.train_dir, inner.cache_dir = self.train_dir, self.cache_dir
        inner.llm_cache, inner.score_cache, inner.ledger = self.llm_cache, self.score_cache, self.ledger
        return inner

    def texts(self, dataset: str) -> Path:
        slug = dataset_slug(dataset)
        twice, stem = self.texts_dir / f"{slug}.jsonl", slug.removesuffix(".jsonl")
        # rows.jsonl keeps its name, unless an older version doubled its extension, or the name is reserved.
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
        """Return the path of a step's failures, beside its output: ``<step>.failures.jsonl``."""
        folder = {"download": self.texts_dir, "vibes": self.vibes_dir}.get(step, self.configs_dir)
        return folder / f"{step}.failures.jsonl"

    @contextlib.contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Lock the workspace for one writer. The lock ends with its process; a second run is told which process holds
        it. A new root is removed again if the command is refused before it writes anything.

        Raises :class:`OutputError`.
        """
        from filelock import FileLock, Timeout

        path = self.root / ".lock"
        note = self.root / ".lock.json"
        is_new = not self.root.exists()
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            if not os.access(self.root, os.W_OK):
                raise PermissionError(13, "Permission denied")
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                held = _read_note(note)
                raise OutputError(
                    f"{self.root} is in use {held[1] if held else 'by another process'}",
                    "wait for it, or use another --root",
                ) from None
        try:
            self._sweep_drafts()
            replace_json(note, {"pid": os.getpid(), "command": command, "since": utc_now()})
            with self._logging(command):
                yield
        except LsdataError:
            if is_new:
                self._remove_unused()
            raise
        finally:
            note.unlink(missing_ok=True)
            lock.release()

    def holder(self) -> str | None:
        """Return which process holds the lock, for a message, or None if its process is gone or there is none."""
        import psutil

        held = _read_note(self.root / ".lock.json")
        with contextlib.suppress(OverflowError):
            if held is not None and psutil.pid_exists(held[0]):
                return held[1]
        return None

    def _sweep_drafts(self) -> None:
        """Remove the drafts of killed runs, identified by the names of :func:`draft_of`.

        Only the holder of the lock creates drafts here, so existing ones are leftovers.
        """
        flat = (self.root, self.texts_dir, self.vibes_dir, self.configs_dir, self.export_dir)
        deep = (self.bench_dir, self.train_dir, self.improve_dir)
        for folder in (*flat, *(Path(below) for top in deep for below, _, _ in os.walk(top))):
            for draft in filter(is_draft, folder.glob(f".*{DRAFT_ENDING}")):
                shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)

    def _remove_unused(self) -> None:
        """Remove the root if it holds only what :meth:`lock` wrote; the lock is held until its file is gone."""
        if {path.name for path in self.root.iterdir()} <= {".lock", ".lock.json", ".logs"}:
            shutil.rmtree(self.root, ignore_errors=True)

    @contextlib.contextmanager
    def _logging(self, command: str) -> Iterator[None]:
        """Also write all messages and log records, without keys, to a log file of this run; only the newest files are kept."""
        with writing(self.logs_dir):
            self.logs_dir.mkdir(parents=True, exist_ok=True)
            for old in sorted(self.logs_dir.glob("*.log"))[: -LOGS_KEPT + 1]:
                old.unlink(missing_ok=True)
            handler = _RunLog(self.logs_dir / f"{stamp()}-{command.replace(' ', '-')}.log", encoding="utf-8")
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


class _RunLog(logging.FileHandler):
    """The log file of a run. Lines that a full disk does not take are lost: a log must not end the run."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def _read_note(note: Path) -> tuple[int, str] | None:
    """Return the process that wrote the lock's note, as a number and for a message; None without a valid note."""
    try:
        held = json.loads(read_whole(note))
        return int(held["pid"]), f"by process {held['pid']} (lsdata {held['command']}, since {held['since']})"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def stamp() -> str:
    """Return a sortable name for a run: UTC date and time."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())
