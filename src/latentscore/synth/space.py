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

_SPACES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0)


def reverb_seconds(space: float) -> float:
    """RT60 for a ``space`` in [0, 1]: 0.2 s dry, 0.6 s small, 1.4 s medium, 2.7 s large, 5 s vast."""
    return float(np.exp(np.interp(space, _SPACES, np.log((0.15, 0.2, 0.6, 1.4, 2.7, 5.0, 5.6)))))


def reverb_level(space: float) -> float:
    """Gain of the reverb's return."""
    return float(np.interp(space, _SPACES, (0.05, 0.12, 0.32, 0.5, 0.68, 0.95, 1.0)))


def echo_feedback(echo: float) -> float:
    """Share of each repeat that is repeated: infinite (0.95) needs more than 20 s to fall by 60 dB at any tempo."""
    return float(np.interp(echo, (0.0, 0.25, 0.5, 0.75, 0.95, 1.0), (0.0, 0.28, 0.5, 0.72, 0.93, 0.95)))


def echo_level(echo: float) -> float:
    """Gain of the first repeat."""
    return float(np.interp(echo, (0.0, 0.25, 0.5, 0.75, 0.95, 1.0), (0.0, 0.32, 0.48, 0.62, 0.7, 0.7)))


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
    lengths = np.maximum((_LINES * size * sample_rate).astype(np.int64) | 1, 3)
    decays = 10.0 ** (-3.0 * lengths / (rt60 * sample_rate))
    damping = 1.0 - math.exp(-math.tau * min(5500.0 + 3500.0 * config.brightness, 0.45 * sample_rate) / sample_rate)
    out = np.empty((groups.shape[1], 2), np.float32)
    _room(
        groups, out, np.array(reverb_sends), np.array(echo_sends),
        reverb_level(config.space), lengths, decays, damping,
        max(round(0.75 * seconds_per_beat * sample_rate), 2), echo_feedback(config.echo), echo_level(config.echo),
        1.0 - math.exp(-math.tau * min(3800.0, 0.45 * sample_rate) / sample_rate),
        1.0 - math.exp(-math.tau * 140.0 / sample_rate), width(config.stereo),
    )  # fmt: skip
    return out


