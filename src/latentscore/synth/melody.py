"""The melody engine: rhythms on a grid of sixteenths, pitches that walk a ladder of scale degrees, phrases that rest.

Both engines walk alike. ``pattern`` composes one rhythm for a phrase; ``procedural`` invents each bar's rhythm. A bar
leaves a cell: rhythm and contour on the ladder. Cells come back on other chords and at other heights, with ``procedural``
also in another form. Long notes and those on one and three are tones of the chord.

Shares (repeats, chromatic notes, stable endings) are dealt out evenly rather than by separate coin tosses: one in
twenty really is one in twenty, even in ten seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from latentscore.synth.form import SECTION_BARS, has_cadence
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

    def sounds(self, sixteenths: float) -> float:
        """How long a note sounds that is so far from the next one. The silence after it is an eighth at most, so that the
        clear rests are those between phrases."""
        return max(sixteenths * self.hold, sixteenths - 2.0)


@dataclass(frozen=True)
class Step:
    """A note of a cell: its sixteenth, its length in sixteenths, and how many rungs of the ladder it lies above the
    cell's first note."""

    slot: int
    length: float
    offset: int


Cell = tuple[Step, ...]
"""A bar of melody without its key: the motif that may return on another chord and at another height."""


@dataclass
class Walker:
    """Where the melody is: carried from bar to bar. Bounded: it remembers one phrase and the theme."""

    degree: int
    chromatics: float
    repeats: dict[int, float] = field(default_factory=dict)
    """How much of a return is due at each place of the phrase."""

    cells: dict[int, Cell] = field(default_factory=dict)
    """The cells of the last phrase, by bar."""

    theme: dict[int, Cell] = field(default_factory=dict)
    """The cells of the first phrase, by their place in it."""

    def keep(self, bar: int, place: int, cell: Cell, phrase_bars: int) -> None:
        """Remember the cell of a bar, and forget those before the phrase before."""
        self.cells = {n: old for n, old in self.cells.items() if n > bar - phrase_bars} | {bar: cell}
        self.theme.setdefault(place, cell)

    def returns(self, place: int, share: float) -> bool:
        """Whether the bar at this place of the phrase comes back: a share of them, dealt out evenly for each place."""
        total = self.repeats.get(place, 0.35) + share
        self.repeats[place] = total % 1.0
        return total >= 1.0

    def leaves_scale(self, share: float) -> bool:
        """Whether the next note is chromatic: a share of them, dealt out evenly."""
        total = self.chromatics + share
        self.chromatics = total % 1.0
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
    walker = _walker(bar, manner)
    config = bar.config
    phrase, place = divmod(bar.index, config.phrase_len_bars)
    source = _source(bar, walker, place)
    if source is None:
        slots, offsets = _invent(bar, manner, phrase, place), None
    else:
        source = _varied(bar, source) if config.melody_engine == "procedural" else source
        slots, offsets = tuple((step.slot, step.length) for step in source), [step.offset for step in source]
    closes = place == config.phrase_len_bars - 1
    stable = has_cadence(phrase, config.cadence_strength) if closes else None
    if stable is not None:
        slots = _breathe(bar, slots, stable)
    degrees = _degrees(bar, walker, manner, place, slots, offsets, stable)
    walker.keep(bar.index, place, _cell(bar, manner, slots, degrees, offsets), config.phrase_len_bars)
    if degrees:
        walker.degree = degrees[-1]
    yield from _notes(bar, walker, manner, place, slots, degrees, closes)


def _walker(bar: Bar, manner: Manner) -> Walker:
    if "walker" not in bar.memory:
        bar.memory["walker"] = Walker(round(_target(bar, manner, 0.0)), 0.92)
    return bar.memory["walker"]  # type: ignore[return-value]


_CEILING, _FLOOR = 7 * 6 + 4, 7 * 3
"""Scale degrees beyond which a register is extreme: the contour goes only a part of the way there."""


def _register(bar: Bar) -> tuple[int, int]:
    """Lowest and highest scale degree, counted from the home note of octave 0."""
    return 7 * bar.config.register_min_oct, 7 * bar.config.register_max_oct + 6


