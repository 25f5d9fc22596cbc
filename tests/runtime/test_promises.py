"""The promises of render that hold for every config."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mido import MidiFile

from conftest import SRC
from forked import python
from latentscore import (
    FIELDS,
    Audio,
    AudioError,
    InvalidConfigError,
    MusicConfig,
    compose,
    read_audio,
    render,
    write_audio,
)
from latentscore.audio import replacing
from latentscore.labels import STYLE_FIELDS
from latentscore.synth.midi import to_midi, write_midi
from latentscore.synth.notes import LAYERS
from latentscore.synth.styles import LEVELS_DB, STYLES
from latentscore.synth.theory import ROOTS, SCALES

RATE = 22_050


def test_a_render_is_stereo_at_the_promised_loudness() -> None:
    audio = render(MusicConfig(), 4.0, sample_rate=RATE)
    assert audio.samples.shape == (4 * RATE, 2)
    assert audio.samples.dtype == np.float32
    assert np.isfinite(audio.samples).all()
    assert audio.loudness_lufs() == pytest.approx(-16.0, abs=0.5)
    assert audio.true_peak_dbfs() < -1.0


@pytest.mark.parametrize("curve", ["arc", "ramp", "waves"])
def test_the_drums_pause_once_in_the_first_cycle_and_come_back(curve: str) -> None:
    score = compose(MusicConfig(rhythm="kit_medium", density=6, tension_curve=curve, human=0.0), 120.0, seed=3)
    form = score.piece.form
    statement = next(bar for bar in range(8, 32, 8) if form.section(bar).role == "statement")
    bars = {int(note.at // 4) for note in score.layers["rhythm"]}
    assert bars.isdisjoint(range(statement + 4, statement + 8))
    assert bars.issuperset(range(statement, statement + 4))
    height = next(bar for bar in range(8, 32, 8) if form.section(bar).role == "height")
    assert bars.issuperset(range(height, height + 8))


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("seconds", {"seconds": 0.0}),
        ("seconds", {"seconds": -3}),
        ("seconds", {"seconds": float("nan")}),
        ("seconds", {"seconds": 601}),
        ("sample_rate", {"seconds": 1, "sample_rate": 4_000}),
        ("sample_rate", {"seconds": 1, "sample_rate": 200_000}),
        ("seconds", {"seconds": 10**4500}),
        ("sample_rate", {"seconds": 1, "sample_rate": 10**4500}),
        ("seed", {"seconds": 1, "seed": -1}),
        ("seed", {"seconds": 1, "seed": 2**64}),
        ("seed", {"seconds": 1, "seed": 10**4500}),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(field: str, arguments: dict) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        render(MusicConfig(), **arguments)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "numbers", [(np.int16(3), np.int16(7), np.int16(16_000)), (np.float16(3), np.uint8(7), np.uint16(16_000))]
)
def test_numbers_of_numpy_are_the_numbers_they_say(numbers: tuple) -> None:
    assert np.array_equal(render(MusicConfig(), *numbers).samples, render(MusicConfig(), 3, 7, 16_000).samples)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"register_min_oct": 7}, "register_max_oct"), ({"tempo": 9.0}, "tempo"), ({"bass": "tuba"}, "bass")],
)
def test_a_config_that_nobody_has_checked_is_refused_by_name(change: dict, field: str) -> None:
    for config in (MusicConfig().model_copy(update=change), MusicConfig.model_construct(**change)):
        with pytest.raises(InvalidConfigError) as caught:
            render(config, 1.0)
        assert caught.value.field == field


def test_the_documentation_names_every_field_and_style() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sound.md").read_text(encoding="utf-8")
    words = [f"`{name}`" for name in FIELDS if name not in STYLE_FIELDS]
    words += [f"| `{label}` |" for name in STYLE_FIELDS for label in FIELDS[name].labels if label != "none"]
    missing = [word for word in words if word not in text]
    assert not missing, f"add rows to docs/sound.md, or run make docs: {missing}"
    for picture in re.findall(r"\]\((sound/[^)]+)\)", text):
        assert (Path(__file__).parents[2] / "docs" / picture).is_file()


def test_every_style_label_has_a_style_and_a_level() -> None:
    for layer in LAYERS:
        labels = {str(label) for label in FIELDS[layer].labels}
        differ = labels ^ set(STYLES[layer])
        assert not differ, f"{layer}: {differ} in only one of labels.py and STYLES of the layer's file in synth/"
        differ = (labels - {"none"}) ^ set(LEVELS_DB[layer])
        assert not differ, f"{layer}: {differ} in LEVELS_DB of synth/styles.py: run benchmarks/levels.py"


def test_the_package_alone_imports_no_number_cruncher() -> None:
    program = "import sys, latentscore; print([m for m in ('numpy', 'numba', 'scipy', 'pydantic') if m in sys.modules])"
    assert python("-c", program).stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["Stream", "render", "stream", "Playlist", "compose", "integrated_lufs"])
def test_a_name_at_a_module_s_head_loads_no_compiler(name: str) -> None:
    program = f"import sys\nfrom latentscore import {name}\nprint([m for m in ('numba', 'llvmlite', 'scipy') if m in sys.modules])"
    assert python("-c", program).stdout.strip() == "[]"


@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_a_written_file_reads_back_with_its_tags(tmp_path: Path, ending: str) -> None:
    audio = render(MusicConfig(), 1.0, sample_rate=RATE)
    path = tmp_path / f"a{ending}"
    write_audio(path, audio, {"title": "night — sea", "comment": {"seed": 0}})
    again = read_audio(path)
    assert again.sample_rate == RATE
    assert np.abs(again.samples - audio.samples).max() < 2**-22
    with soundfile.SoundFile(path) as file:
        assert file.subtype == "PCM_24"
        assert json.loads(file.comment) == {"seed": 0}


@pytest.mark.parametrize("bits", [16, 24])
def test_samples_are_rounded_to_the_nearest_step_in_every_format(bits: int):
    wave = np.random.default_rng(bits).uniform(-0.99, 0.99, (5_000, 2)).astype(np.float32)
    wave[:4] = [[1.0, -1.0], [0.9999999, -0.9999999], [1.5, -1.5], [0.0, -0.0]]
    full = 2.0 ** (bits - 1)
    # The nearest step, halves to even (IEEE 754); above full scale the last one.
    expected = np.clip(np.rint(wave.astype(np.float64) * full), -full, full - 1)
    for kind in ("wav", "flac"):
        content = Audio(wave, RATE).to_bytes(kind, f"PCM_{bits}")
        found = soundfile.read(io.BytesIO(content), dtype="int32")[0] >> (32 - bits)
        assert np.array_equal(found, expected), kind


def test_what_is_no_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError):
        Audio(np.zeros(5, np.float32), RATE)
    with pytest.raises(AudioError):
        write_audio(tmp_path / "a.xyz", Audio(np.zeros((5, 2), np.float32), RATE))
    with pytest.raises(AudioError):
        write_audio(tmp_path / "a.wav", Audio(np.full((5, 2), np.nan, np.float32), RATE))
    with pytest.raises(AudioError):
        read_audio(tmp_path / "missing.wav")


@pytest.mark.long
def test_a_long_ogg_is_written_whole(tmp_path: Path) -> None:
    """In a process of its own: an encoder that is given too much at once takes the process with it."""
    program = (
        "import sys, numpy as np; from latentscore import Audio, write_audio;"
        "noise = np.random.default_rng(0).uniform(-0.1, 0.1, (90 * 48_000, 2)).astype(np.float32);"
        "write_audio(sys.argv[1], Audio(noise, 48_000))"
    )
    python("-c", program, tmp_path / "a.ogg")
    assert soundfile.info(tmp_path / "a.ogg").frames == 90 * 48_000


@pytest.mark.parametrize(
    "arguments", [{"subtype": "FLOAT"}, {"tags": {"comment": {1, 2}}}, {"tags": {"comment": {1: "a", "b": 2}}}]
)
def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, arguments: dict) -> None:
    path, audio = tmp_path / "a.flac", Audio(np.zeros((500, 2), np.float32), RATE)
    write_audio(path, audio)
    before = path.read_bytes()
    with pytest.raises(AudioError, match=r"a\.flac: .*cannot be written"):
        write_audio(path, audio, **arguments)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.flac", before)]


def test_the_draft_of_a_killed_process_is_used_again(tmp_path: Path) -> None:
    path, audio = tmp_path / "a.wav", Audio(np.zeros((500, 2), np.float32), RATE)
    code = """
        import os, signal, sys
        from pathlib import Path
        from latentscore.audio import replacing
        with replacing(Path(sys.argv[1])) as draft:
            draft.write_bytes(b"half a file, longer than the whole one" * 1000)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    python("-c", textwrap.dedent(code), path, code=-signal.SIGKILL)
    assert [left.suffix for left in tmp_path.iterdir()] == [".tmp"]
    write_audio(path, audio)
    assert list(tmp_path.iterdir()) == [path]
    assert np.array_equal(read_audio(path).samples, audio.samples)


