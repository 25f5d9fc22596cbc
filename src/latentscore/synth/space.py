"""The room and the bus: echo, reverb, width, tone, drive and the limiter."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from latentscore.config import MusicConfig
from latentscore.jit import jit
from latentscore.synth.signal import Stereo

# Delay lines of the reverb in seconds at full size: no two share a divisor at usual rates.
_LINES = np.array([0.0297, 0.0371, 0.0411, 0.0437, 0.0513, 0.0577, 0.0631, 0.0683])

BLOCK = 32
"""Frames that the room works on at once."""

_SPACES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0)


def reverb_seconds(space: float) -> float:
    """RT60 for a ``space`` in [0, 1]: 0.2 s dry, 0.6 s small, 1.4 s medium, 2.7 s large, 5 s vast."""
    return float(np.exp(np.interp(space, _SPACES, np.log((0.15, 0.2, 0.6, 1.4, 2.7, 5.0, 5.6)))))


def reverb_level(space: float) -> float:
    """Gain of the reverb's return."""
    return float(np.interp(space, _SPACES, (0.1, 0.2, 0.5, 0.72, 0.9, 1.1, 1.15)))


def echo_feedback(echo: float) -> float:
    """Share of each repeat that is repeated: infinite (0.95) needs more than 20 s to fall by 60 dB at any tempo."""
    return float(np.interp(echo, (0.0, 0.25, 0.5, 0.75, 0.95, 1.0), (0.0, 0.25, 0.52, 0.74, 0.95, 0.96)))


def echo_level(echo: float) -> float:
    """Gain of the first repeat."""
    return float(np.interp(echo, (0.0, 0.25, 0.5, 0.75, 0.95, 1.0), (0.0, 0.28, 0.52, 0.66, 0.8, 0.8)))


def width(stereo: float) -> float:
    """Gain of the side signal: nothing in mono, as placed at wide, half as much again at ultra wide."""
    return float(np.interp(stereo, (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.3, 0.62, 1.0, 1.5)))


def mix(
    groups: NDArray[np.float32], reverb_sends: list[float], echo_sends: list[float], config: MusicConfig,
    seconds_per_beat: float, sample_rate: int,
) -> Stereo:  # fmt: skip
    """Dry sound, echo and reverb of several groups of layers, shape (groups, frames, 2) to (frames, 2).

    Everything here is linear: the mixes of parts add up to the mix of the whole.
    """
    rt60 = reverb_seconds(config.space)
    size = float(np.interp(rt60, (0.15, 0.6, 2.7, 5.0), (0.3, 0.6, 1.0, 1.25)))
    lengths = (_LINES * size * sample_rate).astype(np.int64) | 1
    # The mixing matrix is orthogonal once divided by the square root of eight.
    gains = 10.0 ** (-3.0 * lengths / (rt60 * sample_rate)) / math.sqrt(8.0)
    out = np.empty((groups.shape[1], 2), np.float32)
    _room(
        groups, out, np.array(reverb_sends, np.float32), np.array(echo_sends, np.float32),
        reverb_level(config.space), lengths, int(lengths.max()), gains.astype(np.float32), 0.12 * sample_rate / 48_000.0,
        max(round(0.75 * seconds_per_beat * sample_rate), BLOCK), echo_feedback(config.echo), echo_level(config.echo),
        0.15 * min(sample_rate / 48_000.0, 2.0),
        1.0 - math.exp(-math.tau * 70.0 / sample_rate), width(config.stereo),
    )  # fmt: skip
    return out


