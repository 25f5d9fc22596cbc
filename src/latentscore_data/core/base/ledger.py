"""Cost and tokens: the usage of a run, and the ledger of all runs of a workspace."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import Appender, read_lines, replace_rows, writing

FLUSH_SECONDS = 1.0
COMPACT_LINES = 5000
OWNER_ONLY = 0o600
"""File mode of the ledger: costs are private."""


@dataclass
class Usage:
    """The usage of model calls. ``cost_usd`` excludes the ``unpriced`` calls, whose price is unknown."""

    calls: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    unpriced: int = 0

    @classmethod
    def of_call(cls, tokens_in: int, tokens_out: int, cost_usd: float | None) -> Usage:
        """One call; ``cost_usd`` is None when its price is unknown."""
        return cls(1, 0, tokens_in, tokens_out, cost_usd or 0.0, 0.0, int(cost_usd is None))

    def add(self, other: Usage) -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class SpendTracker:
    """What one run has spent and has in flight, in US dollars: all its models, judges, remote containers and stages."""

    spent: float = 0.0
    in_flight: float = 0.0


class Ledger:
    """The ledger of a workspace: one file to which every run appends lines, so that totals include resumed runs.

    A paid call is written at once; free calls are collected for a second. Several processes may write to the same
    ledger, because ``lsdata configs "a vibe"`` does not lock the workspace.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._book: Appender | None = None
        self._open: dict[tuple[str, str], Usage] = {}
        self._due = self._held = False
        self._written = time.monotonic()

    def record(self, stage: str, model: str, tokens_in: int, tokens_out: int, cost_usd: float | None) -> None:
        """Book one call; ``cost_usd`` is None when its price is unknown."""
        self._open.setdefault((stage, model), Usage()).add(Usage.of_call(tokens_in, tokens_out, cost_usd))
        self._due = self._due or bool(cost_usd) or time.monotonic() - self._written > FLUSH_SECONDS
        if self._due and not self._held:
            self.flush()

    def record_batch(self, stage: str, model: str, usage: Usage, batch: str) -> None:
        """Book all answers of a provider batch in one line with its name, so that :func:`has_batch` can find it."""
        with self._alone(), Appender(self.path, mode=OWNER_ONLY) as book:
            book.append({**_line(stage, model, usage), "batch": batch})

    @contextmanager
    def together(self) -> Generator[None]:
        """Context manager: write all calls that are booked inside the block at its end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._due:
                self.flush()

    def add_cached(self, stage: str, model: str, cached: int, saved_usd: float) -> None:
        """Book answers from the cache."""
        if cached:
            self._open.setdefault((stage, model), Usage()).add(Usage(cached=cached, saved_usd=saved_usd))

    def flush(self) -> None:
        """Write the calls that were booked since the last flush."""
        if not self._open:
            return
        with self._alone():
            if self._book is not None and self._book.replaced:
                self._book.close()
                self._book = None
            if self._book is None:
                # Synced only at the end, because a slow sync would delay storing answers.
                self._book = Appender(self.path, sync_seconds=math.inf, mode=OWNER_ONLY)
            for (stage, model), usage in self._open.items():
                self._book.append(_line(stage, model, usage))
        self._open.clear()
        self._due = False
        self._written = time.monotonic()

    def close(self) -> None:
        """Write the rest; a long ledger is compacted to one line per stage and model."""
        self.flush()
        if self._book is not None:
            self._book.close()
            self._book = None
            with self._alone():
                lines, totals = _read(self.path)
                if lines > COMPACT_LINES:
                    replace_rows(self.path, [_line(*key, usage) for key, usage in totals.items()], OWNER_ONLY)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Context manager: hold the lock against other processes that write or compact the ledger."""
        from filelock import FileLock

        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path.with_suffix(".lock"), mode=OWNER_ONLY)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def has_batch(path: Path, batch: str) -> bool:
    """Return whether the answers of that provider batch are booked."""
    return path.exists() and any(line.get("batch") == batch for _, line in read_lines(path, torn="drop"))


def totals(path: Path) -> dict[tuple[str, str], Usage]:
    """Return the total usage by (stage, model)."""
    return _read(path)[1]


def _line(stage: str, model: str, usage: Usage) -> JsonObject:
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "stage": stage, "model": model, **asdict(usage)}


def _read(path: Path) -> tuple[int, dict[tuple[str, str], Usage]]:
    sums: dict[tuple[str, str], Usage] = {}
    count = 0
    if path.exists():
        for number, line in read_lines(path, torn="drop"):
            count += 1
            known = {name: line.get(name, 0) for name in Usage.__dataclass_fields__}
            for name, value in known.items():
                if not isinstance(value, int | float):
                    raise InputError(
                        f"{path}:{number}: {name} is not a number",
                        "correct the line, or delete it together with its cost",
                    )
            sums.setdefault((str(line.get("stage")), str(line.get("model"))), Usage()).add(Usage(**known))
    return count, sums
