"""Every word can be heard: all pairs of labels, and style labels against chance."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from listening import EXPOSED, IMPROVISED, PLAIN, config, distance, hear, hear_stems, log_mel, mel_bank, spectrogram

from latentscore import FIELDS, Audio
from latentscore.labels import STYLE_FIELDS, Label

pytestmark = pytest.mark.long

BASES = (PLAIN, IMPROVISED, EXPOSED)
TIMES_THE_FLOOR = 10


def inaudible(audio: Audio) -> Audio:
    """The same with noise at -108 dBFS, a quarter of the last bit of 16."""
    noise = np.random.default_rng(0).standard_normal(audio.samples.shape).astype(np.float32)
    return Audio(audio.samples + noise * 10 ** (-108 / 20), audio.sample_rate)


@cache
def picture(base: int, field: str, label: Label) -> np.ndarray:
    return log_mel(hear(config(BASES[base], **{field: label})))


@pytest.mark.parametrize("field", FIELDS)
def test_every_two_labels_of_a_field_can_be_told_apart(field: str) -> None:
    alike = []
    for a, b in combinations(FIELDS[field].labels, 2):
        for base in range(len(BASES)):
            apart = distance(picture(base, field, a), picture(base, field, b))
            print(f"{field}: {a} / {b}: {apart:.2f} dB, {apart / floor(base):.0f} times the floor, base {base}")
            if apart >= TIMES_THE_FLOOR * floor(base):
                break
        else:
            alike.append((a, b))
    assert not alike


@pytest.mark.parametrize("engine", FIELDS["melody_engine"].labels)
@pytest.mark.parametrize("field", [field for field in FIELDS if field != "melody_engine"])
def test_every_field_is_heard_with_either_engine(field: str, engine: Label) -> None:
    labels = FIELDS[field].labels
    for base in range(len(BASES)):
        words = {**BASES[base], "melody_engine": engine}
        first, last = (log_mel(hear(config(words, **{field: label}))) for label in (labels[0], labels[-1]))
        if distance(first, last) >= TIMES_THE_FLOOR * floor(base):
            return
    pytest.fail(f"{field}: {labels[0]} and {labels[-1]} sound alike with the {engine} engine")


@cache
def floor(base: int) -> float:
    """How far apart a sound and the same sound with an inaudible change are."""
    sound = hear(config(BASES[base]))
    return distance(log_mel(sound), log_mel(inaudible(sound)))


def color(field: str, label: str, seed: int) -> np.ndarray:
    """What a layer alone sounds like over time: mean and spread of its level in each mel band."""
    audio = hear_stems(config(**{field: label}), seed=seed).stems[field]
    level = 10 * np.log10(16 * spectrogram(audio.mono) @ mel_bank(1024, audio.sample_rate).T + 1e-5)
    return np.concatenate([level.mean(axis=0), level.std(axis=0)])


@pytest.mark.parametrize("field", STYLE_FIELDS)
def test_styles_differ_by_more_than_two_seeds_of_one_style(field: str) -> None:
    labels = [str(label) for label in FIELDS[field].labels]
    seeds = {label: distance(color(field, label, 0), color(field, label, 1)) for label in labels}
    for a, b in combinations(labels, 2):
        apart = distance(color(field, a, 0), color(field, b, 0))
        assert apart > (seeds[a] + seeds[b]) / 2, f"{a} / {b}: {apart:.2f} dB, seeds {seeds[a]:.2f} and {seeds[b]:.2f}"
