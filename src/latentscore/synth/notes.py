"""The types of a score: notes in beats, the piece with the data shared by all layers, and one bar of one layer.

Everything here is a function of the config, the seed and absolute time, so a shorter piece equals the beginning of a
longer one. Each layer has its own random stream for every bar, so changing one layer does not change the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from latentscore.config import MusicConfig
from latentscore.labels import beats_per_minute
from latentscore.synth.chromatics import borrowed, parted
from latentscore.synth.form import BEATS_PER_BAR, LAYERS, Form, Section, stream
from latentscore.synth.theory import (
    LIGHT,
    ROOTS,
    SCALES,
    Chord,
    Harmony,
    chord_number,
    chords_before_cadence,
    harmony_of,
)

KEPT_CHORDS = 64
"""Maximum number of cached chords of a piece, which may be endless."""


class Note(NamedTuple):
    """One event. ``start`` and ``at`` are beats from the beginning: as played, and as written, before swing and
    humanization. ``pitch`` is a MIDI note number whose fraction is detune; ``sound`` names one of the layer's sounds."""

    start: float
    length: float
    pitch: float
    velocity: float
    pan: float
    sound: str
    at: float


@dataclass(frozen=True)
class Piece:
    """What every layer may know. ``seconds`` is infinite for a piece without an end; only the closing depends on it."""

    config: MusicConfig
    seconds: float
    seed: int

    @cached_property
    def bpm(self) -> float:
        return beats_per_minute(self.config.tempo)

    @cached_property
    def beats(self) -> float:
        return self.seconds * self.bpm / 60.0

    @cached_property
    def key(self) -> int:
        """Pitch class of the home note."""
        return ROOTS[self.config.root]

    @cached_property
    def scale(self) -> tuple[int, ...]:
        return SCALES[self.config.mode]

    @cached_property
    def light(self) -> float:
        """How light the mode is played, from -1 to 1."""
        return LIGHT[self.config.mode]

    @cached_property
    def form(self) -> Form:
        return Form(self.config, self.seed)

    @cached_property
    def chord_beats(self) -> float:
        """The length of each chord, in beats."""
        return self.config.chord_change_bars * BEATS_PER_BAR

    def chord(self, n: int) -> Chord:
        """Return chord number ``n``, counted from 0; there is no last one."""
        found = self._chords.get(n)
        if found is None:
            departs = self.form.section(int(n * self.config.chord_change_bars)).role == "departure"
            found = chord_number(n, self._harmony, departs)
            if self.config.chromatic_prob > 0.0 and chords_before_cadence(n, self._harmony) not in (0, 1):
                found = borrowed(found, n, self._harmony)
            if len(self._chords) >= KEPT_CHORDS:
                self._chords.clear()
            self._chords[n] = found
        return found

    @cached_property
    def _chords(self) -> dict[int, Chord]:
        """The cache of recent chords, because every layer requests each of them many times."""
        return {}

    @cached_property
    def _parts(self) -> dict[int, tuple[Chord, ...]]:
        """What the chords that were asked for last are cut into."""
        return {}

    @cached_property
    def _harmony(self) -> Harmony:
        return harmony_of(self.config, self.seed)

    def parts(self, n: int) -> tuple[Chord, ...]:
        """The ``n``-th chord as it sounds: whole, or cut by short chords from outside the scale that lead on."""
        if self.config.chromatic_prob <= 0.0:
            return (self.chord(n),)
        found = self._parts.get(n)
        if found is None:
            rests = chords_before_cadence(n, self._harmony) == 0
            found = tuple(parted(self.chord(n), self.chord(n + 1), n, self._harmony, rests))
            if len(self._parts) >= KEPT_CHORDS:
                self._parts.clear()
            self._parts[n] = found
        return found

    def chord_at(self, beat: float) -> Chord:
        """The chord that sounds at a beat."""
        n = int((beat + 1e-6) / self.chord_beats)
        if self.config.chromatic_prob <= 0.0:
            return self.chord(n)
        parts = self.parts(n)
        if len(parts) == 1:
            return parts[0]
        return next((part for part in parts if beat + 1e-6 < part.end), parts[-1])

    @property
    def chords(self) -> list[Chord]:
        """All chords of a piece that ends: those that begin before its end."""
        return [self.chord(n) for n in range(math.ceil(self.beats / self.chord_beats))]

    def stream(self, name: str, *where: int) -> np.random.Generator:
        """The independent stream of a layer at a place, usually a bar."""
        return stream(self.seed, name, *where)

    def tension(self, beat: float) -> float:
        """Intensity from 0.2 to 1 at a beat."""
        return self.form.tension(beat)

    def presence(self, layer: str) -> float:
        """Return how far a layer is in the foreground, 0 to 1: bass and pad always, one more layer per step of density."""
        return 1.0 if LAYERS.index(layer) < self.config.density else 0.0


@dataclass(frozen=True)
class Bar:
    """One bar of one layer: where it is, what sounds there, and the layer's random stream."""

    piece: Piece
    layer: str
    index: int
    memory: dict[str, object] = field(default_factory=dict)
    """Kept from bar to bar within a layer: the last voicing, the melody's position, the last bar that was played."""

    @property
    def config(self) -> MusicConfig:
        return self.piece.config

    @property
    def start(self) -> float:
        return float(self.index * BEATS_PER_BAR)

    @cached_property
    def rng(self) -> np.random.Generator:
        return self.piece.stream(self.layer, self.index)

    @property
    def full(self) -> bool:
        """Whether density puts this layer in the foreground."""
        return self.piece.presence(self.layer) == 1.0

    @cached_property
    def chords(self) -> list[Chord]:
        """Chords that begin in this bar."""
        begin, end = self.start - 1e-6, self.start + BEATS_PER_BAR - 1e-6
        numbers = range(max(int(begin / self.piece.chord_beats), 0), math.ceil(end / self.piece.chord_beats))
        return [part for n in numbers for part in self.piece.parts(n) if begin <= part.start < end]

    @cached_property
    def section(self) -> Section:
        """The section this bar belongs to."""
        return self.piece.form.section(self.index)

    @cached_property
    def enters(self) -> bool:
        """Whether the layer did not play in the previous bar, so that held notes must be started."""
        return "last" not in self.memory or self.memory["last"] != self.index - 1

    def chord(self, at: float = 0.0) -> Chord:
        """The chord that sounds ``at`` beats into the bar."""
        return self.piece.chord_at(self.start + at)

    def note(
        self, at: float, length: float, pitch: float, velocity: float = 0.8, pan: float = 0.0, sound: str = "main"
    ) -> Note:
        """A note ``at`` beats into this bar."""
        start = self.start + at
        return Note(start, length, pitch, velocity, pan, sound, start)


RENEWED_BEATS = 8.0
"""Held chords and roots are struck again after this long."""


def held(bar: Bar) -> Iterator[tuple[float, float, Chord]]:
    """Yield (begin, length, chord), in beats, of the chords that a sustained layer starts in a bar: new chords, long ones
    again after two bars, and the current one if the layer enters."""
    running = bar.chord()
    since = bar.start - running.start
    if since > 1e-6 and (bar.enters or since % RENEWED_BEATS == 0):
        yield 0.0, min(running.end - bar.start, RENEWED_BEATS - since % RENEWED_BEATS), running
    for chord in bar.chords:
        yield chord.start - bar.start, min(chord.length, RENEWED_BEATS), chord
