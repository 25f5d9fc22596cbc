"""The melody engine: rhythms on a grid of sixteenths, pitches that walk a ladder of scale degrees, phrases that rest.

Both engines walk alike. ``pattern`` composes one rhythm for a phrase and brings bars back exactly; ``procedural``
invents each bar's rhythm and varies what it brings back.

Shares (repeats, chromatic notes, stable endings) are dealt out evenly rather than by separate coin tosses: one in
twenty really is one in twenty, even in ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from latentscore.synth.notes import Bar, Note
from latentscore.synth.theory import scale_pitch

SLOTS = 16
"""Sixteenths in a bar."""

NOTES_A_BAR = 8.5
"""Notes in a bar at melody_density 1, before the manner's own factor."""


@dataclass(frozen=True)
class Manner:
    """How a melody style uses the engine.

    ``ladder`` is which scale degrees it walks on (see ``_LADDERS``); ``contour`` gives the height it is drawn to, 0 to
    1 of the register, at each point of the phrase; ``pull`` is how strongly. ``notes`` multiplies the density, ``hold``
    is the share of the gap to the next note that a note sounds.
    """

    contour: Callable[[float], float]
    ladder: str = "scale"
    pull: float = 0.8
    notes: float = 1.0
    hold: float = 0.9
    grid: int = 1
    """Smallest distance between notes in sixteenths: 2 keeps to eighths."""


@dataclass(frozen=True)
class Step:
    """A note of a bar before it has a key: sixteenth, length in sixteenths, move on the ladder, chromatic or not."""

    slot: int
    length: float
    move: int
    fresh: float


@dataclass
class Walker:
    """Where the melody is: carried from bar to bar."""

    degree: int
    cells: list[list[Step]]
    repeats: float
    chromatics: float
    cadences: float

    def due(self, name: str, share: float) -> bool:
        """Whether the next of evenly dealt events is due."""
        total = getattr(self, name) + share
        setattr(self, name, total % 1.0)
        return total >= 1.0


_LADDERS: dict[str, dict[bool, tuple[int, ...]]] = {
    # True: the mode has a major third.
    "scale": {True: (0, 1, 2, 3, 4, 5, 6), False: (0, 1, 2, 3, 4, 5, 6)},
    "five": {True: (0, 1, 2, 4, 5), False: (0, 2, 3, 4, 6)},
    "lament": {True: (0, 2, 4, 5, 6), False: (0, 1, 2, 4, 5)},
    "call": {True: (0, 2, 4, 5), False: (0, 2, 4, 6)},
    "cell": {True: (0, 1, 4), False: (0, 2, 4)},
    "horn": {True: (0, 2, 4), False: (0, 2, 4)},
}


def melody(bar: Bar, manner: Manner) -> Iterator[Note]:
    """One bar of melody in a manner, by the engine the config names."""
    walker = _walker(bar)
    config = bar.config
    phrase, place = divmod(bar.index, config.phrase_len_bars)
    closes = place == config.phrase_len_bars - 1
    cell = _cell(bar, walker, manner, phrase, place)
    walker.cells.append(cell)
    if closes:
        cell = _make_room(cell, config.cadence_strength)
    stable = closes and walker.due("cadences", config.cadence_strength)

    low, high = _register(bar)
    for number, step in enumerate(cell):
        last = closes and number == len(cell) - 1
        position = (place + step.slot / SLOTS) / config.phrase_len_bars
        walker.degree = _walk(bar, walker.degree, step, manner, position, low, high)
        if last:
            walker.degree = _rest(bar, walker.degree, step.slot / 4, stable, low, high)
        pitch = 12 + bar.piece.key + scale_pitch(bar.piece.scale, walker.degree)
        if walker.due("chromatics", config.chromatic_prob) and not last:
            pitch = _beside(pitch, bar)
        accent = 0.1 if step.slot % 4 == 0 else 0.0
        swell = 0.12 * (1.0 - abs(2.0 * position - 1.0))
        length = step.length / 4 * manner.hold
        if last:
            length = max(length, (SLOTS - step.slot) / 4 * (0.5 + 0.5 * config.cadence_strength))
        yield bar.note(step.slot / 4, max(length, 0.12), pitch, 0.6 + accent + swell, 0.0)


def _walker(bar: Bar) -> Walker:
    if "walker" not in bar.memory:
        low, high = _register(bar)
        start = bar.piece.stream("melody", 0, 1)
        middle = round((low + high) / 2 / 7) * 7
        bar.memory["walker"] = Walker(middle, [], 0.5, 0.8, 0.5 + 0.4 * start.random())
    return bar.memory["walker"]  # type: ignore[return-value]


def _register(bar: Bar) -> tuple[int, int]:
    """Lowest and highest scale degree, counted from the home note of octave 0."""
    return 7 * bar.config.register_min_oct, 7 * bar.config.register_max_oct + 6


# --- rhythm -------------------------------------------------------------------------------------------------------


