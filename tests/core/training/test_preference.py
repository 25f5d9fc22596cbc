"""Preference pairs: which rows give one, and what a pair is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import orjson
import pytest

from factories import make_payload, make_scored
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.marks import Preference, add_preference, marks_file, read_preferences
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.settings import DpoSettings, ScoringSettings, TrainSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.export.chat import preference_lines
from latentscore_data.core.models.spec import Choices
from latentscore_data.core.training.audit import usable
from latentscore_data.core.training.preference import Pair, pair_of, preference_pairs
from latentscore_data.core.training.prepare import prepare

DARK, BRIGHT = make_payload(brightness="very_dark"), make_payload(brightness="very_bright")


def row(number: int, *scores: float | None, scorer: str = "clap") -> ScoredRow:
    answers = [make_payload(title=f"{number} {at}", brightness="dark" if at else "bright") for at in range(len(scores))]
    return make_scored(
        number, config_candidates=answers, config_payload=answers[0], candidate_scores={scorer: [*scores]}
    )


def test_ties_near_ties_and_lone_answers_give_no_pair() -> None:
    rows = [row(1, 0.9, 0.1), row(2, 0.5, 0.5), row(3, 0.52, 0.5), row(4, 0.4, None), row(5, 0.2, 0.8, 0.5)]
    found = preference_pairs(rows, DpoSettings(margin=1.0))
    assert [(pair.row.row_id, pair.chosen_score, pair.rejected_score) for pair in found.pairs] == [
        (rows[0].row_id, 0.9, 0.1), (rows[4].row_id, 0.8, 0.2),
    ]  # fmt: skip
    assert found.left_out == {"without two answers of different scores": 2, "near ties": 1}


def test_the_margin_does_not_depend_on_the_scorers_unit() -> None:
    rows = [row(1, 0.9, 0.1), row(2, 0.52, 0.5)]
    small = [row(1, 0.009, 0.001), row(2, 0.0052, 0.005)]
    for some in (rows, small):
        assert [pair.row.row_id for pair in preference_pairs(some, DpoSettings()).pairs] == [rows[0].row_id]


def test_a_much_longer_answer_is_paired_with_one_of_its_length_or_not_at_all() -> None:
    long = make_payload(thinking="Rain. " * 400)
    scores = {"candidate_scores": {"clap": [0.9, 0.1, 0.3]}}
    both = make_scored(1, config_candidates=[DARK, long, BRIGHT], **scores)
    alone = make_scored(2, config_candidates=[DARK, long, None], **scores)
    found = preference_pairs([both, alone], DpoSettings(margin=0.1))
    assert [(pair.chosen, pair.rejected) for pair in found.pairs] == [(DARK, BRIGHT)]
    assert found.left_out == {"of different lengths": 1}
    anything = preference_pairs([both, alone], DpoSettings(margin=0.1, length_ratio=None))
    assert [pair.rejected for pair in anything.pairs] == [long, long]


def test_pairs_of_another_source_come_first_and_replace_the_scorers() -> None:
    rows = [row(1, 0.9, 0.1), row(2, 0.9, 0.1)]
    marked = Pair(rows[1], "marks", BRIGHT, DARK, 1.0, 0.0)
    found = preference_pairs(rows, DpoSettings(), more=[marked]).pairs
    assert [(pair.row.row_id, pair.source) for pair in found] == [(rows[1].row_id, "marks"), (rows[0].row_id, "clap")]
    assert pair_of(marked.as_row()) == (BRIGHT, DARK)


def test_a_run_holds_its_pairs_and_keeps_validation_rows_without_one(workspace: Workspace) -> None:
    replace_rows(workspace.scored("GRPO"), [row(1, 0.9, 0.1), row(2, 0.5, 0.5)])
    replace_rows(workspace.scored("SFT-Val"), [row(3, 0.9, 0.1), row(4, 0.5, 0.5)])
    said: list[str] = []
    settings = TrainSettings(base_model="tiny-random")
    run = prepare(settings, ScoringSettings(), workspace, Choices("dpo"), said.append)
    assert {role: fact.rows for role, fact in run.spec.data.items()} == {"train": 1, "val": 2}
    assert "1 preference pairs; rows without one: 1 without two answers of different scores" in said
    run.write_data()
    (kept,), (first, second) = run.folder.rows("train"), run.folder.rows("val")
    assert pair_of(kept) == pair_of(run.rows["train"][0]) is not None
    assert pair_of(first) is not None
    assert pair_of(second) is None
    stricter = prepare(settings, ScoringSettings(), workspace, Choices("dpo", overrides=["dpo.beta=0.2"]))
    assert stricter.spec.run_id != run.spec.run_id


def test_rows_without_pairs_are_missing_not_an_empty_run(workspace: Workspace) -> None:
    replace_rows(workspace.scored("GRPO"), [row(1, 0.5, 0.5), row(2, 0.4)])
    with pytest.raises(MissingError, match=r"none of the 2 rows gives a preference pair \(2 without two answers"):
        prepare(TrainSettings(base_model="tiny-random"), ScoringSettings(), workspace, Choices("dpo"))


class TestMarks:
    """Answers of people to "which fits better?" as pairs."""

    def workspace(self, root: Path) -> Workspace:
        workspace = Workspace(root)
        replace_rows(workspace.scored("GRPO"), [row(1, 0.9, 0.1), row(2, 0.9, 0.1), row(3, 0.5, 0.5)])
        for row_id in (row(1, 0).row_id, row(3, 0).row_id, "a row of another split"):
            add_preference(root, Preference(row_id, "a vibe", better=BRIGHT, worse=DARK))
        return workspace

    def pairs(self, workspace: Workspace, marks: str) -> list[tuple[str, bool]]:
        """Each training pair's row, and whether people preferred it."""
        settings = TrainSettings(base_model="tiny-random", dpo=DpoSettings.model_validate({"marks": marks}))
        run = prepare(settings, ScoringSettings(), workspace, Choices("dpo", adapter="none"))
        found = [orjson.loads(line) for line in run.lines["train"]]
        return [(one["row_id"], one["config_payload"]["config"]["brightness"] == "very_bright") for one in found]

    def test_they_are_used_when_asked_for(self, root: Path) -> None:
        workspace = self.workspace(root)
        one, two, three = (row(number, 0).row_id for number in (1, 2, 3))
        assert self.pairs(workspace, "no") == [(one, False), (two, False)]
        assert self.pairs(workspace, "also") == [(one, True), (three, True), (two, False)]
        assert self.pairs(workspace, "only") == [(one, True), (three, True)]

    def test_no_answers_on_the_split_are_named_when_only_they_are_wanted(self, root: Path) -> None:
        workspace = self.workspace(root)
        marks_file(root).unlink()
        with pytest.raises(MissingError, match="contains no answers on the 3 rows of GRPO"):
            self.pairs(workspace, "only")

    def test_exported_preference_lines_have_them_before_scores(self, root: Path) -> None:
        self.workspace(root)
        rows = [row(1, 0.9, 0.1), row(2, 0.9, 0.1)]
        found = list(preference_lines(rows, read_preferences(root)))
        assert [(line["scorer"], line["chosen_score"]) for line in found] == [("marks", 1.0), ("clap", 0.9)]
        assert "very_bright" in found[0]["chosen"][0]["content"]
        assert [line["scorer"] for line in preference_lines(rows)] == ["clap", "clap"]


def test_titles_that_are_learned_have_the_length_that_is_asked_for() -> None:
    rows = [make_scored(1, config_payload=make_payload("one two three four five six seven")), make_scored(2)]
    dropped: Counter[str] = Counter()
    titles = [(row.config_payload or {})["title"] for row in usable(rows, dropped)]
    assert titles == ["one two three four five six…", make_payload()["title"]]
    assert not dropped
