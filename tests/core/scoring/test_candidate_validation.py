"""Is an answer usable, and which of N wins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import make_payload
from latentscore_data.core.scoring.candidate_validation import pick_winner, validate_candidate, validate_candidates


def broken(**changes: Any) -> dict[str, Any]:
    return {**make_payload(), **changes}


@pytest.mark.parametrize(
    ("payload", "checks"),
    [
        (make_payload(), (1, 1, 1)),
        (None, (0, 0, 0)),
        ({}, (0, 0, 0)),
        (make_payload(tempo="glacial"), (1, 0, 1)),
        (make_payload(register_min_oct=7, register_max_oct=2), (1, 0, 1)),
        (broken(extra=1), (0, 1, 1)),
        (broken(palettes=make_payload()["palettes"][:2]), (1, 1, 0)),
        (broken(palettes=[{"colors": [{"hex": "#000000", "weight": "md"}] * 5}] * 3), (1, 1, 0)),
        (broken(palettes="red"), (1, 1, 0)),
        (broken(config="loud"), (1, 0, 1)),
    ],
)
def test_each_check_looks_at_its_own_part(payload: dict[str, Any] | None, checks: tuple[int, int, int]) -> None:
    assert tuple(validate_candidate(payload).values()) == checks


def test_checks_are_lists_in_the_order_of_the_candidates() -> None:
    assert validate_candidates([make_payload(), None]) == {
        "format_valid": [1.0, 0.0],
        "schema_valid": [1.0, 0.0],
        "palette_valid": [1.0, 0.0],
    }


@given(st.lists(st.one_of(st.none(), st.floats(-10, 10))))
def test_the_winner_is_the_first_of_the_highest(scores: list[float | None]) -> None:
    winner = pick_winner(scores)
    known = [score for score in scores if score is not None]
    if not known:
        assert winner is None
    else:
        assert winner is not None
        assert scores[winner] == max(known)
        assert winner == scores.index(max(known))
