"""The answers to "which fits better?": what is kept, and what they say about sources, candidates and the scorer."""

from __future__ import annotations

from pathlib import Path

import pytest

from factories import make_payload, make_scored
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import Appender
from latentscore_data.core.base.marks import add_preference, marks_file, read_preferences
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.studio.preferences import by_candidate, by_source, preference_of

FITS, OTHER, THIRD = make_payload("Fits"), make_payload("Other", tempo="fast"), make_payload("Third", tempo="slow")


def row(i: int) -> ScoredRow:
    """Three candidates: the scorer chose the first, and the third comes from a search."""
    return make_scored(
        i, row_id=f"row-{i}", config_model="builtin/keywords", config_candidates=[FITS, OTHER, THIRD],
        candidate_scores={"acoustic": [0.5, 0.1, 0.3]}, best_index=0, candidate_origins=["model", "model", "search"],
    )  # fmt: skip


def test_an_answer_holds_both_payloads_with_source_and_score(root: Path):
    add_preference(root, preference_of(row(1), 2, 0))
    (kept,) = read_preferences(root)
    assert (kept.better["title"], kept.worse["title"]) == ("Third", "Fits")
    assert (kept.better_source, kept.worse_source) == ("search, not chosen", "builtin/keywords, chosen")
    assert (kept.better_score, kept.worse_score) == (0.3, 0.5)
    for better, worse in ((0, 0), (0, 3)):
        with pytest.raises(InputError, match="no candidates"):
            preference_of(row(1), better, worse)


def test_the_newest_answer_to_a_pair_counts_and_lines_without_configs_do_not(root: Path):
    add_preference(root, preference_of(row(1), 0, 1))
    add_preference(root, preference_of(row(1), 1, 0))
    add_preference(root, preference_of(row(1), 0, 2))
    with Appender(marks_file(root)) as file:
        file.append({"kind": "pair", "row_id": "row-1", "vibe": "x", "better": None, "worse": {"config": 3}})
        # As the first version wrote it, without sources and scores.
        file.append({"kind": "pair", "row_id": "row-2", "vibe": "x", "better": FITS, "worse": OTHER, "created": "c"})
        file.append(
            {"kind": "pair", "row_id": 7, "better": FITS, "worse": OTHER, "better_score": "high", "worse_score": 1}
        )
    kept = read_preferences(root)
    assert [(one.row_id, one.better["title"]) for one in kept] == [
        ("row-1", "Other"),
        ("row-1", "Fits"),
        ("row-2", "Fits"),
        ("7", "Fits"),
    ]
    assert by_source(kept)["answers"] == 4


@pytest.mark.long
def test_sources_get_strengths_with_intervals_and_the_scorer_its_share():
    answers = [preference_of(row(i), 0, 1) for i in range(10)] + [preference_of(row(i), 1, 0) for i in (10, 11)]
    found = by_source([*answers, preference_of(row(12), 0, 2)])
    best, *others = found["sources"]
    assert best["label"] == "builtin/keywords, chosen"
    assert best["low"] < best["strength"] < best["high"]
    assert (best["won"], best["lost"]) == (11, 2)
    assert {one["label"] for one in others} == {"builtin/keywords, not chosen", "search, not chosen"}
    assert (found["agree"], found["scored"]) == (11, 13)
    low, high = found["agree_interval"]
    assert low < 11 / 13 < high < 1


def test_candidates_of_a_row_get_strengths_of_its_answers_alone():
    answers = [preference_of(row(1), 0, 1), preference_of(row(1), 2, 0), preference_of(row(2), 1, 2)]
    found = by_candidate(row(1), answers)
    assert found[2]["strength"] > found[0]["strength"] > found[1]["strength"]
    assert (found[0]["won"], found[0]["lost"], found[0]["low"]) == (1, 1, None)
    assert by_candidate(row(3), answers) == {}


def test_no_difference_is_a_tie_for_strengths_and_no_pair_for_training(root: Path):
    for answer in (preference_of(row(1), 0, 1), preference_of(row(1), 1, 0, tied=True), preference_of(row(1), 0, 2)):
        add_preference(root, answer)
    assert [one.worse["title"] for one in read_preferences(root)] == ["Third"]
    answers = read_preferences(root, ties=True)
    assert [one.tied for one in answers] == [True, False]
    found = by_source(answers)
    assert (found["answers"], found["ties"], found["scored"]) == (2, 1, 1)
    assert {one["label"]: one["tied"] for one in found["sources"]}["builtin/keywords, not chosen"] == 1
    assert by_candidate(row(1), answers)[1]["tied"] == 1


def test_no_answers_are_no_table():
    assert by_source([])["sources"] == []
    assert by_source([])["agree_interval"] is None
