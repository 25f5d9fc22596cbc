"""Ears for the tests: what can be measured in a sound or read from a score, and a cache of renders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore import FIELDS, Audio, MusicConfigPrompt, Score, compose, random_config, render

RATE = 22_050
SECONDS = 8.0

Floats = NDArray[np.floating[Any]]

DEFAULTS = {name: spec.nearest_label(spec.default) for name, spec in FIELDS.items()}
"""For a field that is newer than what names its words."""

PLAIN = {
    **DEFAULTS,
    "tempo": "medium", "root": "c", "mode": "minor", "brightness": "medium", "space": "small", "density": 6,
    "bass": "sustained", "pad": "warm_slow", "melody": "procedural", "rhythm": "hats_only", "texture": "crystal",
    "accent": "bells", "motion": "medium", "attack": "medium", "stereo": "medium", "depth": False, "echo": "subtle",
    "human": "robotic", "grain": "clean", "melody_engine": "pattern", "phrase_len_bars": 2, "melody_density": "busy",
    "syncopation": "light", "swing": "light", "motif_repeat_prob": "sometimes", "step_bias": "balanced",
    "chromatic_prob": "light", "cadence_strength": "medium", "register_min_oct": 4, "register_max_oct": 5,
    "tension_curve": "arc", "harmony_style": "auto", "chord_change_bars": "medium", "chord_extensions": "triads",
}  # fmt: skip
"""A config in which nothing hides anything else."""

IMPROVISED = {
    **PLAIN, "melody_engine": "procedural", "melody": "arp_melody", "tempo": "fast", "accent": "none",
    "texture": "none", "rhythm": "kit_medium", "mode": "major", "pad": "bright_open", "echo": "medium",
    "bass": "walking", "density": 5,
}  # fmt: skip
"""Another, with the other melody engine."""


EXPOSED = {
    **PLAIN, "density": 3, "rhythm": "none", "texture": "none", "accent": "none", "pad": "dark_sustained",
    "space": "dry", "echo": "none", "melody_density": "very_busy", "step_bias": "leapy", "root": "f",
    "bass": "drone", "brightness": "bright",
}  # fmt: skip
"""Little but a melody."""


def config(base: dict[str, Any] = PLAIN, **changes: Any) -> MusicConfigPrompt:
    """``base`` with some words changed; where the registers would cross, the other one follows."""
    words = {**base, **changes}
    if words["register_min_oct"] > words["register_max_oct"]:
        follower, leader = "register_max_oct", "register_min_oct"
        if "register_max_oct" in changes:
            follower, leader = leader, follower
        words[follower] = words[leader]
    return MusicConfigPrompt(**words)


def random_words(number: int) -> dict[str, Any]:
    """The words of the ``number``-th random config of the tests."""
    return random_config(np.random.default_rng([7, number])).model_dump()


@lru_cache(maxsize=600)
def hear(config: MusicConfigPrompt, seconds: float = SECONDS, seed: int = 0) -> Audio:
    return render(config, seconds, seed, RATE)


@lru_cache(maxsize=120)
def hear_stems(config: MusicConfigPrompt, seconds: float = SECONDS, seed: int = 0) -> Audio:
    return render(config, seconds, seed, RATE, stems=True)


@lru_cache(maxsize=300)
def read(config: MusicConfigPrompt, seconds: float = 60.0, seed: int = 0) -> Score:
    return compose(config.to_config(), seconds, seed)


def rises(values: Sequence[float], by: float = 0.0) -> bool:
    """Whether each value is more than the one before by more than ``by``."""
    return all(b > a + by for a, b in pairwise(values))


# --- spectra ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def mel_bank(size: int, rate: int, bands: int = 64) -> Floats:
    """Triangles of equal width on the mel scale, shape (bands, bins)."""
    hz = np.fft.rfftfreq(size, 1 / rate)
    top = 2595 * np.log10(1 + 0.48 * rate / 700)
    edges = 700 * (10 ** (np.linspace(2595 * np.log10(1 + 40 / 700), top, bands + 2) / 2595) - 1)
    rise = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rise, fall), 0, None)


def spectrogram(mono: Floats, size: int = 1024, hop: int = 512) -> Floats:
    """Power, shape (frames, bins)."""
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop]
    return np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2


def log_mel(audio: Audio) -> Floats:
    """Decibels in 64 mel bands of the middle and of the side signal, shape (frames, 128)."""
    left, right = audio.samples.T
    bank = mel_bank(1024, audio.sample_rate).T
    return np.concatenate(
        [10 * np.log10(spectrogram(x) @ bank + 1e-6) for x in ((left + right) / 2, left - right)], axis=1
    )


def distance(a: Floats, b: Floats) -> float:
    """Mean absolute difference in decibels."""
    return float(np.mean(np.abs(a - b)))


def centroid(audio: Audio) -> float:
    """Mean frequency of the power spectrum, in hertz."""
    power = spectrogram(audio.mono).sum(axis=0)
    return float((power * np.fft.rfftfreq(1024, 1 / audio.sample_rate)).sum() / power.sum())


# --- time ---------------------------------------------------------------------------------------------------------


def envelope(mono: Floats, rate: int, seconds: float = 0.005, floor: float = 1e-14) -> Floats:
    """RMS in steps of ``seconds``; ``floor`` is the power that is added to all of them."""
    step = int(seconds * rate)
    count = len(mono) // step
    return np.sqrt(np.mean(mono[: count * step].reshape(count, step) ** 2, axis=1) + floor)


def onsets(audio: Audio) -> Floats:
    """Seconds at which the level of the high-passed sound jumps by more than 9 dB within 15 ms."""
    sharp = np.diff(audio.mono, prepend=0.0)
    level = 20 * np.log10(envelope(sharp, audio.sample_rate) + 1e-5)
    jump = level[3:] - level[:-3]
    peaks = [
        i for i in range(1, len(jump) - 1)
        if jump[i] > 9.0 and jump[i] >= jump[max(i - 12, 0) : i + 13].max()
    ]  # fmt: skip
    return np.array(peaks, dtype=float) * 0.005


def quiet_level(audio: Audio) -> float:
    """Decibels of the quietest tenth of the sound against its mean: what fills the gaps between notes."""
    # Far under what is heard: two tails that have both died away to nothing of that must differ, too.
    level = envelope(audio.mono.astype(np.float64), audio.sample_rate, 0.03, 1e-30)
    level = level[int(np.argmax(level > 0.1 * level.max())) : -int(1 / 0.03)]
    return float(20 * np.log10(np.quantile(level, 0.1) / np.sqrt(np.mean(level**2))))


def side_to_mid(audio: Audio) -> float:
    left, right = audio.samples.astype(np.float64).T
    return float(np.sqrt(np.mean((left - right) ** 2) / np.mean((left + right) ** 2)))


def modulation_hz(audio: Audio) -> float:
    """Centre of the spectrum of the left side's level, from 0.1 to 12 Hz, weighted by how deep the movement is."""
    step = 0.02
    level = envelope(audio.samples[:, 0], audio.sample_rate, step)
    level = level[int(1 / step) : -int(1 / step)]
    level = level / level.mean() - 1.0
    power = np.abs(np.fft.rfft(level * np.hanning(len(level)))) ** 2
    hz = np.fft.rfftfreq(len(level), step)
    kept = (hz >= 0.1) & (hz <= 12)
    return float(np.sqrt((power[kept] * hz[kept]).sum()) / len(level))


