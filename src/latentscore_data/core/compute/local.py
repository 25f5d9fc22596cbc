"""This machine as an executor: its processes render, and its own Python answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from latentscore_data.core.base.settings import ScoringSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.entrypoints import entry_point
from latentscore_data.core.compute.estimates import RemoteJobEstimate
from latentscore_data.core.scoring.renderer import LocalRenderer, MakeRenderer


class LocalExecutor:
    """Everything here, free and without a deadline."""

    name = "here"
    remote = False
    at_once = LocalRenderer.at_once
    workers = 1
    maps_at_once = 1
    map_rows: int | None = None

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._runs = Workspace(settings.paths.root).train_dir

    def require(self) -> None:
        """Nothing is needed."""

    def scorer_blocker(self, scoring: ScoringSettings) -> str | None:
        return None

    def estimate_scoring(self, sounds: int, scoring: ScoringSettings, *, clips: bool) -> list[RemoteJobEstimate]:
        return []

    def estimate_answers(self, label: str, count: int, tokens: int, at_once: int) -> list[RemoteJobEstimate]:
        return []

    def price_per_second(self, *, gpu: bool) -> float:
        return 0.0

    def make_renderer(self, *, keep_flac: bool = False) -> MakeRenderer:
        return LocalRenderer

    def check_model(self, model: str, runs: Path) -> None:
        """Every model of this machine can be seen here."""

    def send_model(self, model: str, runs: Path) -> None:
        """It is here already."""

    def map(
        self,
        function: str,
        key: str,
        items: Iterable[Any],
        common: Mapping[str, Any],
        shard_rows: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        shard = json.dumps({**common, "deadline": math.inf, key: list(items)})
        yield json.loads(entry_point(function, self._runs)(shard))

    def close(self) -> None:
        """Nothing was started."""
