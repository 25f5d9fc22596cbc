"""The starter set keeps the promises of its card, over all of its files together."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from latentscore.labels import FIELDS

REPO = Path(__file__).resolve().parents[2]
STARTER = REPO / "src" / "latentscore" / "starter"


def _load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("starter_coverage", REPO / "benchmarks" / "starter_coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


coverage = _load_script()
PAIRS = coverage.load_pairs()


def _rows() -> list[dict[str, object]]:
    lines = [line for path in sorted(STARTER.glob("pairs*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    return [json.loads(line) for line in lines]


def test_there_are_pairs_and_each_is_a_full_answer() -> None:
    assert len(PAIRS) >= 155
    for row in _rows():
        assert set(row) == {"vibe", "title", "thinking", "config", "palettes"}
        differ = set(row["config"]) ^ set(FIELDS)  # type: ignore[call-overload]
        assert not differ, f"src/latentscore/starter/pairs_*.jsonl: fields {differ} of {row['vibe']!r}"
    for vibe, payload in PAIRS:
        assert vibe == vibe.strip()
        assert vibe
        assert 20 <= len(payload.thinking) <= 400, vibe
        assert [palette.duplicate_count() for palette in payload.palettes] == [0, 0, 0], vibe


@pytest.mark.parametrize("name", FIELDS)
def test_every_label_of_a_field_occurs_often_enough(name: str) -> None:
    counts = coverage.label_counts(PAIRS)[name]
    rare = {label: n for label, n in counts.items() if n < coverage.LEAST_PER_LABEL}
    assert not rare, (
        f"each label of {name} needs {coverage.LEAST_PER_LABEL} pairs in src/latentscore/starter/pairs_*.jsonl; there are {rare}"
    )


def test_no_two_vibes_are_near_duplicates() -> None:
    assert coverage.near_duplicates(PAIRS) == []


def test_near_duplicates_are_found() -> None:
    answer = PAIRS[0][1]
    wordings = ["rain on the old pier", "on an old pier: rain", "a red kite over the hill"]
    found = coverage.near_duplicates([(vibe, answer) for vibe in wordings])
    assert [pair[1:] for pair in found] == [("rain on the old pier", "on an old pier: rain")]


def test_any_two_configs_differ_in_many_fields() -> None:
    assert coverage.close_configs(PAIRS) == []


def test_equal_configs_are_found() -> None:
    assert coverage.close_configs([("a", PAIRS[0][1]), ("b", PAIRS[0][1])]) == [(0, "a", "b")]


def test_titles_are_used_once() -> None:
    assert coverage.repeated([payload.title for _, payload in PAIRS]) == []


def test_no_held_out_vibe_is_in_the_set() -> None:
    """The bundled suites measure models that may have seen the starter set."""
    suites = (REPO / "src" / "latentscore_data").rglob("suites/*.jsonl")
    held_out = {json.loads(line)["vibe"].casefold() for path in suites for line in path.read_text("utf-8").splitlines()}
    assert held_out
    assert held_out.isdisjoint(vibe.casefold() for vibe, _ in PAIRS)
