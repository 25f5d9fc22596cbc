"""The melody engine: rhythms on a grid of sixteenths, a random walk on a ladder of scale degrees, and rests between
phrases.

Both engines use the same walk. ``pattern`` composes one rhythm per phrase; ``procedural`` generates each bar's rhythm.
A bar defines a cell: its rhythm and its contour on the ladder. Cells return on other chords and at other heights; with
``procedural`` they are also varied. Long notes and those on beats one and three are tones of the chord.

Shares (repeats, chromatic notes, stable endings) are distributed evenly instead of drawn independently, so that they
are exact even in short pieces.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from latentscore.synth.form import SECTION_BARS, has_cadence
from latentscore.synth.notes import Bar, Note
from latentscore.synth.theory import scale_pitch

SLOTS = 16
"""Sixteenths in a bar."""

NOTES_A_BAR = 8.5
"""Notes per bar at melody_density 1, before the style's factor."""


@dataclass(frozen=True)
class Manner:
    """The parameters of a melody style.

    ``ladder`` names the scale degrees of the walk (see ``_LADDERS``). ``contour`` is the target height, 0 to 1 of the
    register, at each point of the phrase, and ``pull`` the strength of the attraction to it. ``notes`` multiplies the
    density; ``hold`` is the length of a note as a share of the distance to the next one.
    """

    contour: Callable[[float], float]
    ladder: str = "scale"
    pull: float = 0.8
    notes: float = 1.0
    hold: float = 0.9
    grid: int = 1
    """Smallest distance between notes in sixteenths: 2 keeps to eighths."""

    def sounds(self, sixteenths: float) -> float:
        """Return the length of a note from the distance to the next one. The silence between them is at most an eighth, so
        that rests between phrases are clearly longer."""
        return max(sixteenths * self.hold, sixteenths - 2.0)


@dataclass(frozen=True)
class Step:
    """A note of a cell: its sixteenth, its length in sixteenths, its distance in ladder steps from the cell's first note,
    the direction from the note before (-1, 0 or 1), and whether it is chromatic."""

    slot: int
    length: float
    offset: int
    direction: int
    is_chromatic: bool


Cell = tuple[Step, ...]
"""A bar of melody relative to its first note, which can return on another chord and at another height."""


_GOLDEN = 0.618034
"""Multiples of the golden ratio modulo 1 are evenly distributed however many there are."""


@dataclass
class Walker:
    """The state of the melody between bars. It is bounded: one phrase and the theme."""

    degree: int
    chromatics: float
    occasions: dict[int, int] = field(default_factory=dict)
    """How many bars at each position of the phrase could have repeated a cell."""

    cells: dict[int, Cell] = field(default_factory=dict)
    """The cells of the last phrase, by bar."""

    theme: dict[int, Cell] = field(default_factory=dict)
    """The cells of the first phrase, by their place in it."""

    def keep(self, bar: int, place: int, cell: Cell, phrase_bars: int) -> None:
        """Store the cell of a bar, and drop cells that are older than the previous phrase."""
        self.cells = {n: old for n, old in self.cells.items() if n > bar - phrase_bars} | {bar: cell}
        self.theme.setdefault(place, cell)

    def returns(self, place: int, share: float) -> bool:
        """Return whether the bar at this position of the phrase repeats a cell: a share of them, distributed evenly per
        position.

        A bar that repeats with one share also repeats with every larger one, so that a larger share only adds repeats.
        """
        number = self.occasions.get(place, 0)
        self.occasions[place] = number + 1
        return (0.6 + _GOLDEN * number) % 1.0 < share

    def leaves_scale(self, share: float, motif: bool | None) -> bool:
        """Return whether the next note is chromatic: a share of them, distributed evenly. In a repeated cell, ``motif`` is
        whether the note was chromatic there; notes of other bars make up for the difference."""
        self.chromatics += share
        leaves = share > 0.0 and (self.chromatics >= 1.0 if motif is None else motif)
        self.chromatics -= leaves
        return leaves


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
    """Compose one bar of melody in a style, with the config's engine."""
    walker = _walker(bar, manner)
    config = bar.config
    phrase, place = divmod(bar.index, config.phrase_len_bars)
    motif = _source(bar, walker, place)
    if motif is None:
        played, slots = None, _invent(bar, manner, phrase, place)
    else:
        # The motif is kept as it was, so that variations do not add up.
        played = _varied(bar, motif) if config.melody_engine == "procedural" else motif
        slots = tuple((step.slot, step.length) for step in played)
    closes = place == config.phrase_len_bars - 1
    stable = has_cadence(phrase, config.cadence_strength) if closes else None
    if stable is not None:
        slots = _breathe(bar, slots, stable)
    degrees = _degrees(bar, walker, manner, place, slots, played, stable)
    chromatic = [
        not (closes and number == len(slots) - 1)
        and walker.leaves_scale(config.chromatic_prob, played[number].is_chromatic if played else None)
        for number in range(len(slots))
    ]
    walker.keep(bar.index, place, motif or _cell(bar, manner, slots, degrees, chromatic), config.phrase_len_bars)
    if degrees:
        walker.degree = degrees[-1]
    yield from _notes(bar, manner, place, slots, degrees, chromatic, closes)


