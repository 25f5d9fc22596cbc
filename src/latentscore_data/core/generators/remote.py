"""A local model that runs on Modal: the rows go out in shards, and the same code answers them there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latentscore import schema_hash
from latentscore_data.core.errors import require
from latentscore_data.core.generators.base import Generated
from latentscore_data.core.llm.prompts import config_prompt_hash
from latentscore_data.core.rows import VibeRow
from latentscore_data.core.seeds import digest

if TYPE_CHECKING:
    from latentscore_data.core.settings import BenchSettings, ModalSettings


class RemoteGenerator:
    """``local:NAME`` answered in Modal's containers; ``NAME`` is a hub id, or a run that was trained there.

    Rows, prompts and settings travel as JSON text. Raises :class:`MissingError` without the modal extra, and what a shard
    raised.
    """

    def __init__(self, label: str, name: str, bench: BenchSettings, modal: ModalSettings) -> None:
        require("modal", "modal", f"the source {label} on Modal")
        self.label = label
        self.batch_size = modal.shard_rows * modal.max_containers
        self._name, self._bench, self._modal = name, bench, modal
        self.fingerprint = digest(
            "local on modal", name, config_prompt_hash(), schema_hash(), bench.max_new_tokens, bench.batch_size
        )

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        """One answer per row, in order, from as many containers as there are shards."""
        from latentscore_data.core.training.remote import map_on_modal
        from latentscore_data.core.training.shards import shards_of

        common = {"source": f"local:{self._name}", "bench": self._bench.model_dump(mode="json")}
        plain = [row.model_dump(mode="json", include={*VibeRow.model_fields}) for row in rows]
        for text in map_on_modal(
            "generate_shard", shards_of(plain, self._modal.shard_rows, common, "rows"), self._modal
        ):
            for answer in json.loads(text)["generated"]:
                yield Generated(**answer)
