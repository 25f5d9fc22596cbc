"""Modal as an executor: paid containers for shards of work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from latentscore_data.core.base.settings import ModalSettings, Settings
from latentscore_data.core.compute.estimates import CPU_CORES, cap_usd, price_per_hour
from latentscore_data.core.compute.modal import check_model, map_on_modal, require_modal, upload_model
from latentscore_data.core.compute.remote import RemoteExecutor
from latentscore_data.core.scoring.executor import Hire


class ModalExecutor(RemoteExecutor):
    """Runs shards in up to ``max_containers`` containers. Their maximum cost is time-out x price."""

    name = "Modal"
    cores = CPU_CORES

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        super().__init__(settings, say)
        self._modal: ModalSettings = settings.train.modal
        self.shard_rows, self.hours = self._modal.shard_rows, self._modal.timeout_hours

    @property
    def at_once(self) -> int:
        return self._modal.shard_rows * self._modal.max_containers

    @property
    def gpu(self) -> str | None:
        return self._modal.gpu

    def require(self) -> None:
        require_modal()

    def hire(self, items: int, gpu: str | None) -> Hire | None:
        containers = min(self._modal.max_containers, math.ceil(items / self._modal.shard_rows))
        return Hire(containers, price_per_hour(self._modal, gpu), cap_usd(self._modal, gpu, containers))

    def check_model(self, model: str, runs: Path) -> None:
        check_model(model, runs)

    def send_model(self, model: str, runs: Path) -> None:
        upload_model(model, runs, self._say)

    def run_shards(self, function: str, shards: Iterable[str], deadline: float) -> Iterator[str]:
        return map_on_modal(function, list(shards), self._modal, deadline)
