"""The config in a file that was written before, whatever kind of file it is."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories import make_config, make_payload, make_scored, make_vibe
from latentscore import RENDERER_VERSION, Audio, read_audio, render, write_audio
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.configs.saved import MAX_DOCUMENT_BYTES, SavedPiece, read_piece

DARK, BRIGHT = make_payload("Dark", brightness="dark"), make_payload("Bright", brightness="bright")
ANSWERS = {
    "stage": "configs",
    "details": {"answers": [{"vibe": "a", "config_payload": DARK}, {"vibe": "b", "config_payload": BRIGHT}]},
}


def row(title: str, vibe: str, **more: Any) -> dict[str, Any]:
    return {**make_vibe(vibe=vibe).model_dump(), "config_payload": make_payload(title), **more}


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("value", "title", "vibe"),
    [
        (DARK, "Dark", None),
        (make_config(brightness="dark"), "untitled", None),
        ({"config_payload": DARK, "vibe_original": "grief"}, "Dark", "grief"),
        ({"config_payload": json.dumps(DARK)}, "Dark", None),
        (make_scored(config_payload=DARK).model_dump(), "Dark", "damp november soul"),
        ({**make_vibe().model_dump(), "config_candidates": [None, DARK]}, "Dark", "damp november soul"),
        ({"title": "Dark", "config": DARK["config"], "palettes": [], "vibe_original": "of a map"}, "Dark", "of a map"),
        ({"details": {"answers": ANSWERS["details"]["answers"][:1]}}, "Dark", "a"),
        ([DARK], "Dark", None),
    ],
)
def test_every_document_that_holds_one_config_is_read(tmp_path: Path, value: Any, title: str, vibe: str | None):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path = tmp_path / "file.json"
        path.write_text(json.dumps(value, indent=2), encoding=encoding)
        piece = read_piece(path)
        assert (piece.config.brightness, piece.title, piece.vibe) == ("dark", title, vibe)
    assert read_piece(write_lines(tmp_path / "one.jsonl", value)).title == title


@pytest.mark.parametrize("pick", [1, 2])
def test_the_row_of_several_is_picked(tmp_path: Path, pick: int):
    title = ["Dark", "Bright"][pick - 1]
    lines = write_lines(tmp_path / "rows.jsonl", {"config_payload": DARK}, {"config_payload": BRIGHT})
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(codecs.BOM_UTF8 + lines.read_bytes()))
    for path in (lines, packed, write(tmp_path / "a.json", ANSWERS), write(tmp_path / "b.json", [DARK, BRIGHT])):
        assert read_piece(path, pick).title == title
        with pytest.raises(InputError, match="contains more than one config"):
            read_piece(path)
        with pytest.raises(InputError, match=r"--pick 3: .* holds 2 configs"):
            read_piece(path, 3)


def test_a_file_of_rows_that_is_too_long_for_memory_is_streamed(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    filler = json.dumps({"config_payload": DARK, "note": "x" * 1_000_000}) + "\n"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(MAX_DOCUMENT_BYTES // 1_000_000 + 2):
            file.write(filler)
        file.write(json.dumps({"config_payload": BRIGHT}) + "\n")
    assert read_piece(path, MAX_DOCUMENT_BYTES // 1_000_000 + 3).title == "Bright"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"null", "not a readable JSON file"),
        (b"[]", "contains no config"),
        (b"3", "must be a JSON object, not int"),
        (b"\xff\xfe\x00", "not a readable JSON file"),
        (b'{"config": {"tempo": "presto"}}', "tempo"),
        (b'{"config": null}', "must be a mapping"),
        (b'{"stage": "configs", "details": {"answers": []}}', "contains no config"),
        (b'{"config_payload": null, "failure": "answer: no JSON"}', r"contains no config \(answer: no JSON\)"),
        (b'{"config_payload": null, "config_candidates": [null]}', "contains no config"),
        (b'{"a": 1}\n{"a": ', "has no field of a config|torn"),
        (b"[" * 100_000, "not a readable JSON file"),
        (b"fLaC" + bytes(100), "cannot be read"),
    ],
)
def test_a_file_without_a_config_is_refused_by_name(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "winner.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_piece(path, 1)
    assert "winner.json" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("ending", [".flac", ".wav", ".ogg"])
@pytest.mark.parametrize("words", [True, False])
def test_a_sound_file_is_played_again_as_it_was(tmp_path: Path, ending: str, words: bool):
    config = read_piece(write(tmp_path / "c.json", make_config(brightness="dark"))).config
    config = config if words else config.to_config()
    audio = render(config, 1.5, seed=2**64 - 1, sample_rate=22_050)
    vibe = "grief \u30ab\u30d5\u30a7 " + "\ud83d" + 900 * "and so on "
    path = tmp_path / f"x{ending}"
    write_audio(path, audio.tagged(title="Caf\xe9", vibe=vibe))
    piece = read_piece(path)
    assert (piece.config, piece.title, piece.notes) == (config, "Caf\xe9", ())
    assert piece.vibe is not None
    assert piece.vibe.startswith("grief \u30ab")
    assert (piece.vibe == vibe) == (ending != ".wav")
    again = render(piece.config, piece.seconds or 0, piece.seed or 0, piece.sample_rate or 0)
    assert np.array_equal(again.samples, audio.samples)
    tags = read_audio(path).tags
    assert (tags["seed"], tags["seconds"], tags["renderer"]) == (2**64 - 1, 1.5, RENDERER_VERSION)
    assert tags["config"] == config.model_dump()


def test_a_sound_of_another_renderer_and_a_layer_are_told_apart(tmp_path: Path):
    silence = Audio(np.zeros((100, 2), np.float32), 8_000)
    path = tmp_path / "x.bass.flac"
    write_audio(path, silence.tagged(config=make_config(), title="A (bass)", layer="bass", renderer="1"))
    piece = read_piece(path)
    assert piece.title == "A"
    assert ["version 1" in piece.notes[0], "the layer bass" in piece.notes[1]] == [True, True]
    for tags in ({}, {"title": "A", "comment": "by hand"}, {"comment": {"seed": 1}}, {"comment": "[" * 90_000}):
        write_audio(path, silence, tags)
        with pytest.raises(InputError, match="its tags contain no config"):
            read_piece(path)


def test_what_stands_in_tags_is_looked_at(tmp_path: Path):
    silence = Audio(np.zeros((100, 2), np.float32), 8_000)
    write_audio(tmp_path / "x.wav", silence.tagged(config={**make_config(), "tempo": "presto"}))
    with pytest.raises(InputError, match=r"x\.wav: tempo"):
        read_piece(tmp_path / "x.wav")


def test_a_piece_says_nothing_that_its_file_does_not(tmp_path: Path):
    piece = read_piece(write(tmp_path / "a.json", DARK))
    assert piece == SavedPiece(piece.config, "Dark")
