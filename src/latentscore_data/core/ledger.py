"""Money and tokens: what a run has used, and what all runs of a workspace have used together."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentscore_data.core.jsonl_io import Appender, read_lines, replace_rows

FLUSH_SECONDS = 1.0
COMPACT_LINES = 5000
OWNER_ONLY = 0o600
"""What was spent on which model is nobody else's business."""


@dataclass
class Usage:
    """What one run's model calls came to. ``cost_usd`` leaves out the ``unpriced`` calls, whose price nobody knows."""

    calls: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    unpriced: int = 0

    def add(self, other: Usage) -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


class Ledger:
    """A workspace's account book: one file that every run adds lines to, so that it adds up across resumes.

    A call that cost money is written at once; free ones are gathered for a second.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._book: Appender | None = None
        self._open: dict[tuple[str, str], Usage] = {}
        self._written = time.monotonic()

    def record(self, stage: str, model: str, tokens_in: int, tokens_out: int, cost_usd: float | None) -> None:
        """Book one call; ``cost_usd`` is None when its price is unknown."""
        usage = Usage(1, 0, tokens_in, tokens_out, cost_usd or 0.0, 0.0, int(cost_usd is None))
        self._open.setdefault((stage, model), Usage()).add(usage)
        if cost_usd or time.monotonic() - self._written > FLUSH_SECONDS:
            self.flush()

    def add_cached(self, stage: str, model: str, cached: int, saved_usd: float) -> None:
        """Book what the cache has answered."""
        if cached:
            self._open.setdefault((stage, model), Usage()).add(Usage(cached=cached, saved_usd=saved_usd))

    def flush(self) -> None:
        """Write what has been booked since the last time."""
        if not self._open:
            return
        if self._book is None:
            self._book = Appender(self.path, mode=OWNER_ONLY)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for (stage, model), usage in self._open.items():
            self._book.append({"time": now, "stage": stage, "model": model, **asdict(usage)})
        self._open.clear()
        self._written = time.monotonic()

    def close(self) -> None:
        """Write the rest; a long book is summed up to one line per stage and model."""
        self.flush()
        if self._book is not None:
            self._book.close()
            self._book = None
            lines, totals = _read(self.path)
            if lines > COMPACT_LINES:
                replace_rows(self.path, [_line(*key, usage) for key, usage in totals.items()], OWNER_ONLY)


def totals(path: Path) -> dict[tuple[str, str], Usage]:
    """All that was ever booked, by (stage, model)."""
    return _read(path)[1]


def _line(stage: str, model: str, usage: Usage) -> dict[str, Any]:
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "stage": stage, "model": model, **asdict(usage)}


def _read(path: Path) -> tuple[int, dict[tuple[str, str], Usage]]:
    sums: dict[tuple[str, str], Usage] = {}
    count = 0
    if path.exists():
        for _, line in read_lines(path, torn="drop"):
            count += 1
            known = {name: line.get(name, 0) for name in Usage.__dataclass_fields__}
            sums.setdefault((str(line.get("stage")), str(line.get("model"))), Usage()).add(Usage(**known))
    return count, sums