def _cell(bar: Bar, walker: Walker, manner: Manner, phrase: int, place: int) -> list[Step]:
    """A new bar, or an earlier one again."""
    config = bar.config
    fresh = _invent(bar, manner, phrase)
    if bar.index == 0 or not walker.due("repeats", config.motif_repeat_prob):
        return fresh
    # The same place of the phrase before; inside the first phrase, its first bar.
    source = walker.cells[bar.index - config.phrase_len_bars if phrase else 0]
    if config.melody_engine == "procedural" and source:
        # A variation: one note of the bar moves elsewhere.
        which = int(bar.rng.integers(len(source)))
        changed = Step(source[which].slot, source[which].length, -source[which].move or 1, source[which].fresh)
        return [*source[:which], changed, *source[which + 1 :]]
    return source


def _invent(bar: Bar, manner: Manner, phrase: int) -> list[Step]:
    config = bar.config
    pattern = config.melody_engine == "pattern"
    rhythm = bar.piece.stream("melody", phrase, 2) if pattern else bar.piece.stream("melody", bar.index, 3)
    chances = rhythm.random(SLOTS)
    fullness = 0.5 + 0.1 * config.density
    wanted = NOTES_A_BAR * config.melody_density * manner.notes * fullness
    count = int(wanted + rhythm.random())
    moves = bar.rng.random((SLOTS, 3))

    weights = np.array([_weight(slot, config.syncopation) for slot in range(SLOTS)])
    weights[np.arange(SLOTS) % manner.grid > 0] *= 0.02
    # Each sixteenth draws a time to wait, shorter the heavier it is; the first ones play. Asking for more notes or
    # other weights keeps most of the bar as it was.
    order = np.argsort(-np.log(1.0 - chances) / weights)
    slots = sorted(int(slot) for slot in order[: min(count, SLOTS)])
    ends = [*slots, SLOTS][1:]
    return [
        Step(slot, min(end - slot, 8), _move(moves[slot], config.step_bias), float(moves[slot][2]))
        for slot, end in zip(slots, ends, strict=True)
    ]


def _weight(slot: int, syncopation: float) -> float:
    if slot % 4 == 0:
        return (1.0 if slot else 1.4) * (1.0 - syncopation) ** 1.5 + 0.02
    if slot % 2 == 0:
        return 0.10 + 0.75 * syncopation
    return 0.012 + 0.55 * syncopation


def _make_room(cell: list[Step], strength: float) -> list[Step]:
    """The last bar of a phrase: the stronger the cadence, the earlier the last note."""
    until = 15 - 8 * strength
    return [step for step in cell if step.slot <= until] or cell[:1]


# --- pitch --------------------------------------------------------------------------------------------------------


def _move(draws: np.ndarray, step_bias: float) -> int:
    """Signed size of a move: a step with the chance of ``step_bias``, else a leap of two to five."""
    size = 1 if draws[0] < step_bias else 2 + int(4 * (draws[0] - step_bias) / (1.0 - step_bias + 1e-9))
    return size if draws[1] < 0.5 else -size


def _walk(bar: Bar, degree: int, step: Step, manner: Manner, position: float, low: int, high: int) -> int:
    rungs = _rungs(bar, manner.ladder, step.slot / 4, low, high)
    here = int(np.argmin([abs(rung - degree) for rung in rungs]))
    target = low + (high - low) * (0.12 + 0.76 * manner.contour(position))
    pull = manner.pull * (target - rungs[here]) / 7.0
    # The contour turns moves round rather than adding to them, so leaps stay as rare as asked.
    size = abs(step.move)
    upward = (0.5 + 0.5 * np.sign(step.move) * (0.3 + 0.7 * step.fresh) + pull) > 0.5
    there = here + (size if upward else -size)
    if not 0 <= there < len(rungs):
        there = here - (size if upward else -size)
    chosen = rungs[min(max(there, 0), len(rungs) - 1)]
    if step.slot % 8 == 0 and manner.ladder != "chord":
        chosen = _nearest(chosen, bar.chord(step.slot / 4).degrees[:3], low, high)
    return chosen


def _rungs(bar: Bar, ladder: str, at: float, low: int, high: int) -> list[int]:
    if ladder == "chord":
        steps = {d % 7 for d in bar.chord(at).degrees}
    else:
        steps = set(_LADDERS[ladder][bar.config.mode in ("major", "mixolydian")])
    return [degree for degree in range(low, high + 1) if degree % 7 in steps]


def _nearest(degree: int, among: tuple[int, ...], low: int, high: int) -> int:
    """The closest degree of the same class as one of ``among``, inside the register."""
    classes = {d % 7 for d in among}
    return min((d for d in range(low, high + 1) if d % 7 in classes), key=lambda d: (abs(d - degree), d))


def _rest(bar: Bar, degree: int, at: float, stable: bool, low: int, high: int) -> int:
    """Where a phrase ends: on a tone of the home chord, or on one that wants to go on."""
    if stable:
        shared = tuple(d for d in (0, 2, 4) if d in {c % 7 for c in bar.chord(at).degrees})
        return _nearest(degree, shared or (0,), low, high)
    return _nearest(degree, (1, 3, 6), low, high)


def _beside(pitch: int, bar: Bar) -> int:
    """A neighbour a semitone away that is not in the scale."""
    below = (pitch - 1 - bar.piece.key) % 12
    return pitch - 1 if below not in bar.piece.scale else pitch + 1
