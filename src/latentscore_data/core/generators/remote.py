"""A local model that runs on Modal: the rows go out in shards, and the same code answers them there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from latentscore_data.core.base.errors import require
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import BenchSettings, ModalSettings
from latentscore_data.core.compute.entrypoints import shards_of
from latentscore_data.core.compute.modal import check_model, map_on_modal, upload_model
from latentscore_data.core.generators.local import answers_fingerprint
from latentscore_data.core.generators.types import Generated


class RemoteGenerator:
    """``local:NAME`` answered in Modal's containers; ``NAME`` is a hub id, or a training run wherever it was trained.

    Its fingerprint is that of the same source here: where a model ran does not change what it was asked. Rows, prompts and
    settings travel as JSON text. Raises :class:`MissingError` without the modal extra, :class:`InputError` for a model that
    Modal cannot see, and what a shard raised.
    """

    def __init__(
        self,
        label: str,
        name: str,
        bench: BenchSettings,
        modal: ModalSettings,
        runs: Path,
        say: Callable[[str], None],
    ) -> None:
        require("modal", "modal", f"the source {label} on Modal")

        check_model(name, runs)
        self.label = label
        self.batch_size = modal.shard_rows * modal.max_containers
        self.fingerprint = answers_fingerprint(name, runs, bench.max_new_tokens)
        self._name, self._bench, self._modal, self._runs, self._say = name, bench, modal, runs, say
        self._deadline: float | None = None

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        """One answer per row, in order, from as many containers as there are shards, as the shards come in."""
        if self._deadline is None:
            upload_model(self._name, self._runs, self._say)
            self._deadline = time.time() + self._modal.timeout_hours * 3600
        common = {
            "source": f"local:{self._name}",
            "bench": self._bench.model_dump(mode="json"),
            "deadline": self._deadline,
        }
        plain = [row.model_dump(mode="json", include={*VibeRow.model_fields}) for row in rows]
        shards = shards_of(plain, self._modal.shard_rows, common, "rows")
        for text in map_on_modal("generate_shard", shards, self._modal, self._deadline):
            for answer in json.loads(text)["generated"]:
                yield Generated(**answer)