def test_two_that_write_the_same_file_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "first"


def test_midi_that_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, score = tmp_path / "a.mid", compose(MusicConfig(), 2.0)
    write_midi(path, score)
    before = path.read_bytes()

    def full(self: MidiFile, filename: Path) -> None:
        Path(filename).write_bytes(b"MThd")
        raise OSError(errno.ENOSPC, "No space left on device", str(filename))

    monkeypatch.setattr(MidiFile, "save", full)
    with pytest.raises(AudioError, match=r"a\.mid: cannot be written \(No space left on device\)"):
        write_midi(path, score)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.mid", before)]


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg"])
def test_a_sound_on_a_full_disk_is_one_error(tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"a{ending}"
    path.symlink_to("/dev/full")
    with pytest.raises(AudioError, match=r"cannot be written \(No space left on device\)"):
        write_audio(path, Audio(np.zeros((50_000, 2), np.float32), RATE))
    assert capfd.readouterr().err == ""


def test_writing_goes_through_links_and_into_pipes(tmp_path: Path) -> None:
    link, audio = tmp_path / "link.wav", Audio(np.zeros((500, 2), np.float32), RATE)
    link.symlink_to(tmp_path / "real.wav")
    write_audio(link, audio)
    assert link.is_symlink()
    assert len(read_audio(tmp_path / "real.wav").samples) == 500
    pipe = tmp_path / "pipe.mid"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_midi(pipe, compose(MusicConfig(), 0.5))
    assert os.read(reader, 4) == b"MThd"
    os.close(reader)
    assert pipe.is_fifo()


def test_midi_holds_every_note_and_ends_each() -> None:
    score = compose(MusicConfig(rhythm="kit_medium"), 8.0, 2)
    tracks = {track.name.split(":")[0]: track for track in to_midi(score).tracks if track.name}
    for layer, notes in score.layers.items():
        if notes:
            begun = [m for m in tracks[layer] if m.type == "note_on"]
            assert len(begun) == len(notes)
            assert len([m for m in tracks[layer] if m.type == "note_off"]) == len(notes)


SHARPS = {
    "C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F#": 6, "F": -1, "Bb": -2, "Eb": -3, "Ab": -4, "Db": -5,
    "Am": 0, "Em": 1, "Bm": 2, "F#m": 3, "C#m": 4, "G#m": 5, "Dm": -1, "Gm": -2, "Cm": -3, "Fm": -4, "Bbm": -5, "Ebm": -6,
}  # fmt: skip


@pytest.mark.parametrize("mode", SCALES)
@pytest.mark.parametrize("root", ROOTS)
def test_midi_says_the_key_it_is_in(tmp_path: Path, root: str, mode: str) -> None:
    write_midi(tmp_path / "a.mid", compose(MusicConfig(root=root, mode=mode), 1.0))
    head = {message.type: message for message in MidiFile(tmp_path / "a.mid").tracks[0]}
    # Each sharp is a key a fifth up, each flat one a fifth down.
    written = {(7 * SHARPS[head["key_signature"].key] + note) % 12 for note in SCALES["major"]}
    assert written == {(ROOTS[root] + note) % 12 for note in SCALES[mode]}
    assert head["text"].text == f"key: {root} {mode}"


@pytest.mark.parametrize("rate", [8_000, 44_101, 65_535, 65_536, 65_540, 88_200, 99_999, 100_010, 192_000, 191_999])
def test_a_rate_that_flac_cannot_hold_is_refused_by_our_rule_and_by_no_other(tmp_path: Path, rate: int) -> None:
    silence = Audio(np.zeros((100, 2), np.float32), rate)
    holds = True
    try:
        with soundfile.SoundFile(io.BytesIO(), "w", rate, 2, "PCM_24", format="FLAC") as file:
            file.write(silence.samples)
    except soundfile.LibsndfileError:
        holds = False
    if holds:
        write_audio(tmp_path / "a.flac", silence)
    else:
        with pytest.raises(AudioError, match=f"FLAC does not support {rate} Hz.*65535.*96000"):
            write_audio(tmp_path / "a.flac", silence)
        assert list(tmp_path.iterdir()) == []
    write_audio(tmp_path / "a.wav", silence)
    assert read_audio(tmp_path / "a.wav").sample_rate == rate


def test_a_tag_that_no_file_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="unknown tag mood"):
        write_audio(tmp_path / "a.wav", Audio(np.zeros((5, 2), np.float32), RATE), {"mood": "calm"})


