"""What a stage did: counts, money, outputs, and the exit code that follows from them; and what shows how far it is."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latentscore_data.core.base.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from latentscore.json_search import JsonObject
    from latentscore_data.core.base.ledger import Usage

RETRYABLE_KINDS = frozenset({"transient", "answer", "render", "score"})
"""Failures that the next run retries; others (bad requests) are retried only with --retry-failed."""


@dataclass
class Summary:
    """The result of a stage. ``exit_code`` is 0 if all rows are complete, and 1 if some failed or have fewer results than
    requested."""

    stage: str
    unit: str = "row"
    """What is counted, in the singular."""
    done: int = 0
    skipped: int = 0
    failed: Counter[str] = field(default_factory=lambda: Counter())
    short: int = 0
    """Number of rows with fewer results than requested."""
    unfinished: int = 0
    """Number of rows that are incomplete because of a temporary failure; the next run retries them."""
    pending: int = 0
    """Number of questions in provider batches; the stage is complete only when they are answered."""
    seconds: float = 0.0
    calls: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0
    """``None`` when the price of a model is unknown."""
    saved_usd: float = 0.0
    fresh: bool = False
    """True if the stage was fresh, so nothing was done."""
    details: JsonObject = field(default_factory=lambda: {})
    outputs: list[str] = field(default_factory=lambda: [])
    next_step: str = ""

    def count(self, usage: Usage) -> None:
        """Set the usage of a model client."""
        self.calls, self.cached = usage.calls, usage.cached
        self.tokens_in, self.tokens_out = usage.tokens_in, usage.tokens_out
        self.cost_usd = None if usage.unpriced and not usage.cost_usd else usage.cost_usd
        self.saved_usd = usage.saved_usd

    def add_usage(self, usage: Usage) -> None:
        """Add usage outside the stage's own calls."""
        part = Summary(self.stage)
        part.count(usage)
        self.add_bill(part)

    def add_bill(self, other: Summary) -> None:
        """Add the calls and cost of another part of the run."""
        self.calls += other.calls
        self.cached += other.cached
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out
        self.saved_usd += other.saved_usd
        if self.cost_usd is not None:
            self.cost_usd = None if other.cost_usd is None else self.cost_usd + other.cost_usd

    def add(self, other: Summary) -> None:
        """Add the rows, time, calls and cost of another part of this run."""
        self.done += other.done
        self.skipped += other.skipped
        self.failed += other.failed
        self.short += other.short
        self.unfinished += other.unfinished
        self.seconds += other.seconds
        self.add_bill(other)

    @property
    def exit_code(self) -> int:
        return EXIT_SOME_FAILED if self.failed or self.short else 0

    def to_dict(self) -> JsonObject:
        """For ``--json``: plain values, the same names."""
        failed, seconds = dict(self.failed), round(self.seconds, 3)
        return {**vars(self), "failed": failed, "seconds": seconds, "exit_code": self.exit_code}


class Progress:
    """Receive the progress of a stage; this one shows nothing. Displays override its methods."""

    total: int | None = None
    started: float = 0.0

    def start(self, stage: str, total: int | None) -> None:
        self.total, self.started = total, time.monotonic()

    def update(self, summary: Summary, in_flight: int) -> None: ...

    def finish(self, summary: Summary) -> None: ...