def _walker(bar: Bar, manner: Manner) -> Walker:
    if "walker" not in bar.memory:
        bar.memory["walker"] = Walker(round(_target(bar, manner, 0.0)), 0.92)
    return bar.memory["walker"]  # type: ignore[return-value]


_CEILING, _FLOOR = 7 * 6 + 4, 7 * 3
"""Scale degrees beyond which a register is extreme; the contour is compressed there."""


def _register(bar: Bar) -> tuple[int, int]:
    """Lowest and highest scale degree, counted from the home note of octave 0."""
    return 7 * bar.config.register_min_oct, 7 * bar.config.register_max_oct + 6


def _target(bar: Bar, manner: Manner, position: float) -> float:
    """Return the scale degree that the contour aims at; higher in sections with the role height."""
    low, high = (float(bound) for bound in _register(bar))
    if high > _CEILING:
        high = max(_CEILING + 0.25 * (high - _CEILING), min(low + 6, high))
    if low < _FLOOR:
        low = min(_FLOOR - 0.4 * (_FLOOR - low), max(high - 6, low))
    lift = {"height": 0.12, "breath": -0.08}.get(bar.section.role, 0.0) + 0.08 * bar.piece.light
    return low + (high - low) * min(max(0.12 + 0.76 * manner.contour(position) + lift, 0.0), 1.0)


def _notes(
    bar: Bar, manner: Manner, place: int, slots: Slots, degrees: list[int], chromatic: list[bool], closes: bool
) -> Iterator[Note]:
    """The notes of a bar: pitches, dynamics, chromatic neighbours."""
    config = bar.config
    lift = {"height": 0.06, "breath": -0.06, "opening": -0.04}.get(bar.section.role, 0.0)
    for number, ((slot, sixteenths), degree) in enumerate(zip(slots, degrees, strict=True)):
        last = closes and number == len(slots) - 1
        at, pitch = slot / 4, float(12 + bar.piece.key + scale_pitch(bar.chord(slot / 4).scale, degree))
        position = (place + slot / SLOTS) / config.phrase_len_bars
        velocity = (
            0.6
            + lift
            + 0.04 * bar.piece.light
            + (0.1 if slot % 4 == 0 else 0.0)
            + 0.12 * (1.0 - abs(2.0 * position - 1.0))
        )
        # High notes are played more softly, because they sound shrill.
        velocity *= 1.0 - 0.015 * max(pitch - 88.0, 0.0)
        length = sixteenths / 4 if last else _held_length(bar, at, max(manner.sounds(sixteenths) / 4, 0.12), degree)
        if not last and bar.piece.light > 0:
            # Lifted off sooner, but not so far that there is a rest.
            length -= bar.piece.light * min(0.35 * length, 0.2)
        if chromatic[number]:
            beside = float(_beside(round(pitch), bar, at))
            quick = 0.25 * bar.piece.bpm / 60.0
            if length <= 1.6 * quick:
                pitch = beside
            else:
                # A long note is approached from outside the scale, and rests inside it.
                quick = min(quick, 0.4 * length)
                yield bar.note(at, quick, beside, velocity, 0.0)
                at, length = at + quick, length - quick
        yield bar.note(at, length, pitch, velocity, 0.0)


