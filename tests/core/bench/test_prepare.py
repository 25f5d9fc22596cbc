"""What is known of the sources before they answer: who had a say in what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench_fakes import make_rows
from latentscore_data.core.base.errors import InputError, LsdataError
from latentscore_data.core.base.rows import ScoredRow, selection_scorers
from latentscore_data.core.base.settings import BenchSettings, PromptsSettings, ScoringSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.prepare import choose_rows, describe_sources, rows_file, run_name
from latentscore_data.core.generators.registry import parse_sources
from latentscore_data.core.models.runs import slim


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


def test_a_model_is_marked_with_the_system_prompt_that_it_is_asked_with(tmp_path: Path):
    note(tmp_path, "run", kind="sft", spec={"system": "One object."})
    names = ["local:run", "local:some/hub-model", "litellm:openai/some-model"]
    own = PromptsSettings(system="mine.txt")
    found = describe_sources(parse_sources(names), [], [], tmp_path, own)
    assert [fact.note for fact in found] == [
        "sft of gemma3-270m, asked with the system prompt it was trained with",
        "asked with the system prompt mine.txt",
        "asked with the system prompt mine.txt",
    ]
    assert [fact.note for fact in describe_sources(parse_sources(names), [], [], tmp_path)][1:] == ["", ""]


def suite(path: Path, *lines: object) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_a_suite_of_ones_own_is_answered_like_a_bundled_one(tmp_path: Path):
    named = suite(
        tmp_path / "my prompts.jsonl",
        {"vibe": "a slow waltz", "expect": {"tempo": ["slow", "very_slow"], "density": [2, 3]}},
        {"id": "b", "vibe_original": "rain", "half": "open"},
    )
    bench = BenchSettings(suite=named, sources=["baseline:keywords"])
    rows = choose_rows(bench, Workspace(tmp_path))
    assert [(row.row_id, row.vibe_original) for row in rows] == [
        ("suite-my prompts:1", "a slow waltz"), ("suite-my prompts:b", "rain"),
    ]  # fmt: skip
    assert rows[0].model_extra == {"expect": {"tempo": ["slow", "very_slow"], "density": [2, 3]}}
    assert rows_file(bench, Workspace(tmp_path)) == Path(named)
    sources = parse_sources(bench.sources)
    name = run_name(bench, ScoringSettings(), sources)
    assert name.startswith("my-prompts-")
    suite(Path(named), {"vibe": "another"})
    assert run_name(bench, ScoringSettings(), sources) != name


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"vibe": " "}], ":1: a prompt has no vibe"),
        ([{"vibe": "a"}, {"vibe": "b", "expect": {"tempo": "slow"}}], ":2: expect is not an object of lists"),
        ([{"vibe": "a", "expect": {"tempo": ["presto"]}}], "tempo presto, which no config holds"),
        ([{"vibe": "a", "expect": {"temp": []}}], "expect names temp"),
        ([{"id": "x", "vibe": "a"}, {"id": "x", "vibe": "b"}], "the id x is used more than once"),
        ([], "contains no prompts"),
    ],
)
def test_a_suite_that_cannot_be_used_says_which_line(tmp_path: Path, lines: list[object], said: str):
    named = suite(tmp_path / "mine.jsonl", *lines)
    with pytest.raises(LsdataError, match=said):
        choose_rows(BenchSettings(suite=named), Workspace(tmp_path))


def test_a_suite_that_is_not_there_names_those_that_are(tmp_path: Path):
    with pytest.raises(InputError, match="unknown suite controlability") as caught:
        choose_rows(BenchSettings(suite="controlability"), Workspace(tmp_path))
    assert "controllability, or a JSONL file" in caught.value.remedy
