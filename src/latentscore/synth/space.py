"""The effects of the mix: echo, reverb, width, tone, drive and the limiter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latentscore.config import MusicConfig
from latentscore.jit import inner_jit, jit
from latentscore.loudness import TINY, lufs_of_rows, oversampling
from latentscore.synth.signal import Stereo

# Delay lines of the reverb in seconds at full size; at common sample rates their lengths are coprime.
_LINES = np.array([
    0.0241, 0.0307, 0.0389, 0.0461, 0.0533, 0.0619, 0.0701, 0.0797,
    0.0271, 0.0347, 0.0421, 0.0499, 0.0571, 0.0661, 0.0743, 0.0857,
])  # fmt: skip

# Delays of the allpasses that diffuse the reverb's input, in seconds: four for the left, four for the right.
_DIFFUSERS = np.array([0.00277, 0.00421, 0.00657, 0.00961, 0.00307, 0.00473, 0.00713, 0.00887])
_DIFFUSION = 0.57

_DRIFT_FRAMES = np.array([54, 72, 42, 66, 48, 78, 60, 36, 70, 50, 64, 56, 76, 44, 58, 68])
"""Maximum modulation of each line's length in frames at 48 kHz; it smooths the modes."""

_DRIFT_SPEED = 100.0
"""Speed of the modulation in frames per second at 48 kHz: 3.6 cents of pitch."""

_HIGH_HZ, _HIGH_SHARE = 8000.0, 0.29
"""At this frequency, RT60 is this share of RT60 below 1 kHz."""

_TAPS_RATE = 24_000
"""The taps of a line's filter are one frame of this sample rate apart; adjacent frames at 48 kHz would damp 8 kHz too little."""

BLOCK = 128
"""Maximum frames per block of the room, a power of two; smaller if a delay is shorter."""

STEP = 3072
"""Frames per call of room and bus, a multiple of all of their blocks."""

_SIZES = (0.18, 0.6, 0.88, 1.0)
_SPACES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0)


def reverb_seconds(space: float) -> float:
    """Return RT60 in seconds for a ``space`` in [0, 1]: 0.2 dry, 0.6 small, 1.4 medium, 2.7 large, 5 vast."""
    return float(np.exp(np.interp(space, _SPACES, np.log((0.15, 0.2, 0.6, 1.4, 2.7, 5.0, 5.6)))))


def reverb_level(space: float) -> float:
    """Gain of the reverb's return."""
    return float(np.interp(space, _SPACES, (0.045, 0.083, 0.361, 0.549, 0.846, 1.034, 1.07)))


def nearness_db(space: float) -> float:
    """Return the high-shelf gain in dB relative to medium, because close sources have more high frequencies than distant ones."""
    return float(np.interp(space, _SPACES, (1.7, 1.6, 0.2, 0.0, -0.2, -0.4, -0.4)))


def echo_feedback(echo: float) -> float:
    """Return the feedback gain of the echo; infinite (0.95) takes more than 20 s to fall by 60 dB at any tempo."""
    return float(np.interp(echo, (0.0, 0.25, 0.5, 0.75, 0.95, 1.0), (0.0, 0.25, 0.52, 0.74, 0.95, 0.96)))


def echo_level(echo: float) -> float:
    """Gain of the first repeat."""
    return float(np.interp(echo, (0.0, 0.25, 0.5, 0.75, 0.95, 1.0), (0.0, 0.28, 0.52, 0.66, 0.8, 0.8)))


def width(stereo: float) -> float:
    """Return the gain of the side signal: 0 for mono, 1 for wide, 1.5 for ultra wide."""
    return float(np.interp(stereo, (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.3, 0.62, 1.0, 1.5)))