def _held_length(bar: Bar, at: float, length: float, degree: int) -> float:
    """Return the length of a note; it ends at a change of chord if its pitch is a semitone from a tone of the next chord."""
    here = bar.chord(at)
    pitch, end = here.scale[degree % 7], at + length - _SHORT_SECONDS * bar.piece.bpm / 60.0
    change = here.end - bar.start
    while change < end:
        after = bar.chord(change + 0.01)
        if any((pitch - tone) % 12 in (1, 11) for tone in after.tones):
            return change - at
        change = after.end - bar.start
    return length


# --- rhythm -------------------------------------------------------------------------------------------------------

Slots = tuple[tuple[int, float], ...]
"""Sixteenth and length in sixteenths of each note of a bar."""

_FULLNESS = {"opening": 0.95, "statement": 1.0, "departure": 0.85, "height": 1.15, "breath": 0.7}


def _source(bar: Bar, walker: Walker, place: int) -> Cell | None:
    """Return the cell that this bar repeats, or None: that of the theme at the beginning of a section and after a rest,
    else that of the same position in the previous phrase; in the first phrase that of the previous bar."""
    phrase_bars = bar.config.phrase_len_bars
    before = walker.cells.get(bar.index - phrase_bars)
    if (bar.index % SECTION_BARS < phrase_bars or not before) and bar.section.role != "departure":
        before = walker.theme.get(place) or before
    if not before and place:
        before = walker.cells.get(bar.index - 1)
    if not before or not walker.returns(place, bar.config.motif_repeat_prob):
        return None
    return before


def _varied(bar: Bar, cell: Cell) -> Cell:
    """Return the cell, sometimes varied: its end moved, or a weak note left out."""
    draws = bar.rng.random(3)
    if len(cell) < 3 or draws[0] < 0.6:
        return cell
    if draws[1] < 0.5:
        move = 1 if draws[2] < 0.5 else -1
        return (*cell[:-1], replace(cell[-1], offset=cell[-1].offset + move))
    weak = [n for n, step in enumerate(cell) if n and step.slot % 4]
    if not weak:
        return cell
    out = weak[int(draws[2] * len(weak))]
    longer = replace(cell[out - 1], length=cell[out - 1].length + cell[out].length)
    return (*cell[: out - 1], longer, *cell[out + 1 :])


def _invent(bar: Bar, manner: Manner, phrase: int, place: int) -> Slots:
    config = bar.config
    pattern = config.melody_engine == "pattern"
    rhythm = bar.piece.stream("melody", phrase, 2) if pattern else bar.piece.stream("melody", bar.index, 3)
    chances = rhythm.random(SLOTS)
    fullness = (0.5 + 0.1 * config.density) * _FULLNESS[bar.section.role]
    wanted = NOTES_A_BAR * config.melody_density * manner.notes * fullness * (1.0 + 0.12 * bar.piece.light)
    count = max(int(wanted + rhythm.random()), 1)

    weights = np.array([_weight(slot, config.syncopation) for slot in range(SLOTS)])
    weights[np.arange(SLOTS) % manner.grid > 0] *= 0.02
    weights[0] *= 3.0 if count <= 2 else 1.0
    # Each sixteenth draws a waiting time, which is shorter for a larger weight; the shortest are played. More notes or
    # other weights then keep most of the bar.
    order = np.argsort(-np.log(1.0 - chances) / weights)
    slots = sorted(int(slot) for slot in order[: min(count, SLOTS)])
    # A bar begins within its first beat and notes are held, so that rests between phrases are clearly longer.
    slots[0] %= 4
    ends = [*slots, SLOTS][1:]
    return tuple((slot, float(end - slot)) for slot, end in zip(slots, ends, strict=True))


def _weight(slot: int, syncopation: float) -> float:
    if slot % 4 == 0:
        return (1.0 if slot else 1.4) * (1.0 - syncopation) ** 1.5 + 0.02
    if slot % 2 == 0:
        return 0.10 + 0.75 * syncopation
    return 0.012 + 0.55 * syncopation


