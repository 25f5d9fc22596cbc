"""This machine as an executor: its processes render, and its own Python answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.entrypoints import entry_point
from latentscore_data.core.compute.types import Executor
from latentscore_data.core.scoring.renderer import LocalRenderer, MakeRenderer


class LocalExecutor(Executor):
    """Everything here, free and without a deadline."""

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