def rise_seconds(config: MusicConfigPrompt) -> float:
    """How long a melody note takes from 10 to 90 per cent of its highest level: the one that stands most alone."""
    score = read(config, SECONDS)
    beat = 60 / score.piece.bpm
    starts = sorted({note.start for note in score.layers["melody"]})
    gaps = np.diff([-8.0, *starts, SECONDS / beat])
    alone = max(range(len(starts)), key=lambda n: (gaps[n + 1] * beat > 0.35, gaps[n]))
    start = int(starts[alone] * beat * RATE)
    mono = hear_stems(config).stems["melody"].mono[start : start + int(min(gaps[alone + 1] * beat, 0.5) * RATE)]
    level = envelope(mono, RATE, 0.001)
    level = np.convolve(level, np.ones(12) / 12, "same")
    top = level.max()
    end = int(np.argmax(level >= 0.9 * top))
    start = int(np.argmax(level[: end + 1] >= 0.1 * top))
    return (end - start) * 0.001


def layer_count(audio: Audio) -> float:
    """How many layers carry the sound: the exponential of the entropy of their energies."""
    energy = np.array([float(np.mean(stem.samples.astype(np.float64) ** 2)) for stem in audio.stems.values()])
    share = energy / energy.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def each(measure: Callable[[Any], float], field: str, labels: Sequence[Any], base: dict[str, Any]) -> list[float]:
    """``measure`` of the config for each label of a field."""
    return [measure(config(base, **{field: label})) for label in labels]