@jit
def _room(
    groups, out, reverb_sends, echo_sends, reverb_gain, lengths, decays, damping,
    echo_frames, echo_feedback, echo_gain, echo_low, echo_high, side_gain,
):  # fmt: skip
    frames = out.shape[0]
    lines = np.zeros((8, np.max(lengths)), np.float32)
    at = np.zeros(8, np.int64)
    low = np.zeros(8, np.float32)
    tap = np.zeros(8, np.float32)
    gains = decays.astype(np.float32)
    damp = np.float32(damping)
    echo_line = np.zeros((echo_frames, 2), np.float32)
    echo_at = 0
    echo_l = np.float32(0)
    echo_r = np.float32(0)
    rumble_l = np.float32(0)
    rumble_r = np.float32(0)
    back = np.float32(echo_feedback)
    e_low = np.float32(echo_low)
    e_high = np.float32(echo_high)
    wet = np.float32(reverb_gain * 0.5)
    e_gain = np.float32(echo_gain)
    side = np.float32(0.5 * side_gain)
    half = np.float32(0.5)
    root = np.float32(0.35355339)
    tiny = np.float32(1e-18)
    for i in range(frames):
        dry_l = np.float32(0)
        dry_r = np.float32(0)
        to_room_l = tiny
        to_room_r = tiny
        to_echo_l = tiny
        to_echo_r = tiny
        for g in range(groups.shape[0]):
            x = groups[g, i, 0]
            y = groups[g, i, 1]
            dry_l += x
            dry_r += y
            to_room_l += np.float32(reverb_sends[g]) * x
            to_room_r += np.float32(reverb_sends[g]) * y
            to_echo_l += np.float32(echo_sends[g]) * x
            to_echo_r += np.float32(echo_sends[g]) * y
        # Echo: what comes back on the left goes out again on the right.
        back_l = echo_line[echo_at, 0]
        back_r = echo_line[echo_at, 1]
        echo_l += e_low * (back_l - echo_l)
        echo_r += e_low * (back_r - echo_r)
        rumble_l += e_high * (echo_l - rumble_l)
        rumble_r += e_high * (echo_r - rumble_r)
        repeat_l = echo_l - rumble_l
        repeat_r = echo_r - rumble_r
        # The first repeat is mostly on one side, wherever the note was.
        echo_line[echo_at, 0] = to_echo_l + half * to_echo_r + back * repeat_r
        echo_line[echo_at, 1] = half * to_echo_r + back * repeat_l
        echo_at += 1
        if echo_at == echo_frames:
            echo_at = 0
        repeat_l *= e_gain
        repeat_r *= e_gain
        to_room_l += half * repeat_l
        to_room_r += half * repeat_r
        # Reverb: eight damped delay lines, mixed by a Hadamard matrix.
        for k in range(8):
            low[k] += damp * (lines[k, at[k]] - low[k])
            tap[k] = low[k]
        wet_l = tap[0] - tap[2] + tap[4] - tap[6]
        wet_r = tap[1] - tap[3] + tap[5] - tap[7]
        for k in range(8):
            tap[k] *= gains[k] * root
        a0 = tap[0] + tap[1]
        a1 = tap[0] - tap[1]
        a2 = tap[2] + tap[3]
        a3 = tap[2] - tap[3]
        a4 = tap[4] + tap[5]
        a5 = tap[4] - tap[5]
        a6 = tap[6] + tap[7]
        a7 = tap[6] - tap[7]
        b0 = a0 + a2
        b1 = a1 + a3
        b2 = a0 - a2
        b3 = a1 - a3
        b4 = a4 + a6
        b5 = a5 + a7
        b6 = a4 - a6
        b7 = a5 - a7
        lines[0, at[0]] = b0 + b4 + to_room_l
        lines[1, at[1]] = b1 + b5 + to_room_r
        lines[2, at[2]] = b2 + b6 - to_room_l
        lines[3, at[3]] = b3 + b7 - to_room_r
        lines[4, at[4]] = b0 - b4 + to_room_l
        lines[5, at[5]] = b1 - b5 + to_room_r
        lines[6, at[6]] = b2 - b6 + to_room_l
        lines[7, at[7]] = b3 - b7 + to_room_r
        for k in range(8):
            at[k] += 1
            if at[k] == lengths[k]:
                at[k] = 0
        left = dry_l + repeat_l + wet * wet_l
        right = dry_r + repeat_r + wet * wet_r
        middle = half * (left + right)
        apart = side * (left - right)
        out[i, 0] = middle + apart
        out[i, 1] = middle - apart


# --- the bus ------------------------------------------------------------------------------------------------------


def bus(samples: Stereo, config: MusicConfig, sample_rate: int) -> None:
    """Tone by brightness and drive by grain, in place. Not linear, so stems end before it."""
    shelf = _high_shelf(2200.0, 22.0 * (config.brightness - 0.5), sample_rate)
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
    state = np.zeros((2, 6))
    # A cubic that bends and stays flat beyond its knee; the bias makes even harmonics, and what it adds at rest is taken
    # off again.
    rest = bias - bias**3 / 3.0
    makeup = 1.0 / (drive * (1.0 - bias * bias)) if drive > 0 else 0.0
    for i in range(samples.shape[0]):
        for c in range(2):
            x = samples[i, c] + 1e-18
            state[c, 4] += dc * (x - state[c, 4])
            x -= state[c, 4]
            y = q[0] * x + state[c, 0]
            state[c, 0] = q[1] * x - q[3] * y + state[c, 1]
            state[c, 1] = q[2] * x - q[4] * y
            z = q[5] * y + state[c, 2]
            state[c, 2] = q[6] * y - q[8] * z + state[c, 3]
            state[c, 3] = q[7] * y - q[9] * z
            if drive > 0:
                v = min(max(drive * z + bias, -1.0), 1.0)
                bent = (v - v * v * v / 3.0 - rest) * makeup
                bent = z + share * (bent - z)
                state[c, 5] += dc * (bent - state[c, 5])
                z = bent - state[c, 5]
            samples[i, c] = z


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
