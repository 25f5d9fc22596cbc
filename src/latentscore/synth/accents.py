"""The accent layer: ten kinds of events, one function each."""

from __future__ import annotations

from collections.abc import Iterator

from latentscore.synth import shots
from latentscore.synth.context import Style
from latentscore.synth.notes import Bar, Note
from latentscore.synth.theory import near
from latentscore.synth.voices import Air, Shot, Wave


def _tone(bar: Bar, center: float, at: float) -> int:
    """Return a random tone of the current chord, near ``center``, that is not a semitone from another chord tone."""
    tones = bar.chord(at).apart
    return near(bar.piece.key + tones[int(bar.rng.integers(len(tones)))], center)


def _moments(bar: Bar, choices: tuple[float, ...], a_bar: float) -> list[float]:
    """Return on average ``a_bar`` of the given beats, and at least one in every second bar and where the layer enters;
    syncopation moves them off the beat."""
    share = a_bar * (1.0 if bar.full else 0.7)
    count = int(share + float(bar.rng.random()))
    if bar.index % 2 == 0 or bar.enters:
        count = max(count, 1)
    chosen = sorted(choices[int(n)] for n in bar.rng.permutation(len(choices))[:count])
    shifts = bar.rng.random(len(chosen))
    return [
        at + (0.5 if at % 1 == 0 and shift < bar.config.syncopation else 0.0)
        for at, shift in zip(chosen, shifts, strict=True)
    ]


def none(bar: Bar) -> Iterator[Note]:
    """Silence."""
    return iter(())


def bells(bar: Bar) -> Iterator[Note]:
    """A single bell from time to time."""
    for at in _moments(bar, (0.0, 2.0, 3.0), 1.4):
        yield bar.note(at, 2.0, _tone(bar, 74, at), 0.75, float(bar.rng.uniform(-0.5, 0.5)))


def pluck(bar: Bar) -> Iterator[Note]:
    """A guitar string, two notes at a time."""
    for at in _moments(bar, (0.0, 1.0, 2.0, 3.0), 1.7):
        low = _tone(bar, 62, at)
        yield bar.note(at, 1.0, low, 0.75, -0.35)
        yield bar.note(at + 0.5, 1.0, _tone(bar, low + 9, at), 0.65, -0.2)


def chime(bar: Bar) -> Iterator[Note]:
    """Wind chimes: a handful of tubes one after the other, falling."""
    for at in _moments(bar, (1.0, 3.0), 0.45):
        for number in range(int(bar.rng.integers(4, 7))):
            pitch = near(bar.piece.key + bar.chord(at).scale[(4, 2, 1, 0, 5, 4)[number]], 98 - 3 * number)
            late = number * 0.11 + 0.05 * float(bar.rng.random())
            yield bar.note(at + late, 1.0, pitch, 0.62, 0.9 - 0.3 * number)


def bells_dense(bar: Bar) -> Iterator[Note]:
    """Bells on most eighths, over an octave and a half."""
    for eighth in range(8):
        if bar.rng.random() < (0.8 if bar.full else 0.55):
            at = eighth / 2
            yield bar.note(
                at, 1.0, _tone(bar, 72 + 10 * float(bar.rng.random()), at), 0.6, float(bar.rng.uniform(-0.8, 0.8))
            )


def blip(bar: Bar) -> Iterator[Note]:
    """A regular electronic signal: two short tones on the same beat of every bar."""
    yield bar.note(1.5, 0.2, near(bar.piece.key, 84), 0.7, 0.3)
    yield bar.note(1.75, 0.2, near(bar.piece.key, 84), 0.55, 0.3)
    yield bar.note(3.5, 0.2, near(bar.piece.key + 7, 86), 0.6, 0.3)


def blip_random(bar: Bar) -> Iterator[Note]:
    """The same signal at random: any sixteenth, any pitch of the scale, any side."""
    for slot in range(16):
        if bar.rng.random() < (0.3 if bar.full else 0.2):
            step = bar.chord(slot / 4).scale[int(bar.rng.integers(7))]
            pitch = near(bar.piece.key + step, 70 + 30 * float(bar.rng.random()))
            yield bar.note(slot / 4, 0.2, pitch, 0.6, float(bar.rng.uniform(-1, 1)))


def brass_hit(bar: Bar) -> Iterator[Note]:
    """A brass chord that swells and is cut short."""
    for at in _moments(bar, (0.0, 2.0), 0.45):
        tones = bar.chord(at).tones
        root = near(bar.piece.key + tones[0], 55)
        for number, tone in enumerate(tones[:3]):
            yield bar.note(at, 1.3, root + tone - tones[0], 0.85, 0.4 * (number - 1))


def wind(bar: Bar) -> Iterator[Note]:
    """A gust: narrow noise that rises, turns and falls."""
    for at in _moments(bar, (0.0, 1.0), 0.5):
        pitch = 72 + 14 * float(bar.rng.random())
        yield bar.note(at, 3.6, pitch, 0.75, float(bar.rng.uniform(-0.7, 0.7)))


def arp_accent(bar: Bar) -> Iterator[Note]:
    """The chord run up over two octaves in sixteenths."""
    for at in _moments(bar, (0.0, 2.0), 0.8):
        chord = bar.chord(at)
        root = near(bar.piece.key + chord.root, 70)
        run = [root + tone - chord.root + 12 * octave for octave in range(2) for tone in chord.tones[:3]]
        for number, pitch in enumerate([*run, root + 24]):
            yield bar.note(at + number / 4, 0.3, pitch, 0.55 + 0.04 * number, -0.6 + 0.2 * number)


def piano_note(bar: Bar) -> Iterator[Note]:
    """A single piano note with its lower octave, left to ring."""
    for at in _moments(bar, (0.0, 1.0, 2.5), 1.6):
        pitch = _tone(bar, 67, at)
        yield bar.note(at, 3.0, pitch, 0.72, 0.2)
        yield bar.note(at, 3.0, pitch - 12, 0.5, -0.2)


STYLES = {
    "none": Style(none, {}),
    "bells": Style(bells, {"main": Shot(shots.bell)}),
    "pluck": Style(pluck, {"main": Shot(shots.nylon)}),
    "chime": Style(chime, {"main": Shot(shots.chime)}),
    "bells_dense": Style(bells_dense, {"main": Shot(shots.bell)}),
    "blip": Style(blip, {"main": Shot(shots.blip, attack=0.3)}),
    "blip_random": Style(blip_random, {"main": Shot(shots.blip, attack=0.3)}),
    "brass_hit": Style(
        brass_hit, {"main": Wave("brass", 2200, 0.09, 0.6, 0.8, 0.16, 2, 9, 0.3, bite=0.7, bite_seconds=0.5)}
    ),
    "wind": Style(
        wind,
        {"main": Air(((0, 0, 0.7), (0.35, 1, 1.5), (0.6, 0.6, 1.0), (0.8, 0.8, 1.25), (1, 0, 0.6)), 5.0, level=0.5)},
    ),
    "arp_accent": Style(
        arp_accent, {"main": Wave("square", 5600, 0.003, 0.09, 0.0, 0.12, bite=0.7, bite_seconds=0.04)}
    ),
    "piano_note": Style(piano_note, {"main": Shot(shots.piano)}),
}
