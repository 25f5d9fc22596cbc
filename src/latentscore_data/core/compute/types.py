"""The protocol of executors, which run shards of work.

Rendering, scoring and answering get an executor and are independent of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.compute.estimates import RemoteJobEstimate
from latentscore_data.core.scoring.renderer import MakeRenderer


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
