"""What every render owes to the ear, whatever the config."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from listening import PLAIN, RATE, config, hear, hear_stems, random_words
from scipy.signal.windows import blackmanharris

from latentscore import FIELDS, Audio, MusicConfig, MusicConfigPrompt, compose, random_config, render
from latentscore.synth import engine, space
from latentscore.synth.context import RenderContext
from latentscore.synth.notes import Note, Piece
from latentscore.synth.signal import table_for
from latentscore.synth.styles import STYLES


def random_prompt(number: int) -> MusicConfigPrompt:
    return MusicConfigPrompt(**random_words(number))


@pytest.mark.long
@settings(max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(number=st.integers(0, 2**32 - 1), seed=st.integers(0, 2**63), seconds=st.sampled_from([0.5, 0.77, 1.3]))
def test_any_config_renders_to_sound(number: int, seed: int, seconds: float) -> None:
    prompt = random_config(np.random.default_rng(number))
    audio = render(prompt, seconds, seed, 16_000)
    assert audio.samples.shape == (round(seconds * 16_000), 2)
    assert np.isfinite(audio.samples).all()
    assert np.abs(audio.samples).max() <= 1.0
    assert np.abs(audio.samples).max() > 0.05


@pytest.mark.long
@settings(max_examples=40, deadline=None, database=None)
@given(data=st.data())
def test_any_numbers_between_the_labels_render_too(data: st.DataObject) -> None:
    numbers = {
        name: data.draw(st.floats(spec.low, spec.high), label=name)
        for name, spec in FIELDS.items() if spec.kind == "scale"
    }  # fmt: skip
    audio = render(MusicConfig(**numbers), 0.6, 0, 16_000)
    assert np.isfinite(audio.samples).all()
    assert np.abs(audio.samples).max() > 0.05


@pytest.mark.parametrize("number", range(6))
def test_loudness_and_peak_agree_with_another_meter(number: int) -> None:
    audio = hear(random_prompt(number), 5.0)
    theirs = pyloudnorm.Meter(RATE).integrated_loudness(audio.samples.astype(np.float64))
    assert theirs == pytest.approx(-16.0, abs=0.5)
    assert audio.loudness_lufs() == pytest.approx(theirs, abs=0.1)
    # Sixteen times oversampling by padding the spectrum.
    spectrum = np.fft.rfft(audio.samples, axis=0)
    fine = np.fft.irfft(spectrum, 8 * len(audio.samples), axis=0) * 8
    assert 20 * np.log10(np.abs(fine).max()) < -1.0


@pytest.mark.parametrize("number", range(3))
def test_there_is_no_dc(number: int) -> None:
    assert abs(hear(random_prompt(number), 5.0).samples.mean()) < 1e-3


def test_mono_is_left_and_right_alike_and_everything_else_is_not() -> None:
    mono = hear(config(stereo="mono"), 3.0).samples
    assert np.array_equal(mono[:, 0], mono[:, 1])
    wide = hear(config(stereo="wide"), 3.0).samples
    assert np.corrcoef(wide.T)[0, 1] < 0.95


def test_stems_add_up_to_the_mix_before_the_bus() -> None:
    numbers = config(echo="heavy", space="large").to_config()
    audio = render(numbers, 4.0, 3, RATE, stems=True)
    score = compose(numbers, 4.0, 3)
    mix = engine.mix_layers(score, RenderContext(score.piece, RATE), engine.GROUPS)
    total = np.sum([stem.samples for stem in audio.stems.values()], axis=0).T
    assert np.abs(total - mix).max() < 1e-4 * np.abs(mix).max()
    assert np.array_equal(audio.samples, render(numbers, 4.0, 3, RATE).samples)


def test_changing_one_layer_leaves_the_others_as_they_were() -> None:
    before = hear_stems(config(), 4.0).stems
    for layer, label in (("accent", "chime"), ("melody", "falling"), ("rhythm", "brush"), ("texture", "breath")):
        after = hear_stems(config(**{layer: label}), 4.0).stems
        for other in before.keys() - {layer}:
            assert np.array_equal(before[other].samples, after[other].samples), f"{layer} moved {other}"


@pytest.mark.parametrize("number", range(4))
def test_a_short_piece_is_the_beginning_of_a_long_one(number: int) -> None:
    prompt = random_prompt(number)
    mixes = []
    for seconds in (10.0, 30.0):
        score = compose(prompt.to_config(), seconds, 5)
        mixes.append(
            engine.mix_layers(score, RenderContext(score.piece, 16_000), engine.GROUPS)[:, : 9 * 16_000].astype(
                np.float64
            )
        )
    short, long = mixes
    assert np.sqrt(np.mean((short - long) ** 2)) < 1e-3 * np.sqrt(np.mean(short**2))


def test_the_end_is_silent_and_the_closing_tone_is_not() -> None:
    audio = hear(config(), 5.0)
    assert np.abs(audio.samples[-20:]).max() < 1e-3
    assert np.abs(audio.samples[-int(0.8 * RATE) : -int(0.6 * RATE)]).max() > 0.02


# --- clicks -------------------------------------------------------------------------------------------------------


def clicks(audio: Audio, note_frames: np.ndarray) -> list[int]:
    """Frames at which the sound jumps by more than its surroundings explain, away from where notes begin.

    The third difference of what an instrument does is small and changes slowly; a step in it stands out from the
    15 ms on either side by a factor that no decaying or rising sound reaches.
    """
    found = []
    guard = int(0.025 * RATE)
    for channel in audio.samples.T.astype(np.float64):
        rough = np.abs(np.diff(channel, 3))
        width = int(0.015 * RATE)
        padded = np.pad(rough, width, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1)
        usual = np.array([np.partition(w, int(0.95 * len(w)))[int(0.95 * len(w))] for w in windows[:: width // 4]])
        usual = np.repeat(usual, width // 4)[: len(rough)]
        rough = rough[: len(usual)]
        for frame in np.flatnonzero(rough > 12 * usual + 2e-3):
            if np.abs(note_frames - frame).min() > guard:
                found.append(int(frame))
    return found


CLICKLESS = {**PLAIN, "rhythm": "none", "texture": "none", "echo": "none"}


def starts(words: dict, seconds: float) -> np.ndarray:
    score = compose(config(words).to_config(), seconds, 0)
    return np.array([note.start * 60 / score.piece.bpm * RATE for note in score.notes])


@pytest.mark.long
@pytest.mark.parametrize("pad", FIELDS["pad"].labels)
def test_nothing_clicks(pad: str) -> None:
    number = FIELDS["pad"].labels.index(pad)
    words = {
        **CLICKLESS, "pad": pad, "bass": FIELDS["bass"].labels[number], "melody": FIELDS["melody"].labels[number],
        "accent": FIELDS["accent"].labels[number + 3], "motion": "chaotic", "tempo": "slow", "brightness": "very_bright",
    }  # fmt: skip
    assert clicks(hear(config(words), 6.0), starts(words, 6.0)) == []


def test_the_detector_finds_a_planted_click() -> None:
    audio = hear(config(CLICKLESS), 4.0)
    begins = starts(CLICKLESS, 4.0)
    assert clicks(audio, begins) == []
    quiet = next(f for f in range(RATE, 3 * RATE) if np.abs(begins - f).min() > 0.06 * RATE)
    broken = audio.samples.copy()
    broken[quiet:] += 0.03
    found = clicks(Audio(broken, RATE), begins)
    assert found
    assert all(abs(frame - quiet) < 5 for frame in found)


# --- aliasing -----------------------------------------------------------------------------------------------------


def test_a_saw_has_no_aliases() -> None:
    """1237 Hz at 48 kHz: the energy from 20 Hz to 16 kHz that is not at a harmonic, against the whole."""
    rate, hz, frames = 48_000, 1237.0, 1 << 16
    table = table_for("saw", hz, 1e6, rate)
    phase = (np.arange(frames) * hz / rate % 1.0) * (len(table) - 1)
    below = phase.astype(int)
    saw = table[below] + (phase - below) * (table[below + 1] - table[below])
    power = np.abs(np.fft.rfft(saw * blackmanharris(frames))) ** 2
    at = np.fft.rfftfreq(frames, 1 / rate)
    harmonic = np.abs(at / hz - np.round(at / hz)) * hz < 6 * rate / frames
    stray = power[~harmonic & (at > 20) & (at < 16_000)].sum() / power.sum()
    assert 10 * np.log10(stray) < -60


@pytest.mark.parametrize("hz", [1237.0, 3301.0, 9001.0])
def test_gritty_drive_has_no_aliases(hz: float) -> None:
    """The strongest component from 20 Hz to 16 kHz that is at no harmonic of a driven sine, against the strongest of all."""
    rate, frames = 48_000, 1 << 16
    sine = (0.2 * np.sin(2 * np.pi * hz * np.arange(frames + 4096) / rate)).astype(np.float32)
    sides = np.stack([sine, sine])
    space.bus(sides, MusicConfig(grain="gritty", brightness=0.5), rate)
    power = np.abs(np.fft.rfft(sides[0, 4096:] * blackmanharris(frames))) ** 2
    at = np.fft.rfftfreq(frames, 1 / rate)
    stray = (np.abs(at / hz - np.round(at / hz)) * hz > 6 * rate / frames) & (at > 20) & (at < 16_000)
    assert 10 * np.log10(power[stray].max() / power.max()) < -70


# --- pads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", FIELDS["pad"].labels)
def test_a_held_note_of_a_pad_never_repeats_itself(pad: str) -> None:
    """At medium motion, 6 s of a note against what follows 0.3 to 10 s later: an exact repeat would be 1."""
    rate, seconds = 16_000, 24
    piece = Piece(MusicConfig(pad=pad, motion=0.5), float(seconds), 0)
    out = np.zeros((2, seconds * rate), np.float32)
    note = Note(0.0, seconds * piece.bpm / 60, 57.0, 0.8, 0.0, "main", 0.0)
    STYLES["pad"][pad].sounds["main"].add(out, [note], 1.0, RenderContext(piece, rate))
    sound = out.mean(axis=0).astype(np.float64)[3 * rate : 21 * rate]
    first, size = sound[: 6 * rate], 2 * len(sound)
    product = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(first, size)), size)
    energy = np.concatenate([[0.0], np.cumsum(sound**2)])
    lags = np.arange(round(0.3 * rate), 10 * rate)
    alike = product[lags] / np.sqrt((first**2).sum() * (energy[lags + len(first)] - energy[lags]))
    assert alike.max() < 0.95
