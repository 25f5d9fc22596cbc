"""The base class of remote executors: shards of work, the deadline, the supported scorers, and the estimates."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.rows import batched
from latentscore_data.core.base.settings import ScoringSettings, Settings
from latentscore_data.core.compute import estimates
from latentscore_data.core.compute.entrypoints import made_by
from latentscore_data.core.compute.remote_scoring import RemoteRenderer
from latentscore_data.core.scoring.executor import Executor, Hire, RemoteJobEstimate
from latentscore_data.core.scoring.registry import remote_blocker, scorer_names
from latentscore_data.core.scoring.renderer import MakeRenderer


class RemoteExecutor(Executor):
    """Maps entry points over shards of ``shard_rows`` items; one remote worker does a shard.

    All work of this object has the same deadline, ``hours`` after the first shard. A subclass defines how shards are sent
    (:meth:`run_shards`) and what they cost (:meth:`hire`).
    """

    remote = True
    cores: int
    """Cores of one worker."""
    shard_rows: int
    hours: float
    keep_processes = False
    """True if one process does many shards and keeps for the next shard what it has loaded."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings, self._scoring, self._say = settings, settings.scoring, say
        self._deadline: float | None = None

    @property
    def workers(self) -> int:
        return self.at_once // self.shard_rows

    def run_shards(self, function: str, shards: Iterable[str], deadline: float) -> Iterator[str]:
        """Yield the results (JSON) of the entry point with this name, in the order of the shards (JSON)."""
        raise NotImplementedError

    def hire(self, items: int, gpu: str | None) -> Hire | None:
        """Return the paid workers for that many items; None if they are free."""
        return None

    @property
    def gpu(self) -> str | None:
        """The paid GPU of workers that run local models; None without one."""
        return None

    def scorer_blocker(self, scoring: ScoringSettings) -> str | None:
        return remote_blocker(scoring)

    def estimate_scoring(self, sounds: int, scoring: ScoringSettings, *, clips: bool) -> list[RemoteJobEstimate]:
        found = estimates.estimate_scoring(sounds, scoring, scorer_names(scoring), clips=clips, cores=self.cores)
        return [self._hired(found)]

    def estimate_answers(self, label: str, count: int, tokens: int, at_once: int) -> list[RemoteJobEstimate]:
        return [self._hired(estimates.estimate_answering(label, count, tokens, at_once, self.gpu))]

    def price_per_second(self, *, gpu: bool) -> float:
        hired = self.hire(1, self.gpu if gpu else None)
        return hired.price_per_hour / 3600 if hired is not None else 0.0

    def _hired(self, found: RemoteJobEstimate) -> RemoteJobEstimate:
        return replace(found, where=self.name, hire=self.hire(found.items, found.gpu))

    def make_renderer(self, *, keep_flac: bool = False) -> MakeRenderer:
        if (reason := self.scorer_blocker(self._scoring)) is not None:
            raise InputError(reason, "use --scorer acoustic or --scorer clap, or --on here")
        return partial(RemoteRenderer, executor=self, say=self._say, keep_flac=keep_flac)

    def map(
        self, function: str, key: str, items: Iterable[Any], common: Mapping[str, Any], shard_rows: int | None = None
    ) -> Iterator[dict[str, Any]]:
        about = {
            **common,
            "deadline": self.deadline(),
            "cores": self.cores,
            "keep_processes": self.keep_processes,
            "made_by": made_by(),
        }
        parts = batched(items, shard_rows or self.shard_rows)
        shards = (json.dumps({**about, key: part}) for part in parts)
        yield from map(json.loads, self.run_shards(function, shards, self.deadline()))

    def deadline(self) -> float:
        """Return the time when all work must have ended (Unix time)."""
        if self._deadline is None:
            self._deadline = time.time() + self.hours * 3600
        return self._deadline
