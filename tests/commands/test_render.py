"""lsdata render: a vibe or a payload to files that say what they are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from conftest import Lsdata
from factories import make_payload
from latentscore import RENDERER_VERSION, MusicConfig, parse_config, read_audio, render
from latentscore_data.commands import render as command
from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.configs.saved import read_piece


def test_a_vibe_becomes_sound_stems_and_notes(lsdata: Lsdata, tmp_path: Path):
    out, notes = tmp_path / "new" / "rain.flac", tmp_path / "rain.mid"
    done = lsdata(
        "render", "slow rain on a tin roof", "--out", str(out), "--seconds", "2", "--seed", "3", "--sample-rate", "22050",
        "--stems", "--midi", str(notes), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["loudness_lufs"] == pytest.approx(-16, abs=0.5)
    assert len(facts["files"]) == 8
    with soundfile.SoundFile(out) as file:
        assert (file.format, file.subtype, file.frames, file.channels) == ("FLAC", "PCM_24", 2 * 22_050, 2)
        assert file.software.startswith(f"latentscore {RENDERER_VERSION}")
        said = json.loads(file.comment)
    again = render(parse_config(said["config"]), said["seconds"], said["seed"], 22_050)
    assert np.abs(again.samples - read_audio(out).samples).max() < 1e-6
    names = [track.name for track in mido.MidiFile(notes).tracks]
    assert any(name.startswith("melody:") for name in names)


def test_a_payload_row_and_a_bare_config_are_read_alike(tmp_path: Path):
    words = MusicConfig().to_prompt().model_dump()
    for number, data in enumerate(
        ({"title": "A", "config": words}, {"config_payload": {"title": "A", "config": words}}, words)
    ):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        assert read_piece(path).config.model_dump() == words


def test_wrong_input_is_refused_with_the_field(tmp_path: Path):
    path = tmp_path / "payload.json"
    path.write_text(
        json.dumps({"config": {**MusicConfig().to_prompt().model_dump(), "tempo": "presto"}}), encoding="utf-8"
    )
    with pytest.raises(InputError, match="tempo"):
        read_piece(path)
    for arguments in (
        {},
        {"vibe": "a", "payload": path},
        {"vibe": "a", "out": Path("a.mp3")},
        {"vibe": "a", "seconds": 0.1},
    ):
        with pytest.raises(InputError):
            command.render(**arguments)


def test_an_unknown_field_is_named_with_a_page_that_lists_the_fields(tmp_path: Path):
    path = tmp_path / "payload.json"
    path.write_text(json.dumps({"tempo": "slow", "bogus": 1}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_piece(path)
    assert "no field is called bogus" in caught.value.message
    places = re.findall(r"docs/\S+\.md", caught.value.remedy)
    assert places
    assert all((Path(__file__).parents[2] / place).is_file() for place in places)


def test_a_config_of_the_public_package_loads_and_what_was_changed_is_said(tmp_path: Path):
    path = tmp_path / "config.json"
    public = {"schema_version": 1, "tempo": "slow", "melody_density": 0.45, "layers": {"bass": "walking"}}
    path.write_text(json.dumps({**public, "register_min_oct": 6, "register_max_oct": 4}), encoding="utf-8")
    piece = read_piece(path)
    config = piece.config
    assert (config.tempo, config.melody_density, config.bass, config.space) == (0.30, 0.45, "walking", 0.6)
    assert (config.register_min_oct, config.register_max_oct) == (4, 6)
    said = " ".join(piece.notes)
    assert "swapped" in said
    assert "defaults" in said


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(OutputError):
        command.render("calm", out=tmp_path / "file" / "a.wav", seconds=0.5, sample_rate=8_000)


def test_each_file_has_a_place_of_its_own(tmp_path: Path):
    for name, stems in (("a.wav", False), ("a.bass.wav", True)):
        with pytest.raises(InputError, match="--midi"):
            command.render("calm", out=tmp_path / "a.wav", midi=tmp_path / "sub" / ".." / name, stems=stems)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_the_notes_cannot_have_is_named_before_there_is_sound(tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    for midi in (tmp_path / "file" / "a.mid", tmp_path):
        with pytest.raises(OutputError, match="with --midi"):
            command.render("calm", out=tmp_path / "a.wav", midi=midi, seconds=0.5, sample_rate=8_000)
    assert not (tmp_path / "a.wav").exists()


def test_what_configs_writes_is_rendered_and_its_sound_is_played_again(lsdata_here: Lsdata, tmp_path: Path):
    env = {"LSDATA_SCORING__SECONDS": "1", "LSDATA_SCORING__SCORERS": '["acoustic"]', "LSDATA_SCORING__WORKERS": "1"}
    answered = lsdata_here("configs", "slow rain", "grief", "--n", "1", "--json", "--audio", str(tmp_path), env=env)
    assert answered.returncode == 0, answered.stderr
    document = tmp_path / "answers.json"
    document.write_text(answered.stdout, encoding="utf-8")
    answer = json.loads(answered.stdout)["details"]["answers"][1]
    first, again, longer = answer["audio_file"], tmp_path / "again.flac", tmp_path / "longer.flac"
    assert lsdata_here("render", "--payload", first, "--out", str(again)).returncode == 0
    assert np.array_equal(read_audio(first).samples, read_audio(again).samples)
    assert read_audio(first).tags == read_audio(again).tags
    assert read_audio(first).tags["vibe"] == "grief"
    done = lsdata_here("render", "--payload", str(document), "--pick", "2", "--seconds", "2", "--out", str(longer))
    assert done.returncode == 0, done.stderr
    tags = read_audio(longer).tags
    assert (tags["title"], tags["seconds"]) == (answer["config_payload"]["title"], 2.0)
    assert tags["config"] == answer["config_payload"]["config"]


def test_a_rate_that_flac_cannot_hold_is_refused_before_anything_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("latentscore.render", lambda *_, **__: pytest.fail("rendered"))
    for rate in (99_999, 65_537, 191_999):
        with pytest.raises(InputError, match=rf"FLAC cannot hold {rate} Hz.* 96000") as caught:
            command.render("calm", out=tmp_path / "a.flac", sample_rate=rate)
        assert ".wav" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_rows_come_through_a_pipe(tmp_path: Path):
    rows = "".join(json.dumps({"config_payload": make_payload(title)}) + "\n" for title in ("One", "Two"))
    out = tmp_path / "a.wav"
    command_line = [
        sys.executable,
        "-m",
        "latentscore_data",
        "render",
        "--payload",
        "-",
        "--pick",
        "2",
        "--seconds",
        "0.5",
    ]
    done = subprocess.run([*command_line, "--out", str(out)], input=rows, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_audio(out).tags["title"] == "Two"
