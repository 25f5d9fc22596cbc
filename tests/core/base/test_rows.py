"""Rows: names without collisions, and rows from elsewhere as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import make_payload, make_scored
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import dump_line, read_rows
from latentscore_data.core.base.rows import ScoredRow, VibeRow, escape, source_id


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_two_sources_have_one_name_only_when_they_are_the_same(a: str, b: str, c: str, d: str):
    assert (source_id(a, b) == source_id(c, d)) == ((a, b) == (c, d))
    assert ":" not in escape(a)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


PUBLISHED = {
    "dataset": "common-pile/news_filtered",
    "id_in_dataset": 4711,
    "vibe_index": 2,
    "text_page": [0, 1],
    "vibe_scope": "character",
    "character_name": "Ann",
    "vibe_level": "sm",
    "vibe_original": "rain on tin, and nobody home",
    "vibe_noisy": "rain on tni, and nobody home",
    "tags_original": ["rain"],
    "tags_noisy": None,
    "vibe_model": "some/model",
    "config_model": "some/model",
    "config_candidates": [make_payload(), None],
    "config_payload": make_payload(),
    "scores_external": {"clap": {"final_score": 0.4}},
    "validation_scores": {"format_valid": [1.0, 0.0]},
    "config_error": None,
    "split": "TEST",
    "text_preview": "a column of theirs",
}
MAP_ROW = {
    "vibe_original": "grey tide", "embedding": [0.1, 0.2], "title": "Grey Tide", "config": make_payload()["config"],
    "palettes": make_payload()["palettes"], "split": "SFT-Train", "dataset": "moby-dick",
}  # fmt: skip
BARE = {"vibe_original": "only a vibe", "tags_original": None, "vibe_level": None, "vibe_index": None, "row_id": None}


def test_rows_from_elsewhere_load_with_names_of_their_own_and_keep_every_column(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", PUBLISHED, MAP_ROW, BARE, {**MAP_ROW, "vibe_original": "another tide"})
    rows = list(read_rows(path, ScoredRow))
    assert len(rows) == len({row.row_id for row in rows}) == 4
    assert [row.row_id for row in read_rows(path, ScoredRow)] == [row.row_id for row in rows]
    published = rows[0].model_dump()
    assert published["text_preview"] == "a column of theirs"
    assert published["config_payload"] == make_payload()
    assert published["text_page"] == [0, 1]
    assert published["id_in_dataset"] == "4711"
    assert rows[1].model_dump()["embedding"] == [0.1, 0.2]
    assert (rows[2].dataset, rows[2].tags_original, rows[2].vibe_level) == ("unknown", [], "m")


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", PUBLISHED, {**PUBLISHED, "split": "train"})
    with pytest.raises(InputError, match=r"rows\.jsonl:2: field split"):
        list(read_rows(path, ScoredRow))
    path = write(tmp_path / "rows.jsonl", {"dataset": "x", "id_in_dataset": "1"})
    with pytest.raises(InputError, match=r"rows\.jsonl:1: field (row_id|vibe_original)"):
        list(read_rows(path, VibeRow))


def test_a_row_comes_back_as_it_was_written(tmp_path: Path):
    row = make_scored()
    (tmp_path / "x.jsonl").write_bytes(dump_line(row))
    assert list(read_rows(tmp_path / "x.jsonl", ScoredRow)) == [row]
