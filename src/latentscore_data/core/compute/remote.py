"""The base class of remote executors: shards of work, the deadline, the supported scorers, and the estimate."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import ScoringSettings, Settings
from latentscore_data.core.compute import estimates
from latentscore_data.core.compute.entrypoints import made_by, shards_of
from latentscore_data.core.compute.remote_scoring import RemoteRenderer
from latentscore_data.core.scoring.executor import Executor, Hire, RemoteJobEstimate
from latentscore_data.core.scoring.registry import remote_blocker, scorer_names
from latentscore_data.core.scoring.renderer import MakeRenderer


class RemoteExecutor(Executor):
    """Shards of ``shard_rows`` items, each done by one worker elsewhere.

    The deadline is ``hours`` after the first shard, for all that is mapped through this object together. A subclass says
    how shards are sent (:meth:`run_shards`) and what they cost.
    """

    remote = True
    cores: int
    """Cores of one worker."""
    shard_rows: int
    hours: float
    keep_processes = False
    """True where one process does many shards: what the first one loaded stays for the next."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings, self._scoring, self._say = settings, settings.scoring, say
        self._deadline: float | None = None

    @property
    def workers(self) -> int:
        return self.at_once // self.shard_rows

    def run_shards(self, function: str, shards: Iterable[str], deadline: float) -> Iterator[str]:
        """Do the shards, JSON texts, with the entry point of that name; results come in their order."""
        raise NotImplementedError

    def hire(self, items: int, gpu: str | None) -> Hire | None:
        """What workers for that many items cost; None where nothing is paid for."""
        return None

    @property
    def gpu(self) -> str | None:
        """The GPU that local models answer on, where one is hired."""
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
        for text in self.run_shards(
            function, shards_of(items, shard_rows or self.shard_rows, about, key), self.deadline()
        ):
            yield json.loads(text)

    def deadline(self) -> float:
        """When all work must be over, in Unix time."""
        if self._deadline is None:
            self._deadline = time.time() + self.hours * 3600
        return self._deadline
