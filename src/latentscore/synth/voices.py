"""Sounds: the conversion of a note to samples.

There are three kinds. A :class:`Wave` is a held wavetable tone, added directly to the mix. A :class:`Shot` is a
one-shot sound: each different note is rendered once and added wherever it occurs. :class:`Air` is filtered noise with
an envelope.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from latentscore.synth.context import RenderContext
from latentscore.synth.notes import Note
from latentscore.synth.signal import BLOCK, Mono, Stereo, add_air, add_loop, add_wave, make_loop, place, table_for

PUNCH_SECONDS = 0.03
"""Seconds in which the extra level at the onset of a sharp note falls to 37 %."""


def hertz(pitch: float) -> float:
    return 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)


def loudness_of(velocity: float) -> float:
    """Amplitude for a velocity: 24 dB from the softest to the loudest in use."""
    return velocity**1.6


def sides(pan: float) -> tuple[float, float]:
    """Equal-power gains for left and right; ``pan`` from -1 to 1, 0 giving 0.71 to both."""
    angle = (min(max(pan, -1.0), 1.0) + 1.0) * math.pi / 4
    return math.cos(angle), math.sin(angle)


@dataclass(frozen=True)
class Wave:
    """A held tone. Times in seconds, ``cutoff_hz`` at medium brightness.

    ``bite`` brightens the onset and decays in ``bite_seconds``. ``unison`` voices are detuned by ``cents`` and panned
    over a width of ``spread``. ``tremolo`` is depth and hertz, in addition to that of motion (``sway``, 0 to 1).
    """

    shape: str
    cutoff_hz: float = 2500.0
    attack: float = 0.02
    decay: float = 1.0
    sustain: float = 0.8
    release: float = 0.2
    unison: int = 1
    cents: float = 0.0
    spread: float = 0.0
    bite: float = 0.0
    bite_seconds: float = 0.15
    vibrato_cents: float = 0.0
    vibrato_hz: float = 5.2
    tremolo: tuple[float, float] = (0.0, 0.0)
    sway: float = 0.5
    track: float = 0.35
    level: float = 1.0

    def add(self, out: Stereo, notes: Sequence[Note], gain: float, context: RenderContext) -> None:
        for note in notes:
            if not self._add_looped(out, note, gain, context):
                self._add_one(out, note, gain, context)

    def _add_looped(self, out: Stereo, note: Note, gain: float, context: RenderContext) -> bool:
        """Play a long note of several voices from two loops with a whole number of cycles of each voice.

        After one loop, all detuned voices have returned to their initial phase, so the loop repeats exactly. The two
        loops have different lengths and timbres, and independent drifts in level and tuning, so that their sum never
        repeats. Return False if a loop would be longer than the note.
        """
        rate = context.sample_rate
        # A chord's voices are tuned in steps of ten cents, so that the same chord comes from the same loops.
        hz = hertz(round(note.pitch, 1))
        start = context.place(note.start)
        if self.unison < 2 or self.bite > 0 or hz > 0.45 * rate or start >= out.shape[1]:
            return False
        apart = 2.0 ** (self.cents * context.looseness / 1200.0) - 1.0
        rise, held, release = self._times(note, context)
        # Cycles of each loop: a voice with one more cycle is higher by that ratio.
        cycles = [round(1.0 / apart), round(1.0 / (0.618 * apart))]
        if max(cycles) * rate / hz > held + release:
            return False
        left, right = self._gains(note, 0.0, 1.0)
        amplitude = 1.414 * gain * self.level * loudness_of(note.velocity)
        pan_left, pan_right = sides(note.pan)
        depth, speed = context.wobble(self.tremolo, self.sway)
        seed = crc32(f"{context.piece.seed} {note.at:.4f} {note.pitch:.1f} {note.sound}".encode())
        for number, count in enumerate(cycles):
            loop = self._loop(number, count, hz, note, left, right, context)
            swell, tuning = context.drift(seed >> (8 * number))
            add_loop(
                out, start, held, rise, self.decay * rate, self.sustain, release, loop, amplitude * pan_left,
                amplitude * pan_right, depth, math.tau * speed * BLOCK / rate, swell, tuning,
            )  # fmt: skip
        return True

    def _loop(
        self, number: int, cycles: int, hz: float, note: Note, left: Mono, right: Mono, context: RenderContext
    ) -> Stereo:
        """Return one of the two loops of a note: a duller one of the lower voices, or a brighter one of the higher voices."""
        key = (self, hz, number)
        loop = context.kept.get(key)
        if loop is not None:
            return loop
        rate = context.sample_rate
        frames = round(cycles * rate / hz)
        cutoff = self.cutoff_hz * context.open * (hz / 262.0) ** self.track * (0.75, 1.3)[number]
        turns = round(self.vibrato_hz * frames / rate)
        # Vibrato as phase: its depth in cycles is the deviation of the frequency over that of the vibrato.
        deviation = 2.0 ** (self.vibrato_cents / 1200.0) - 1.0
        sway = deviation * cycles / (math.tau * turns) if turns else 0.0
        first, last = (0, 2) if number == 0 else (self.unison - 2, self.unison)
        voices = np.array([cycles, cycles + 1] if number else [cycles - 1, cycles])
        phases = np.array([(0.23 * voice + 0.137 * round(note.pitch)) % 1.0 for voice in range(first, last)])
        # With three voices the middle one is in both loops, with two both are.
        share = np.float32(0.71 if self.unison == 2 else 1.0) * np.ones(2, np.float32)
        if self.unison == 3:
            share[1 - number] = 0.71
        loop = make_loop(
            frames, table_for(self.shape, hz, cutoff, rate), voices, phases, left[first:last] * share,
            right[first:last] * share, sway, turns,
        )  # fmt: skip
        return context.kept.keep(key, loop)

    def _times(self, note: Note, context: RenderContext) -> tuple[float, int, int]:
        """Return the frames of the attack, of the note, and of the release.

        Short notes get a shorter attack and release.
        """
        held = context.frames(note.length * context.seconds_per_beat)
        release = min(context.frames(self.release), max(round(0.7 * held), context.frames(0.15)))
        return min(context.rise(self.attack), 0.7 * held), held, max(release, context.frames(0.012))

    def _places(self, note: Note) -> tuple[tuple[float, float], ...]:
        """Return each voice's position, -1 to 1 in tuning and from left to right, and its weight.

        One voice is stronger than the others, so that slow beating never cancels completely; with two voices, the
        stronger side alternates from pitch to pitch.
        """
        if self.unison == 1:
            return ((0.0, 1.0),)
        if self.unison == 2:
            side = 1.0 if round(note.pitch) % 2 else -1.0
            return ((-side, 0.9), (side, 0.4))
        return ((-1.0, 0.42), (0.0, 0.8), (1.0, 0.42))

    def _gains(self, note: Note, pan: float, amplitude: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The amplitude of each voice on the left and on the right."""
        left, right = zip(*(
            [1.414 * amplitude * weight * gain for gain in sides(pan + self.spread * place)]
            for place, weight in self._places(note)
        ), strict=True)  # fmt: skip
        return np.array(left, np.float32), np.array(right, np.float32)

    def _add_one(self, out: Stereo, note: Note, gain: float, context: RenderContext) -> None:
        rate = context.sample_rate
        hz = hertz(note.pitch)
        start = context.place(note.start)
        if hz > 0.45 * rate or start >= out.shape[1]:
            return
        cutoff = self.cutoff_hz * context.open * (hz / 262.0) ** self.track * (0.6 + 0.5 * note.velocity)
        duller = table_for(self.shape, hz, cutoff, rate)
        bite = min(self.bite * context.edge, 1.0)
        brighter = table_for(self.shape, hz, cutoff * 4.0, rate) if bite > 0 else duller

        level = self.level * punch_level(context.punch, note.length * context.seconds_per_beat)
        left, right = self._gains(note, note.pan, gain * level * loudness_of(note.velocity))
        detune = self.cents * context.looseness / 1200.0
        increments = np.array([hz * 2.0 ** (place * detune) / rate for place, _ in self._places(note)])
        # Fixed phases, so that equal notes begin equally. The voices' phases are close, otherwise their beating would
        # sound like a swell.
        phases = np.array([(0.06 * voice + 0.137 * note.pitch) % 1.0 for voice in range(self.unison)])
        depth, speed = context.wobble(self.tremolo, self.sway)
        block_seconds = BLOCK / rate
        rise, held, release = self._times(note, context)
        add_wave(
            out, start, held, rise, self.decay * rate, self.sustain, release, duller, brighter, bite, self.bite_seconds * rate,
            increments, phases, left, right, 2.0 ** (self.vibrato_cents / 1200.0) - 1.0,
            math.tau * self.vibrato_hz * block_seconds, depth, math.tau * speed * block_seconds, context.punch,
            PUNCH_SECONDS * rate,
        )  # fmt: skip