def _target(bar: Bar, manner: Manner, position: float) -> float:
    """The scale degree to which the contour draws the melody; higher at the height of the piece."""
    low, high = (float(bound) for bound in _register(bar))
    if high > _CEILING:
        high = max(_CEILING + 0.25 * (high - _CEILING), min(low + 6, high))
    if low < _FLOOR:
        low = min(_FLOOR - 0.4 * (_FLOOR - low), max(high - 6, low))
    lift = {"height": 0.12, "breath": -0.08}.get(bar.section.role, 0.0) + 0.08 * bar.piece.light
    return low + (high - low) * min(max(0.12 + 0.76 * manner.contour(position) + lift, 0.0), 1.0)


def _notes(
    bar: Bar, walker: Walker, manner: Manner, place: int, slots: Slots, degrees: list[int], closes: bool
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
        # High notes are shrill at the strength of others.
        velocity *= 1.0 - 0.015 * max(pitch - 88.0, 0.0)
        length = sixteenths / 4 if last else _held_length(bar, at, max(manner.sounds(sixteenths) / 4, 0.12), degree)
        if not last and bar.piece.light > 0:
            # Lifted off sooner, but not so far that there is a rest.
            length -= bar.piece.light * min(0.35 * length, 0.2)
        if not last and walker.leaves_scale(config.chromatic_prob):
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
    """The length of a note, up to the change of chord if its tone is foreign to the next chord. Over a chord that only leads
    on, it is held if it does not rub against it."""
    here = bar.chord(at)
    pitch, end = here.scale[degree % 7], at + length - _SHORT_SECONDS * bar.piece.bpm / 60.0
    change = here.end - bar.start
    while change < end:
        after = bar.chord(change + 0.01)
        leads = after.scale != bar.piece.scale and after.length <= 2.0
        if leads and all((pitch - tone) % 12 not in (1, 11) for tone in after.tones):
            change = after.end - bar.start
        elif after.scale[degree % 7] != pitch or degree % 7 not in _triad(bar, change + 0.01):
            return change - at
        else:
            break
    return length


# --- rhythm -------------------------------------------------------------------------------------------------------

Slots = tuple[tuple[int, float], ...]
"""Sixteenth and length in sixteenths of each note of a bar."""

_FULLNESS = {"opening": 0.95, "statement": 1.0, "departure": 0.85, "height": 1.15, "breath": 0.7}


def _source(bar: Bar, walker: Walker, place: int) -> Cell | None:
    """The cell that this bar brings back, if it does: that of the theme where a section begins, else that of the same
    place of the phrase before, in the first phrase that of the bar before."""
    phrase_bars = bar.config.phrase_len_bars
    before = walker.cells.get(bar.index - phrase_bars)
    if bar.index % SECTION_BARS < phrase_bars and bar.section.role != "departure":
        before = walker.theme.get(place) or before
    if not before and place:
        before = walker.cells.get(bar.index - 1)
    if not before or not walker.returns(place, bar.config.motif_repeat_prob):
        return None
    return before


def _varied(bar: Bar, cell: Cell) -> Cell:
    """A cell that comes back in another form now and then: its end moved, or a weak note left out."""
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
    # Each sixteenth draws a time to wait, shorter the heavier it is; the first ones play. Asking for more notes or
    # other weights keeps most of the bar as it was.
    order = np.argsort(-np.log(1.0 - chances) / weights)
    slots = sorted(int(slot) for slot in order[: min(count, SLOTS)])
    # A bar begins within its first beat and notes last: the clear rests are those between phrases.
    slots[0] %= 4
    ends = [*slots, SLOTS][1:]
    return tuple((slot, float(min(end - slot, 12))) for slot, end in zip(slots, ends, strict=True))


def _weight(slot: int, syncopation: float) -> float:
    if slot % 4 == 0:
        return (1.0 if slot else 1.4) * (1.0 - syncopation) ** 1.5 + 0.02
    if slot % 2 == 0:
        return 0.10 + 0.75 * syncopation
    return 0.012 + 0.55 * syncopation


def _breathe(bar: Bar, slots: Slots, stable: bool) -> Slots:
    """The last bar of a phrase: its last note, and then a rest that grows with the phrase, the same after each phrase.

    The rest lasts 7, 10 or 16 sixteenths for phrases of 2, 4 or 8 bars, but 0.85 to 3 seconds. A note that rests is the
    longer the stronger the cadence; one that is foreign to the chord or to home is short and off the strong beats.
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
    # A motif that came back has no more notes than it had.
    return (*before[: len(slots) - 1], (slot, length))


# --- pitch --------------------------------------------------------------------------------------------------------

_SHORT_SECONDS, _LONG_SECONDS = 0.28, 0.45
"""Notes up to the first may be foreign to the chord; from the second on they are tones of its triad; between them they
only keep a whole tone away from the tones of the chord."""


def _degrees(
    bar: Bar, walker: Walker, manner: Manner, place: int, slots: Slots, offsets: list[int] | None, stable: bool | None
) -> list[int]:
    """The scale degree of each note: a walk on the manner's ladder, or ``offsets`` that come back from a fitting place.

    ``stable`` says how the last note rests at the end of a phrase; ``None`` within one.
    """
    low, high = _register(bar)
    rungs = _rungs(bar, manner.ladder, low, high)
    moves = bar.rng.random((SLOTS, 3))
    here = _nearest_rung(rungs, walker.degree)
    before = walker.degree
    if offsets is not None:
        here = _anchor(bar, manner, rungs, here, place, slots, offsets)
    start, found = here, []
    for number, (slot, length) in enumerate(slots):
        position = (place + slot / SLOTS) / bar.config.phrase_len_bars
        if offsets is None:
            here = _walk(bar, manner, rungs, here, moves[slot], position)
        else:
            here = _inside(start + offsets[number], len(rungs))
        if stable is not None and number == len(slots) - 1:
            degree = _rest(bar, rungs[here], slot / 4, stable, low, high)
        else:
            way = offsets[number] - offsets[number - 1] if offsets and number else 0
            degree = _fitting(bar, rungs[here], before, way, slot, manner.sounds(length), low, high)
        found.append(degree)
        before = degree
        if offsets is None:
            here = _nearest_rung(rungs, degree)
    return found


def _cell(bar: Bar, manner: Manner, slots: Slots, degrees: list[int], offsets: list[int] | None) -> Cell:
    """What a bar leaves to come back: its own motif, or for a bar that came back itself the same once more."""
    if offsets is None:
        rungs = _rungs(bar, manner.ladder, *_register(bar))
        places = [_nearest_rung(rungs, degree) for degree in degrees]
        offsets = [place - places[0] for place in places]
    return tuple(Step(slot, length, offset) for (slot, length), offset in zip(slots, offsets, strict=False))


def _anchor(bar: Bar, manner: Manner, rungs: list[int], here: int, place: int, slots: Slots, offsets: list[int]) -> int:
    """The rung from which a motif fits the chord best, near where the melody is and where its contour wants it."""
    target = _target(bar, manner, place / bar.config.phrase_len_bars)
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
    # The contour turns moves round rather than adding to them, so leaps stay as rare as asked; they do not go far past it.
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
    """A rung turned back at the ends of the ladder."""
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


def _fitting(bar: Bar, degree: int, before: int, way: int, slot: int, length: float, low: int, high: int) -> int:
    """The nearest degree that fits, rather another than the one before, and for a motif rather in the direction ``way``."""
    near = [d for d in range(max(degree - 4, low), min(degree + 4, high) + 1) if _fits(bar, d, slot, length)]

    def cost(d: int) -> tuple[float, int]:
        turned = way != 0 and (d - before) * way <= 0
        return abs(d - degree) + (1.1 if d == before and d != degree else 0.0) + 2.5 * turned, d

    return min(near, key=cost, default=degree)


def _rest(bar: Bar, degree: int, at: float, stable: bool, low: int, high: int) -> int:
    """Where a phrase ends: on a tone of the home chord, or on one that wants to go on; of the chord, if it has one."""
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
