"""Rows: names without collisions, and rows from elsewhere as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import make_config, make_payload, make_scored
from latentscore.config import FIELDS_LEFT_OUT, REGISTERS_SWAPPED, MusicConfigPrompt
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import dump_line, read_rows
from latentscore_data.core.base.payloads import NUMBERS_LABELED
from latentscore_data.core.base.rows import ScoredRow, SourceText, VibeRow, escape, share_out, source_id, spread


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


def test_a_map_s_columns_become_the_payload_and_an_empty_split_is_none(tmp_path: Path):
    (row,) = read_rows(write(tmp_path / "rows.jsonl", {**MAP_ROW, "split": "", "id_in_dataset": 3}), ScoredRow)
    assert row.config_payload == {**make_payload("Grey Tide"), "thinking": ""}
    assert (row.split, row.id_in_dataset, row.converted) == (None, "3", [])
    assert "config" not in row.model_dump()
    for spelling in ("SFT_Train", "train"):
        (row,) = read_rows(write(tmp_path / "rows.jsonl", {**PUBLISHED, "split": spelling}), ScoredRow)
        assert row.split == "SFT-Train"
    (text,) = read_rows(write(tmp_path / "t.jsonl", {"dataset": "d", "id_in_dataset": 7, "text": "x"}), SourceText)
    assert text.id_in_dataset == "7"


@pytest.mark.parametrize(
    ("config", "expected", "notes"),
    [
        (make_config(register_min_oct=6, register_max_oct=4), {"register_min_oct": 4}, [REGISTERS_SWAPPED]),
        ({"tempo": "slow", "swing": 0.5}, {"tempo": "slow", "swing": "medium"}, [FIELDS_LEFT_OUT]),
        (make_config(swing=0.45), {"swing": "medium"}, [NUMBERS_LABELED]),
        (make_config(swing=0.5, density=4.0), {"swing": "medium", "density": 4}, []),
        ({"layers": {"bass": "walking"}, "schema_version": 1}, {"bass": "walking"}, [FIELDS_LEFT_OUT]),
        (json.dumps(make_config(pad="cinematic")), {"pad": "cinematic"}, []),
    ],
)
def test_configs_of_other_programs_become_configs_in_labels(config: Any, expected: dict[str, Any], notes: list[str]):
    given = {"vibe_original": "x", "config_payload": {**make_payload(), "config": config}}
    for row in (ScoredRow.model_validate(given), ScoredRow.model_validate({"vibe_original": "x", "config": config})):
        assert row.config_payload is not None
        read = MusicConfigPrompt(**row.config_payload["config"]).model_dump()
        assert {name: read[name] for name in expected} == expected
        assert row.converted == notes


def test_a_config_without_a_clear_meaning_stays_as_it_is():
    odd = {**make_payload(), "config": {"reverb": "vast"}}
    row = ScoredRow.model_validate({"vibe_original": "x", "config_payload": odd, "config_candidates": [odd, None]})
    assert (row.config_payload, row.config_candidates, row.converted) == (odd, [odd, None], [])


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", PUBLISHED, {**PUBLISHED, "split": "dev"})
    with pytest.raises(InputError, match=r"rows\.jsonl:2: field split"):
        list(read_rows(path, ScoredRow))
    path = write(tmp_path / "rows.jsonl", {"dataset": "x", "id_in_dataset": "1"})
    with pytest.raises(InputError, match=r"rows\.jsonl:1: field (row_id|vibe_original)"):
        list(read_rows(path, VibeRow))


def test_a_row_comes_back_as_it_was_written(tmp_path: Path):
    row = make_scored()
    (tmp_path / "x.jsonl").write_bytes(dump_line(row))
    assert list(read_rows(tmp_path / "x.jsonl", ScoredRow)) == [row]


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(1, 40))
def test_a_limit_draws_from_every_text_in_turn(texts: list[str], limit: int) -> None:
    rows = list(enumerate(texts))
    kept = spread(rows, limit, lambda row: row[1])
    assert kept == sorted(kept)
    assert len(kept) == min(limit, len(rows))
    counts = {text: sum(one == text for _, one in kept) for text in texts}
    for text, count in counts.items():
        # A text gives fewer rows than another only when it has no more.
        assert count >= min(max(counts.values()) - 1, texts.count(text))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 80))
def test_a_limit_is_shared_out_in_proportion_and_a_larger_one_only_adds(counts: list[int], limit: int) -> None:
    shares = share_out(limit, counts)
    assert sum(shares) == min(limit, sum(counts))
    assert all(share <= count for share, count in zip(shares, counts, strict=True))
    assert all(more >= share for more, share in zip(share_out(limit + 1, counts), shares, strict=True))
    if limit >= len(counts):
        assert all(share > 0 for share, count in zip(shares, counts, strict=True) if count)
    assert share_out(None, counts) == counts


def test_a_share_is_that_of_the_part() -> None:
    assert share_out(60, [175, 14, 75, 36]) == [35, 3, 15, 7]
