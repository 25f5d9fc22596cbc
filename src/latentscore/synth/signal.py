"""Oscillators, envelopes, filters and noise on arrays.

Audio is float32. Stereo has the shape (2, frames), left and right, because loops over contiguous rows can be
vectorized. Functions add to ``out`` and never overwrite it. Frequencies are in hertz, and times in seconds unless a
name says frames.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentscore.jit import inner_jit, jit
from latentscore.loudness import TINY

Mono = NDArray[np.float32]
Stereo = NDArray[np.float32]

TABLE = 2048
"""Samples in one cycle of a wavetable."""

HARMONICS = 256
"""Maximum number of harmonics in a table; with more, interpolation errors would be audible."""

BLOCK = 64
"""Frames between two values of an envelope or of slow modulation, with linear interpolation in between."""

LONG_BLOCK = 256
"""The same for the slow parts of a held note: not for its attack or a short release."""

AIR_BLOCK = 32
"""The same for filtered noise, whose cutoff moves faster."""


def sine(cycles: NDArray[np.float64]) -> Mono:
    """Return sin(2 pi ``cycles``); the whole cycles are removed in double precision, the sine is computed in single
    precision, which is many times as fast."""
    return np.sin((cycles - np.rint(cycles)).astype(np.float32) * np.float32(math.tau))


# --- wavetables ---------------------------------------------------------------------------------------------------


_K = np.arange(1.0, HARMONICS + 1)
_ODD = _K % 2


def _only(levels: dict[int, float]) -> NDArray[np.float64]:
    amplitudes = np.zeros(HARMONICS)
    amplitudes[np.array(list(levels)) - 1] = list(levels.values())
    return amplitudes


_SHAPES = {
    "sine": _only({1: 1.0}),
    "saw": 1 / _K,
    "square": _ODD / _K,
    "triangle": _ODD / _K**2,
    "soft": 1 / _K**2,
    "pulse": np.abs(np.sin(np.pi * _K * 0.2)) / _K,
    "reed": (_ODD + 0.18 * (1 - _ODD)) / _K**1.15,
    "organ": _only({1: 1.0, 2: 0.7, 3: 0.35, 4: 0.4, 6: 0.16, 8: 0.12}),
    "glass": _only({1: 1.0, 3: 0.28, 5: 0.2, 8: 0.11, 13: 0.06}),
    "brass": _K**0.25 / (1 + (_K / 5) ** 2.2),
    "flute": _only({1: 1.0, 2: 0.32, 3: 0.12, 4: 0.05}),
    "strings": (1 + 0.5 * np.sin(_K * 1.9)) / _K,
    "hollow": _only({1: 1.0, 2: 0.45, 4: 0.25, 5: 0.1, 7: 0.08}),
}
"""Amplitudes of harmonics 1 to 256 of each shape, before any filter."""

# Normalized for tables: RMS 0.35, and partials with different phases, which lowers the peak without changing the
# timbre.
_BINS = {
    shape: np.exp(1j * (_K * _K * 2.399)) * amplitudes * (0.35 * TABLE / 2 / np.sqrt(0.5 * np.sum(amplitudes**2)))
    for shape, amplitudes in _SHAPES.items()
}


@lru_cache(maxsize=512)
def table(shape: str, harmonics: int, cutoff_harmonic: float) -> Mono:
    """Return one cycle with its first sample repeated, shape (2049,), with RMS 0.35 before the filter.

    It has only ``harmonics`` partials, so there is no aliasing. A second-order low-pass at ``cutoff_harmonic`` times
    the fundamental shapes the spectrum; the filter's loss of loudness is not compensated.
    """
    ratio = (_K[:harmonics] / cutoff_harmonic) ** 2
    bins = np.zeros(TABLE // 2 + 1, dtype=np.complex128)
    bins[1 : harmonics + 1] = _BINS[shape][:harmonics] / np.sqrt(1.0 + ratio * ratio)
    cycle = np.empty(TABLE + 1, np.float32)
    cycle[:TABLE] = np.fft.irfft(bins, TABLE)
    cycle[TABLE] = cycle[0]
    return cycle


def table_for(shape: str, hz: float, cutoff_hz: float, sample_rate: int) -> Mono:
    """Return the table for a note at ``hz``, without harmonics above 0.46 times the sample rate."""
    harmonics = min(HARMONICS, int(0.46 * sample_rate / hz))
    # Cutoffs are rounded to a sixth of an octave, so that equal notes share a table.
    cutoff = 2.0 ** (round(6 * math.log2(max(cutoff_hz / hz, 0.5))) / 6)
    return table(shape, harmonics, cutoff)


@jit
def add_wave(
    out, start, held, attack, decay, sustain, release, duller, brighter, bite, bite_decay,
    increments, phases, left, right, vibrato_depth, vibrato_step, wobble_depth, wobble_step, punch, punch_decay,
):  # fmt: skip
    """Add one note of detuned wavetable oscillators; all times in frames.

    The release begins ``held`` frames after ``start``, from the current level of the envelope. ``bite`` is the initial
    mix between the duller (0) and the brighter table (1). ``wobble`` is tremolo: depth and radians per block. ``punch``
    is the extra level at the end of the attack, and the frames in which it falls to 37 %.
    """
    voices = increments.shape[0]
    total = min(held + release, out.shape[1] - start)
    phase = np.empty(voices, np.uint32)
    for v in range(voices):
        phase[v] = np.uint32(phases[v] * 4294967295.0)
    # Each block is computed in three simple loops, which the compiler can vectorize.
    sum_left = np.empty(LONG_BLOCK, np.float32)
    sum_right = np.empty(LONG_BLOCK, np.float32)
    place = np.empty(LONG_BLOCK, np.int32)
    part = np.empty(LONG_BLOCK, np.float32)
    value = np.empty(LONG_BLOCK, np.float32)
    # Without vibrato, a voice is a ring buffer of whole cycles that is read repeatedly.
    steady = vibrato_depth == 0.0 and increments[0] * RING > 2.0
    rings = np.empty((voices, 2, RING + LONG_BLOCK if steady else 0), np.float32)
    lengths = np.empty(voices, np.int64)
    if steady:
        for v in range(voices):
            cycles, lengths[v] = _whole_cycles(increments[v])
            step = np.uint32(cycles / lengths[v] * 4294967296.0)
            for begin in range(0, min(lengths[v], total) + LONG_BLOCK, LONG_BLOCK):
                size = min(LONG_BLOCK, rings.shape[2] - begin)
                _read_places(place, part, np.uint32(phase[v] + np.uint32(begin) * step), step, size)
                _read_table(rings[v, 0, begin : begin + size], duller, place, part)
                if bite > 0.0:
                    _read_table(rings[v, 1, begin : begin + size], brighter, place, part)
    level = 0.0
    at_release = 1.0
    mix = bite
    frame = 0
    while frame < total:
        longer = LONG_BLOCK if vibrato_depth == 0.0 else 2 * BLOCK
        size = min(_block_size(frame, held, attack, release, longer), total - frame)
        end = frame + size
        # The envelope's level at the end of this block.
        if end <= held:
            target = _held_level(end, attack, decay, sustain)
            if punch > 0.0:
                target *= 1.0 + punch * (1.0 if end < attack else np.exp(-(end - attack) / punch_decay))
            at_release = target
        else:
            fall = max(1.0 - (end - held) / release, 0.0)
            target = at_release * fall * fall
        if wobble_depth > 0.0:
            target *= 1.0 - wobble_depth * (0.5 - 0.5 * np.cos(wobble_step * end / BLOCK))
        next_mix = bite * np.exp(-end / bite_decay) if mix > 1e-4 else 0.0
        sway = 1.0
        if vibrato_depth > 0.0:
            sway += vibrato_depth * np.sin(vibrato_step * (frame + 0.5 * size) / BLOCK) * min(end / 12000.0, 1.0)
        sum_left[:size] = np.float32(0.0)
        sum_right[:size] = np.float32(0.0)
        m = np.float32(mix)
        m_slope = np.float32((next_mix - mix) / size)
        for v in range(voices):
            if steady:
                read = frame % lengths[v]
                ring = rings[v, 0, read : read + size]
                bright = rings[v, 1, read : read + size]
                for j in range(size):
                    value[j] = ring[j]
                if mix > 0.0:
                    for j in range(size):
                        value[j] += (m + m_slope * np.float32(j)) * (bright[j] - value[j])
            else:
                step = np.uint32(increments[v] * sway * 4294967296.0)
                _read_places(place, part, phase[v], step, size)
                phase[v] = np.uint32(phase[v] + np.uint32(size) * step)
                _read_table(value[:size], duller, place, part)
                if mix > 0.0:
                    for j in range(size):
                        k = np.uint32(place[j])
                        wide = brighter[k] + part[j] * (brighter[k + np.uint32(1)] - brighter[k])
                        value[j] += (m + m_slope * np.float32(j)) * (wide - value[j])
            gain_left = left[v]
            gain_right = right[v]
            for j in range(size):
                sum_left[j] += gain_left * value[j]
            for j in range(size):
                sum_right[j] += gain_right * value[j]
        env = np.float32(level)
        slope = np.float32((target - level) / size)
        out_left = out[0, start + frame : start + end]
        out_right = out[1, start + frame : start + end]
        for j in range(size):
            out_left[j] += (env + slope * np.float32(j)) * sum_left[j]
        for j in range(size):
            out_right[j] += (env + slope * np.float32(j)) * sum_right[j]
        level = target
        mix = next_mix
        frame = end


RING = 4096
"""Maximum frames of a ring buffer of whole cycles."""


@inner_jit
def _whole_cycles(increment):
    """Return the number of cycles and of frames, at most ``RING``, whose ratio is nearest to the increment (cycles per frame)."""
    period = 1.0 / increment
    best, cycles = 1.0, 1
    for count in range(1, max(min(int(RING / period), 64), 1) + 1):
        off = abs(count * period - round(count * period)) / count
        if off < best:
            best, cycles = off, count
    return cycles, min(round(cycles * period), RING)


@inner_jit
def _read_places(place, part, first, step, size):
    """Compute table positions for consecutive frames: the sample index and the fraction to the next sample."""
    fine = np.float32(1.0 / 2097152.0)
    for j in range(size):
        p = np.uint32(first + np.uint32(j) * step)
        place[j] = np.int32(p >> np.uint32(21))
        part[j] = np.float32(np.int32(p & np.uint32(2097151))) * fine


@inner_jit
def _read_table(out, table, place, part):
    """Read the table at these positions with linear interpolation."""
    for j in range(out.shape[0]):
        k = np.uint32(place[j])
        a = table[k]
        out[j] = a + part[j] * (table[k + np.uint32(1)] - a)


@inner_jit
def _block_size(frame, held, attack, release, longer):
    """Return the frames up to the next value of an envelope: ``longer`` for its slow parts, else ``BLOCK``."""
    if frame < 2.0 * attack + 2048.0:
        return BLOCK
    if frame + longer <= held or (frame >= held and release > 64.0 * longer):
        return longer
    return BLOCK


@inner_jit
def _held_level(frame, attack, decay, sustain):
    """The envelope of a note before its release."""
    if frame < attack:
        rise = frame / attack
        return rise * rise * (3.0 - 2.0 * rise)
    return sustain + (1.0 - sustain) * np.exp(-(frame - attack) / decay)


@jit
def make_loop(frames, table, cycles, phases, left, right, sway, turns):
    """Return a stereo loop of detuned oscillators, shape (2, frames + 1); the last frame repeats the first.

    Voice v has ``cycles[v]`` cycles, a whole number, and its phase is modulated by ``sway`` cycles, ``turns`` times per
    loop.
    """
    out = np.zeros((2, frames + 1), np.float32)
    place = np.empty(LONG_BLOCK, np.int32)
    part = np.empty(LONG_BLOCK, np.float32)
    value = np.empty(LONG_BLOCK, np.float32)
    turn = 2.0 * np.pi * turns / frames
    for v in range(cycles.shape[0]):
        gain_left = left[v]
        gain_right = right[v]
        here = phases[v] + sway * np.sin(2.0 * v)
        for begin in range(0, frames, LONG_BLOCK):
            size = min(LONG_BLOCK, frames - begin)
            end = begin + LONG_BLOCK
            there = phases[v] + cycles[v] * end / frames
            if sway != 0.0:
                there += sway * np.sin(turn * end + 2.0 * v)
            first = np.uint32(np.int64((here + 64.0) * 4294967296.0) & 4294967295)
            step = np.uint32(np.int64((there - here) / LONG_BLOCK * 4294967296.0))
            here = there
            _read_places(place, part, first, step, size)
            _read_table(value[:size], table, place, part)
            out_left = out[0, begin : begin + size]
            out_right = out[1, begin : begin + size]
            for j in range(size):
                out_left[j] += gain_left * value[j]
            for j in range(size):
                out_right[j] += gain_right * value[j]
    for c in range(2):
        out[c, frames] = out[c, 0]
    return out


@jit
def add_loop(
    out, start, held, attack, decay, sustain, release, loop, left, right, wobble_depth, wobble_step, swell, tuning
):  # fmt: skip
    """Add one note that reads ``loop``, shape (2, frames + 1), over and over, with the envelope of :func:`add_wave`.

    ``swell`` is the drift of its level: depth, radians per block and phase. ``tuning`` is the drift of its pitch:
    blocks per frame of shift, the maximum shift in frames, at which the direction changes, and the initial block.
    """
    total = min(held + release, out.shape[1] - start)
    frames = loop.shape[1] - 1
    per_frame, turn = tuning[0] * BLOCK, tuning[0] * tuning[1] * BLOCK
    step = np.float32(1.0 / per_frame)
    level = 0.0
    at_release = 1.0
    frame = 0
    while frame < total:
        size = min(_block_size(frame, held, attack, release, LONG_BLOCK), total - frame)
        end = frame + size
        if end <= held:
            target = at_release = _held_level(end, attack, decay, sustain)
        else:
            fall = max(1.0 - (end - held) / release, 0.0)
            target = at_release * fall * fall
        if wobble_depth > 0.0:
            target *= 1.0 - wobble_depth * (0.5 - 0.5 * np.cos(wobble_step * end / BLOCK))
        target *= 1.0 + swell[0] * np.sin(swell[1] * end / BLOCK + swell[2])
        slope = (target - level) / size
        done = 0
        while done < size:
            # A triangle: the shift grows and falls linearly.
            place = (tuning[2] * BLOCK + frame + done) % (2 * turn)
            if place < turn:
                ahead = place // per_frame
                part, part_slope = step * np.float32(place - ahead * per_frame), step
                same = (ahead + 1) * per_frame - place
            else:
                place = 2 * turn - place
                ahead = (place - 1) // per_frame
                part, part_slope = step * np.float32(place - ahead * per_frame), -step
                same = place - ahead * per_frame
            read = (frame + done + ahead) % frames
            run = min(size - done, same, frames - read)
            at = start + frame + done
            for c in range(2):
                gain = left if c == 0 else right
                env = np.float32((level + slope * done) * gain)
                env_slope = np.float32(slope * gain)
                sound = out[c, at : at + run]
                source = loop[c, read : read + run + 1]
                for j in range(run):
                    k = np.float32(np.int32(j))
                    sound[j] += (env + env_slope * k) * (
                        source[j] + (part + part_slope * k) * (source[j + 1] - source[j])
                    )
            done += run
        level = target
        frame = end


# --- notes that ring by themselves --------------------------------------------------------------------------------


@jit
def partials(frames, steps, amplitudes, seconds_frames, attack):
    """Return a sum of decaying sines, float32 of shape (frames,).

    ``steps`` are radians per frame, ``seconds_frames`` the frames in which each partial falls by 60 dB. The first
    ``attack`` frames fade in and the last twelfth fades out.
    """
    lanes = 64
    out = np.zeros(frames + lanes, np.float32)
    real = np.empty(lanes, np.float32)
    imaginary = np.empty(lanes, np.float32)
    for k in range(steps.shape[0]):
        fall = np.log(10.0) * -3.0 / seconds_frames[k]
        keep = np.exp(fall)
        turn_real, turn_imaginary = keep * np.cos(steps[k]), keep * np.sin(steps[k])
        now, now_imaginary = amplitudes[k], 0.0
        for j in range(lanes):
            real[j] = now
            imaginary[j] = now_imaginary
            now, now_imaginary = (
                now * turn_real - now_imaginary * turn_imaginary,
                now * turn_imaginary + now_imaginary * turn_real,
            )
        # Frames are computed in blocks; a partial ends below -100 dB.
        keep = np.exp(fall * lanes)
        c = np.float32(keep * np.cos(steps[k] * lanes))
        s = np.float32(keep * np.sin(steps[k] * lanes))
        for begin in range(0, min(frames, int(1.7 * seconds_frames[k])), lanes):
            block = out[begin : begin + lanes]
            for j in range(lanes):
                block[j] += imaginary[j]
                turned = real[j] * c - imaginary[j] * s
                imaginary[j] = imaginary[j] * c + real[j] * s
                real[j] = turned
    out = out[:frames]
    _edges(out, attack)
    return out


@jit
def pluck(frames, period, keep, brightness, position, excitation, attack):
    """Return a plucked string (Karplus and Strong, 1983), float32 of shape (frames,).

    ``period`` in frames may be fractional; ``keep`` is the gain per period; ``brightness`` in (0, 1] is the mix of the
    averaging filter; ``position`` in (0, 1) is the plucking point, which weakens some harmonics.
    """
    damp = 0.5 * (1.0 - brightness)
    # The averaging filter delays by `damp` frames; the fractional rest of the period is interpolated.
    delay = period - damp
    whole = int(delay)
    part = delay - whole
    # The string's past, and one sample before it: moved to the front whenever the room behind it is used up.
    line = np.zeros(1 + whole + 16 * BLOCK, np.float64)
    comb = max(int(whole * position), 1)
    mean = 0.0
    for i in range(whole):
        line[1 + i] = excitation[i % excitation.shape[0]] - excitation[(i + comb) % whole % excitation.shape[0]]
        mean += line[1 + i]
    mean /= whole
    for i in range(whole):
        line[1 + i] -= mean
    out = np.zeros(frames, np.float32)
    read = np.zeros(1 + BLOCK, np.float64)
    here = 0
    frame = 0
    while frame < frames:
        # Within a period nothing depends on what is made, so a compiler turns both passes into vector instructions.
        size = min(whole, BLOCK, frames - frame)
        if 1 + here + whole + size > line.shape[0]:
            for i in range(1 + whole):
                line[i] = line[here + i]
            here = 0
        past = line[here : here + size + 1]
        made = line[1 + here + whole : 1 + here + whole + size]
        for i in range(size):
            read[1 + i] = past[i + 1] * (1.0 - part) + past[i] * part
        for i in range(size):
            made[i] = keep * (read[1 + i] * (1.0 - damp) + read[i] * damp) + TINY
        for i in range(size):
            out[frame + i] = read[1 + i]
        read[0] = read[size]
        here += size
        frame += size
    _edges(out, attack)
    return out


@jit
def _edges(out, attack):
    frames = out.shape[0]
    rise = min(max(attack, 2), frames // 2)
    for i in range(rise):
        x = i / rise
        out[i] *= x * x * (3.0 - 2.0 * x)
    fall = max(frames // 12, 1)
    for i in range(fall):
        x = i / fall
        out[frames - 1 - i] *= x * x * (3.0 - 2.0 * x)


def edges(out: Mono, attack_frames: int) -> Mono:
    """Fade in the first ``attack_frames`` of ``out`` and fade out its last twelfth, in place, and return ``out``."""
    _edges(out, int(attack_frames))
    return out


# --- noise --------------------------------------------------------------------------------------------------------


@jit
def noise(frames, seed):
    """Return white noise in [-1, 1), float32. Each value is a hash of the frame's number, so any part can be computed
    separately."""
    out = np.empty(frames, np.float32)
    key = np.uint32(np.uint32(seed) * np.uint32(0x9E3779B9) + np.uint32(0x7F4A7C15))
    for i in range(frames):
        x = np.uint32(np.uint32(i) + key)
        x ^= x >> np.uint32(16)
        x = np.uint32(x * np.uint32(0x7FEB352D))
        x ^= x >> np.uint32(15)
        x = np.uint32(x * np.uint32(0x846CA68B))
        x ^= x >> np.uint32(16)
        out[i] = np.float32(np.int32(x)) * np.float32(1.0 / 2147483648.0)
    return out


@jit
def add_air(out, start, times, levels, cutoffs, resonance, band, gain_left, gain_right, seed, sample_rate):
    """Add filtered stereo noise whose level and cutoff are interpolated linearly between break points.

    ``times`` are frames from ``start``, rising from 0; ``levels`` are amplitudes and ``cutoffs`` hertz at those
    frames. ``band`` is the share of the band-pass output, the rest is low-pass. Left and right are independent noise.
    """
    total = min(int(times[-1]), out.shape[1] - start)
    key = np.uint32(np.uint32(seed) * np.uint32(0x9E3779B9) + np.uint32(0x51ED2701))
    k = 1.0 / resonance
    white = np.empty((2, AIR_BLOCK), np.float32)
    l1 = l2 = r1 = r2 = 0.0
    point = 0
    level = levels[0]
    frame = 0
    while frame < total:
        end = min(frame + AIR_BLOCK, total)
        while point < times.shape[0] - 2 and end > times[point + 1]:
            point += 1
        x = (end - times[point]) / (times[point + 1] - times[point])
        target = levels[point] + x * (levels[point + 1] - levels[point])
        cutoff = cutoffs[point] * (cutoffs[point + 1] / cutoffs[point]) ** x
        g = np.tan(np.pi * min(cutoff / sample_rate, 0.45))
        a1 = 1.0 / (1.0 + g * (g + k))
        a2 = g * a1
        a3 = g * a2
        # The weights of the states and of the input in the output.
        from_1 = band * k * a1 + (1.0 - band) * a2
        from_2 = (1.0 - band) * (1.0 - a3) - band * k * a2
        from_x = band * k * a2 + (1.0 - band) * a3
        slope = (target - level) / (end - frame)
        for j in range(AIR_BLOCK):
            h = np.uint32(np.uint32(frame + j) + key)
            h ^= h >> np.uint32(16)
            h = np.uint32(h * np.uint32(0x7FEB352D))
            h ^= h >> np.uint32(15)
            h = np.uint32(h * np.uint32(0x846CA68B))
            h ^= h >> np.uint32(16)
            # Sixteen random bits per channel are sufficient before a filter.
            white[0, j] = np.float32(np.int32(h & np.uint32(65535)) - 32768) * np.float32(1.0 / 32768.0)
            white[1, j] = np.float32(np.int32(h >> np.uint32(16)) - 32768) * np.float32(1.0 / 32768.0)
        out_left = out[0, start + frame : start + end]
        out_right = out[1, start + frame : start + end]
        for j in range(end - frame):
            x = white[0, j]
            u = white[1, j]
            out_left[j] += gain_left * level * (from_1 * l1 + from_2 * l2 + from_x * x)
            out_right[j] += gain_right * level * (from_1 * r1 + from_2 * r2 + from_x * u)
            l1, l2 = (
                (2.0 * a1 - 1.0) * l1 - 2.0 * a2 * l2 + 2.0 * a2 * x,
                2.0 * a2 * l1 + (1.0 - 2.0 * a3) * l2 + 2.0 * a3 * x,
            )
            r1, r2 = (
                (2.0 * a1 - 1.0) * r1 - 2.0 * a2 * r2 + 2.0 * a2 * u,
                2.0 * a2 * r1 + (1.0 - 2.0 * a3) * r2 + 2.0 * a3 * u,
            )
            level += slope
        level = target
        frame = end


# --- filters and placing ------------------------------------------------------------------------------------------


@jit
def filter_mono(x, cutoff_start, cutoff_end, resonance, kind, sample_rate):
    """Apply a state-variable filter (trapezoidal integration) with an exponential cutoff sweep; ``kind`` 0 low, 1 band, 2
    high."""
    out = np.empty_like(x)
    k = 1.0 / resonance
    s1 = 0.0
    s2 = 0.0
    frames = x.shape[0]
    ratio = cutoff_end / cutoff_start
    frame = 0
    while frame < frames:
        end = min(frame + 32, frames)
        cutoff = cutoff_start * ratio ** (frame / frames)
        g = np.tan(np.pi * min(cutoff / sample_rate, 0.45))
        a1 = 1.0 / (1.0 + g * (g + k))
        a2 = g * a1
        a3 = g * a2
        for i in range(frame, end):
            v0 = x[i] + TINY
            v3 = v0 - s2
            v1 = a1 * s1 + a2 * v3
            v2 = s2 + a2 * s1 + a3 * v3
            s1 = 2.0 * v1 - s1
            s2 = 2.0 * v2 - s2
            if kind == 0:
                out[i] = v2
            elif kind == 1:
                out[i] = k * v1
            else:
                out[i] = v0 - k * v1 - v2
        frame = end
    return out


@jit
def sweep_stereo(
    buffer, first, frames, cutoffs_left, cutoffs_right, gains_left, gains_right, resonance, block, sample_rate, states
):
    """Low-pass ``frames`` frames of ``buffer``, from ``first`` on, in place, with varying cutoff and gain: one value of
    each per ``block`` frames.

    ``states`` are the two filter states of each channel and the last gains: six numbers that are passed from call to
    call.
    """
    k = 1.0 / resonance
    l1, l2, r1, r2, gl, gr = states[0], states[1], states[2], states[3], states[4], states[5]
    fed = np.empty((2, 2, block // 2))
    for b in range((frames + block - 1) // block):
        begin = b * block
        end = min(begin + block, frames)
        pairs = (end - begin) // 2
        left = buffer[0, first + begin : first + end]
        right = buffer[1, first + begin : first + end]
        # Each state is a linear function of both states and the input. Two frames are computed per step, because each
        # step waits for the previous result.
        g = np.tan(np.pi * min(cutoffs_left[b] / sample_rate, 0.45))
        a1 = 2.0 / (1.0 + g * (g + k))
        a2 = g * a1
        a3 = g * a2
        h = np.tan(np.pi * min(cutoffs_right[b] / sample_rate, 0.45))
        b1 = 2.0 / (1.0 + h * (h + k))
        b2 = h * b1
        b3 = h * b2
        _feed_pairs(left, fed[0], pairs, a1, a2, a3)
        _feed_pairs(right, fed[1], pairs, b1, b2, b3)
        a11, a12, a22 = (a1 - 1.0) ** 2 - a2 * a2, -a2 * (a1 - a3), (1.0 - a3) ** 2 - a2 * a2
        b11, b12, b22 = (b1 - 1.0) ** 2 - b2 * b2, -b2 * (b1 - b3), (1.0 - b3) ** 2 - b2 * b2
        slope_left = (gains_left[b] - gl) / block
        slope_right = (gains_right[b] - gr) / block
        for n in range(pairs):
            j = 2 * n
            middle_l = (1.0 - a3) * l2 + (a2 * l1 + a3 * (left[j] + TINY))
            middle_r = (1.0 - b3) * r2 + (b2 * r1 + b3 * (right[j] + TINY))
            before_l = l2
            before_r = r2
            l1, l2 = a11 * l1 + (a12 * l2 + fed[0, 0, n]), a22 * l2 + (fed[0, 1, n] - a12 * l1)
            r1, r2 = b11 * r1 + (b12 * r2 + fed[1, 0, n]), b22 * r2 + (fed[1, 1, n] - b12 * r1)
            left[j] = gl * 0.5 * (before_l + middle_l)
            right[j] = gr * 0.5 * (before_r + middle_r)
            left[j + 1] = (gl + slope_left) * 0.5 * (middle_l + l2)
            right[j + 1] = (gr + slope_right) * 0.5 * (middle_r + r2)
            gl += 2.0 * slope_left
            gr += 2.0 * slope_right
        if end - begin > 2 * pairs:
            j = 2 * pairs
            x = left[j] + TINY
            u = right[j] + TINY
            before_l = l2
            before_r = r2
            l1, l2 = (a1 - 1.0) * l1 + a2 * (x - l2), (1.0 - a3) * l2 + a2 * l1 + a3 * x
            r1, r2 = (b1 - 1.0) * r1 + b2 * (u - r2), (1.0 - b3) * r2 + b2 * r1 + b3 * u
            left[j] = gl * 0.5 * (before_l + l2)
            right[j] = gr * 0.5 * (before_r + r2)
    states[0], states[1], states[2], states[3], states[4], states[5] = l1, l2, r1, r2, gl, gr


@inner_jit
def _feed_pairs(side, fed, pairs, a1, a2, a3):
    """Compute the contribution of each pair of frames to the two states of the filter."""
    for n in range(pairs):
        x = side[2 * n] + TINY
        y = side[2 * n + 1] + TINY
        fed[0, n] = a2 * ((a1 - 1.0 - a3) * x + y)
        fed[1, n] = (a2 * a2 + (1.0 - a3) * a3) * x + a3 * y


@jit
def ramp_stereo(buffer, first, frames, left, right, block):
    """Multiply ``frames`` frames of ``buffer``, from ``first`` on, in place with gains that are interpolated linearly
    between values ``block`` frames apart."""
    for c in range(2):
        gains = left if c == 0 else right
        for b in range((frames + block - 1) // block):
            sound = buffer[c, first + b * block : first + min((b + 1) * block, frames)]
            gain = np.float32(gains[b])
            slope = np.float32((gains[b + 1] - gains[b]) / block)
            for j in range(sound.shape[0]):
                sound[j] *= gain + slope * np.float32(np.int32(j))


@jit
def place(out, sample, starts, left, right):
    """Add one mono ``sample`` at each of ``starts`` (frames), with separate gains for left and right."""
    for n in range(starts.shape[0]):
        for side in range(2):
            target = out[side, starts[n] : starts[n] + sample.shape[0]]
            gain = left[n] if side == 0 else right[n]
            for i in range(target.shape[0]):
                target[i] += gain * sample[i]
