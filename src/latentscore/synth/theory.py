"""Scales, chords, voicings and the harmony plan. Time is in beats, pitch in MIDI note numbers (60 is middle C)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from latentscore.config import MusicConfig
from latentscore.labels import FIELDS
from latentscore.synth.form import BEATS_PER_BAR, has_cadence, stream

ROOTS = {name: n for n, name in enumerate(FIELDS["root"].labels)}

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}

LIGHT = {"major": 1.0, "mixolydian": 0.5, "dorian": -0.4, "minor": -1.0}
"""How light (1) or dark (-1) each mode is played: a light mode is a little higher and brighter, and its notes are shorter."""

# Scale degrees of the chords (0 is the home chord): the progression of most sections, and that of departures.
_AUTO = {
    "major": ((0, 5, 3, 4), (3, 4, 2, 5)),
    "minor": ((0, 5, 3, 6), (5, 6, 0, 0)),
    "dorian": ((0, 3, 0, 6), (2, 3, 6, 0)),
    "mixolydian": ((0, 6, 3, 0), (3, 6, 0, 4)),
}
_LIGHT = {
    "pop": ((0, 4, 5, 3), (5, 3, 0, 4)),
    "jazz": ((1, 4, 0, 5), (2, 5, 1, 4)),
    "cinematic": ((5, 2, 3, 0), (3, 0, 4, 5)),
    "ambient": ((0, 3, 0, 3), (5, 3, 1, 3)),
}
_SHADE = {
    "pop": ((0, 6, 5, 6), (5, 2, 6, 0)),
    "jazz": ((1, 4, 0, 3), (3, 6, 2, 5)),
    "cinematic": ((5, 2, 0, 6), (5, 6, 3, 0)),
    "ambient": ((0, 3, 0, 3), (5, 3, 2, 3)),
}


@dataclass(frozen=True, slots=True)
class Chord:
    """A chord and when it sounds.

    ``tones`` are semitones above the home note in root position, rising: root, third, fifth, and as the extensions ask
    seventh and ninth. ``degrees`` are the same tones as degrees of ``scale``, which holds while the chord sounds.
    """

    start: float
    length: float
    degrees: tuple[int, ...]
    tones: tuple[int, ...]
    scale: tuple[int, ...]

    @property
    def root(self) -> int:
        return self.tones[0]

    @property
    def apart(self) -> tuple[int, ...]:
        """The tones that are not a semitone from another tone of the chord, in any octave; only these may sound above the pad."""
        found = tuple(t for t in self.tones if all((t - other) % 12 not in (1, 11) for other in self.tones))
        return found or self.tones

    @property
    def end(self) -> float:
        return self.start + self.length


def scale_pitch(scale: Sequence[int], degree: int) -> int:
    """Return the semitones above the home note of a scale degree, which may be in any octave."""
    octave, step = divmod(degree, len(scale))
    return 12 * octave + scale[step]


def stack(scale: tuple[int, ...], degree: int, extensions: str, start: float, length: float) -> Chord:
    """The chord of thirds on a scale degree: three, four or five tones for triads, sevenths or lush."""
    count = {"triads": 3, "sevenths": 4, "lush": 5}[extensions]
    degrees = tuple(degree + 2 * n for n in range(count))
    return Chord(start, length, degrees, tuple(scale_pitch(scale, d) for d in degrees), scale)


@dataclass(frozen=True, slots=True)
class Harmony:
    """The values that determine the chords of a piece: mode, family of progressions, tones per chord, bars per chord,
    and cadences.

    ``cadence_bars`` is the number of bars between possible cadences, ``cadence`` the share of them that are cadences.
    """

    mode: str
    style: str
    extensions: str
    bars: float
    cadence_bars: float
    cadence: float
    chromatic: float
    seed: int


def harmony_of(config: MusicConfig, seed: int) -> Harmony:
    """The harmony that a config asks for. A cadence falls at the end of a phrase of at least four chords."""
    phrases = max(math.ceil(4 * config.chord_change_bars / config.phrase_len_bars), 1)
    return Harmony(
        config.mode, config.harmony_style, config.chord_extensions, config.chord_change_bars,
        float(phrases * config.phrase_len_bars), config.cadence_strength, config.chromatic_prob, seed,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def chord_number(n: int, harmony: Harmony, departs: bool) -> Chord:
    """Return the ``n``-th chord of the piece, counted from 0. It is a function of the arguments, so pieces can be
    endless.

    ``departs`` selects the contrasting progression.
    """
    mode, style = harmony.mode, harmony.style
    if style == "auto":
        first, answer = _AUTO[mode]
    else:
        first, answer = (_LIGHT if mode in ("major", "mixolydian") else _SHADE)[style]
    degree = (answer if departs else first)[n % 4]
    if n % 4 == 2 and n > 4 and stream(harmony.seed, "harmony", n).random() < 0.3:
        # Sometimes a chord is replaced by its relative, so that the progression is varied.
        degree = (degree - 2) % 7
    before_end = chords_before_cadence(n, harmony)
    if before_end == 0:
        degree = 0
    elif before_end == 1:
        # The dominant where the mode has a major or minor one that leads home, else the chord under the home note.
        degree = 4 if mode == "major" else 6
    length = harmony.bars * BEATS_PER_BAR
    return stack(SCALES[mode], degree, harmony.extensions, n * length, length)


def chords_before_cadence(n: int, harmony: Harmony) -> int | None:
    """How many chords follow up to the end of the phrase, if that has a cadence."""
    chords = harmony.cadence_bars / harmony.bars
    phrase = int((n + 0.5) / chords)
    return math.ceil((phrase + 1) * chords - 1e-6) - 1 - n if has_cadence(phrase, harmony.cadence) else None


def near(pitch_class: int, target: float) -> int:
    """The pitch of that class nearest to ``target``."""
    return round((target - pitch_class) / 12) * 12 + pitch_class


@lru_cache(maxsize=2048)
def voice(chord: Chord, key: int, style: str, center: float, before: tuple[int, ...]) -> tuple[int, ...]:
    """Return pitches for the pad in the layout of the harmony style around ``center``, ascending.

    Of all inversions, this is the one with the smallest movement from the pitches ``before``, with a preference against
    parallel motion. No two voices are a semitone apart.
    """
    layouts = [
        spread_semitones([pitch + 12 * octave for pitch in layout], center)
        for layout in _layouts(chord, key, style, center) for octave in (-1, 0, 1)
    ]  # fmt: skip
    return min(layouts, key=lambda pitches: _effort(pitches, before, center))


def _layouts(chord: Chord, key: int, style: str, center: float) -> list[list[int]]:
    """The inversions of a chord in the layout of a harmony style, each near ``center``."""
    tones = [key + tone for tone in chord.tones]
    if style == "jazz":
        # Without the root, which the bass has: third and seventh (or the sixth above a triad) carry the colour.
        sixth = key + scale_pitch(chord.scale, chord.degrees[0] + 5)
        tones = tones[1:] if len(tones) > 3 else [*tones[1:], sixth]
    elif style == "ambient":
        # A second leans on the third where they are a whole tone apart.
        second = key + scale_pitch(chord.scale, chord.degrees[0] + 1)
        if len(tones) < 5 and tones[1] - second == 2:
            tones = [tones[0], second, *tones[1:]]
    closes = [_close(tones[turn:] + tones[:turn], center) for turn in range(len(tones))]
    if style == "pop":
        return [[*close, close[0] + 12] for close in closes]
    if style == "cinematic":
        # Wide: two voices below, the others above them, the lowest doubled at the top.
        return [[close[0] - 12, close[2] - 12, close[1], *close[3:], close[0] + 12] for close in closes]
    if style == "ambient":
        # Open: root and fifth below whatever is above them.
        root = near(tones[0], center - 14)
        fifth = root + chord.tones[2] - chord.tones[0]
        return [[root, fifth, *close] for close in closes]
    return closes


def _close(tones: Sequence[int], center: float) -> list[int]:
    """Pitch classes in the given order in close position, their middle near ``center``."""
    pitches = [near(tones[0] % 12, center - 6)]
    for tone in tones[1:]:
        pitches.append(pitches[-1] + 1 + (tone - pitches[-1] - 1) % 12)
    return pitches


def spread_semitones(pitches: Iterable[int], center: float) -> tuple[int, ...]:
    """The pitches, rising and without repeats; of two that are a semitone apart one is moved by an octave."""
    found = sorted(set(pitches))
    for _ in range(3):
        pair = next((n for n, (a, b) in enumerate(pairwise(found)) if b - a == 1), None)
        if pair is None:
            break
        if (found[pair] + found[pair + 1]) / 2 < center:
            found[pair] += 12
        else:
            found[pair + 1] -= 12
        found = sorted(set(found))
    return tuple(found)


def _effort(pitches: Sequence[int], before: Sequence[int], center: float) -> float:
    """Return the cost of a voicing: mean movement in semitones, parallel motion, distance from ``center``, and semitone
    clashes."""
    cost = 0.6 * max(abs(sum(pitches) / len(pitches) - center) - 2.5, 0.0)
    cost += 4.0 * sum(b - a == 1 for a, b in pairwise(pitches))
    if not before:
        return cost
    moves = voice_moves(before, pitches)
    cost += sum(map(abs, moves)) / len(moves)
    if moves[0] and len(set(moves)) == 1:
        cost += 2.0
    return cost


def voice_moves(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Return the movement of each voice: paired in order, or with the nearest voice if the numbers of voices differ."""
    if len(before) == len(after):
        return [b - a for a, b in zip(before, after, strict=True)]
    return [min((b - a for a in before), key=abs) for b in after]
