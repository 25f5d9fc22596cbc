"""The room: dense from the beginning, duller as it rings on, and the same in pieces as in one."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from listening import config
from scipy.signal import butter, sosfilt

from latentscore import FIELDS
from latentscore.synth import space

RATE = 48_000


def response(label: str, seconds: float = 6.0) -> np.ndarray:
    """What one click on both sides leaves behind, shape (2, frames)."""
    click = np.zeros((1, 2, round(seconds * RATE)), np.float32)
    click[0, :, 0] = 1.0
    wet = space.mix(click, [0.5], [0.0], config(space=label, echo="none", stereo="wide").to_config(), 0.5, RATE)
    wet[:, 0] = 0.0
    return wet.astype(np.float64)


@pytest.mark.parametrize("label", FIELDS["space"].labels)
def test_a_click_is_a_dense_tail_after_a_tenth_of_a_second(label: str) -> None:
    """Normalized echo density (Abel and Huang, 2006): the share of samples outside one deviation, 1 for Gaussian noise."""
    found = []
    for side in response(label, 0.2)[:, round(0.09 * RATE) : round(0.11 * RATE)]:
        found.append(np.mean(np.abs(side) > side.std()) / math.erfc(1 / math.sqrt(2)))
    assert np.mean(found) > 0.85


@pytest.mark.parametrize("label", FIELDS["space"].labels)
def test_high_frequencies_die_away_in_half_of_the_time(label: str) -> None:
    def seconds(hz: float) -> float:
        octave = (hz / math.sqrt(2), hz * math.sqrt(2))
        energy = (sosfilt(butter(4, octave, "bandpass", fs=RATE, output="sos"), wet) ** 2).sum(axis=0)
        level = 10 * np.log10(energy[::-1].cumsum()[::-1] / energy.sum() + 1e-30)
        return 3.0 * float(np.argmax(level < -25) - np.argmax(level < -5)) / RATE

    wet = response(label)
    ratio = seconds(8000.0) / seconds(500.0)
    # In the smallest rooms the short delays before the reverb ring as long as the room itself.
    assert ratio < (0.8 if label == "dry" else 0.6 if label == "small" else 0.5)


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_in_pieces_the_room_is_the_same_to_the_byte(rate: int) -> None:
    sound = np.random.default_rng(0).standard_normal((2, 2, 3 * rate)).astype(np.float32)
    numbers = config(space="large", echo="heavy").to_config()
    whole = space.mix(sound, [0.5, 0.2], [0.3, 0.6], numbers, 0.4, rate)
    room = space.Room(numbers, 0.4, rate)
    at = [0, *(space.BLOCK * np.cumsum([1, 7, 2, 20, 5])).tolist(), 3 * rate]
    parts = [room.process(sound[:, :, a:b], [0.5, 0.2], [0.3, 0.6]) for a, b in pairwise(at)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("label", FIELDS["space"].labels)
def test_the_sides_of_the_tail_are_not_alike(label: str) -> None:
    assert abs(np.corrcoef(response(label, 2.0))[0, 1]) < 0.2
