"""Ordered words move what they name, in order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from listening import (
    PLAIN,
    RATE,
    centroid,
    config,
    each,
    hear,
    hear_stems,
    layer_count,
    modulation_hz,
    onsets,
    quiet_level,
    random_words,
    read,
    rise_seconds,
    rises,
    side_to_mid,
)  # fmt: skip

from latentscore import FIELDS, MusicConfig, MusicConfigPrompt, Score
from latentscore.synth import space

CASES = [pytest.param(n, id=f"random-{n}") for n in range(4)]


def in_order(measure: Callable[[MusicConfigPrompt], float], field: str, base: dict[str, Any], sign: int = 1) -> None:
    """Assert that ``measure`` rises (or falls) from each label to the next."""
    values = each(measure, field, FIELDS[field].labels, base)
    assert rises([sign * value for value in values]), f"{field}: {[round(value, 4) for value in values]}"


# --- in the sound -------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("number", CASES)
def test_brightness_raises_the_spectral_centroid(number: int) -> None:
    in_order(lambda c: centroid(hear(c, 5.0)), "brightness", random_words(number))


@pytest.mark.long
@pytest.mark.parametrize("number", CASES)
def test_stereo_raises_side_against_middle(number: int) -> None:
    in_order(lambda c: side_to_mid(hear(c, 5.0)), "stereo", random_words(number))


@pytest.mark.long
@pytest.mark.parametrize("number", CASES)
def test_tempo_raises_the_onset_rate(number: int) -> None:
    base = {
        **random_words(number),
        "rhythm": "hats_only",
        "syncopation": "straight",
        "echo": "none",
        "space": "dry",
        "human": "robotic",
    }
    in_order(lambda c: len(onsets(hear_stems(c).stems["rhythm"])), "tempo", base)


@pytest.mark.long
@pytest.mark.parametrize("number", CASES)
def test_density_raises_the_number_of_layers_that_carry_the_sound(number: int) -> None:
    in_order(lambda c: layer_count(hear_stems(c)), "density", random_words(number))


@pytest.mark.long
@pytest.mark.parametrize("number", CASES)
def test_echo_fills_the_gaps_between_notes(number: int) -> None:
    base = {**random_words(number), "melody": "minimal", "melody_density": "sparse", "space": "dry", "motion": "static"}
    in_order(lambda c: quiet_level(hear_stems(c).stems["melody"]), "echo", base)


@pytest.mark.long
@pytest.mark.parametrize("number", CASES)
def test_space_fills_the_gaps_between_notes(number: int) -> None:
    base = {**random_words(number), "rhythm": "minimal", "echo": "none", "tempo": "slow"}
    in_order(lambda c: quiet_level(hear_stems(c).stems["rhythm"]), "space", base)


@pytest.mark.long
@pytest.mark.parametrize("number", CASES)
def test_motion_raises_the_rate_of_modulation(number: int) -> None:
    base = {
        **random_words(number),
        "chord_change_bars": "very_slow",
        "chromatic_prob": "none",
        "tension_curve": "arc",
        "attack": "soft",
        "space": "small",
        "echo": "none",
    }
    in_order(lambda c: modulation_hz(hear_stems(c).stems["pad"]), "motion", base)


@pytest.mark.long
@pytest.mark.parametrize("melody", FIELDS["melody"].labels)
def test_attack_shortens_the_rise_of_a_note(melody: str) -> None:
    in_order(
        rise_seconds,
        "attack",
        {
            **PLAIN,
            "melody": melody,
            "melody_density": "very_sparse",
            "space": "dry",
            "echo": "none",
            "motion": "static",
        },
        -1,
    )


@pytest.mark.long
def test_human_spreads_onsets_off_the_grid() -> None:
    def spread(c: MusicConfigPrompt) -> float:
        beats = onsets(hear_stems(c).stems["rhythm"]) * read(c).piece.bpm / 60
        return float(np.std(beats * 4 - np.round(beats * 4)))

    base = {**PLAIN, "swing": "none", "syncopation": "straight", "space": "dry", "echo": "none", "tempo": "slow"}
    in_order(spread, "human", base)


@pytest.mark.long
def test_swing_delays_the_offbeats() -> None:
    def delay(c: MusicConfigPrompt) -> float:
        beats = (onsets(hear_stems(c).stems["rhythm"]) * read(c).piece.bpm / 60) % 1.0
        return float(np.mean(beats[(beats > 0.4) & (beats < 0.72)]))

    in_order(
        delay,
        "swing",
        {**PLAIN, "syncopation": "straight", "space": "dry", "echo": "none", "tempo": "slow", "density": 3},
    )


def impulse(space_label: str, echo_label: str) -> np.ndarray:
    """What one click on the left leaves in 8 s: power per frame after the click."""
    numbers = config(space=space_label, echo=echo_label).to_config()
    click = np.zeros((1, 2, 8 * RATE), np.float32)
    click[0, 0, 0] = 1.0
    wet = space.mix(click, [0.5], [0.6], numbers, 0.5, RATE).astype(np.float64)
    return (wet[:, 1:] ** 2).sum(axis=0)


def rt60(power: np.ndarray) -> float:
    """Schroeder's backward integral between -5 and -35 dB, doubled."""
    level = 10 * np.log10(np.cumsum(power[::-1])[::-1] / power.sum() + 1e-20)
    return 2.0 * float(np.argmax(level < -35) - np.argmax(level < -5)) / RATE


