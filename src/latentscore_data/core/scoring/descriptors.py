"""Descriptors of a sound that need no model: speed, timbre, width, room, density, mode.

The measures are chosen so that everyday words for sound have a measure. Most are logarithms (octaves, decibels),
as loudness and pitch perception are. They are estimates from a mix, not the textbook quantities of a single instrument.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentscore import Audio

Floats = NDArray[np.float32]


VERSION = "3"
"""Part of the fingerprints; raised whenever the same audio gives other numbers."""

NAMES = (
    "activity",  # log of the mean rise of the bands' amplitudes from frame to frame, against the loud parts
    "attack",  # dB, how far the spectrum jumps in the strongest onsets
    "mod_rate",  # octaves re 1 Hz, mean rate between 0.3 and 20 Hz at which the bands' amplitudes move
    "pulse",  # 0..1, how regularly the onsets repeat, between 0.25 and 1.5 s
    "decay",  # log2 of the dB per second at which bands fall, when they fall
    "drop",  # dB that a band has lost 0.2 s after a peak: dry and plucked is high, reverberant and held is low
    "gaps",  # share of time more than 20 dB below the loud parts
    "loudness_range",  # dB, 95th over 10th percentile of the level
    "centroid",  # octaves above 1 Hz of the power-weighted mean frequency
    "bandwidth",  # octaves, spread of the power around the centroid
    "flatness",  # dB, geometric over arithmetic mean of the power between 200 Hz and 12 kHz: tones low, noise high
    "low_share",  # dB, energy below 150 Hz against the whole
    "high_share",  # dB, energy above 3 kHz against the whole
    "fullness",  # bits, entropy of the long-term spectrum in third-octave bands
    "filled",  # share of time and bands within 30 dB of the loud parts
    "width",  # dB, side against mid
    "majorness",  # -1..1, how much stronger the major than the minor third is over the likeliest tonic
    "movement",  # dB, how much the spectrum changes from one half second to the next
)

_FRAME, _HOP = 2048, 960
_FLOOR = 1e-10

# Krumhansl and Kessler's tone profiles (1982): how well each pitch class fits a major and a minor key.
_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])


def describe(audio: Audio) -> Floats:
    """The descriptors of a sound, in the order of :data:`NAMES`; finite for any finite audio. Shape (18,)."""
    rate = audio.sample_rate
    mono = audio.mono
    power, frequencies = _spectrogram(mono, rate)
    frames_per_second = rate / _HOP
    spectrum = power.mean(axis=0)
    total = float(spectrum.sum()) + _FLOOR
    level = 10 * np.log10(power.sum(axis=1) + _FLOOR)
    loud = float(np.percentile(level, 95))
    loud_power = 10 ** (loud / 10)
    centroid, bandwidth = _centroid(spectrum, frequencies)
    middle = (frequencies > 200) & (frequencies < 12_000)
    bands = _third_octaves(power, frequencies) / loud_power
    band_db = 10 * np.log10(bands + 1e-5)
    amplitudes = np.sqrt(bands)
    rises = np.maximum(np.diff(amplitudes, axis=0), 0.0).sum(axis=1)
    jumps = np.maximum(np.diff(band_db, axis=0), 0.0).mean(axis=1)
    values = (
        np.log(rises.mean() + 1e-4) if len(rises) else -9.0,
        10 * np.log10(_top(jumps, 0.02) + 0.01),
        _mod_rate(amplitudes, frames_per_second),
        _pulse(rises, frames_per_second),
        _decay(band_db, frames_per_second),
        _drop_db(band_db, frames_per_second),
        float((level < loud - 20).mean()),
        min(loud - float(np.percentile(level, 10)), 60.0),
        centroid,
        bandwidth,
        float(_flatness_db(power[:, middle][level > loud - 30]).mean()),
        10 * np.log10(float(spectrum[frequencies < 150].sum()) / total + 1e-6),
        10 * np.log10(float(spectrum[frequencies > 3000].sum()) / total + 1e-6),
        _entropy_bits(bands.mean(axis=0)),
        float((band_db > -30).mean()),
        _width_db(audio.samples),
        _majorness(mono, rate),
        _movement_db(band_db, frames_per_second),
    )
    return np.nan_to_num(np.array(values, dtype=np.float32), posinf=60.0, neginf=-60.0)


def _spectrogram(mono: Floats, rate: int) -> tuple[Floats, Floats]:
    """Power of shape (frames, bins) and the bins' frequencies in hertz."""
    from scipy.fft import rfft

    if len(mono) < _FRAME:
        mono = np.pad(mono, (0, _FRAME - len(mono)))
    frames = np.lib.stride_tricks.sliding_window_view(mono, _FRAME)[::_HOP]
    window = np.hanning(_FRAME).astype(np.float32)
    power = np.abs(np.asarray(rfft(frames * window, axis=1, workers=1))) ** 2 / float((window**2).sum())
    return power.astype(np.float32), np.fft.rfftfreq(_FRAME, 1 / rate).astype(np.float32)


def _third_octaves(power: Floats, frequencies: Floats) -> Floats:
    """Power in third-octave bands from 40 Hz to 16 kHz, shape (frames, bands)."""
    edges = np.searchsorted(frequencies, 40 * 2 ** (np.arange(27) / 3))
    edges = np.unique(np.minimum(edges, len(frequencies) - 1))
    return np.add.reduceat(power, edges, axis=1)[:, :-1]


