"""What can be measured in a sound without a model: speed, colour, width, room, roughness, fullness, mode.

The measures are chosen so that the ear's everyday words have something to hold on to. Most are logarithms (octaves, decibels),
because hearing is. They are estimates from a mix, not the textbook quantities of a single instrument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from latentscore import Audio

    Floats = NDArray[np.float32]

VERSION = "1"
"""Goes into the fingerprints: the same audio must give the same numbers while this stays."""

NAMES = (
    "onset_rate",  # log2 of onsets per second (plus a half)
    "centroid",  # octaves above 1 Hz of the power-weighted mean frequency
    "bandwidth",  # octaves, spread of the power around the centroid
    "flatness",  # dB, geometric over arithmetic mean of the power between 200 Hz and 12 kHz: tones low, noise high
    "low_share",  # dB, energy below 150 Hz against the whole
    "high_share",  # dB, energy above 3 kHz against the whole
    "loudness_range",  # dB, 95th over 10th percentile of the level in 50 ms frames
    "width",  # dB, side against mid
    "decay",  # log2 of dB per second at which the bands fall when they fall: dry is high
    "attack",  # dB, how far the spectrum jumps in the strongest onsets
    "roughness",  # dB, beating between 30 and 150 Hz in the envelopes above 500 Hz against their mean
    "fullness",  # bits, entropy of the long-term spectrum in third-octave bands
    "gaps",  # share of time more than 20 dB below the loud parts
    "pulse",  # 0..1, how regularly the onsets repeat, between 0.25 and 1.5 s
    "majorness",  # correlation of the pitch classes with the best major key minus that with the best minor key
    "movement",  # dB, how much the spectrum changes from one half second to the next
)

_FRAME, _HOP = 2048, 512
_FLOOR = 1e-10

# Krumhansl and Kessler's tone profiles (1982): how well each pitch class fits a major and a minor key.
_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])


def describe(audio: Audio) -> Floats:
    """The descriptors of a sound, in the order of :data:`NAMES`; finite for any finite audio. Shape (16,)."""
    rate = audio.sample_rate
    mono = audio.mono
    power, frequencies = _spectrogram(mono, rate)
    spectrum = power.mean(axis=0)
    total = float(spectrum.sum()) + _FLOOR
    level = 10 * np.log10(power.sum(axis=1) + _FLOOR)
    loud = float(np.percentile(level, 95))
    heard = frequencies > 30
    octaves = np.log2(np.maximum(frequencies, 1.0))
    weights = np.where(heard, spectrum, 0.0) / (spectrum[heard].sum() + _FLOOR)
    centroid = float((weights * octaves).sum())
    bandwidth = float(np.sqrt((weights * (octaves - centroid) ** 2).sum()))
    middle = (frequencies > 200) & (frequencies < 12_000)
    bands = _third_octaves(power, frequencies)
    band_db = 10 * np.log10(bands + total * 1e-7 + _FLOOR)
    rises = np.maximum(np.diff(band_db, axis=0), 0.0)
    flux = rises.mean(axis=1)
    frames_per_second = rate / _HOP
    onsets = _peaks(flux, frames_per_second)
    values = (
        np.log2(len(onsets) / max(audio.seconds, 0.1) + 0.5),
        centroid,
        bandwidth,
        float(np.mean(_flatness_db(power[:, middle][level > loud - 30]))) if (level > loud - 30).any() else -60.0,
        10 * np.log10(float(spectrum[frequencies < 150].sum()) / total + 1e-6),
        10 * np.log10(float(spectrum[frequencies > 3000].sum()) / total + 1e-6),
        min(loud - float(np.percentile(level, 10)), 60.0),
        _width_db(audio.samples),
        _decay(band_db, frames_per_second),
        10 * np.log10(float(np.sort(flux)[-max(1, len(flux) // 50) :].mean()) + 0.01) if len(flux) else -20.0,
        _roughness_db(mono, rate),
        _entropy_bits(bands.mean(axis=0)),
        float((level < loud - 20).mean()),
        _pulse(flux, frames_per_second),
        _majorness(spectrum, frequencies),
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


def _peaks(flux: Floats, frames_per_second: float) -> NDArray[np.intp]:
    """Frames at which something begins: local maxima of the flux well above what surrounds them."""
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    if len(flux) < 3:
        return np.zeros(0, dtype=np.intp)
    around = uniform_filter1d(flux, size=int(frames_per_second), mode="nearest")
    highest = maximum_filter1d(flux, size=max(3, int(0.06 * frames_per_second)) | 1, mode="nearest")
    return np.flatnonzero((flux == highest) & (flux > 1.5 * around) & (flux > 0.5))


def _flatness_db(power: Floats) -> Floats:
    power = power + _FLOOR
    return 10 * (np.log10(power).mean(axis=1) - np.log10(power.mean(axis=1)))


def _width_db(samples: Floats) -> float:
    mid = samples[:, 0] + samples[:, 1]
    side = samples[:, 0] - samples[:, 1]
    return 10 * float(np.log10((side @ side + 1e-12) / (mid @ mid + 1e-9) + 1e-5))


def _decay(band_db: Floats, frames_per_second: float) -> float:
    """log2 of the rate (dB/s) at which bands fall, over 50 ms, taken at the fastest quarter of the falls."""
    step = max(1, round(0.05 * frames_per_second))
    falls = band_db[:-step] - band_db[step:]
    falling = falls[falls > 0.5]
    if falling.size < 10:
        return 3.0
    return float(np.log2(np.percentile(falling, 75) * frames_per_second / step))


def _roughness_db(mono: Floats, rate: int) -> float:
    """Energy of the envelope's beating between 30 and 150 Hz against its mean, for what lies above 500 Hz."""
    from scipy.signal import butter, sosfilt

    high = np.asarray(sosfilt(butter(2, 500, "highpass", fs=rate, output="sos"), mono))
    step = 48
    blocks = np.abs(high[: len(high) // step * step]).reshape(-1, step).mean(axis=1)
    if len(blocks) < 64:
        return -40.0
    beating = np.asarray(sosfilt(butter(2, (30, 150), "bandpass", fs=rate / step, output="sos"), blocks))
    return 10 * float(np.log10((beating**2).mean() / ((blocks**2).mean() + 1e-12) + 1e-5))


def _entropy_bits(bands: Floats) -> float:
    share = bands / (bands.sum() + _FLOOR) + 1e-9
    return float(-(share * np.log2(share)).sum())


def _pulse(flux: Floats, frames_per_second: float) -> float:
    low, high = int(0.25 * frames_per_second), int(1.5 * frames_per_second)
    if len(flux) <= 2 * high:
        return 0.0
    centred = flux - flux.mean()
    energy = float(centred @ centred)
    if energy <= 0:
        return 0.0
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    correlation = np.fft.irfft(spectrum * np.conj(spectrum))[low:high]
    return float(max(correlation.max() / energy, 0.0))


def _majorness(spectrum: Floats, frequencies: Floats) -> float:
    """Positive when the pitch classes look like a major key, negative when like a minor one."""
    range_ = (frequencies > 110) & (frequencies < 2500)
    pitch = np.round(12 * np.log2(frequencies[range_] / 440.0)).astype(int) % 12
    chroma = np.bincount(pitch, weights=np.sqrt(spectrum[range_]), minlength=12)
    if chroma.std() == 0:
        return 0.0

    def best(profile: NDArray[np.float64]) -> float:
        return max(float(np.corrcoef(np.roll(profile, key), chroma)[0, 1]) for key in range(12))

    return best(_MAJOR) - best(_MINOR)


def _movement_db(band_db: Floats, frames_per_second: float) -> float:
    block = max(1, round(0.5 * frames_per_second))
    count = len(band_db) // block
    if count < 2:
        return 0.0
    means = band_db[: count * block].reshape(count, block, -1).mean(axis=1)
    shape = means - means.mean(axis=1, keepdims=True)
    return float(np.abs(np.diff(shape, axis=0)).mean())