def _breathe(bar: Bar, slots: Slots, stable: bool) -> Slots:
    """Return the last bar of a phrase with its final note and a rest.

    The rest lasts 7, 10 or 16 sixteenths for phrases of 2, 4 or 8 bars, limited to 0.85 to 3 s. A stable final note is
    longer with a stronger cadence; an unstable one is short and off the strong beats.
    """
    config = bar.config
    seconds = 60.0 / bar.piece.bpm / 4
    rest = min(max((4.0 + 1.5 * config.phrase_len_bars) * seconds, 0.85), 3.0) / seconds
    hold = 1.0 + (3.0 + 0.5 * config.phrase_len_bars) * config.cadence_strength
    slot = 2 * int(max(SLOTS - rest - hold, 0.0) / 2)
    before = [(begin, min(length, slot - begin)) for begin, length in slots if begin < slot]
    if stable and _triad(bar, slot / 4) & {0, 2, 4}:
        length = max(min(hold, SLOTS - rest - slot), 1.0)
    else:
        slot += 2 if slot % 8 == 0 else 0
        length = max(min(hold, _SHORT_SECONDS / seconds), 1.0)
    # A repeated motif never gains notes.
    return (*before[: len(slots) - 1], (slot, length))


# --- pitch --------------------------------------------------------------------------------------------------------

_SHORT_SECONDS, _LONG_SECONDS = 0.28, 0.45
"""Shorter notes may be outside the chord. Notes longer than the second value are tones of its triad; between the two values
they are at least a whole tone from other chord tones."""


def _degrees(
    bar: Bar, walker: Walker, manner: Manner, place: int, slots: Slots, motif: Cell | None, stable: bool | None
) -> list[int]:
    """Return the scale degree of each note: a walk on the style's ladder, or a repeated ``motif`` from a fitting
    degree.

    ``stable`` is whether the last note of a phrase is stable; ``None`` within a phrase.
    """
    low, high = _register(bar)
    rungs = _rungs(bar, manner.ladder, low, high)
    moves = bar.rng.random((SLOTS, 3))
    here = _nearest_rung(rungs, walker.degree)
    before = walker.degree
    if motif is not None:
        here = _anchor(bar, manner, rungs, here, place, slots, motif)
    start, found = here, []
    for number, (slot, length) in enumerate(slots):
        position = (place + slot / SLOTS) / bar.config.phrase_len_bars
        if motif is None:
            here = _walk(bar, manner, rungs, here, moves[slot], position)
        else:
            here = _inside(start + motif[number].offset, len(rungs))
        if stable is not None and number == len(slots) - 1:
            degree = _rest(bar, rungs[here], slot / 4, stable, low, high)
        else:
            direction = motif[number].direction if motif and number else None
            degree = _fitting(bar, rungs[here], before, direction, slot, manner.sounds(length), low, high)
        found.append(degree)
        before = degree
        if motif is None:
            here = _nearest_rung(rungs, degree)
    return found


def _cell(bar: Bar, manner: Manner, slots: Slots, degrees: list[int], chromatic: list[bool]) -> Cell:
    """Return the cell that the notes of a bar define."""
    rungs = _rungs(bar, manner.ladder, *_register(bar))
    places = [_nearest_rung(rungs, degree) for degree in degrees]
    directions = [0, *(int(after > before) - int(after < before) for before, after in pairwise(degrees))]
    return tuple(
        Step(slot, length, place - places[0], direction, is_chromatic)
        for (slot, length), place, direction, is_chromatic in zip(slots, places, directions, chromatic, strict=True)
    )


def _anchor(bar: Bar, manner: Manner, rungs: list[int], here: int, place: int, slots: Slots, motif: Cell) -> int:
    """Return the ladder step from which a motif fits the chord best, near the melody's position and its contour."""
    target = _target(bar, manner, place / bar.config.phrase_len_bars)
    offsets = [step.offset for step in motif]
    lowest, highest = min(offsets), max(offsets)

    def cost(start: int) -> float:
        foreign = 0.0
        for (slot, length), offset in zip(slots, offsets, strict=False):
            degree = rungs[_inside(start + offset, len(rungs))]
            foreign += not _fits(bar, degree, slot, manner.sounds(length))
        out = max(-(start + lowest), 0) + max(start + highest - len(rungs) + 1, 0)
        away = manner.pull * abs(rungs[start] - target) / 7.0
        return 1.2 * foreign + 3.0 * out + 0.25 * abs(start - here) + away

    return min(range(len(rungs)), key=cost)


