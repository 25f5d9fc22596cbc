"""What is known of the sources before they answer: who had a say in what they say."""

from __future__ import annotations

import json
from pathlib import Path

from bench_fakes import make_rows
from latentscore_data.core.base.rows import ScoredRow, selection_scorers
from latentscore_data.core.bench.prepare import describe_sources
from latentscore_data.core.generators.registry import parse_sources
from latentscore_data.core.training.runs import slim


def note(runs: Path, run_id: str, **record: object) -> None:
    (runs / run_id).mkdir()
    (runs / run_id / "run.json").write_text(json.dumps({"base_model": "gemma3-270m", **record}))


def test_the_rows_of_a_run_still_tell_who_chose_their_answers():
    rows = make_rows(3)
    kept = [ScoredRow.model_validate(row) for row in slim(rows)]
    assert selection_scorers(kept) == selection_scorers(rows) == ("other",)
    alone = [row.model_copy(update={"candidate_scores": {"other": [0.4, None]}}) for row in kept]
    assert selection_scorers(alone) == ()


def test_a_model_is_marked_with_all_who_taught_it(tmp_path: Path):
    note(tmp_path, "sft-1", kind="sft", chosen_by=["clap"])
    note(tmp_path, "sft-2", kind="sft", base_model="sft-1", chosen_by=["acoustic", "clap"])
    note(tmp_path, "grpo-1", kind="grpo", adapter="sft-1", calibration={"scorer": "acoustic"}, chosen_by=[])
    note(tmp_path, "grpo-2", kind="grpo", adapter=str(tmp_path / "sft-2"), calibration={"scorer": "none"})
    note(tmp_path, "first", kind="sft", base_model="first", chosen_by=[])
    names = ["sft-1", "sft-2", "grpo-1", "grpo-2", "first", "some/hub-model"]
    found = describe_sources(parse_sources([f"local:{name}" for name in names]), [], [], tmp_path)
    assert [set(fact.chosen_by) for fact in found] == [
        {"clap"}, {"acoustic", "clap"}, {"acoustic", "clap"}, {"acoustic", "clap"}, set(), set(),
    ]  # fmt: skip
    assert [fact.note for fact in found][1::4] == ["sft of sft-1", ""]