def test_tags_are_carried_from_file_to_file(tmp_path: Path) -> None:
    tags = {"title": "night — sea", "artist": "A", "software": "latentscore 3", "comment": "{}"}
    write_audio(tmp_path / "a.flac", Audio(np.zeros((5, 2), np.float32), RATE), tags)
    write_audio(tmp_path / "b.wav", read_audio(tmp_path / "a.flac"))
    assert read_audio(tmp_path / "b.wav").tags == tags


def test_a_sound_file_on_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """In a process of its own: a limit on the size of files, which the kernel refuses as a full disk does."""
    code = (
        "import resource, sys, numpy as np, latentscore as ls\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n    ls.write_audio(sys.argv[1], ls.Audio(np.zeros((48_000, 2), np.float32), 48_000))\n"
        "except ls.AudioError as error:\n    print(error)"
    )
    assert "a.wav: cannot be written" in python("-c", code, tmp_path / "a.wav", cwd=SRC).stdout
    assert list(tmp_path.iterdir()) == []


def test_paths_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    audio = Audio(np.full((480, 2), 0.1, np.float32), 48_000)
    assert audio.save("~/new/a.wav") == tmp_path / "home/new/a.wav"
    assert read_audio("~/new/a.wav").samples.shape == (480, 2)
    write_midi("~/new/a.mid", compose(MusicConfig(), 4.0))
    assert {path.name for path in (tmp_path / "home/new").iterdir()} == {"a.wav", "a.mid"}
    assert not Path("~").exists()