def _walk(bar: Bar, manner: Manner, rungs: list[int], here: int, draws: np.ndarray, position: float) -> int:
    away = _target(bar, manner, position) - rungs[here]
    move = _move(draws, bar.config.step_bias)
    # The contour changes the direction of moves, not their size, so the share of leaps is kept; moves end near the
    # contour.
    size = min(abs(move), 2 + int(abs(away) * len(rungs) / (rungs[-1] - rungs[0] + 1))) if abs(move) > 1 else 1
    upward = (0.5 + 0.5 * np.sign(move) * (0.3 + 0.7 * draws[2]) + manner.pull * away / 7.0) > 0.5
    there = here + (size if upward else -size)
    if not 0 <= there < len(rungs):
        there = here - (size if upward else -size)
    return min(max(there, 0), len(rungs) - 1)


def _move(draws: np.ndarray, step_bias: float) -> int:
    """Signed size of a move: a step with the chance of ``step_bias``, else a leap of two to five."""
    size = 1 if draws[0] < step_bias else 2 + int(4 * (draws[0] - step_bias) / (1.0 - step_bias + 1e-9))
    return size if draws[1] < 0.5 else -size


def _inside(rung: int, count: int) -> int:
    """Return a ladder step, reflected at the ends of the ladder."""
    last = max(count - 1, 1)
    rung = abs(rung) % (2 * last)
    return min(rung if rung <= last else 2 * last - rung, count - 1)


def _rungs(bar: Bar, ladder: str, low: int, high: int) -> list[int]:
    if ladder == "chord":
        steps = {d % 7 for d in bar.chord().degrees}
    else:
        steps = set(_LADDERS[ladder][bar.config.mode in ("major", "mixolydian")])
    return [degree for degree in range(low, high + 1) if degree % 7 in steps]


def _nearest_rung(rungs: list[int], degree: int) -> int:
    above = bisect_left(rungs, degree)
    if above == len(rungs) or (above and degree - rungs[above - 1] <= rungs[above] - degree):
        return above - 1
    return above


def _triad(bar: Bar, at: float) -> set[int]:
    return {d % 7 for d in bar.chord(at).degrees[:3]}


def _fits(bar: Bar, degree: int, slot: int, length: float) -> bool:
    """Whether a scale degree may sound for ``length`` sixteenths from ``slot`` on over the chord there."""
    seconds = length / 4 * 60.0 / bar.piece.bpm
    if slot % 8 == 0 or seconds > _LONG_SECONDS:
        return degree % 7 in _triad(bar, slot / 4)
    if seconds <= _SHORT_SECONDS:
        return True
    return _apart(bar, degree, slot / 4)


def _apart(bar: Bar, degree: int, at: float) -> bool:
    """Whether a scale degree is a chord tone or at least a whole tone from all of them."""
    chord = bar.chord(at)
    pitch = scale_pitch(chord.scale, degree % 7)
    return degree % 7 in {d % 7 for d in chord.degrees} or all(
        (pitch - tone) % 12 not in (1, 11) for tone in chord.tones
    )


def _fitting(
    bar: Bar, degree: int, before: int, direction: int | None, slot: int, length: float, low: int, high: int
) -> int:
    """Return the nearest degree that fits, preferably not the previous one, and for a motif preferably in its ``direction``
    from the previous one."""
    near = [d for d in range(max(degree - 4, low), min(degree + 4, high) + 1) if _fits(bar, d, slot, length)]

    def cost(d: int) -> tuple[float, int]:
        turned = direction is not None and (d > before) - (d < before) != direction
        return abs(d - degree) + (1.1 if d == before and d != degree else 0.0) + 4.0 * turned, d

    return min(near, key=cost, default=degree)


def _rest(bar: Bar, degree: int, at: float, stable: bool, low: int, high: int) -> int:
    """Return the final degree of a phrase: a tone of the home chord, or an unstable one; a tone of the current chord if
    possible."""
    tones = _triad(bar, at)
    if stable:
        wanted = tones & {0, 2, 4} or {0}
    else:
        wanted = tones - {0, 2, 4} or {d for d in (1, 3, 5, 6) if _apart(bar, d, at)} or {1}
    return min((d for d in range(low, high + 1) if d % 7 in wanted), key=lambda d: (abs(d - degree), d))


def _beside(pitch: int, bar: Bar, at: float) -> int:
    """A neighbour a semitone away that is not in the scale."""
    below = (pitch - 1 - bar.piece.key) % 12
    return pitch - 1 if below not in {tone % 12 for tone in bar.chord(at).scale} else pitch + 1
