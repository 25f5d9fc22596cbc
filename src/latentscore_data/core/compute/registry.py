"""The table of executors, which are the values of ``--on``, and the executor for this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import OLD_HERE, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.entrypoints import entry_point
from latentscore_data.core.compute.modal_executor import ModalExecutor
from latentscore_data.core.compute.ray_executor import RayExecutor
from latentscore_data.core.scoring.executor import Executor
from latentscore_data.core.scoring.renderer import LocalRenderer, MakeRenderer


class LocalExecutor(Executor):
    """Runs all work on this machine, without cost and deadline."""

    name = "here"
    remote = False

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._runs = Workspace(settings.paths.root).train_dir

    @property
    def at_once(self) -> int:
        return LocalRenderer.at_once

    def make_renderer(self, *, keep_flac: bool = False) -> MakeRenderer:
        return LocalRenderer

    def map(
        self, function: str, key: str, items: Iterable[Any], common: Mapping[str, Any], shard_rows: int | None = None
    ) -> Iterator[dict[str, Any]]:
        shard = json.dumps({**common, "deadline": math.inf, key: list(items)})
        yield json.loads(entry_point(function, self._runs)(shard))


EXECUTORS: dict[str, Callable[[Settings, Callable[[str], None]], Executor]] = {
    "here": LocalExecutor,
    "modal": ModalExecutor,
    "ray": RayExecutor,
}


def make_executor(name: str, settings: Settings, say: Callable[[str], None]) -> Executor:
    """Return the executor with this name; ``say`` gets its progress lines. Raises :class:`InputError` for an unknown name."""
    if name == OLD_HERE:
        say(
            f"--on {OLD_HERE} is now --on here; {OLD_HERE}: is a kind of model, and the old name will be removed in version 0.3"
        )
        name = "here"
    if name not in EXECUTORS:
        raise InputError(f"unknown place {name!r}", " or ".join(f"--on {known}" for known in EXECUTORS))
    return EXECUTORS[name](settings, say)