class Room:
    """Echo, reverb and width of one config, with their state.

    Consecutive blocks give the same bytes as one call. Every block except the last has a multiple of ``BLOCK`` frames.
    """

    def __init__(self, config: MusicConfig, seconds_per_beat: float, sample_rate: int):
        rate = sample_rate
        rt60 = reverb_seconds(config.space)
        size = float(np.interp(rt60, (0.15, 0.6, 2.7, 5.0), _SIZES))
        lengths = (_LINES * size * rate).astype(np.int64) | 1
        # In a dry room the allpasses would ring longer than the room; lengths below the minimum would need shorter
        # blocks.
        shortened = _DIFFUSERS.min() + (_DIFFUSERS - _DIFFUSERS.min()) * min(1.2 * size, 1.0)
        diffusers = np.maximum(shortened * rate, 8).astype(np.int64) | 1
        echo_frames = max(round(0.75 * seconds_per_beat * rate), 32)
        shortest = min(BLOCK, int(lengths.min()), int(diffusers.min()), echo_frames)
        self._block = block = 1 << int(math.log2(shortest))
        drifts = np.maximum(np.round(_DRIFT_FRAMES * rate / 48_000), 1).astype(np.int64)
        steps = max(round(48_000 / (_DRIFT_SPEED * block)), 1)
        apart = max(round(rate / _TAPS_RATE), 1)
        outer, middle = _absorption(lengths + drifts / 2 + apart + 0.5, rt60, rate, apart)
        self._line_settings = (lengths, drifts, steps, outer, middle, apart)
        self._diffusers = diffusers
        self._lines = _ring(16, int(lengths.max() + drifts.max()) + 2 * apart + 2, block)
        self._diffused = _ring(8, int(diffusers.max()), block)
        self._echoes = _ring(2, echo_frames, block)
        self._counts = np.zeros(1, np.int64)
        self._work = np.zeros((30, block), np.float32)
        # Filter states: of the repeats, then of the high-passes before echo and reverb.
        self._past = np.zeros(6, np.float32)
        damping = 0.15 * min(rate / 48_000.0, 2.0)
        self._echo = np.array(
            (echo_level(config.echo), echo_feedback(config.echo), damping, _slow(70.0, rate)), np.float32
        )
        self._echo_frames = echo_frames
        self._levels = np.array((reverb_level(config.space), width(config.stereo), _slow(110.0, rate)), np.float32)

    def mix(self, groups: NDArray[np.float32], reverb_sends: Sequence[float], echo_sends: Sequence[float]) -> Stereo:
        """Mix dry sound, echo and reverb of several groups of layers, shape (groups, 2, frames) to (2, frames).

        All steps are linear, so the mixes of parts add up to the mix of the whole.
        """
        out = np.empty(groups.shape[1:], np.float32)
        self.mix_into(out, 0, np.ascontiguousarray(groups), 0, groups.shape[2], reverb_sends, echo_sends)
        return out

    def mix_into(
        self, out: Stereo, at: int, groups: NDArray[np.float32], first: int, frames: int,
        reverb_sends: Sequence[float], echo_sends: Sequence[float],
    ) -> None:  # fmt: skip
        """:meth:`mix` of ``frames`` frames of ``groups``, from ``first`` on, to ``out``, from ``at`` on.

        ``out`` may be a part of ``groups`` if ``at`` is not behind ``first``: each block is read before it is written.
        """
        _room(
            groups, first, out, at, frames, np.array(reverb_sends, np.float32), np.array(echo_sends, np.float32),
            self._levels, *self._line_settings, self._lines, self._diffusers, self._diffused, self._echo_frames,
            self._echo, self._echoes, self._past, self._counts, self._work, self._block,
        )  # fmt: skip


def mix(
    groups: NDArray[np.float32], reverb_sends: Sequence[float], echo_sends: Sequence[float], config: MusicConfig,
    seconds_per_beat: float, sample_rate: int,
) -> Stereo:  # fmt: skip
    """Process a whole sound with a new :class:`Room`."""
    return Room(config, seconds_per_beat, sample_rate).mix(groups, reverb_sends, echo_sends)