def test_space_sets_the_reverberation_time() -> None:
    times = [rt60(impulse(str(label), "none")) for label in FIELDS["space"].labels]
    assert rises(times)
    assert times[0] == pytest.approx(0.2, abs=0.06)
    assert times[-1] >= 4.0


def test_echo_sets_the_energy_after_a_note() -> None:
    energies = [float(impulse("dry", str(label))[RATE // 4 :].sum()) for label in FIELDS["echo"].labels]
    assert rises(energies)


def test_infinite_echo_rings_for_twenty_seconds() -> None:
    numbers = MusicConfig(echo=0.95, space=0.1)
    click = np.zeros((1, 2, 24 * RATE), np.float32)
    click[0, :, :32] = 1.0
    power = (space.mix(click, [0.0], [1.0], numbers, 0.5, RATE).astype(np.float64) ** 2).sum(axis=0)
    first, late = power[RATE // 4 : RATE].max(), power[20 * RATE :].max()
    assert 10 * np.log10(late / first) > -60


# --- in the score -------------------------------------------------------------------------------------------------

MELODIES = ("procedural", "contemplative", "falling", "arp_melody")
ENGINES = ("pattern", "procedural")


def pooled(measure: Callable[[Score], float], **changes: Any) -> Callable[[MusicConfigPrompt], float]:
    """The mean of a measure over several melodies, both engines and seeds."""

    def measured(c: MusicConfigPrompt) -> float:
        words = c.model_dump()
        return float(np.mean([
            measure(read(config(words, melody=melody, melody_engine=engine, **changes), 60.0, seed))
            for melody in MELODIES for engine in ENGINES for seed in (0, 1)
        ]))  # fmt: skip

    return measured


def offbeat_share(score: Score) -> float:
    notes = score.layers["melody"]
    return sum(abs(note.at - round(note.at)) > 0.05 for note in notes) / len(notes)


def mean_interval(score: Score) -> float:
    pitches = [note.pitch for note in score.layers["melody"]]
    return float(np.mean(np.abs(np.diff(pitches))))


def outside_share(score: Score) -> float:
    piece = score.piece
    notes = score.layers["melody"]
    return sum((round(note.pitch) - piece.key) % 12 not in piece.scale for note in notes) / len(notes)


def stable_ends(score: Score) -> float:
    """Share of phrases whose last note belongs to the home chord."""
    piece = score.piece
    beats = 4 * piece.config.phrase_len_bars
    last: dict[int, float] = {}
    for note in score.layers["melody"]:
        last[int(note.at // beats)] = note.pitch
    home = {piece.scale[degree] for degree in (0, 2, 4)}
    return sum((round(pitch) - piece.key) % 12 in home for pitch in last.values()) / len(last)


def self_similarity(score: Score) -> float:
    """Share of bars whose rhythm and contour some earlier bar had, among bars with at least two notes."""
    bars: dict[int, list[tuple[float, float]]] = {}
    for note in score.layers["melody"]:
        bars.setdefault(int(note.at // 4), []).append((round(note.at % 4, 2), note.pitch))
    shapes = [
        tuple((at, int(np.sign(pitch - before))) for (_, before), (at, pitch) in pairwise(bar))
        for bar in bars.values() if len(bar) > 1
    ]  # fmt: skip
    return sum(shape in shapes[:n] for n, shape in enumerate(shapes)) / len(shapes)


@pytest.mark.parametrize(
    ("field", "measure"),
    [
        ("melody_density", lambda score: len(score.layers["melody"])),
        ("syncopation", offbeat_share),
        ("chromatic_prob", outside_share),
        ("cadence_strength", stable_ends),
        ("motif_repeat_prob", self_similarity),
    ],
)
def test_the_score_follows(field: str, measure: Callable[[Score], float]) -> None:
    in_order(pooled(measure), field, PLAIN)


def test_step_bias_makes_intervals_smaller() -> None:
    in_order(pooled(mean_interval, chromatic_prob="none"), "step_bias", PLAIN, sign=-1)


def test_no_note_leaves_the_scale_unless_asked() -> None:
    assert pooled(outside_share)(config(chromatic_prob="none")) == 0.0


@pytest.mark.parametrize("number", CASES)
def test_chord_change_bars_sets_how_often_chords_change(number: int) -> None:
    in_order(lambda c: len(read(c).piece.chords), "chord_change_bars", random_words(number))


@pytest.mark.parametrize("number", CASES)
def test_registers_bound_the_melody(number: int) -> None:
    words = {**random_words(number), "melody": "procedural", "chromatic_prob": "none", "human": "robotic"}
    score = read(config(words))
    low, high = words["register_min_oct"], words["register_max_oct"]
    pitches = [note.pitch - score.piece.key for note in score.layers["melody"]]
    assert min(pitches) >= 12 * (low + 1)
    assert max(pitches) < 12 * (high + 2)


@pytest.mark.parametrize("label", FIELDS["register_min_oct"].labels)
def test_a_melody_in_one_octave_stays_there(label: int) -> None:
    pitches = [
        n.pitch
        for n in read(config(register_min_oct=label, register_max_oct=label, chromatic_prob="none")).layers["melody"]
    ]
    assert 12 * (label + 1) <= min(pitches) <= max(pitches) < 12 * (label + 2)
