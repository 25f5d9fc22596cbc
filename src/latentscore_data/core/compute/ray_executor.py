"""Ray as an executor: shards of work on the CPUs and GPUs of a cluster, or of this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator

from latentscore_data.core.base.errors import require
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.entrypoints import ON_A_GPU, made_by
from latentscore_data.core.compute.ray_cluster import RayCluster
from latentscore_data.core.compute.remote import RemoteExecutor
from latentscore_data.core.models.spec import TrainSpec


class RayExecutor(RemoteExecutor):
    """Shards of ``ray_shard_rows`` items, one for each CPU. It is free, and has a deadline only if ``ray_timeout_hours`` is
    set. Workers read models and runs at the same paths as this machine."""

    name = "Ray"
    cores = 1
    keep_processes = True

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        super().__init__(settings, say)
        compute = settings.compute
        self.shard_rows = compute.ray_shard_rows
        self.map_rows = compute.ray_shard_rows
        self.hours = compute.ray_timeout_hours or math.inf
        self._cluster = RayCluster(compute, Workspace(settings.paths.root).train_dir, say)

    @property
    def maps_at_once(self) -> int:
        return self._cluster.shards_at_once

    @property
    def at_once(self) -> int:
        return self.shard_rows * self.maps_at_once

    @property
    def workers(self) -> int:
        return self._cluster.cpus

    def require(self) -> None:
        require("ray", "ray", "running on Ray")

    def run_shards(self, function: str, shards: Iterable[str], deadline: float) -> Iterator[str]:
        return self._cluster.run(
            function, shards, deadline, gpu=function in ON_A_GPU, whole_machine=function == "train"
        )

    def train(self, spec: TrainSpec) -> None:
        """Train a run whose folder is ready, on a GPU of the cluster, or else on all CPUs of one machine.

        After a worker's death it goes on from the newest checkpoint. Raises what the run raised.
        """
        asked = {"run_id": spec.run_id, "spec": spec.model_dump(mode="json"), "deadline": self.deadline()}
        for _ in self.run_shards("train", [json.dumps({**asked, "made_by": made_by()})], self.deadline()):
            pass

    def close(self) -> None:
        self._cluster.close()