def _centroid(spectrum: Floats, frequencies: Floats) -> tuple[float, float]:
    """(mean, spread) of the power over octaves."""
    audible = frequencies > 30
    octaves = np.log2(frequencies[audible])
    weights = spectrum[audible] / (spectrum[audible].sum() + _FLOOR)
    centroid = float((weights * octaves).sum())
    return centroid, float(np.sqrt((weights * (octaves - centroid) ** 2).sum()))


def _top(values: Floats, share: float) -> float:
    """The mean of the largest values, a share of all."""
    return float(np.sort(values)[-max(1, int(len(values) * share)) :].mean()) if len(values) else 0.0


def _mod_rate(amplitudes: Floats, frames_per_second: float) -> float:
    if len(amplitudes) < 16:
        return 0.0
    moving = (amplitudes - amplitudes.mean(axis=0)) * np.hanning(len(amplitudes))[:, None]
    energy = (np.abs(np.fft.rfft(moving, axis=0)) ** 2).sum(axis=1)
    rates = np.fft.rfftfreq(len(amplitudes), 1 / frames_per_second)
    range_ = (rates > 0.3) & (rates < 20)
    return float((energy[range_] * np.log2(rates[range_])).sum() / (energy[range_].sum() + 1e-12))


def _drop_db(band_db: Floats, frames_per_second: float) -> float:
    from scipy.ndimage import maximum_filter1d

    later = round(0.2 * frames_per_second)
    peaks = (band_db == maximum_filter1d(band_db, size=2 * later - 1, axis=0)) & (band_db > -25)
    frames, bands = np.nonzero(peaks[:-later])
    if not len(frames):
        return 0.0
    return float((band_db[frames, bands] - band_db[frames + later, bands]).mean())


def _flatness_db(power: Floats) -> Floats:
    power = power + _FLOOR
    return 10 * (np.log10(power).mean(axis=1) - np.log10(power.mean(axis=1)))


def _width_db(samples: Floats) -> float:
    mid = samples[:, 0] + samples[:, 1]
    side = samples[:, 0] - samples[:, 1]
    return 10 * float(np.log10((np.square(side).sum() + 1e-12) / (np.square(mid).sum() + 1e-9) + 1e-5))


def _decay(band_db: Floats, frames_per_second: float) -> float:
    """log2 of the rate (dB/s) at which bands fall, over 50 ms, taken at the fastest quarter of the falls."""
    step = max(1, round(0.05 * frames_per_second))
    falls = band_db[:-step] - band_db[step:]
    falling = falls[falls > 0.5]
    if falling.size < 10:
        return 3.0
    return float(np.log2(np.percentile(falling, 75) * frames_per_second / step))


def _entropy_bits(bands: Floats) -> float:
    share = bands / (bands.sum() + _FLOOR) + 1e-9
    return float(-(share * np.log2(share)).sum())


def _pulse(rises: Floats, frames_per_second: float) -> float:
    low, high = int(0.25 * frames_per_second), int(1.5 * frames_per_second)
    if len(rises) <= 2 * high:
        return 0.0
    centred = rises - rises.mean()
    energy = float(np.square(centred).sum())
    if energy <= 0:
        return 0.0
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    correlation = np.fft.irfft(spectrum * np.conj(spectrum))[low:high]
    return float(max(correlation.max() / energy, 0.0))


def _mean_spectrum(mono: Floats, rate: float) -> tuple[Floats, Floats]:
    """Return the frequencies of the bins in hertz, and their mean power per hertz, by Welch's method: Hann windows that
    overlap by a half, each without its mean.

    ``scipy.signal.welch`` gives the same values (0 Hz and half the rate excepted), but its import takes half a second of
    CPU in each process that scores.
    """
    size = min(8192, len(mono))
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[:: size - size // 2]
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    power = np.abs(np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window, axis=1)) ** 2
    density = 2.0 * power.mean(axis=0) / (rate * float((window**2).sum()))
    return np.fft.rfftfreq(size, 1 / rate).astype(np.float32), density.astype(np.float32)


def _majorness(mono: Floats, rate: int) -> float:
    """The likeliest tonic is that of the best key, major or minor; weak evidence, since modes share their notes."""
    from scipy.ndimage import median_filter

    step = 4
    slow = mono[: len(mono) // step * step].reshape(-1, step).mean(axis=1)
    if len(slow) < 2:
        return 0.0
    frequencies, power = _mean_spectrum(slow, rate / step)
    range_ = (frequencies > 60) & (frequencies < 1000)
    pitch = 12 * np.log2(frequencies[range_] / 440.0)
    nearest = np.round(pitch)
    tuned = np.sqrt(power[range_]) * np.exp(-(((pitch - nearest) / 0.2) ** 2))
    tones = np.maximum(tuned - median_filter(tuned, 25), 0.0)
    chroma = np.bincount(nearest.astype(int) % 12, weights=tones, minlength=12)
    if chroma.std() < 1e-12:
        return 0.0

    def fit(key: int) -> float:
        return max(float(np.corrcoef(np.roll(profile, key), chroma)[0, 1]) for profile in (_MAJOR, _MINOR))

    tonic = max(range(12), key=fit)
    return float((chroma[(tonic + 4) % 12] - chroma[(tonic + 3) % 12]) / chroma.sum())


def _movement_db(band_db: Floats, frames_per_second: float) -> float:
    block = max(1, round(0.5 * frames_per_second))
    count = len(band_db) // block
    if count < 2:
        return 0.0
    means = band_db[: count * block].reshape(count, block, -1).mean(axis=1)
    shape = means - means.mean(axis=1, keepdims=True)
    return float(np.abs(np.diff(shape, axis=0)).mean())
