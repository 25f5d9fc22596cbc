"""lsdata render: a vibe or a payload to files that say what they are."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from conftest import Lsdata, here
from factories import make_config, make_payload
from forked import python
from latentscore import (
    RENDERER_VERSION,
    Audio,
    MusicConfig,
    parse_config,
    read_audio,
    render,
    starter_pairs,
    write_audio,
)
from latentscore.installed import install
from latentscore_data.commands import render as command
from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.configs.saved import read_piece
from servers import ChatServer, config_reply


def test_a_vibe_becomes_sound_stems_and_notes(lsdata: Lsdata, tmp_path: Path):
    out, notes = tmp_path / "new" / "rain.flac", tmp_path / "rain.mid"
    done = lsdata(
        "render", "rain on a tin roof, a busy melody", "--out", str(out), "--seconds", "4", "--seed", "3", "--sample-rate", "22050",
        "--stems", "--midi", str(notes), "--json", code=0
    )  # fmt: skip
    facts = done.json()
    assert facts["loudness_lufs"] == pytest.approx(-16, abs=0.5)
    assert len(facts["files"]) == 8
    with soundfile.SoundFile(out) as file:
        assert (file.format, file.subtype, file.frames, file.channels) == ("FLAC", "PCM_24", 4 * 22_050, 2)
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
        {"vibes": ["a"], "payload": path},
        {"vibes": ["a"], "out": Path("a.mp3")},
        {"vibes": ["a"], "seconds": 0.1},
    ):
        with pytest.raises(InputError):
            command.render(**arguments)  # type: ignore[call-arg]
    with pytest.raises(InputError) as caught:
        command.render(vibes=["a"], out=Path("mixes/a.mp3"))
    assert caught.value.remedy == "such as --out a.wav; WAV supports every rate"


def test_an_unknown_field_is_named_with_a_page_that_lists_the_fields(tmp_path: Path):
    path = tmp_path / "payload.json"
    path.write_text(json.dumps({"tempo": "slow", "bogus": 1}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_piece(path)
    assert "bogus: no field has this name" in caught.value.message
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
        command.render(vibes=["calm"], out=tmp_path / "file" / "a.wav", seconds=0.5, sample_rate=8_000)


def test_each_file_has_a_place_of_its_own(tmp_path: Path):
    for name, stems in (("a.wav", False), ("a.bass.wav", True)):
        with pytest.raises(InputError, match="--midi"):
            command.render(vibes=["calm"], out=tmp_path / "a.wav", midi=tmp_path / "sub" / ".." / name, stems=stems)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_the_notes_cannot_have_is_named_before_there_is_sound(tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    for midi in (tmp_path / "file" / "a.mid", tmp_path):
        with pytest.raises(OutputError, match="with --midi"):
            command.render(vibes=["calm"], out=tmp_path / "a.wav", midi=midi, seconds=0.5, sample_rate=8_000)
    assert not (tmp_path / "a.wav").exists()


def test_what_configs_writes_is_rendered_and_its_sound_is_played_again(tmp_path: Path):
    env = {"LSDATA_SCORING__SECONDS": "1", "LSDATA_SCORING__SCORERS": '["acoustic"]', "LSDATA_SCORING__WORKERS": "1"}
    answered = here("configs", "slow rain", "grief", "--n", "1", "--json", "--audio", str(tmp_path), env=env)
    assert answered.returncode == 0, answered.stderr
    document = tmp_path / "answers.json"
    document.write_text(answered.stdout, encoding="utf-8")
    answer = answered.json()["details"]["answers"][1]
    first, again, longer = answer["audio_file"], tmp_path / "again.flac", tmp_path / "longer.flac"
    here("render", "--payload", first, "--out", str(again), code=0)
    assert np.array_equal(read_audio(first).samples, read_audio(again).samples)
    assert read_audio(first).tags == read_audio(again).tags
    assert read_audio(first).tags["vibe"] == "grief"
    done = here("render", "--payload", str(document), "--pick", "2", "--seconds", "2", "--out", str(longer))
    assert done.returncode == 0, done.stderr
    tags = read_audio(longer).tags
    assert (tags["title"], tags["seconds"]) == (answer["config_payload"]["title"], 2.0)
    assert tags["config"] == answer["config_payload"]["config"]


def test_a_loop_is_rendered_again_as_a_loop():
    for what in (("slow rain", "--loop", "--seconds", "6"), ("--payload", "first.flac")):
        out = "first.flac" if "--loop" in what else "again.flac"
        here("render", *what, "--out", out, code=0)
    first, again = read_audio("first.flac"), read_audio("again.flac")
    assert first.tags["loop"] is True
    assert np.array_equal(first.samples, again.samples)
    assert first.tags == again.tags
    expected = render(parse_config(first.tags["config"]), 6.0, loop=True).samples
    np.testing.assert_allclose(first.samples, expected, atol=2.0**-23)
    refused = here("render", "--payload", "first.flac", "--stems", "--out", "stems.flac", code=2)
    assert "a loop has no stems" in refused.stderr
    assert not Path("stems.flac").exists()


def test_a_rate_that_flac_cannot_hold_is_refused_before_anything_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("latentscore.render", lambda *_, **__: pytest.fail("rendered"))
    for rate in (99_999, 65_537, 191_999):
        with pytest.raises(InputError, match=rf"FLAC does not support {rate} Hz.* 96000") as caught:
            command.render(vibes=["calm"], out=tmp_path / "a.flac", sample_rate=rate)
        assert ".wav" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_rows_come_through_a_pipe(tmp_path: Path):
    rows = "".join(json.dumps({"config_payload": make_payload(title)}) + "\n" for title in ("One", "Two"))
    out = tmp_path / "a.wav"
    words = f"-m latentscore_data render --payload - --pick 2 --seconds 0.5 --out {out}".split()
    python(*words, input=rows)
    assert read_audio(out).tags["title"] == "Two"


SENTENCES = ("grief", "slow rain, not sad", "a lighthouse in fog")


def test_render_configs_and_the_library_give_a_sentence_the_same_config(tmp_path: Path):
    root = ["--root", str(tmp_path)]
    for sentence in SENTENCES:
        rendered = here("render", sentence, "--seconds", "0.5", "--out", str(tmp_path / "a.wav"), "--json", code=0)
        facts = rendered.json()
        chosen = here("configs", sentence, "--seconds", "1", "--scorer", "acoustic", "--json", *root, code=0)
        winner = chosen.json()["details"]["answers"][0]["config_payload"]
        library = render(sentence, 0.5, sample_rate=8_000).metadata
        assert library is not None
        assert winner["config"] == facts["config"] == library.config.model_dump()
        assert winner["thinking"] == facts["reasons"] == library.reasons
        assert winner["thinking"] in rendered.stderr
        assert f"tempo {facts['config']['tempo']}" in rendered.stderr


def test_a_map_answers_where_it_is_named(tmp_path: Path):
    command = ["render", "lighthouse keeper's last night before automation", "--seconds", "0.5", "--json"]
    command += ["--out", str(tmp_path / "a.wav")]
    facts = here(*command, "--map", "starter", code=0).json()
    pair = next(pair for pair in starter_pairs() if pair["title"] == facts["title"])
    assert (facts["config"], facts["answered_by"]) == (pair["config"], "map:starter")
    assert "--map" in here(*command, "--map", str(tmp_path / "none"), code=2).stderr
    here(*command, "--map", "starter", "--model", "a/b", code=2)


@pytest.mark.long
def test_a_model_is_asked_as_configs_asks_it(tmp_path: Path):
    with ChatServer(config_reply()) as server:
        command = ["render", "rain", "--model", "hosted_vllm/test", "--api-base", server.url]
        command += ["--seconds", "0.5", "--json"]
        done = here(*command, "--out", str(tmp_path / "a.wav"), "--root", str(tmp_path / "data"), code=0)
        assert len(server.received) == 5
    assert done.json()["answered_by"] == "hosted_vllm/test"


def test_playing_without_the_extra_is_named_and_the_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    out = tmp_path / "a.wav"
    assert install("play") in here("render", "fog", "--seconds", "0.5", "--out", str(out), "--play", code=3).stderr
    assert out.exists()


def test_a_system_prompt_and_examples_reach_the_model(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("My own words.", encoding="utf-8")
    with ChatServer(config_reply()) as server:
        command = ["configs", "rain", "--n", "1", "--model", "hosted_vllm/test", "--api-base", server.url]
        command += ["--seconds", "0.5", "--root", str(tmp_path / "data"), "--scorer", "acoustic", "--json"]
        here(*command, "--examples", "2", "--system", str(tmp_path / "mine.txt"), code=0)
        (asked,) = [received.body["messages"][0]["content"] for received in server.received]
    assert asked.startswith("My own words.")
    assert asked.count("</vibe>") == 2
    assert "none.txt" in here(*command, "--system", str(tmp_path / "none.txt"), code=2).stderr


def test_several_vibes_become_one_mix(tmp_path: Path):
    out = tmp_path / "mix.flac"
    command = ["render", "slow rain", "fast bright morning", "--crossfade", "1", "--seconds", "8", "--out", str(out)]
    facts = here(*command, "--sample-rate", "22050", "--json", code=0).json()
    assert [answer["config"]["tempo"] for answer in facts["answers"]] == ["slow", "fast"]
    assert (facts["seconds"], facts["files"]) == (8.0, [str(out)])
    assert facts["loudness_lufs"] == pytest.approx(-16.0, abs=0.5)
    mix, alone = read_audio(out), render("slow rain", 8.0, sample_rate=22_050)
    assert mix.tags["title"] == facts["title"]
    assert " / " in facts["title"]
    # The first vibe begins as it does alone, and the second half is another piece.
    level = [np.abs(sound.mono).reshape(16, -1).mean(axis=1) for sound in (mix, alone)]
    assert np.corrcoef(level[0][:6], level[1][:6])[0, 1] > 0.9
    assert np.abs(mix.mono[5 * 22_050 :]).max() > 0.05


PAID = ["a", "--model", "openai/gpt-4o-mini"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "--crossfade", "2"], "--crossfade needs several vibes"),
        (["a", "b", "--seconds", "1"], "0.5 s; it must be 1 to 600 s"),
        (["a", "--seconds", "0.1"], "--seconds: must be a number from 0.5 to 600"),
        (["a", "--sample-rate", "1"], "--sample-rate: must be from 8000"),
        (["a", "--map", "nowhere"], "--map: nowhere does not exist"),
        (["a", "b", "--crossfade", "31"], "from 0 to 30 s"),
        (["a", "b", "--stems"], "need one vibe"),
        (["a", "b", "--loop"], "need one vibe"),
        (["a", "--loop", "--midi", "a.mid"], "a loop has no stems and no MIDI file"),
        # The model, which would fail without a key, is not called.
        ([*PAID, "--loop", "--stems"], "a loop has no stems and no MIDI file"),
        ([*PAID, "--seconds", "0.1"], "--seconds: must be a number from 0.5 to 600"),
        ([*PAID, "--seed", str(2**64)], "--seed: must be a whole number from 0"),
        ([*PAID, "--sample-rate", "1"], "--sample-rate: must be from 8000"),
        (["a", " "], "the vibe is empty"),
    ],
)
def test_what_cannot_be_rendered_is_refused_by_its_flag(tmp_path: Path, arguments: list[str], said: str):
    assert said in " ".join(here("render", *arguments, "--out", str(tmp_path / "a.wav"), code=2).stderr.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("tag", "value"), [("seconds", "long"), ("seconds", 9e9), ("seed", [1]), ("seed", -1)])
def test_a_sound_file_with_wrong_tags_is_refused(tag: str, value: object) -> None:
    write_audio("a.wav", Audio(np.zeros((100, 2), np.float32), 8_000, tags={"config": make_config(), tag: value}))
    assert f"--{tag}: must be a" in here("render", "--payload", "a.wav", "--out", "b.wav", code=2).stderr
    assert not Path("b.wav").exists()


@pytest.mark.parametrize(
    "wrong",
    [("--out", "new/a.mp3"), ("--out", "new/a.wav", "--seconds", "0"), ("--midi", "new/a.mid", "--map", "nothing")],
)
def test_a_refused_render_makes_no_folder(wrong: tuple[str, ...]) -> None:
    here("render", "fog", *wrong, code=2)
    assert not Path("new").exists()


def test_folders_of_the_files_are_made() -> None:
    here("render", "fog", "--seconds", "0.5", "--out", "new/a.wav", "--midi", "notes/a.mid", code=0)
    assert Path("new/a.wav").is_file()
    assert Path("notes/a.mid").is_file()
    refused = here("render", "fog", "--out", "new/a.wav/b.wav")
    assert (refused.returncode, "a.wav is a file" in refused.stderr) == (6, True), refused.stderr


def test_a_tilde_that_the_shell_leaves_is_the_home_folder(monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    done = here("render", "fog", "--seconds", "0.5", "--out=~/a.wav")
    assert (done.returncode, Path("home/a.wav").is_file(), Path("~").exists()) == (0, True, False)
