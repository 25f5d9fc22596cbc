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
"""Building the image the first time, starting a container, loading a model."""


@dataclass(frozen=True)
class Hire:
    """Containers that are paid for: how many at most, US dollars per hour of one, and the most that all of them can cost."""

    containers: int
    price_per_hour: float
    cap_usd: float


@dataclass(frozen=True)
class RemoteJobEstimate:
    """Work that is mapped over workers elsewhere: a number of items, each with its seconds on one of them.

    ``hire`` is None where nothing is paid for.
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
    """True where the ledger and the budget get each worker's real cost as it arises."""

    @property
    def cap_usd(self) -> float:
        """The maximum cost in US dollars."""
        return self.hire.cap_usd if self.hire is not None else 0.0

    def in_words(self) -> str:
        """One line: workers, time and cost as a range, the cap, and what all that rests on."""
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
    """Items that one call of :meth:`map` takes; None for all that wait."""

    @property
    def maps_at_once(self) -> int:
        """Calls of :meth:`map` that may run at the same time, each in a thread of its own."""
        return 1

    @property
    def workers(self) -> int:
        """Workers that may be busy at the same time."""
        return 1

    @property
    def at_once(self) -> int:
        """Items that keep all of it busy."""
        raise NotImplementedError

    def require(self) -> None:
        """Raise :class:`MissingError` unless it can be used. Asks no network."""

    def scorer_blocker(self, scoring: ScoringSettings) -> str | None:
        """Why the scorers of the settings cannot run there; None when they can."""
        return None

    def estimate_scoring(self, sounds: int, scoring: ScoringSettings, *, clips: bool) -> list[RemoteJobEstimate]:
        """What rendering and scoring that number of sounds takes; empty where it costs nothing."""
        return []

    def estimate_answers(self, label: str, count: int, tokens: int, at_once: int) -> list[RemoteJobEstimate]:
        """What that number of a local model's answers takes; empty where they cost nothing."""
        return []

    def price_per_second(self, *, gpu: bool) -> float:
        """US dollars that one worker costs in a second."""
        return 0.0

    def make_renderer(self, *, keep_flac: bool = False) -> MakeRenderer:
        """What makes the renderer of a scoring service. Raises :class:`InputError` for scorers that cannot run there."""
        raise NotImplementedError

    def send_model(self, model: str, runs: Path) -> None:
        """Make a model of this workspace available there. Raises :class:`InputError` for one that cannot be seen there."""

    def check_model(self, model: str, runs: Path) -> None:
        """Raise :class:`InputError` for a model that cannot be seen there."""

    def map(
        self, function: str, key: str, items: Iterable[Any], common: Mapping[str, Any], shard_rows: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Results of the entry point of that name, one per shard and in the order of the items.

        A shard is ``{**common, "deadline": Unix time, key: some of the items}``, with ``shard_rows`` items or as many as the
        executor finds best. Raises what a shard raised, and :class:`StoppedError` when the time or the money that was agreed
        to is used up.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the work and everything that was started for it."""
