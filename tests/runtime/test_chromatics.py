"""Chords from outside the scale: as many as asked for, and each of them leads somewhere."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from listening import IMPROVISED, PLAIN, config, rises

from latentscore import FIELDS, MusicConfigPrompt, compose, random_config
from latentscore.synth.chromatics import leading
from latentscore.synth.context import RenderContext
from latentscore.synth.notes import Piece
from latentscore.synth.theory import SCALES, Chord, stack

MODES = FIELDS["mode"].labels


def sounding(words: MusicConfigPrompt, seconds: float = 120.0) -> list[Chord]:
    """The chords of a piece as they sound."""
    piece = compose(words.to_config(), seconds).piece
    return [part for n in range(len(piece.chords)) for part in piece.parts(n)]


def bent_share(words: MusicConfigPrompt) -> float:
    """Share of the time in which a chord holds a tone from outside the scale."""
    scale = SCALES[words.mode]
    chords = sounding(words)
    bent = sum(c.length for c in chords if {tone % 12 for tone in c.tones} - set(scale))
    return bent / sum(c.length for c in chords)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", FIELDS["chord_change_bars"].labels)
def test_each_label_bends_more_chords_than_the_one_before(mode: str, change: str):
    words = {**PLAIN, "mode": mode, "chord_change_bars": change, "cadence_strength": "weak"}
    shares = [bent_share(config(words, chromatic_prob=label)) for label in FIELDS["chromatic_prob"].labels]
    assert shares[0] == 0.0
    assert rises(shares)
    assert 0.04 < shares[1] < 0.4


@pytest.mark.parametrize("number", range(12))
def test_chords_follow_each_other_without_a_gap_and_what_is_bent_leads_on(number: int):
    words = random_config(np.random.default_rng([9, number])).model_copy(update={"chromatic_prob": "heavy"})
    home = SCALES[words.mode]
    for chord, after in pairwise(sounding(words)):
        assert after.start == pytest.approx(chord.end)
        assert chord.tones == tuple(12 * (d // 7) + chord.scale[d % 7] for d in chord.degrees)
        if chord.degrees[0] % 7 == 0 and chord.scale != home:
            # The chord of home is bent only where it leads on.
            assert chord.length <= 2.0


@pytest.mark.parametrize("mode", MODES)
def test_a_chord_that_leads_on_is_no_other_chord_of_the_scale(mode: str):
    scale = SCALES[mode]
    for degree in range(7):
        target = stack(scale, degree, "triads", 8.0, 8.0)
        for turn in range(3):
            found = leading(target, 6.0, 8.0, mode, "triads", turn)
            assert found is not None
            assert (found.start, found.end) == (6.0, target.start)
            assert {tone % 12 for tone in found.tones} - set(scale)
            # The fifth or the fourth below it, or a whole tone.
            assert (found.root - target.root) % 12 in (5, 7, 10)


def test_a_cadence_comes_to_rest():
    words = config(IMPROVISED, chromatic_prob="heavy", cadence_strength="strong", chord_change_bars="medium")
    piece = compose(words.to_config(), 60).piece
    ends = [n for n in range(len(piece.chords)) if piece.chord(n).degrees[0] == 0 and len(piece.parts(n)) == 1]
    assert ends
    assert all(piece.parts(n)[0].scale == SCALES[words.mode] for n in ends)


def test_a_light_mode_is_played_lighter():
    pieces = {mode: Piece(config(PLAIN, mode=mode).to_config(), 60.0, 0) for mode in MODES}
    opens = {mode: RenderContext(piece, 24_000).open for mode, piece in pieces.items()}
    assert opens["major"] > opens["mixolydian"] > opens["dorian"] > opens["minor"]
    heights = {
        mode: float(np.mean([note.pitch for note in compose(piece.config, 60).layers["melody"]]))
        for mode, piece in pieces.items()
    }
    assert heights["major"] > heights["minor"]