def _ring(lines: int, longest: int, block: int) -> NDArray[np.float32]:
    """Return delay lines of whole blocks, so that writes never wrap inside a block; the first two blocks are repeated at
    the end, so that reads do not wrap either."""
    return np.zeros((lines, (longest // block + 4) * block), np.float32)


def _slow(hz: float, rate: int) -> float:
    """Return the coefficient of a one-pole low-pass."""
    return 1.0 - math.exp(-math.tau * hz / rate)


def _absorption(
    lengths: NDArray[np.float64], rt60: float, rate: int, apart: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the outer and the middle tap of each line's symmetric filter, whose taps are ``apart`` frames apart.

    At low frequencies a line decays by 60 dB in ``rt60``, at 8 kHz in a third of it (J.-M. Jot, 1991). The loss by
    interpolation there, 0.8 dB on average at 48 kHz, is taken into account.
    """
    keep = 10.0 ** (-3.0 * lengths / (rt60 * rate))
    turn = 1.0 - math.cos(math.tau * min(_HIGH_HZ, 0.35 * rate) / rate)
    between = np.linspace(0.0, 1.0, 101)
    reading = 10.0 ** float(np.mean(0.5 * np.log10(1.0 - 2.0 * between * (1.0 - between) * turn)))
    high = np.minimum(keep ** (1.0 / _HIGH_SHARE - 1.0) / reading, 1.0)
    outer = np.minimum((1.0 - high) / (2.0 * (1.0 - math.cos(apart * math.acos(1.0 - turn)))), 0.25)
    # The mixing matrix is orthogonal once divided by two.
    return (0.5 * keep * outer).astype(np.float32), (0.5 * keep * (1.0 - 2.0 * outer)).astype(np.float32)


@jit
def _room(
    groups, first, out, at, frames, reverb_sends, echo_sends, levels, lengths, drifts, steps, outer, middle, apart, lines, diffusers, diffused,
    echo_frames, echo, echoes, past, counts, work, block,
):  # fmt: skip
    """Process in blocks of ``block`` frames, shorter than any delay, so that the output of a line was written in an
    earlier block.

    Every step is a separate loop over one or two lines, which the compiler can vectorize.
    """
    dry = work[0:2]
    to_room = work[2:4]
    to_echo = work[4:6]
    repeats = work[6:8]
    wet = work[8:10]
    taps = work[10:26]
    half = np.float32(0.5)
    gain = half * levels[0]
    side = half * levels[1]
    for begin in range(0, frames, block):
        size = min(block, frames - begin)
        _gather(groups, first + begin, size, reverb_sends, echo_sends, dry, to_room, to_echo)
        _no_rumble(to_echo, past[2:4], echo[3])
        _echo_step(to_echo, repeats, echoes, echo_frames, echo, past, counts[0], block)
        for c in range(2):
            reverb = to_room[c]
            repeat = repeats[c]
            for j in range(block):
                reverb[j] += half * repeat[j]
        _no_rumble(to_room, past[4:6], levels[2])
        _diffuse(to_room, diffusers, diffused, counts[0], block)
        _lines_step(to_room, wet, lines, lengths, drifts, steps, outer, middle, apart, taps, counts[0], block)
        for c in range(2):
            straight = dry[c]
            repeat = repeats[c]
            reverb = wet[c]
            for j in range(block):
                straight[j] += repeat[j] + gain * reverb[j]
        left = dry[0]
        right = dry[1]
        out_left = out[0, at + begin : at + begin + size]
        out_right = out[1, at + begin : at + begin + size]
        for j in range(size):
            out_left[j] = half * (left[j] + right[j]) + side * (left[j] - right[j])
        for j in range(size):
            out_right[j] = half * (left[j] + right[j]) - side * (left[j] - right[j])
        counts[0] += 1


@inner_jit
def _gather(groups, begin, size, reverb_sends, echo_sends, dry, to_room, to_echo):
    """Compute one block of the dry sound and of the sends to reverb and echo."""
    for c in range(2):
        straight = dry[c]
        reverb = to_room[c]
        echo = to_echo[c]
        for j in range(straight.shape[0]):
            straight[j] = np.float32(0.0)
        for j in range(straight.shape[0]):
            reverb[j] = echo[j] = np.float32(TINY)
        for g in range(groups.shape[0]):
            reverb_send = reverb_sends[g]
            echo_send = echo_sends[g]
            source = groups[g, c, begin : begin + size]
            for j in range(size):
                straight[j] += source[j]
            for j in range(size):
                reverb[j] += reverb_send * source[j]
            for j in range(size):
                echo[j] += echo_send * source[j]


@inner_jit
def _no_rumble(sides, slow, high):
    """High-pass: subtract a one-pole low-pass with the coefficient ``high`` and the state ``slow``."""
    low = np.float32(1.0) - high
    left = sides[0]
    right = sides[1]
    slow_left = slow[0]
    slow_right = slow[1]
    for j in range(left.shape[0]):
        slow_left = low * slow_left + high * left[j]
        slow_right = low * slow_right + high * right[j]
        left[j] -= slow_left
        right[j] -= slow_right
    slow[0] = slow_left
    slow[1] = slow_right


@inner_jit
def _echo_step(to_echo, repeats, lines, echo_frames, settings, past, number, block):
    """Ping-pong echo: repeats alternate between left and right and become duller."""
    first, back, lose = settings[0], settings[1], settings[2]
    keep = np.float32(1.0) - lose
    half = np.float32(0.5)
    ring = lines.shape[1] - 2 * block
    write = number * block % ring
    read = (write - echo_frames) % ring
    for c in range(2):
        old = lines[c, read : read + block]
        repeat = repeats[c]
        repeat[0] = keep * old[0] + lose * past[c]
        for j in range(1, block):
            repeat[j] = keep * old[j] + lose * old[j - 1]
        past[c] = old[block - 1]
    left = to_echo[0]
    right = to_echo[1]
    repeat_left = repeats[0]
    repeat_right = repeats[1]
    now_left = lines[0, write : write + block]
    now_right = lines[1, write : write + block]
    # The first repeat is mostly on the left, independent of the note's position.
    for j in range(block):
        now_left[j] = left[j] + half * right[j] + back * repeat_right[j]
    for j in range(block):
        now_right[j] = half * right[j] + back * repeat_left[j]
    for c in range(2):
        repeat = repeats[c]
        for j in range(block):
            repeat[j] *= first
        _repeat_beginning(lines[c], ring, write, block)


@inner_jit
def _repeat_beginning(line, ring, write, block):
    """Also write the first two blocks of a ring after its end."""
    if write < 2 * block:
        for j in range(write, write + block):
            line[ring + j] = line[j]


@inner_jit
def _diffuse(sides, lengths, lines, number, block):
    """Apply four allpasses in series per channel (M. Schroeder, 1962), which diffuse a click."""
    again = np.float32(_DIFFUSION)
    ring = lines.shape[1] - 2 * block
    write = number * block % ring
    for k in range(8):
        read = (write - lengths[k]) % ring
        sound = sides[k // 4]
        old = lines[k, read : read + block]
        now = lines[k, write : write + block]
        for j in range(block):
            before = old[j]
            fed = sound[j] - again * before
            now[j] = fed
            sound[j] = before + again * fed
        _repeat_beginning(lines[k], ring, write, block)


@inner_jit
def _lines_step(to_room, wet, lines, lengths, drifts, steps, outer, middle, apart, taps, number, block):
    """Feedback delay network: sixteen modulated and damped delay lines, mixed in groups of four.

    ``taps`` are the outputs of the lines and ``wet`` the output of the reverb; the feedback is written to the lines.
    """
    ring = lines.shape[1] - 2 * block
    write = number * block % ring
    step = np.float32(1.0) / np.float32(steps)
    dulled = np.empty(block + 1, np.float32)
    for k in range(16):
        # The line is longer by 0 to drifts[k] frames, as a triangle; `steps` is the number of steps per frame.
        turn = drifts[k] * steps
        place = (number + 37 * k) % (2 * turn)
        up = place < turn
        place = place if up else 2 * turn - 1 - place
        whole = place // steps
        part = np.float32(place - whole * steps) * step
        slope = step / np.float32(block)
        if not up:
            part += step
            slope = -slope
        read = write - lengths[k] - whole - 2 * apart - 1
        if read < 0:
            read += ring
        late = lines[k, read : read + block + 1]
        now = lines[k, read + apart : read + apart + block + 1]
        early = lines[k, read + 2 * apart : read + 2 * apart + block + 1]
        out = taps[k]
        o = outer[k]
        m = middle[k]
        for j in range(block + 1):
            dulled[j] = o * (early[j] + late[j]) + m * now[j]
        for j in range(block):
            f = part + slope * np.float32(np.int32(j))
            out[j] = dulled[j + 1] + f * (dulled[j] - dulled[j + 1])
    # Hadamard's matrix on four lines each, whose results go to four different groups of four.
    for k in range(0, 16, 4):
        _four(taps[k], taps[k + 1], taps[k + 2], taps[k + 3])
    # Each mixed line holds four; four of them are all lines, with signs that keep the sides apart.
    for c in range(2):
        _sum(wet[c], taps[c], taps[4 + c], taps[8 + c], taps[12 + c])
    for k in range(16):
        to = (k % 4) * 4 + k // 4
        out = taps[k]
        source = to_room[to & 1]
        sign = np.float32(-1.0) if to & 4 else np.float32(1.0)
        line = lines[to, write : write + block]
        for j in range(block):
            line[j] = out[j] + sign * source[j]
        _repeat_beginning(lines[to], ring, write, block)


@inner_jit
def _sum(out, a, b, c, d):
    for j in range(out.shape[0]):
        out[j] = a[j] + b[j] + c[j] + d[j]


@inner_jit
def _four(a, b, c, d):
    """Apply a 4 x 4 Hadamard matrix to four lines, in place."""
    for j in range(a.shape[0]):
        one = a[j] + b[j]
        two = a[j] - b[j]
        three = c[j] + d[j]
        four = c[j] - d[j]
        a[j] = one + three
        b[j] = two + four
        c[j] = one - three
        d[j] = two - four


# --- the bus ------------------------------------------------------------------------------------------------------

BUS_BLOCK = 256
"""Frames per block of the bus."""


class Bus:
    """Tone (by brightness) and drive (by grain), with the state of their filters. It is not linear, so stems are taken
    before it.

    Consecutive blocks give the same bytes as one call, if every block except the last has a multiple of ``STEP``
    frames.
    """

    def __init__(self, config: MusicConfig, sample_rate: int) -> None:
        # The shelf has a low corner frequency, so that brightness also changes pieces that are mostly bass.
        shelf = _high_shelf(700.0, 9.5 * (config.brightness - 0.5) + 0.5 + nearness_db(config.space), sample_rate)
        cutoff = 5600.0 * 2.0 ** (3.1 * config.brightness)
        low = _low_pass(min(cutoff, 0.45 * sample_rate), sample_rate)
        drive = {"clean": (0.0, 0.0, 0.0), "warm": (3.0, 0.25, 0.8), "gritty": (12.0, 0.1, 0.75)}[config.grain]
        dc = 1.0 - math.exp(-math.tau * 22.0 / sample_rate)
        # All feed-forward parts are combined; that of the DC blocker is (1 - dc) (1 - 1/z).
        feed = np.convolve(np.convolve(shelf[:3], low[:3]), ((1.0 - dc), dc - 1.0))
        self._tone = feed, np.array(shelf[3:] + low[3:]), dc, np.zeros((2, BUS_BLOCK + 5)), np.zeros(10)
        self._drive = dc, *drive, _fine_taps(), np.zeros(2), np.zeros((2, 7, BUS_BLOCK + 13), np.float32)
        self._is_driven = drive[0] > 0.0

    def apply(self, samples: Stereo, first: int = 0, frames: int | None = None) -> None:
        """Process ``samples``, shape (2, frames), in place; or only ``frames`` frames, from ``first`` on."""
        frames = samples.shape[1] - first if frames is None else frames
        _tone(samples, first, frames, *self._tone)
        # A separate loop, because many pieces are clean and its filters take two seconds to compile.
        if self._is_driven:
            _drive(samples, first, frames, *self._drive)


def bus(samples: Stereo, config: MusicConfig, sample_rate: int) -> None:
    """Process a whole sound in place with a new :class:`Bus`."""
    Bus(config, sample_rate).apply(samples)


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
def _tone(samples, first, frames, feed, poles, dc, past, states):
    """DC blocker, shelf and low-pass combined: ``feed`` are the six feed-forward taps, ``poles`` the two by two feedback
    coefficients."""
    f0, f1, f2, f3, f4, f5 = feed[0], feed[1], feed[2], feed[3], feed[4], feed[5]
    a1, a2, d1, d2 = poles[0], poles[1], poles[2], poles[3]
    hold = 1.0 - dc
    toned = np.empty((2, BUS_BLOCK))
    # The feedback of both channels: m after the DC blocker, y after the shelf, z after the low-pass, one and two frames
    # ago.
    lm, rm, ly1, ry1, ly2, ry2 = states[0], states[1], states[2], states[3], states[4], states[5]
    lz1, rz1, lz2, rz2 = states[6], states[7], states[8], states[9]
    for begin in range(0, frames, BUS_BLOCK):
        size = min(BUS_BLOCK, frames - begin)
        for c in range(2):
            source = samples[c, first + begin : first + begin + size]
            line = past[c]
            fed = toned[c]
            for j in range(size):
                line[j + 5] = source[j] + TINY
            for j in range(size):
                near = f0 * line[j + 5] + f1 * line[j + 4] + f2 * line[j + 3]
                fed[j] = near + f3 * line[j + 2] + f4 * line[j + 1] + f5 * line[j]
            for j in range(5):
                line[j] = line[size + j]
        left = toned[0]
        right = toned[1]
        target_left = samples[0, first + begin : first + begin + size]
        target_right = samples[1, first + begin : first + begin + size]
        # Both channels in one loop with scalar variables: the processor computes one channel while the other waits for
        # its previous result.
        for j in range(size):
            lm = left[j] + hold * lm
            rm = right[j] + hold * rm
            ly = (lm - a2 * ly2) - a1 * ly1
            ry = (rm - a2 * ry2) - a1 * ry1
            lz = (ly - d2 * lz2) - d1 * lz1
            rz = (ry - d2 * rz2) - d1 * rz1
            ly2, ly1, lz2, lz1 = ly1, ly, lz1, lz
            ry2, ry1, rz2, rz1 = ry1, ry, rz1, rz
            target_left[j] = lz
            target_right[j] = rz
    states[0], states[1], states[2], states[3], states[4], states[5] = lm, rm, ly1, ry1, ly2, ry2
    states[6], states[7], states[8], states[9] = lz1, rz1, lz2, rz2


@jit
def _drive(samples, first, frames, dc, drive, bias, share, taps, means, fine):
    """Apply drive, then remove the DC offset that it adds; ``means`` is the state."""
    hold = 1.0 - dc
    bent = np.empty(BUS_BLOCK, np.float32)
    for begin in range(0, frames, BUS_BLOCK):
        size = min(BUS_BLOCK, frames - begin)
        for c in range(2):
            sound = samples[c, first + begin : first + begin + size]
            _bend_finely(sound, bent[:size], drive, bias, share, taps, fine[c])
            mean = means[c]
            for j in range(size):
                mean = hold * mean + dc * bent[j]
                sound[j] = bent[j] - mean
            means[c] = mean


@inner_jit
def _bend(now, before, out, drive, bias, share):
    """Cubic waveshaper with hard limits beyond its knee. The bias adds even harmonics; its offset at silence is
    subtracted.

    Each result is the mean of the shaper over the line from ``before`` to ``now`` (antiderivative antialiasing: Parker,
    Zavalishin and Le Bivic, 2016), which reduces aliases at low frequencies.
    """
    # Single-precision constants keep the computation in single precision.
    one, third, half = np.float32(1.0), np.float32(1.0 / 3.0), np.float32(0.5)
    flat, twelfth, close = np.float32(2.0 / 3.0), np.float32(1.0 / 12.0), np.float32(1e-7)
    rest = bias - bias * bias * bias * third
    makeup = share / (drive * (one - bias * bias))
    for j in range(out.shape[0]):
        a = drive * before[j] + bias
        b = drive * now[j] + bias
        p = min(max(a, -one), one)
        q = min(max(b, -one), one)
        # The integral of the cubic, divided by the distance, and that of the flat ends.
        mean = (p + q) * (half - (p * p + q * q) * twelfth)
        area = (q - p) * mean + flat * ((abs(b) - abs(q)) - (abs(a) - abs(p)))
        way = b - a
        bent = area / way if abs(way) > close else mean
        out[j] = now[j] + (bent - rest) * makeup - half * share * (now[j] + before[j])


@inner_jit
def _bend_finely(line, out, drive, bias, share, taps, fine):
    """The same at three times the sample rate, because hard clipping makes harmonics far above it; the delay is 12
    frames.

    ``taps`` are those of the filter for up- and downsampling; ``fine`` stores the last frames of the three phases after
    shaping (rows 0 to 2), of the input (3) and of the phases before shaping (4 to 6).
    """
    size = line.shape[0]
    lags = 12
    now = lags + size
    source = fine[3]
    for j in range(size):
        source[lags + j] = np.float32(line[j])
    _between(source[1:now], fine[4, lags:now], fine[5, lags:now], fine[6, lags:now], taps[0], taps[1])
    for phase in range(3):
        before = fine[3 + phase, lags:now] if phase else fine[6, lags - 1 : now - 1]
        _bend(
            fine[4 + phase, lags:now],
            before,
            fine[phase, lags:now],
            np.float32(drive),
            np.float32(bias),
            np.float32(share),
        )
    # In filter order: the first phase is at the frame itself, the others are before the next one.
    _together(out, fine[0, 1:now], fine[1, :now], fine[2, :now], taps[0], taps[1])
    for row in range(4):
        for j in range(lags):
            fine[row, j] = fine[row, size + j]
    fine[6, lags - 1] = fine[6, now - 1]


@inner_jit
def _between(x, first, second, third, h, g):
    """Upsample to three phases. The taps of the third phase are those of the first, ``h``, reversed, so both share sums and
    differences of frames; those of the second, ``g``, are symmetric."""
    gain, half = np.float32(3.0), np.float32(1.5)
    e0, e1, e2 = half * (h[0] + h[11]), half * (h[1] + h[10]), half * (h[2] + h[9])
    e3, e4, e5 = half * (h[3] + h[8]), half * (h[4] + h[7]), half * (h[5] + h[6])
    o0, o1, o2 = half * (h[0] - h[11]), half * (h[1] - h[10]), half * (h[2] - h[9])
    o3, o4, o5 = half * (h[3] - h[8]), half * (h[4] - h[7]), half * (h[5] - h[6])
    g0, g1, g2, g3, g4, g5 = gain * g[0], gain * g[1], gain * g[2], gain * g[3], gain * g[4], gain * g[5]
    for j in range(first.shape[0]):
        s0, d0 = x[j + 11] + x[j], x[j + 11] - x[j]
        s1, d1 = x[j + 10] + x[j + 1], x[j + 10] - x[j + 1]
        s2, d2 = x[j + 9] + x[j + 2], x[j + 9] - x[j + 2]
        s3, d3 = x[j + 8] + x[j + 3], x[j + 8] - x[j + 3]
        s4, d4 = x[j + 7] + x[j + 4], x[j + 7] - x[j + 4]
        s5, d5 = x[j + 6] + x[j + 5], x[j + 6] - x[j + 5]
        even = e0 * s0 + e1 * s1 + e2 * s2 + (e3 * s3 + e4 * s4 + e5 * s5)
        odd = o0 * d0 + o1 * d1 + o2 * d2 + (o3 * d3 + o4 * d4 + o5 * d5)
        first[j] = even + odd
        third[j] = even - odd
        second[j] = g0 * s0 + g1 * s1 + g2 * s2 + (g3 * s3 + g4 * s4 + g5 * s5)


@inner_jit
def _together(out, x, y, z, h, g):
    """Downsample three phases with the same taps: ``x`` with ``h``, ``y`` with ``h`` reversed, ``z`` with ``g``. All begin
    11 frames before ``out``."""
    h0, h1, h2, h3, h4, h5 = h[0], h[1], h[2], h[3], h[4], h[5]
    h6, h7, h8, h9, h10, h11 = h[6], h[7], h[8], h[9], h[10], h[11]
    g0, g1, g2, g3, g4, g5 = g[0], g[1], g[2], g[3], g[4], g[5]
    for j in range(out.shape[0]):
        early = h0 * (x[j + 11] + y[j]) + h1 * (x[j + 10] + y[j + 1]) + h2 * (x[j + 9] + y[j + 2])
        early += h3 * (x[j + 8] + y[j + 3]) + h4 * (x[j + 7] + y[j + 4]) + h5 * (x[j + 6] + y[j + 5])
        late = h6 * (x[j + 5] + y[j + 6]) + h7 * (x[j + 4] + y[j + 7]) + h8 * (x[j + 3] + y[j + 8])
        late += h9 * (x[j + 2] + y[j + 9]) + h10 * (x[j + 1] + y[j + 10]) + h11 * (x[j] + y[j + 11])
        middle = g0 * (z[j + 11] + z[j]) + g1 * (z[j + 10] + z[j + 1]) + g2 * (z[j + 9] + z[j + 2])
        middle += g3 * (z[j + 8] + z[j + 3]) + g4 * (z[j + 7] + z[j + 4]) + g5 * (z[j + 6] + z[j + 5])
        out[j] = early + late + middle


def _fine_taps() -> NDArray[np.float32]:
    """Return a low-pass for three times the sample rate as three phases of 12 taps: -3 dB at 0.4 times the sample rate,
    below -70 dB from 0.67 times."""
    t = np.arange(36) - 17.5
    taps = np.sinc(2.0 * 0.147 * t) * np.kaiser(36, 7.0)
    return np.ascontiguousarray((taps / taps.sum()).reshape(12, 3).T.astype(np.float32))


def limit(samples: Stereo, out: NDArray[np.float32], gain: float, ceiling: float) -> float:
    """Write ``samples * gain``, shape (2, frames), to ``out``, shape (frames, 2), limited to ``ceiling`` with a
    piecewise linear gain.

    True peaks are limited: if a sample is within 4 dB of the ceiling, three points between it and the next sample are
    computed. Returns the smallest gain.
    """
    near = np.float32(0.63 * ceiling / gain)
    # Without the sign, the bits of floats compare like integers, and integer comparison can be vectorized.
    return _limit(
        samples, samples.view(np.int32), out.reshape(-1), gain, ceiling, near, near.view(np.int32), oversampling()
    )


@jit
def _limit(samples, bits, flat, gain, ceiling, near, near_bits, oversampling):
    frames = samples.shape[1]
    blocks = (frames + 31) // 32
    need = np.ones(blocks + 1)
    held = np.ones(blocks + 1)
    _needs(samples, bits, need, 0, blocks, gain, ceiling, near, near_bits, oversampling)
    _hold(need, held, 0, blocks + 1)
    return _apply(samples, flat, held, 0, blocks, gain)


@jit
def _needs(samples, bits, need, first, end, gain, ceiling, near, near_bits, oversampling):
    """Compute the gain that each block of 32 frames needs to stay below the ceiling."""
    frames = samples.shape[1]
    for b in range(first, end):
        need[b] = 1.0
        highest = max(_highest(bits[0, 32 * b : 32 * b + 32]), _highest(bits[1, 32 * b : 32 * b + 32]))
        if highest > near_bits:
            top = _true_peak(samples, 32 * b, min(32 * b + 32, frames), near, oversampling)
            if top * gain > ceiling:
                need[b] = ceiling / (top * gain)


@jit
def _hold(need, held, first, end):
    """Look ahead and hold for eight blocks (5 ms at 48 kHz), then release slowly."""
    for b in range(first, end):
        m = 1.0
        for k in range(max(b - 9, 0), min(b + 10, need.shape[0])):
            m = min(m, need[k])
        held[b] = min(m, held[b - 1] + 0.012 * (1.0 - held[b - 1]) + 1e-5) if b else m


@inner_jit
def _smoothed(held, b):
    s = 0.0
    for k in range(-8, 9):
        s += held[min(max(b + k, 0), held.shape[0] - 1)]
    return s / 17.0


@jit
def _apply(samples, flat, held, first, end, gain):
    """Write the blocks from ``first`` to ``end`` with the held gain, smoothed over eight blocks; return the smallest gain."""
    least = now = _smoothed(held, first)
    for b in range(first, end):
        after = _smoothed(held, b + 1)
        g = np.float32(now * gain)
        slope = np.float32((after - now) * gain / 32.0)
        left = samples[0, 32 * b : 32 * b + 32]
        right = samples[1, 32 * b : 32 * b + 32]
        pairs = flat[64 * (b - first) : 64 * (b - first) + 64]
        for j in range(left.shape[0]):
            moved = g + slope * np.float32(j)
            pairs[2 * j] = left[j] * moved
            pairs[2 * j + 1] = right[j] * moved
        now = after
        least = min(least, now)
    return least


class Limiter:
    """The limiter of :func:`limit` for audio in blocks, with a latency of ``LAG`` frames."""

    LAG = 20 * 32
    _PAST = 10 * 32

    def __init__(self, ceiling: float) -> None:
        self._ceiling = ceiling
        self._near = np.float32(0.63 * ceiling)
        self._samples = np.zeros((2, self._PAST + self.LAG), np.float32)
        self._need = np.ones(self._samples.shape[1] // 32)
        self._held = self._need.copy()

    def feed(self, samples: Stereo) -> NDArray[np.float32]:
        """Take the next ``samples``, shape (2, frames) with a multiple of 32 frames, and return as many limited frames,
        (frames, 2)."""
        out = np.empty((samples.shape[1], 2), np.float32)
        window = np.concatenate([self._samples, samples], axis=1)
        old, new = len(self._need), samples.shape[1] // 32
        need, held = np.concatenate([self._need, np.ones(new)]), np.concatenate([self._held, np.ones(new)])
        # The last block needs its next neighbour, and the last nine held gains need the look-ahead.
        _needs(
            window, window.view(np.int32), need, old - 1, old + new - 1, 1.0, self._ceiling, self._near,
            self._near.view(np.int32), oversampling(),
        )  # fmt: skip
        _hold(need, held, old - 10, old + new - 10)
        first = self._PAST // 32
        _apply(window, out.reshape(-1), held, first, first + new, 1.0)
        self._samples, self._need, self._held = window[:, samples.shape[1] :].copy(), need[new:], held[new:]
        return out


@inner_jit
def _highest(bits):
    top = np.int32(0)
    for j in range(bits.shape[0]):
        top = max(top, bits[j] & np.int32(0x7FFFFFFF))
    return top


@inner_jit
def _true_peak(samples, begin, end, near, oversampling):
    top = 0.0
    for i in range(begin, end):
        here = max(abs(samples[0, i]), abs(samples[1, i]))
        top = max(top, here)
        if here > near and i >= 6 and i + 6 < samples.shape[1]:
            for c in range(2):
                for p in range(3):
                    s = 0.0
                    for t in range(12):
                        s += oversampling[p, t] * samples[c, i - 5 + t]
                    top = max(top, abs(s))
    return top


def compile_room() -> None:
    """Compile the loops of room, bus, meter and limiter with the argument types of a render."""
    rate = 48_000
    config = MusicConfig(grain="clean")
    mixed = mix(np.zeros((1, 2, STEP), np.float32), [0.5], [0.5], config, 0.5, rate)
    bus(mixed, config, rate)
    lufs_of_rows(mixed, rate)
    limit(mixed, np.empty((STEP, 2), np.float32), 1.0, 0.87)
