"""Loudness (ITU-R BS.1770-4, EBU R 128) and true peak."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentscore.jit import jit

HOP_SECONDS = 0.1
BLOCK_HOPS = 4

TINY = 1e-18
"""Added to the input of feedback loops, because arithmetic with denormal numbers is slow."""


@lru_cache(maxsize=16)
def _k_weighting(rate: int) -> NDArray[np.float64]:
    """Return both biquads (b0 b1 b2 a1 a2 each) of the K-weighting for any sample rate, from their analogue prototypes.

    The prototypes' frequencies and Q are from De Man, "Evaluation of implementations of the EBU R128 loudness
    measurement" (2018); at 48 kHz they give the coefficients of ITU-R BS.1770-4.
    """
    k = math.tan(math.pi * min(1681.974450955533 / rate, 0.49))
    q, high = 0.7071752369554196, 10.0 ** (3.999843853973347 / 20.0)
    band = high**0.4996667741545416
    a0 = 1.0 + k / q + k * k
    shelf = (
        (high + band * k / q + k * k) / a0, 2.0 * (k * k - high) / a0, (high - band * k / q + k * k) / a0,
        2.0 * (k * k - 1.0) / a0, (1.0 - k / q + k * k) / a0,
    )  # fmt: skip
    k = math.tan(math.pi * 38.13547087602444 / rate)
    q = 0.5003270373238773
    a0 = 1.0 + k / q + k * k
    return np.array((*shelf, 1.0, -2.0, 1.0, 2.0 * (k * k - 1.0) / a0, (1.0 - k / q + k * k) / a0))


@jit
def _hop_energies(samples, first, hops, q, hop, past, states):
    """Return the mean square after K-weighting of each of the next hops, from frame ``first`` on. ``past``, shape (2, 4),
    and the eight ``states`` are updated and passed to the next call."""
    # The feed-forward parts of shelf and high-pass (1, -2, 1) in one loop, which the compiler can vectorize.
    f0 = q[0]
    f1 = q[1] - 2.0 * q[0]
    f2 = q[2] - 2.0 * q[1] + q[0]
    f3 = q[1] - 2.0 * q[2]
    f4 = q[2]
    a1, a2, d1, d2 = q[3], q[4], q[8], q[9]
    energies = np.zeros(hops)
    lines = np.zeros((2, hop + 4))
    # Assigned one by one: compiling the assignment of an array, with its error message, takes two seconds.
    for c in range(2):
        for j in range(4):
            lines[c, j] = past[c, j]
    fed = np.empty((2, hop))
    # The feedback of both channels: y after the shelf, z after the high-pass, one and two frames ago.
    ly1, ly2, lz1, lz2 = states[0], states[1], states[2], states[3]
    ry1, ry2, rz1, rz2 = states[4], states[5], states[6], states[7]
    for h in range(hops):
        for c in range(2):
            source = samples[c, first + h * hop : first + (h + 1) * hop]
            line = lines[c]
            out = fed[c]
            for j in range(hop):
                line[j + 4] = source[j] + TINY
            for j in range(hop):
                out[j] = f0 * line[j + 4] + f1 * line[j + 3] + f2 * line[j + 2] + f3 * line[j + 1] + f4 * line[j]
            for j in range(4):
                line[j] = line[hop + j]
        left = fed[0]
        right = fed[1]
        total = 0.0
        for j in range(hop):
            ly = (left[j] - a2 * ly2) - a1 * ly1
            ry = (right[j] - a2 * ry2) - a1 * ry1
            lz = (ly - d2 * lz2) - d1 * lz1
            rz = (ry - d2 * rz2) - d1 * rz1
            ly2, ly1, lz2, lz1 = ly1, ly, lz1, lz
            ry2, ry1, rz2, rz1 = ry1, ry, rz1, rz
            total += lz * lz + rz * rz
        energies[h] = total / hop
    for c in range(2):
        for j in range(4):
            past[c, j] = lines[c, j]
    states[0], states[1], states[2], states[3] = ly1, ly2, lz1, lz2
    states[4], states[5], states[6], states[7] = ry1, ry2, rz1, rz2
    return energies


class Meter:
    """Measures the loudness of audio that arrives in blocks of any length."""

    def __init__(self, rate: int) -> None:
        self._hop = round(HOP_SECONDS * rate)
        self._weighting = _k_weighting(rate)
        self._states = np.zeros((2, 4)), np.zeros(8)
        self._rest = np.zeros((2, 0), np.float32)
        self._hops = 0

    def energies(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the mean squares of the 0.1 s hops that are completed by the next ``samples``, shape (2, frames)."""
        samples = np.concatenate([self._rest, samples], axis=1) if self._rest.size else samples
        self._rest = samples[:, samples.shape[1] // self._hop * self._hop :].copy()
        return self._next(np.ascontiguousarray(samples), 0, samples.shape[1] // self._hop)

    def energies_until(self, samples: NDArray[np.float32], end: int) -> NDArray[np.float64]:
        """:meth:`energies` for audio that is completed up to frame ``end`` in one buffer, ``samples``: nothing is copied."""
        return self._next(samples, self._hops * self._hop, end // self._hop - self._hops)

    def _next(self, samples: NDArray[np.float32], first: int, hops: int) -> NDArray[np.float64]:
        self._hops += hops
        return _hop_energies(samples, first, hops, self._weighting, self._hop, *self._states)


def integrated_lufs(samples: NDArray[np.float32], rate: int) -> float:
    """Return the integrated loudness in LUFS (ITU-R BS.1770-4) of stereo ``samples``, shape (frames, 2), at ``rate`` hertz:
    blocks of 400 ms every 100 ms, gated at -70 LUFS and 10 LU below the mean. Minus infinity for silence and for less than
    400 ms."""
    return lufs_of_rows(np.ascontiguousarray(samples.T), rate)


def lufs_of_rows(samples: NDArray[np.float32], rate: int) -> float:
    """:func:`integrated_lufs` for samples of shape (2, frames)."""
    return lufs_of_energies(Meter(rate).energies(samples))


def lufs_of_energies(energies: NDArray[np.float64]) -> float:
    """Return the integrated loudness in LUFS from the K-weighted mean squares of 0.1 s hops."""
    if len(energies) < BLOCK_HOPS:
        return -math.inf
    blocks = np.convolve(energies, np.ones(BLOCK_HOPS) / BLOCK_HOPS, "valid")
    loud = blocks[blocks > 10.0 ** ((-70.0 + 0.691) / 10.0)]
    if not len(loud):
        return -math.inf
    loud = loud[loud > 0.1 * loud.mean()]
    return -0.691 + 10.0 * math.log10(float(loud.mean()))


@lru_cache(maxsize=1)
def oversampling() -> NDArray[np.float64]:
    """Return windowed-sinc taps for the three points between two samples, shape (3, 12)."""
    rows = []
    for phase in (0.25, 0.5, 0.75):
        t = np.arange(-5, 7) - phase
        taps = np.sinc(t) * np.cos(np.pi * t / 14.0) ** 2
        rows.append(taps / taps.sum())
    return np.array(rows)


@jit
def _true_peak(samples, taps):
    frames = samples.shape[0]
    top = 0.0
    for i in range(frames):
        top = max(top, abs(samples[i, 0]), abs(samples[i, 1]))
    # Between two samples that are both 4 dB below the peak there is no higher point, so such frames are skipped. Only a
    # signal that is made of the taps' signs breaks this rule; in 300 series of white noise no skipped point was higher.
    near = 0.63 * top
    for i in range(5, frames - 6):
        for c in range(2):
            if abs(samples[i, c]) > near or abs(samples[i + 1, c]) > near:
                for p in range(3):
                    s = 0.0
                    for t in range(12):
                        s += taps[p, t] * samples[i - 5 + t, c]
                    top = max(top, abs(s))
    return top


def true_peak(samples: NDArray[np.float32]) -> float:
    """Return the true peak of ``samples`` as an amplitude (1.0 is full scale), by four times oversampling (ITU-R BS.1770-4)."""
    return float(_true_peak(np.ascontiguousarray(samples), oversampling()))