@dataclass(frozen=True)
class Hit:
    """The parameters of a one-shot sound; they determine its samples completely."""

    hz: float
    seconds: float
    strength: float
    open: float
    edge: float
    attack_frames: int
    sample_rate: int
    seed: int = 0
    punch: float = 0.0

    @property
    def ceiling(self) -> float:
        """The highest frequency a partial may have."""
        return 0.46 * self.sample_rate

    def frames(self, seconds: float) -> int:
        return max(round(seconds * self.sample_rate), 8)


def punched(sample: Mono, hit: Hit) -> Mono:
    """Return the sound with a louder onset, by ``hit.punch``, and the same energy."""
    if not hit.punch:
        return sample
    # Only the first frames are changed: after them the extra level is below 0.01 %.
    first = sample[: round(9.0 * PUNCH_SECONDS * hit.sample_rate)]
    shaped = first * _punch_curve(hit.sample_rate, hit.punch)[: len(first)]
    # Sums of numpy, because those of BLAS depend on the number of threads.
    before, after = (float(np.square(sound, dtype=np.float64).sum()) for sound in (first, shaped))
    rest = float(np.square(sample[len(first) :], dtype=np.float64).sum())
    louder = np.concatenate([shaped, sample[len(first) :]])
    return louder * np.float32(math.sqrt((before + rest) / (after + rest + 1e-12)))


