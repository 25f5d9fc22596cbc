"""Rows in shards to Modal and answers back, through the function that runs in the container."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from factories import make_payload, make_vibe
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import BenchSettings, ModalSettings, Settings, TrainSettings
from latentscore_data.core.compute.modal_executor import ModalExecutor
from latentscore_data.core.generators.local import RemoteGenerator
from latentscore_data.core.generators.types import Generated


def executor_on_modal(**modal: int) -> ModalExecutor:
    return ModalExecutor(Settings(train=TrainSettings(modal=ModalSettings(**modal))), print)


def test_shards_go_out_and_answers_come_back_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    sent: list[dict] = []

    def map_here(function: str, shards: Sequence[str], modal: ModalSettings, deadline: float) -> Iterator[str]:
        assert function == "generate_shard"
        for shard in map(json.loads, shards):
            sent.append(shard)
            rows = [VibeRow.model_validate(row) for row in shard["rows"]]
            answers = [asdict(Generated(make_payload(row.vibe_original), raw_valid=True, tokens_out=7)) for row in rows]
            yield json.dumps({"generated": answers, "seconds": 6.0})

    monkeypatch.setattr("latentscore_data.core.compute.modal_executor.map_on_modal", map_here)
    monkeypatch.setattr("latentscore_data.core.compute.modal_executor.require_modal", lambda: None)
    executor = executor_on_modal(shard_rows=2, max_containers=2, price_per_hour=36)
    booked: list[tuple[str, int]] = []

    def book(model: str, answers: Sequence[Generated]) -> None:
        booked.append((model, len(answers)))

    generator = RemoteGenerator("big", "gemma3-270m", BenchSettings(), executor, tmp_path, book=book)
    rows = [make_vibe(number, vibe=f"vibe {number}") for number in range(5)]
    answers = list(generator.generate(rows))
    assert [answer.payload["title"] for answer in answers if answer.payload] == [f"vibe {n}" for n in range(5)]
    assert answers[0].raw_valid
    # A container of $36 an hour that took 6 s for each shard; the last one had a single row.
    assert [answer.cost_usd for answer in answers] == pytest.approx([0.03] * 4 + [0.06])
    assert (generator.usage.calls, generator.usage.tokens_out) == (5, 35)
    assert generator.usage.cost_usd == pytest.approx(0.18)
    assert booked == [("local:gemma3-270m", 2), ("local:gemma3-270m", 2), ("local:gemma3-270m", 1)]
    assert [len(shard["rows"]) for shard in sent] == [2, 2, 1]
    assert sent[0]["source"] == "local:gemma3-270m"
    assert sent[0]["system"] is None
    assert BenchSettings.model_validate(sent[0]["bench"]) == BenchSettings()
    assert generator.batch_size == 4
    # Every shard knows when the time that was agreed to is over.
    assert {round(shard["deadline"] - time.time(), -3) for shard in sent} == {14_000.0}


def test_a_folder_here_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("latentscore_data.core.compute.modal_executor.require_modal", lambda: None)
    with pytest.raises(InputError, match="which Modal cannot read"):
        RemoteGenerator("mine", str(tmp_path), BenchSettings(), executor_on_modal(), tmp_path / "runs")
