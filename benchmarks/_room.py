"""Measure the sound for ``benchmarks/music.py``: the room, the spectrum of the mix, aliases of the drive, repeats of the pad.

They know the synthesizer only by what every version of it has: ``space.mix``, ``space.bus``, ``engine.mix_layers``, the sounds.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore import MusicConfig, MusicConfigPrompt, compose, render
from latentscore.synth import engine, space
from latentscore.synth.context import RenderContext
from latentscore.synth.notes import Note, Piece
from latentscore.synth.styles import STYLES

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
    mixes = []
    for share in (1.0, 0.0):
        # Anew, so that sounds of several takes begin with the first in both.
        context = RenderContext(score.piece, rate)
        groups = [(layers, reverb * share, 0.0) for layers, reverb, _ in engine.GROUPS]
        mixes.append(engine.mix_layers(score, context, groups)[:, 4 * rate : 19 * rate].astype(np.float64))
    wet = mixes[0] - mixes[1]
    return float(10 * np.log10((wet**2).sum() / (mixes[1] ** 2).sum()))


def alone(config: MusicConfigPrompt, layer: str, rate: int, seconds: float) -> Floats:
    """One layer in its room before the bus, shape (2, frames)."""
    score = compose(config.to_config(), seconds, 0)
    sends = next(group[1:] for group in engine.GROUPS if layer in group[0])
    return engine.mix_layers(score, RenderContext(score.piece, rate), [((layer,), *sends)]).astype(np.float64)


# --- spectrum -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _spectrum(config: MusicConfigPrompt) -> tuple[Floats, Floats]:
    """Hertz and mean power of 11 s of a config at 44.1 kHz."""
    from scipy.signal import welch

    return welch(render(config, 12.0, 0, 44_100).samples.mean(axis=1)[44_100:], 44_100, nperseg=8192)


def slope(config: MusicConfigPrompt, brightness: str) -> float:
    """Straight line through the power per hertz in third octaves from 100 Hz to 8 kHz, in dB an octave."""
    hz, power = _spectrum(MusicConfigPrompt(**{**config.model_dump(), "brightness": brightness}))
    octaves = np.arange(20) / 3
    level = [
        10 * np.log10(power[(hz >= 100 * 2 ** (n - 1 / 6)) & (hz < 100 * 2 ** (n + 1 / 6))].mean() + 1e-16)
        for n in octaves
    ]
    return float(np.polyfit(octaves, level, 1)[0])


def under_60(config: MusicConfigPrompt) -> float:
    """Share of the energy under 60 Hz, with depth."""
    hz, power = _spectrum(MusicConfigPrompt(**{**config.model_dump(), "depth": True}))
    return float(power[(hz > 5) & (hz < 60)].sum() / power.sum())


def alias_db(grain: str, hz: float, amplitude: float = 0.2) -> float:
    """The strongest component of a driven sine that is at no harmonic, 20 Hz to 16 kHz at 48 kHz, in dB of the strongest."""
    from scipy.signal.windows import blackmanharris

    frames = 1 << 16
    sine = (amplitude * np.sin(math.tau * hz * np.arange(frames + 4096) / RATE)).astype(np.float32)
    sides = np.stack([sine, sine])
    space.bus(sides, MusicConfig(grain=grain, brightness=0.5), RATE)
    # The side lobes of this window lie at -92 dB, under everything that is measured here.
    power = np.abs(np.fft.rfft(sides[0, 4096:] * blackmanharris(frames))) ** 2
    at = np.fft.rfftfreq(frames, 1 / RATE)
    stray = (np.abs(at / hz - np.round(at / hz)) * hz > 6 * RATE / frames) & (at > 20) & (at < 16_000)
    return float(10 * np.log10(power[stray].max() / power.max()))


# --- pads ---------------------------------------------------------------------------------------------------------


def pad_repeat(label: str, pitch: float) -> float:
    """How alike a held note of a pad is to itself 0.3 to 10 s later, at medium motion: 1 for an exact repeat."""
    rate, seconds = 24_000, 32
    piece = Piece(MusicConfig(pad=label, motion=0.5), float(seconds), 0)
    out = np.zeros((2, seconds * rate), np.float32)
    note = Note(0.0, seconds * piece.bpm / 60, pitch, 0.8, 0.0, "main", 0.0)
    STYLES["pad"][label].sounds["main"].add(out, [note], 1.0, RenderContext(piece, rate))
    sound = out.mean(axis=0).astype(np.float64)[3 * rate : 29 * rate]
    first = sound[: 6 * rate]
    size = 2 * len(sound)
    product = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(first, size)), size)
    energy = np.concatenate([[0.0], np.cumsum(sound**2)])
    lags = np.arange(round(0.3 * rate), 10 * rate)
    return float((product[lags] / np.sqrt((first**2).sum() * (energy[lags + len(first)] - energy[lags]))).max())