@jit
def _room(
    groups, out, reverb_sends, echo_sends, reverb_gain, lengths, longest, gains, damping,
    echo_frames, echo_feedback, echo_gain, echo_damping, echo_high, side_gain,
):  # fmt: skip
    """In blocks of 32 frames, which is less than any delay: what comes out of a line was written in an earlier block."""
    frames = out.shape[0]
    # Rings are whole blocks long, so writing never wraps inside a block; reading may, so the first block is repeated.
    ring = (longest // BLOCK + 2) * BLOCK
    lines = np.zeros((8, ring + BLOCK), np.float32)
    before = np.zeros(8, np.float32)
    tap = np.zeros((8, BLOCK), np.float32)
    echo_ring = (echo_frames // BLOCK + 2) * BLOCK
    echo_line = np.zeros((2, echo_ring + BLOCK), np.float32)
    repeat = np.zeros((2, BLOCK), np.float32)
    dry = np.zeros((2, BLOCK), np.float32)
    to_room = np.zeros((2, BLOCK), np.float32)
    to_echo = np.zeros((2, BLOCK), np.float32)
    last = np.zeros(2, np.float32)
    rumble_l = rumble_r = np.float32(0)
    keep = np.float32(1.0 - damping)
    lose = np.float32(damping)
    back = np.float32(echo_feedback)
    wet = np.float32(0.5 * reverb_gain)
    half = np.float32(0.5)
    side = np.float32(0.5 * side_gain)
    first = np.float32(echo_gain)
    echo_lose = np.float32(echo_damping)
    echo_keep = np.float32(1.0 - echo_damping)
    high = np.float32(echo_high)
    write = 0
    echo_write = 0
    for begin in range(0, frames, BLOCK):
        size = min(BLOCK, frames - begin)
        dry[:] = 0.0
        to_room[:] = 1e-18
        to_echo[:] = 1e-18
        for g in range(groups.shape[0]):
            reverb = reverb_sends[g]
            echo = echo_sends[g]
            source = groups[g, begin : begin + size]
            for j in range(size):
                x = source[j, 0]
                y = source[j, 1]
                dry[0, j] += x
                dry[1, j] += y
                to_room[0, j] += reverb * x
                to_room[1, j] += reverb * y
                to_echo[0, j] += echo * x
                to_echo[1, j] += echo * y

        # Echo: what comes back on the left goes out again on the right, without rumble and a little duller.
        read = (echo_write - echo_frames) % echo_ring
        past = echo_line[:, read : read + BLOCK]
        for c in range(2):
            # A little duller with each turn; what would build up below 70 Hz is kept out on the way in.
            repeat[c, 0] = echo_keep * past[c, 0] + echo_lose * last[c]
            for j in range(1, BLOCK):
                repeat[c, j] = echo_keep * past[c, j] + echo_lose * past[c, j - 1]
            last[c] = past[c, BLOCK - 1]
        for j in range(BLOCK):
            rumble_l += high * (to_echo[0, j] - rumble_l)
            rumble_r += high * (to_echo[1, j] - rumble_r)
            to_echo[0, j] -= rumble_l
            to_echo[1, j] -= rumble_r
        now = echo_line[:, echo_write : echo_write + BLOCK]
        for j in range(BLOCK):
            # The first repeat is mostly on the left, wherever the note was.
            now[0, j] = to_echo[0, j] + half * to_echo[1, j] + back * repeat[1, j]
            now[1, j] = half * to_echo[1, j] + back * repeat[0, j]
            repeat[0, j] *= first
            repeat[1, j] *= first
            to_room[0, j] += half * repeat[0, j]
            to_room[1, j] += half * repeat[1, j]
        if echo_write == 0:
            for j in range(BLOCK):
                echo_line[0, echo_ring + j] = echo_line[0, j]
                echo_line[1, echo_ring + j] = echo_line[1, j]
        echo_write = (echo_write + BLOCK) % echo_ring

        # Reverb: eight delay lines, each a little duller at every turn, mixed by a Hadamard matrix.
        for k in range(8):
            read = (write - lengths[k]) % ring
            gain = gains[k]
            old = lines[k, read : read + BLOCK]
            fresh = tap[k]
            fresh[0] = gain * (keep * old[0] + lose * before[k])
            for j in range(1, BLOCK):
                fresh[j] = gain * (keep * old[j] + lose * old[j - 1])
            before[k] = old[BLOCK - 1]
        space = lines[:, write : write + BLOCK]
        for j in range(BLOCK):
            in_l = to_room[0, j]
            in_r = to_room[1, j]
            a0 = tap[0, j] + tap[1, j]
            a1 = tap[0, j] - tap[1, j]
            a2 = tap[2, j] + tap[3, j]
            a3 = tap[2, j] - tap[3, j]
            a4 = tap[4, j] + tap[5, j]
            a5 = tap[4, j] - tap[5, j]
            a6 = tap[6, j] + tap[7, j]
            a7 = tap[6, j] - tap[7, j]
            b0 = a0 + a2
            b1 = a1 + a3
            b2 = a0 - a2
            b3 = a1 - a3
            b4 = a4 + a6
            b5 = a5 + a7
            b6 = a4 - a6
            b7 = a5 - a7
            space[0, j] = b0 + b4 + in_l
            space[1, j] = b1 + b5 + in_r
            space[2, j] = b2 + b6 - in_l
            space[3, j] = b3 + b7 - in_r
            space[4, j] = b0 - b4 + in_l
            space[5, j] = b1 - b5 + in_r
            space[6, j] = b2 - b6 + in_l
            space[7, j] = b3 - b7 + in_r
        if write == 0:
            for k in range(8):
                for j in range(BLOCK):
                    lines[k, ring + j] = lines[k, j]
        write = (write + BLOCK) % ring

        target = out[begin : begin + size]
        for j in range(size):
            left = dry[0, j] + repeat[0, j] + wet * (tap[0, j] - tap[2, j] + tap[4, j] - tap[6, j])
            right = dry[1, j] + repeat[1, j] + wet * (tap[1, j] - tap[3, j] + tap[5, j] - tap[7, j])
            middle = half * (left + right)
            apart = side * (left - right)
            target[j, 0] = middle + apart
            target[j, 1] = middle - apart


# --- the bus ------------------------------------------------------------------------------------------------------


def bus(samples: Stereo, config: MusicConfig, sample_rate: int) -> None:
    """Tone by brightness and drive by grain, in place. Not linear, so stems end before it."""
    # The shelf turns low down, so that even a piece that is mostly bass gets duller and brighter.
    shelf = _high_shelf(700.0, 20.0 * (config.brightness - 0.5), sample_rate)
    cutoff = 1100.0 * 2.0 ** (5.2 * config.brightness)
    low = _low_pass(min(cutoff, 0.45 * sample_rate), sample_rate)
    drive, bias, share = {"clean": (0.0, 0.0, 0.0), "warm": (3.0, 0.25, 0.8), "gritty": (14.0, 0.1, 0.75)}[config.grain]
    _bus(samples, np.array(shelf + low), 1.0 - math.exp(-math.tau * 14.0 / sample_rate), drive, bias, share)


def _high_shelf(hz: float, gain_db: float, rate: int) -> tuple[float, ...]:
    """Biquad coefficients b0 b1 b2 a1 a2 (R. Bristow-Johnson's cookbook, slope 0.7)."""
    hz = min(hz, 0.4 * rate)
    a = 10.0 ** (gain_db / 40.0)
    w = math.tau * hz / rate
    alpha = math.sin(w) / 2 * math.sqrt((a + 1 / a) * (1 / 0.7 - 1) + 2)
    c, s = math.cos(w), 2 * math.sqrt(a) * alpha
    a0 = (a + 1) - (a - 1) * c + s
    return (
        a * ((a + 1) + (a - 1) * c + s) / a0, -2 * a * ((a - 1) + (a + 1) * c) / a0,
        a * ((a + 1) + (a - 1) * c - s) / a0, 2 * ((a - 1) - (a + 1) * c) / a0, ((a + 1) - (a - 1) * c - s) / a0,
    )  # fmt: skip


def _low_pass(hz: float, rate: int) -> tuple[float, ...]:
    w = math.tau * hz / rate
    alpha = math.sin(w) / (2 * 0.65)
    c = math.cos(w)
    a0 = 1 + alpha
    return ((1 - c) / 2 / a0, (1 - c) / a0, (1 - c) / 2 / a0, -2 * c / a0, (1 - alpha) / a0)


@jit
def _bus(samples, q, dc, drive, bias, share):
    # Both sides in one loop, each number in a variable of its own: the processor works on one side while the other waits
    # for its last result.
    b0, b1, b2, a1, a2 = q[0], q[1], q[2], q[3], q[4]
    c0, c1, c2, d1, d2 = q[5], q[6], q[7], q[8], q[9]
    # A cubic that bends and stays flat beyond its knee; the bias makes even harmonics, and what it adds at rest is taken
    # off again.
    rest = bias - bias**3 / 3.0
    makeup = 1.0 / (drive * (1.0 - bias * bias)) if drive > 0 else 0.0
    l0 = l1 = l2 = l3 = l4 = l5 = 0.0
    r0 = r1 = r2 = r3 = r4 = r5 = 0.0
    for i in range(samples.shape[0]):
        x = samples[i, 0] + 1e-18
        u = samples[i, 1] + 1e-18
        l0 += dc * (x - l0)
        r0 += dc * (u - r0)
        x -= l0
        u -= r0
        y = b0 * x + l1
        v = b0 * u + r1
        l1 = b1 * x - a1 * y + l2
        r1 = b1 * u - a1 * v + r2
        l2 = b2 * x - a2 * y
        r2 = b2 * u - a2 * v
        z = c0 * y + l3
        w = c0 * v + r3
        l3 = c1 * y - d1 * z + l4
        r3 = c1 * v - d1 * w + r4
        l4 = c2 * y - d2 * z
        r4 = c2 * v - d2 * w
        if drive > 0:
            k = min(max(drive * z + bias, -1.0), 1.0)
            m = min(max(drive * w + bias, -1.0), 1.0)
            z += share * ((k - k * k * k / 3.0 - rest) * makeup - z)
            w += share * ((m - m * m * m / 3.0 - rest) * makeup - w)
            l5 += dc * (z - l5)
            r5 += dc * (w - r5)
            z -= l5
            w -= r5
        samples[i, 0] = z
        samples[i, 1] = w


@jit
def limit(samples, out, gain, ceiling, oversampling):
    """Write ``samples * gain`` to ``out``, held under ``ceiling`` by a gain that moves in straight lines.

    Peaks between samples count: where a sample comes within 4 dB of the ceiling, three more points up to the next are
    computed with ``oversampling``, shape (3, 12). Returns the smallest gain applied.
    """
    frames = samples.shape[0]
    blocks = (frames + 31) // 32
    need = np.ones(blocks + 1)
    near = 0.63 * ceiling / gain
    for b in range(blocks):
        top = 0.0
        for i in range(32 * b, min(32 * b + 32, frames)):
            a = max(abs(samples[i, 0]), abs(samples[i, 1]))
            top = max(top, a)
            if a > near and i >= 6 and i + 6 < frames:
                for c in range(2):
                    for p in range(3):
                        s = 0.0
                        for t in range(12):
                            s += oversampling[p, t] * samples[i - 5 + t, c]
                        top = max(top, abs(s))
        if top * gain > ceiling:
            need[b] = ceiling / (top * gain)
    # Look ahead and hold for eight blocks (5 ms at 48 kHz), then let go slowly, then smooth over the same eight.
    held = np.ones(blocks + 1)
    for b in range(blocks + 1):
        m = 1.0
        for k in range(max(b - 9, 0), min(b + 10, blocks + 1)):
            m = min(m, need[k])
        held[b] = m
    for b in range(1, blocks + 1):
        held[b] = min(held[b], held[b - 1] + 0.012 * (1.0 - held[b - 1]) + 1e-5)
    smooth = np.ones(blocks + 1)
    least = 1.0
    for b in range(blocks + 1):
        s = 0.0
        for k in range(-8, 9):
            s += held[min(max(b + k, 0), blocks)]
        smooth[b] = s / 17.0
        least = min(least, smooth[b])
    for b in range(blocks):
        g = smooth[b] * gain
        slope = (smooth[b + 1] - smooth[b]) * gain / 32.0
        for i in range(32 * b, min(32 * b + 32, frames)):
            out[i, 0] = samples[i, 0] * g
            out[i, 1] = samples[i, 1] * g
            g += slope
    return least