@lru_cache(maxsize=8)
def _punch_curve(sample_rate: int, punch: float) -> Mono:
    """What the beginning of a sharp sound is multiplied with."""
    frames = np.arange(round(9.0 * PUNCH_SECONDS * sample_rate), dtype=np.float32)
    falls = np.exp(frames * np.float32(-1.0 / (PUNCH_SECONDS * sample_rate)))
    return np.float32(1.0) + np.float32(punch) * falls


def punch_level(punch: float, seconds: float) -> float:
    """Return the gain of a held note of constant level with which ``punch`` does not change its energy."""
    share = PUNCH_SECONDS / max(seconds, 1e-3)
    more = 2.0 * punch * share * (1.0 - math.exp(-1.0 / share))
    return (1.0 + more + 0.5 * punch**2 * share * (1.0 - math.exp(-2.0 / share))) ** -0.5


@dataclass(frozen=True)
class Shot:
    """A one-shot sound, from ``make(hit)``; ``takes`` variants are played in rotation."""

    make: Callable[[Hit], Mono]
    level: float = 1.0
    takes: int = 1
    attack: float = 1.0
    """The share of the attack field's rise time that applies: little for drums, all for bells."""

    tuning: float = 0.05
    """Pitch resolution in semitones: drums have only a few tunings, so that humanization does not require a new render per
    stroke."""

    def add(self, out: Stereo, notes: Sequence[Note], gain: float, context: RenderContext) -> None:
        places: dict[Hit, list[tuple[int, float, float]]] = defaultdict(list)
        rise = context.frames(context.shot_attack_seconds * self.attack)
        for note in notes:
            start = context.place(note.start)
            take = context.take(self.make, self.takes)
            hz = hertz(round(note.pitch / self.tuning) * self.tuning)
            if start >= out.shape[1] or hz > 0.45 * context.sample_rate:
                continue
            # Velocity and length are rounded, so that similar notes are rendered once; the level is exact.
            strength = max(round(note.velocity * 4), 1) / 4
            seconds = round(note.length * context.seconds_per_beat, 1)
            hit = Hit(hz, seconds, strength, context.open, context.edge, rise, context.sample_rate, take, context.punch)
            amplitude = gain * self.level * loudness_of(note.velocity) * 1.414
            left, right = sides(note.pan)
            places[hit].append((start, amplitude * left, amplitude * right))
        for hit, where in places.items():
            starts, left, right = zip(*where, strict=True)
            key = (self.make, hit)
            sample = context.kept.get(key)
            if sample is None:
                sample = context.kept.keep(key, punched(self.make(hit), hit))
            place(out, sample, np.array(starts), np.array(left, np.float32), np.array(right, np.float32))


@dataclass(frozen=True)
class Air:
    """Filtered noise with an envelope.

    ``shape`` lists (share of the note, level, cutoff factor); the note's pitch is the cutoff at factor 1, moved by
    brightness. ``band`` is the share of band-pass.
    """

    shape: tuple[tuple[float, float, float], ...]
    resonance: float = 0.7
    band: float = 1.0
    level: float = 1.0
    spread: float = 1.0

    def add(self, out: Stereo, notes: Sequence[Note], gain: float, context: RenderContext) -> None:
        for note in notes:
            start = context.place(note.start)
            length = context.frames(note.length * context.seconds_per_beat)
            if start >= out.shape[1]:
                continue
            share, level, factor = (np.array(column, dtype=np.float64) for column in zip(*self.shape, strict=True))
            cutoff = hertz(note.pitch) * min(max(context.open, 0.35), 2.5) * factor
            cutoff = np.clip(cutoff, 20.0, 0.44 * context.sample_rate)
            amplitude = gain * self.level * loudness_of(note.velocity) * 1.414
            left, right = sides(note.pan)
            seed = crc32(f"{context.piece.seed} {note.at:.4f} {note.sound}".encode())
            add_air(
                out, start, share * length, level * amplitude, cutoff, self.resonance, self.band, left, right,
                seed, float(context.sample_rate),
            )  # fmt: skip
