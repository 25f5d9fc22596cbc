"""Modal as an executor: containers that are hired for shards of work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import BenchSettings, ModalSettings, ScoringSettings, Settings
from latentscore_data.core.compute import estimates
from latentscore_data.core.compute.entrypoints import shards_of
from latentscore_data.core.compute.estimates import RemoteJobEstimate
from latentscore_data.core.compute.modal import check_model, map_on_modal, require_modal, upload_model
from latentscore_data.core.compute.remote_scoring import RemoteRenderer
from latentscore_data.core.scoring.registry import remote_blocker, scorer_names
from latentscore_data.core.scoring.renderer import MakeRenderer


class ModalExecutor:
    """Shards of ``shard_rows`` items in up to ``max_containers`` containers.

    The deadline is ``timeout_hours`` after the first shard, for all that is mapped through this object together: time-out x
    price is the most that it can cost.
    """

    name = "Modal"
    remote = True

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._modal: ModalSettings = settings.train.modal
        self._scoring, self._say = settings.scoring, say
        self._deadline: float | None = None
        self.at_once = self._modal.shard_rows * self._modal.max_containers

    def require(self) -> None:
        require_modal()

    def scorer_blocker(self, scoring: ScoringSettings) -> str | None:
        return remote_blocker(scoring)

    def estimate_scoring(self, sounds: int, scoring: ScoringSettings, *, clips: bool) -> list[RemoteJobEstimate]:
        return [estimates.estimate_scoring(sounds, scoring, scorer_names(scoring), clips=clips)]

    def estimate_answers(self, label: str, rows: int, bench: BenchSettings) -> list[RemoteJobEstimate]:
        return [estimates.estimate_answering(label, rows, bench, self._modal.gpu)]

    def make_renderer(self, *, keep_flac: bool = False) -> MakeRenderer:
        if (reason := self.scorer_blocker(self._scoring)) is not None:
            raise InputError(reason, "take --scorer acoustic or --scorer clap, or --on here")
        return partial(RemoteRenderer, executor=self, say=self._say, keep_flac=keep_flac)

    def check_model(self, model: str, runs: Path) -> None:
        check_model(model, runs)

    def send_model(self, model: str, runs: Path) -> None:
        upload_model(model, runs, self._say)

    def map(self, function: str, key: str, items: Sequence[Any], common: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if self._deadline is None:
            self._deadline = time.time() + self._modal.timeout_hours * 3600
        shards = shards_of(items, self._modal.shard_rows, {**common, "deadline": self._deadline}, key)
        for text in map_on_modal(function, shards, self._modal, self._deadline):
            yield json.loads(text)
