"""One-shot sounds: struck, plucked and drums. Each function takes a :class:`Hit` and returns mono samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latentscore.synth.signal import Mono, edges, filter_mono, noise, partials, pluck, sine
from latentscore.synth.voices import Hit

LOW, BAND, HIGH = 0, 1, 2


def _time(hit: Hit, frames: int) -> NDArray[np.float64]:
    """Seconds from the beginning of a hit, for each frame."""
    return np.arange(frames) / hit.sample_rate


def _fall(time: NDArray[np.float64], seconds: float) -> Mono:
    """Return an exponential decay that falls to 37 % in ``seconds``."""
    return np.exp(time.astype(np.float32) * np.float32(-1.0 / seconds))


def struck(
    hit: Hit, ratios: Sequence[float], levels: Sequence[float], seconds: Sequence[float], cutoff_hz: float = 3500.0
) -> Mono:
    """Return decaying sines at ``ratios`` of the pitch, each with its level and its decay time (60 dB)."""
    hz = hit.hz * np.array(ratios)
    limit = cutoff_hz * hit.open * (0.5 + 0.7 * hit.strength) * hit.edge**0.5
    amplitude = np.array(levels) / np.sqrt(1 + (hz / limit) ** 2)
    kept = hz < hit.ceiling
    if not kept.any():
        return np.zeros(8, np.float32)
    falls = np.array(seconds) * hit.sample_rate
    longest = float(np.array(seconds)[kept].max())
    steps = math.tau * hz / hit.sample_rate
    return partials(hit.frames(0.7 * longest), steps[kept], 0.5 * amplitude[kept], falls[kept], hit.attack_frames)


def bell(hit: Hit) -> Mono:
    """A small church bell: hum, prime, a minor third, fifth, octave and the brighter ones."""
    s = min(3.2 * (440.0 / hit.hz) ** 0.3, 1.6 * hit.seconds + 1.0)
    tone = struck(
        hit,
        (0.5, 1.0, 1.2, 1.5, 2.0, 2.67, 3.01, 4.1),
        (0.25, 0.7, 0.3, 0.2, 0.5, 0.22, 0.2, 0.12),
        (1.2 * s, s, 0.8 * s, 0.6 * s, 0.6 * s, 0.4 * s, 0.3 * s, 0.2 * s),
    )
    return _knocked(hit, tone, 0.8, 5200.0, 0.02, 19)


def chime(hit: Hit) -> Mono:
    """A hanging metal tube: far apart, slowly beating partials."""
    s = 4.2 * (440.0 / hit.hz) ** 0.25
    return struck(
        hit,
        (1.0, 1.004, 2.76, 2.77, 5.4, 8.93),
        (0.5, 0.4, 0.45, 0.25, 0.3, 0.12),
        (s, s, 0.7 * s, 0.6 * s, 0.35 * s, 0.2 * s),
        7000.0,
    )


def crystal(hit: Hit) -> Mono:
    """A struck glass: pure, slightly out of tune, long."""
    s = 2.6
    return struck(
        hit, (1.0, 1.008, 2.32, 4.25, 6.63), (0.5, 0.4, 0.28, 0.2, 0.08), (s, s, 0.5 * s, 0.3 * s, 0.2 * s), 9000.0
    )


def star(hit: Hit) -> Mono:
    """One high sine and its octave, short."""
    return struck(hit, (1.0, 2.0), (0.6, 0.2), (1.1, 0.5), 9000.0)


def marimba(hit: Hit) -> Mono:
    s = 1.1 * (262.0 / hit.hz) ** 0.4
    return struck(hit, (1.0, 3.93, 9.2), (0.9, 0.25, 0.1), (s, 0.3 * s, 0.12 * s))


def kalimba(hit: Hit) -> Mono:
    s = 1.5 * (262.0 / hit.hz) ** 0.3
    return struck(hit, (1.0, 2.0, 5.42, 8.9), (0.8, 0.2, 0.22, 0.12), (s, 0.7 * s, 0.15 * s, 0.08 * s), 5000.0)


def vibraphone(hit: Hit) -> Mono:
    s = 2.8 * (262.0 / hit.hz) ** 0.3
    tone = struck(hit, (1.0, 4.0, 10.1), (0.9, 0.22, 0.06), (s, 0.35 * s, 0.1 * s))
    time = np.arange(len(tone), dtype=np.float32) / hit.sample_rate
    return (tone * (1.0 - 0.25 * (1.0 - np.cos(math.tau * 4.8 * time)))).astype(np.float32)


def electric_piano(hit: Hit) -> Mono:
    """A tine and its pickup: a warm body and a short bell above it."""
    s = 3.0 * (262.0 / hit.hz) ** 0.4
    drive = 0.25 + 0.5 * hit.strength
    return struck(
        hit,
        (1.0, 2.0, 3.0, 4.0, 7.1),
        (0.9, 0.45 * drive, 0.3 * drive, 0.12 * drive, 0.25 * drive),
        (s, 0.6 * s, 0.4 * s, 0.3 * s, 0.12 * s),
        2500.0,
    )


def piano(hit: Hit) -> Mono:
    """A stiff string under a felt hammer: partials a little sharp, two strings beating."""
    k = np.arange(1, 15)
    stiff = k * np.sqrt(1 + 0.0006 * k**2)
    level = (1.0 / k**1.05) * np.abs(np.sin(np.pi * k / 8.3)) ** 0.4
    s = 3.4 * (262.0 / hit.hz) ** 0.5 / (1 + 0.25 * (k - 1))
    ratios = np.concatenate([stiff, stiff[:4] * 1.0011])
    levels = np.concatenate([level, 0.6 * level[:4]])
    seconds = np.concatenate([s, 1.3 * s[:4]])
    return struck(hit, tuple(ratios), tuple(0.7 * levels), tuple(seconds), 3200.0)


def _string(hit: Hit, seconds: float, brightness: float, position: float, cutoff_hz: float) -> Mono:
    period = hit.sample_rate / hit.hz
    if period < 4:
        return np.zeros(8, np.float32)
    color = min(max(cutoff_hz * hit.open * (0.5 + 0.5 * hit.strength) * hit.edge**0.5, 200.0), 0.4 * hit.sample_rate)
    excitation = filter_mono(noise(max(int(period) + 1, 16), 17), color, color, 0.7, LOW, float(hit.sample_rate))
    excitation /= np.sqrt(np.mean(excitation**2)) + 1e-9
    keep = 10.0 ** (-3.0 * period / (seconds * hit.sample_rate))
    frames = hit.frames(0.8 * seconds)
    tone = pluck(frames, period, keep, brightness, position, excitation, max(hit.attack_frames, 3))
    return 0.16 * tone


def harp(hit: Hit) -> Mono:
    return _string(hit, 2.6 * (262.0 / hit.hz) ** 0.4, 0.6, 0.28, 3200.0)


def nylon(hit: Hit) -> Mono:
    return _knocked(hit, _string(hit, 1.6 * (262.0 / hit.hz) ** 0.4, 0.35, 0.17, 2400.0), 0.5, 4600.0, 0.006, 21)


def bass_string(hit: Hit) -> Mono:
    """A plucked bass string; darker pieces have a softer attack."""
    tone = _string(hit, 1.5, 0.45, 0.3, 900.0)
    color = min(1500.0 * hit.open * hit.open * hit.edge, 0.4 * hit.sample_rate)
    return filter_mono(tone, color, color, 0.7, LOW, float(hit.sample_rate))


def blip(hit: Hit) -> Mono:
    """A short electronic chirp that falls onto its pitch."""
    time = _time(hit, hit.frames(0.16))
    turns = hit.hz * (time + 0.5 * 0.012 * (1 - _fall(time, 0.012)))
    tone = (sine(turns) + sine(3 * turns) * np.float32(0.4 * min(hit.open, 2.0))) * _fall(time, 0.045)
    tone = edges((0.5 * tone).astype(np.float32, copy=False), hit.attack_frames)
    return _knocked(hit, tone, 0.5, 6000.0, 0.02, 22)


# --- drums --------------------------------------------------------------------------------------------------------


def _sweep(hit: Hit, top_hz: float, hz: float, bend: float, ring: float, seconds: float) -> Mono:
    """A membrane: a sine that falls from ``top_hz`` to ``hz`` within about ``bend`` seconds and rings for ``ring``."""
    time = _time(hit, hit.frames(seconds))
    return sine(hz * time + (top_hz - hz) * bend * (1 - _fall(time, bend))) * _fall(time, ring)


def _burst(
    hit: Hit, seconds: float, ring: float, cutoff_hz: float, kind: int, resonance: float = 0.8, salt: int = 0
) -> Mono:
    """Return decaying filtered noise."""
    frames = hit.frames(seconds)
    # A higher high-pass frequency lowers the level, so the level of bright hats is kept.
    opened = min(max(hit.open, 0.4), 1.0 if kind == HIGH else 2.0)
    cutoff = min(cutoff_hz * opened**0.6, 0.42 * hit.sample_rate)
    white = noise(frames, 1000 * salt + hit.seed)
    tone = filter_mono(white, cutoff, cutoff, float(resonance), kind, float(hit.sample_rate))
    return tone * _fall(_time(hit, frames), ring)


def _mix(*parts: tuple[float, Mono]) -> Mono:
    out = np.zeros(max(len(part) for _, part in parts), np.float32)
    for gain, part in parts:
        out[: len(part)] += np.float32(gain) * part
    return out


def _knocked(hit: Hit, tone: Mono, level: float, hz: float, ring: float, salt: int) -> Mono:
    """Return a tone with the noise of its hammer, mallet or finger, at frequencies where other layers have little energy."""
    knock = _burst(hit, 6.0 * ring, ring, hz, BAND, 0.7, salt)
    return _mix((1.0, tone), (level * hit.edge, edges(knock, min(hit.attack_frames, len(knock) // 2))))


def _drum(hit: Hit, *parts: tuple[float, Mono]) -> Mono:
    return edges(_mix(*parts), hit.attack_frames)


def soft_kick(hit: Hit) -> Mono:
    beater = _burst(hit, 0.06, 0.014, 1300, LOW, salt=18)
    return _drum(hit, (0.9, _sweep(hit, 105, 52, 0.03, 0.13, 0.5)), (0.65 * hit.edge, beater))


def kick(hit: Hit) -> Mono:
    click = _burst(hit, 0.02, 0.004, 2500, LOW, salt=1)
    return _drum(hit, (0.9, _sweep(hit, 190, 52, 0.022, 0.14, 0.5)), (0.25 * hit.edge, click))


def deep_kick(hit: Hit) -> Mono:
    """The long electronic kick."""
    click = _burst(hit, 0.04, 0.008, 5000, LOW, salt=26)
    return _drum(hit, (0.9, _sweep(hit, 240, 43, 0.03, 0.35, 1.1)), (0.5 * hit.edge, click))


def lub(hit: Hit) -> Mono:
    tone = _drum(hit, (0.7, _sweep(hit, 88, 50, 0.05, 0.1, 0.4)), (1.0, _burst(hit, 0.16, 0.04, 800, LOW, salt=2)))
    return _knocked(hit, tone, 0.6, 2200.0, 0.025, 24)


def dub(hit: Hit) -> Mono:
    tone = _drum(hit, (0.7, _sweep(hit, 130, 74, 0.035, 0.07, 0.3)), (1.0, _burst(hit, 0.14, 0.03, 1300, LOW, salt=3)))
    return _knocked(hit, tone, 0.8, 3000.0, 0.03, 25)


def click(hit: Hit) -> Mono:
    """A wood block, far away."""
    return _drum(
        hit, (0.6, _sweep(hit, 1150, 920, 0.006, 0.025, 0.2)), (0.8, _burst(hit, 0.06, 0.012, 3600, BAND, salt=4))
    )


def rim(hit: Hit) -> Mono:
    return _drum(
        hit, (0.4, _sweep(hit, 1900, 1650, 0.004, 0.012, 0.1)), (0.5, _burst(hit, 0.08, 0.014, 2800, BAND, 2, 5))
    )


def snare(hit: Hit) -> Mono:
    wires = _burst(hit, 0.35, 0.07, 3000, BAND, 0.6, 6)
    return _drum(hit, (0.5, _sweep(hit, 260, 185, 0.015, 0.06, 0.3)), (0.7, wires))


def field_snare(hit: Hit) -> Mono:
    """A deep marching drum with tight wires."""
    wires = _burst(hit, 0.25, 0.045, 4200, BAND, 0.6, 7)
    return _drum(hit, (0.45, _sweep(hit, 340, 250, 0.01, 0.045, 0.2)), (0.85, wires))


def clap(hit: Hit) -> Mono:
    """A clap: four short bursts of noise, slightly apart in time."""
    one = _burst(hit, 0.22, 0.008, 1500, BAND, 1.2, 8)
    tail = _burst(hit, 0.3, 0.06, 1500, BAND, 1.2, 9)
    out = np.zeros(hit.frames(0.36), np.float32)
    for delay, part, gain in ((0.0, one, 0.8), (0.011, one, 0.7), (0.021, one, 0.8), (0.03, tail, 0.9)):
        begin = hit.frames(delay) if delay else 0
        end = min(begin + len(part), len(out))
        out[begin:end] += np.float32(gain) * part[: end - begin]
    return edges(out, hit.attack_frames)


def hat(hit: Hit) -> Mono:
    return _drum(hit, (0.5, _burst(hit, 0.12, 0.022, 7500, HIGH, 0.9, 10)))


def open_hat(hit: Hit) -> Mono:
    return _drum(hit, (0.45, _burst(hit, 0.6, 0.14, 7000, HIGH, 0.9, 11)))


def electronic_hat(hit: Hit) -> Mono:
    return _drum(hit, (0.5, _burst(hit, 0.08, 0.013, 9000, HIGH, 1.8, 12)))


def ride(hit: Hit) -> Mono:
    ping = struck(hit, (1.0, 1.41, 1.93, 2.71), (0.3, 0.25, 0.2, 0.15), (0.8, 0.7, 0.5, 0.4), 9000)
    return _drum(hit, (0.5, ping), (0.3, _burst(hit, 0.6, 0.16, 6500, HIGH, 0.8, 13)))


def tom(hit: Hit) -> Mono:
    return _drum(
        hit,
        (0.8, _sweep(hit, 1.6 * hit.hz, hit.hz, 0.03, 0.16, 0.6)),
        (0.1, _burst(hit, 0.05, 0.01, 1500, LOW, salt=14)),
    )


def brush_tap(hit: Hit) -> Mono:
    return _drum(
        hit, (0.5, _burst(hit, 0.2, 0.045, 3600, BAND, 0.5, 15)), (0.2, _sweep(hit, 220, 180, 0.02, 0.04, 0.2))
    )


def dayan(hit: Hit) -> Mono:
    """The right, tuned drum of a tabla: near-harmonic because its skin is loaded."""
    tone = struck(hit, (1.0, 2.0, 3.01, 4.02, 5.1), (0.25, 0.6, 0.45, 0.2, 0.1), (0.35, 0.5, 0.4, 0.25, 0.15), 5000.0)
    return _knocked(hit, tone, 0.4, 3400.0, 0.012, 23)


def dayan_closed(hit: Hit) -> Mono:
    tap = _burst(hit, 0.1, 0.018, 2900, BAND, 0.8, 16)
    return _drum(hit, (0.35, _sweep(hit, 2.2 * hit.hz, 2 * hit.hz, 0.01, 0.02, 0.12)), (0.8, tap))


def bayan(hit: Hit) -> Mono:
    """The left, low drum of a tabla: the heel of the hand presses the skin and the pitch rises after the stroke."""
    time = _time(hit, hit.frames(0.75))
    bend = 1.0 + 0.45 * (1 - _fall(time, 0.11)) * _fall(time, 0.6)
    turns = np.cumsum(bend, dtype=np.float64) * (0.5 * hit.hz / hit.sample_rate)
    body = (sine(turns) + sine(2 * turns) * np.float32(0.25)) * _fall(time, 0.2)
    return edges((0.8 * body).astype(np.float32, copy=False), hit.attack_frames)


# --- surfaces -----------------------------------------------------------------------------------------------------


def crackle(hit: Hit) -> Mono:
    """One speck of dust under a needle: two milliseconds of band-passed noise, different in each take."""
    tone = _burst(hit, 0.006, 0.0009, 1800.0 + 700.0 * (hit.seed % 5), BAND, 1.4, 17)
    return edges(tone, hit.frames(0.0004))


def pop(hit: Hit) -> Mono:
    return edges(_mix((0.8, _sweep(hit, 420, 160, 0.004, 0.006, 0.04))), hit.frames(0.0008))


def grain(hit: Hit) -> Mono:
    """A stuttering fragment: a square tone, gated, each take with another rhythm of gates."""
    time = _time(hit, hit.frames(max(hit.seconds, 0.06)))
    wave = np.zeros(len(time), np.float32)
    for k in (1, 3, 5, 7):
        if hit.hz * k < hit.ceiling:
            wave += sine(hit.hz * k * time) * np.float32(1 / k)
    rate = (17.0, 23.0, 31.0, 47.0)[hit.seed % 4]
    gate = np.clip(sine(rate * time) * np.float32(6.0) + np.float32(1.0), 0.0, 1.0)
    return edges((0.3 * wave * gate).astype(np.float32, copy=False), hit.frames(0.002))
