"""The protocol of executors, which run shards of work, and the estimate of such work.

Rendering, scoring and answering get an executor and are independent of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentscore_data.core.base.display import duration
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.scoring.renderer import MakeRenderer

START_SECONDS = 180.0
"""Time to build the image once, start a container and load a model."""


@dataclass(frozen=True)
class Hire:
    """Paid containers: their maximum number, the price of one in US dollars per hour, and the maximum cost of all."""

    containers: int
    price_per_hour: float
    cap_usd: float


@dataclass(frozen=True)
class RemoteJobEstimate:
    """An estimate of remote work: a number of items, and the seconds that one worker needs for each.

    ``hire`` is None if the workers are free.
    """

    what: str
    items: int
    gpu: str | None
    low_seconds: float
    high_seconds: float
    basis: str
    where: str = ""
    hire: Hire | None = None
    booked: bool = False
    """True if the real cost is booked to ledger and budget during the run."""

    @property
    def cap_usd(self) -> float:
        """The maximum cost in US dollars."""
        return self.hire.cap_usd if self.hire is not None else 0.0

    def in_words(self) -> str:
        """Return one line: workers, time and cost as ranges, the cap, and the basis of the estimate."""
        if self.hire is None:
            low, high = (duration(self.items * seconds) for seconds in (self.low_seconds, self.high_seconds))
            return f"{self.where}: {self.items:,} {self.what}, about {low} to {high} of one worker ({self.basis})"
        containers, hourly = self.hire.containers, self.hire.price_per_hour
        low = START_SECONDS / 3 + self.items * self.low_seconds / max(containers, 1)
        high = START_SECONDS + self.items * self.high_seconds / max(containers, 1)
        usd = [containers * seconds / 3600 * hourly for seconds in (low, high)]
        return (
            f"{self.where}: {self.items:,} {self.what} in up to {containers} containers, about {low / 60:.0f} to "
            f"{high / 60:.0f} min and ${usd[0]:.2f} to ${usd[1]:.2f} ({self.basis}, start included; ${hourly:.2f} per hour), "
            f"at most ${self.cap_usd:.2f} (time-out x price)"
        )


class Executor:
    """Maps functions of ``compute.entrypoints`` over shards of work, under a deadline and a cap on the cost.

    The defaults are those of an executor without requirements and costs that can read every model.
    """

    name: str
    """Its name for ``--on``."""
    remote: bool
    """True when the work leaves this machine and may cost money."""
    map_rows: int | None = None
    """Items that one call of :meth:`map` takes; None for all waiting items."""

    @property
    def maps_at_once(self) -> int:
        """Maximum number of calls of :meth:`map` at the same time, each in its own thread."""
        return 1

    @property
    def workers(self) -> int:
        """Maximum number of busy workers."""
        return 1

    @property
    def at_once(self) -> int:
        """Number of items that keep all workers busy."""
        raise NotImplementedError

    def require(self) -> None:
        """Raise :class:`MissingError` if it cannot be used. Makes no network calls."""

    def scorer_blocker(self, scoring: ScoringSettings) -> str | None:
        """Return why the scorers of the settings cannot run there; None if they can."""
        return None

    def estimate_scoring(self, sounds: int, scoring: ScoringSettings, *, clips: bool) -> list[RemoteJobEstimate]:
        """Estimate rendering and scoring of that many sounds; empty if it is free."""
        return []

    def estimate_answers(self, label: str, count: int, tokens: int, at_once: int) -> list[RemoteJobEstimate]:
        """Estimate that many answers of a local model; empty if they are free."""
        return []

    def price_per_second(self, *, gpu: bool) -> float:
        """Return the price of one worker in US dollars per second."""
        return 0.0

    def make_renderer(self, *, keep_flac: bool = False) -> MakeRenderer:
        """Return the factory of a scoring service's renderer. Raises :class:`InputError` for scorers that cannot run there."""
        raise NotImplementedError

    def send_model(self, model: str, runs: Path) -> None:
        """Make a model of this workspace available there. Raises :class:`InputError` if that is impossible."""

    def check_model(self, model: str, runs: Path) -> None:
        """Raise :class:`InputError` for a model that cannot be made available there."""

    def map(
        self, function: str, key: str, items: Iterable[Any], common: Mapping[str, Any], shard_rows: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the results of an entry point, one per shard, in the order of the items.

        A shard is ``{**common, "deadline": Unix time, key: some of the items}``, with ``shard_rows`` items; the default
        number depends on the executor. Raises the error of a shard, and :class:`StoppedError` after the deadline or if the
        agreed cost is reached.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Stop the work, and end what was started for it."""
