"""Names and texts that are not valid UTF-8 are shown, written and found again."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Lsdata
from factories import make_payload
from latentscore import read_audio
from latentscore_data.core.base.jsonl import read_lines, replace_json, replace_rows, replace_text
from latentscore_data.core.base.names import json_bytes, path_named, printable

ANY_TEXT = st.text(st.characters())  # lone surrogates among them
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
BYTES = b"caf\xe9 \xff"
NAME = os.fsdecode(BYTES)


@given(ANY_TEXT)
def test_any_text_becomes_printable_and_stays_so(text: str):
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert printable(shown) == shown
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert shown == text


@given(st.binary(max_size=12))
def test_every_byte_of_a_name_can_be_read_off(name: bytes):
    shown = printable(name.decode("utf-8", "surrogateescape"))
    assert shown == name.decode("utf-8", "backslashreplace")


@given(JSON)
def test_json_never_fails_on_a_text(value: object):
    written = json.loads(json_bytes(value))
    if json.dumps(value, ensure_ascii=False).isascii():
        assert written == value


def test_what_json_cannot_hold_is_still_an_error():
    with pytest.raises(TypeError):
        json_bytes({"a": object(), "b": "\ud83d"})
    assert (
        json_bytes({"a": date(2000, 1, 2), "b": Path(NAME)}, default=str)
        == b'{"a":"2000-01-02","b":"caf\\\\xe9 \\\\xff"}'
    )


def test_files_are_written_whatever_the_texts_are(tmp_path: Path):
    half = "half \ud83d"
    replace_rows(tmp_path / "a.jsonl", [{half: [half]}])
    replace_json(tmp_path / "a.json", {half: half})
    replace_text(tmp_path / "a.md", half)
    assert [row for _, row in read_lines(tmp_path / "a.jsonl")] == [{"half \\ud83d": ["half \\ud83d"]}]
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"half \\ud83d": "half \\ud83d"}
    assert (tmp_path / "a.md").read_text() == "half \\ud83d"


def test_a_file_is_found_by_its_printable_name(tmp_path: Path):
    path = tmp_path / NAME
    assert path_named(printable(path)) == tmp_path / printable(NAME)
    path.mkdir()
    assert path_named(printable(path)) == path
    assert path_named(str(path)) == path
    (tmp_path / printable(NAME)).mkdir()
    assert path_named(printable(path)) == tmp_path / printable(NAME)


@pytest.mark.long
def test_folders_of_any_name_hold_texts_and_workspaces(lsdata: Lsdata, tmp_path: Path):
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / os.fsdecode(b"b\xfcch.txt")).write_text("Slow rain on a tin roof. The street was empty and quiet.")
    (folder / os.fsdecode(b"\xfe.csv")).write_text("text\nSnow fell on the old town. Bells rang far away.\n")
    root = str(folder / "root")
    for command in (
        ("download", "--dataset", str(folder)),
        ("vibes",),
        ("configs", "--n", "1", "--seconds", "1", "--scorer", "acoustic", "--workers", "1"),
        ("export", "dataset"),
        ("export", "map", "--embedder", "words"),
        ("status",),
        ("doctor",),
    ):
        done = lsdata(*command, "--root", root, "--json")
        assert done.returncode == 0, (command, done.stderr)
        json.loads(done.stdout)
    done = lsdata("status", "--root", root, "--json")
    assert {stage["stage"]: stage["state"] for stage in json.loads(done.stdout)["stages"]}["download"] == "fresh"


@pytest.mark.long
def test_sounds_of_any_name_and_title_are_written_and_named(lsdata: Lsdata, tmp_path: Path):
    folder = tmp_path / NAME
    folder.mkdir()
    payload = folder / os.fsdecode(b"\xe9.json")
    payload.write_text(json.dumps(make_payload("Half \ud83d")))
    out, midi = folder / os.fsdecode(b"\xff.flac"), folder / os.fsdecode(b"\xff.mid")
    names = ("--payload", str(payload), "--out", str(out), "--midi", str(midi), "--seconds", "0.5")
    for form in ((), ("--json",)):
        done = lsdata("render", *names, *form)
        assert done.returncode == 0, done.stderr
        assert "xff.flac" in done.stdout
        assert (out.exists(), midi.exists()) == (True, True)
    assert json.loads(done.stdout)["title"] == "Half \\ud83d"
    assert read_audio(out).tags["seconds"] == 0.5
    for missing in (("render", "--payload", f"{payload}x"), ("status", "--config", f"{payload}x")):
        done = lsdata(*missing)
        assert done.returncode == 2
        assert "caf\\xe9" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("option", ["--model", "--split", "--only", "--scorer", "--api-base", "--on"])
def test_an_option_that_is_not_utf8_is_refused(lsdata: Lsdata, root: Path, option: str):
    done = lsdata("configs", "grief", option, NAME, "--root", str(root))
    assert done.returncode in (2, 3), done.stderr


def test_a_variable_that_is_not_utf8_is_refused_by_name(lsdata: Lsdata, root: Path):
    done = lsdata("status", "--root", str(root), env={"LSDATA_LLM__MODEL": NAME})
    assert done.returncode == 2
    assert "LSDATA_LLM__MODEL is not UTF-8: caf\\xe9" in done.stderr
