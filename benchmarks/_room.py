"""Measure the room: level against the dry sound, echo density, strength of modes, decay by frequency.

The measures of ``benchmarks/music.py``'s group "room". They know the room only through ``space.mix``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore import MusicConfig, MusicConfigPrompt, compose
from latentscore.synth import engine, space
from latentscore.synth.context import RenderContext

Floats = NDArray[np.floating[Any]]

RATE = 48_000
SECONDS = 8.0


@lru_cache(maxsize=8)
def response(label_space: float) -> Floats:
    """What one click on both sides leaves in the room, without the click, shape (2, frames)."""
    config = MusicConfig(space=label_space, echo=0.0, stereo=0.75)
    click = np.zeros((1, 2, round(SECONDS * RATE)), np.float32)
    click[0, :, 0] = 1.0
    wet = space.mix(click, [0.5], [0.0], config, 0.5, RATE).astype(np.float64)
    wet[:, 0] = 0.0
    return wet


def echo_density(wet: Floats) -> Floats:
    """Normalized echo density (Abel and Huang, 2006) every 5 ms, windows of 20 ms: 1 for Gaussian noise."""
    half = RATE // 100
    window = np.hanning(2 * half)
    window /= window.sum()
    found = []
    for side in wet:
        pieces = np.lib.stride_tricks.sliding_window_view(side, 2 * half)[:: RATE // 200]
        spread = np.sqrt((window * pieces**2).sum(axis=1))
        found.append((window * (np.abs(pieces) > spread[:, None])).sum(axis=1) / math.erfc(1 / math.sqrt(2)))
    return np.mean(found, axis=0)


def density_at(wet: Floats, seconds: float) -> float:
    """Mean echo density in the 20 ms around a moment."""
    at = round((seconds - 0.01) * 200)
    return float(echo_density(wet)[at - 2 : at + 3].mean())


def dense_after(wet: Floats) -> float:
    """Seconds after which the echo density first reaches 0.9."""
    return float(np.argmax(echo_density(wet) > 0.9) / 200 + 0.01)


def mode_db(wet: Floats) -> float:
    """Power of the strongest mode of each side of the tail, 200 Hz to 4 kHz, over the mean around them, in dB.

    The tail of 3 s begins 0.5 s after the click, its decay is taken out. An ideal diffuse tail has 9 dB.
    """
    tail = wet[:, RATE // 2 : RATE // 2 + 3 * RATE]
    time = np.arange(tail.shape[1]) / RATE
    level = np.log(np.maximum((tail**2).reshape(2, 30, -1).mean(axis=2), 1e-30)).mean(axis=0)
    slope = np.polyfit(np.linspace(0.05, 2.95, 30), level, 1)[0]
    power = np.abs(np.fft.rfft(tail * np.exp(-slope / 2 * time) * np.hanning(len(time)))) ** 2
    bins = slice(200 * 3, 4000 * 3)
    around = np.array([np.convolve(row, np.ones(600) / 600, "same") for row in power])
    ratio = (power / around)[:, bins]
    return float(10 * np.log10(ratio.max(axis=1).mean()))


def decay_seconds(wet: Floats, hz: float) -> float:
    """Time to fall by 60 dB in the octave around ``hz``: Schroeder's integral from -5 to -25 dB, times three."""
    from scipy.signal import butter, sosfilt

    band = sosfilt(butter(4, (hz / math.sqrt(2), hz * math.sqrt(2)), "bandpass", fs=RATE, output="sos"), wet)
    energy = (band**2).sum(axis=0)[::-1].cumsum()[::-1]
    level = 10 * np.log10(energy / energy[0] + 1e-30)
    return 3.0 * float(np.argmax(level < -25) - np.argmax(level < -5)) / RATE


def wet_db(config: MusicConfigPrompt, label: str) -> float:
    """Energy of the reverb against that of the dry sound, over 16 s from 4 s on, without echo, in dB."""
    words = {**config.model_dump(), "space": label, "echo": "none"}
    rate = 24_000
    score = compose(MusicConfigPrompt(**words).to_config(), 20.0, 0)
    context = RenderContext(score.piece, rate)
    mixes = []
    for share in (1.0, 0.0):
        groups = [(layers, reverb * share, 0.0) for layers, reverb, _ in engine.GROUPS]
        mixes.append(engine.mix_layers(score, context, groups)[:, 4 * rate : 19 * rate].astype(np.float64))
    wet = mixes[0] - mixes[1]
    return float(10 * np.log10((wet**2).sum() / (mixes[1] ** 2).sum()))
