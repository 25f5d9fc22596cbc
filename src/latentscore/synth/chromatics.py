"""Chords from outside the scale: borrowed chords, and short chords that lead into the next one.

Both are chords on scale degrees with an altered scale, so melodies that move by degrees stay in tune with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from latentscore.labels import FIELDS
from latentscore.synth.form import dealt
from latentscore.synth.theory import SCALES, Chord, Harmony, stack

_BORROWED: dict[str, dict[int, dict[int, int]]] = {
    # For the chord on a degree: the altered degrees while it sounds, in semitones above the tonic.
    "major": {1: {3: 6}, 2: {4: 8}, 3: {5: 8}, 5: {2: 3, 5: 8}, 6: {6: 10}},
    "minor": {1: {1: 1}, 2: {6: 11}, 3: {5: 9}, 4: {6: 11}, 5: {5: 9}, 6: {6: 11}},
    "dorian": {1: {1: 1, 5: 8}, 3: {5: 8}, 4: {6: 11}, 5: {5: 8}, 6: {6: 11}},
    "mixolydian": {1: {3: 6}, 2: {2: 3}, 3: {5: 8}, 4: {6: 11}, 5: {2: 3, 5: 8}, 6: {6: 11}},
}

_LEADING = ((4, 7, (0, 4, 7, 10)), (6, 10, (0, 4, 7, 10)), (3, 5, (0, 3, 7, 10)))
"""Chords that lead to a target: its dominant, the dominant seventh a whole tone below it (backdoor), the minor chord on its fourth
(minor plagal). Each as degrees and semitones above the target's root, and the semitones of its tones."""

_SPAN_BEATS = 8.0
"""In longer chords, a leading chord may follow each span of this length."""

_CHROMATICS = FIELDS["chromatic_prob"].numbers


def borrowed(chord: Chord, n: int, harmony: Harmony) -> Chord:
    """Return chord ``n`` of the piece, for a share of chords with tones of a parallel mode. The tonic chord is never altered."""
    bent = _BORROWED[harmony.mode].get(chord.degrees[0] % 7)
    if bent is None or not dealt(n, float(np.interp(harmony.chromatic, _CHROMATICS, (0.0, 0.3, 0.45, 0.9)))):
        return chord
    scale = tuple(bent.get(degree, tone) for degree, tone in enumerate(SCALES[harmony.mode]))
    return stack(scale, chord.degrees[0], harmony.extensions, chord.start, chord.length)


def parted(chord: Chord, after: Chord, n: int, harmony: Harmony, rests: bool) -> Iterator[Chord]:
    """Yield the chord, interrupted by short chords that lead into the next chord or back into itself; with ``rests``, none leads into
    the next one."""
    share = float(np.interp(harmony.chromatic, _CHROMATICS, (0.0, 0.5, 0.85, 1.0)))
    count = max(int(chord.length / _SPAN_BEATS), 1)
    span = chord.length / count
    begin = chord.start
    for number in range(count):
        end = chord.start + (number + 1) * span
        target = after if number == count - 1 else chord
        if span < 4.0 or not dealt(n * count + number, share) or (rests and target is after):
            continue
        leads = leading(target, end - min(span / 4, 2.0), end, harmony.mode, harmony.extensions, n + number)
        if leads is not None:
            yield replace(chord, start=begin, length=leads.start - begin)
            yield leads
            begin = end
    if begin < chord.end:
        yield replace(chord, start=begin, length=chord.end - begin)


def leading(target: Chord, start: float, end: float, mode: str, extensions: str, turn: int) -> Chord | None:
    """Return a chord from outside the scale that leads into ``target``, a different one for each ``turn``; None if all are diatonic."""
    home = SCALES[mode]
    for kind in range(len(_LEADING)):
        up, semitones, tones = _LEADING[(turn + kind) % len(_LEADING)]
        degree, root = (target.degrees[0] + up) % 7, target.root + semitones
        scale = list(home)
        for third, tone in enumerate(tones):
            bent = (degree + 2 * third) % 7
            scale[bent] += (root + tone - scale[bent] + 6) % 12 - 6
        if any(scale[(degree + 2 * third) % 7] != home[(degree + 2 * third) % 7] for third in range(3)):
            return stack(tuple(scale), degree, extensions, start, end - start)
    return None
