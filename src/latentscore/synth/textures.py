"""The texture layer: ten continuous background sounds, one function each."""

from __future__ import annotations

from collections.abc import Iterator

from latentscore.synth import shots
from latentscore.synth.context import Style
from latentscore.synth.notes import Bar, Note
from latentscore.synth.theory import near
from latentscore.synth.voices import Air, Shot, Wave


def _tones(bar: Bar, center: float, at: float = 0.0) -> list[int]:
    """Return the tones of the current chord, near ``center``, that are not a semitone from another chord tone."""
    return [near(bar.piece.key + tone, center) for tone in bar.chord(at).apart]


def _scattered(bar: Bar, a_bar: float) -> Iterator[float]:
    """Yield random times in the bar, ``a_bar`` on average; fewer if density puts the texture in the background."""
    count = int(a_bar * (1.0 if bar.full else 0.7) + float(bar.rng.random()))
    yield from sorted(4.0 * float(x) for x in bar.rng.random(count))


def none(bar: Bar) -> Iterator[Note]:
    """Silence."""
    return iter(())


def shimmer(bar: Bar) -> Iterator[Note]:
    """High chord tones with a fast tremolo, panned from side to side."""
    for number in range(8):
        tones = _tones(bar, 88, number / 2)
        pitch = tones[int(bar.rng.integers(len(tones)))]
        yield bar.note(number / 2, 0.7, pitch, 0.6 + 0.15 * float(bar.rng.random()), 0.8 * (-1) ** number)


def shimmer_slow(bar: Bar) -> Iterator[Note]:
    """The same tones slowly: one swell per bar."""
    tones = _tones(bar, 84)
    for number in range(2):
        pitch = tones[int(bar.rng.integers(len(tones)))]
        yield bar.note(2.0 * number, 3.4, pitch, 0.7, 0.7 * (-1) ** number)


def vinyl_crackle(bar: Bar) -> Iterator[Note]:
    """Crackle, an occasional pop, and surface noise."""
    yield bar.note(0, 4.3, 84.0, 0.7, 0.0, "hiss")
    for at in _scattered(bar, 13):
        yield bar.note(at, 0.1, 72.0, float(bar.rng.uniform(0.35, 0.95)), float(bar.rng.uniform(-0.7, 0.7)), "speck")
    for at in _scattered(bar, 0.8):
        yield bar.note(at, 0.1, 60.0, 0.7, float(bar.rng.uniform(-0.4, 0.4)), "pop")


def breath(bar: Bar) -> Iterator[Note]:
    """Noise that rises for half a bar and falls, lower, for the other half."""
    yield bar.note(0.0, 1.9, 91.0, 0.7, -0.1, "in")
    yield bar.note(2.0, 1.95, 86.0, 0.75, 0.1, "out")


def stars(bar: Bar) -> Iterator[Note]:
    """Single high, short tones, far apart."""
    for at in _scattered(bar, 7):
        degree = int(bar.rng.integers(5))
        pitch = near(bar.piece.key + bar.chord(at).scale[(0, 2, 4, 1, 5)[degree]], 96 + 8 * float(bar.rng.random()))
        yield bar.note(at, 0.5, pitch, float(bar.rng.uniform(0.4, 0.9)), float(bar.rng.uniform(-1, 1)))


def glitch(bar: Bar) -> Iterator[Note]:
    """Stutters: a fragment repeated very fast, then silence."""
    for at in _scattered(bar, 3.0):
        at = round(at * 8) / 8
        repeats, pitch = int(bar.rng.integers(3, 9)), near(bar.piece.key, 60 + 24 * float(bar.rng.random()))
        gap = (1 / 8, 1 / 12, 1 / 16)[int(bar.rng.integers(3))]
        for number in range(repeats):
            yield bar.note(at + number * gap, gap * 0.8, pitch, 0.8 - 0.05 * number, 0.5 * (-1) ** number, "grain")


def noise_wash(bar: Bar) -> Iterator[Note]:
    """Wide noise that rises and falls over two bars, like waves on a shore."""
    if bar.index % 2 == 0:
        yield bar.note(0, 8.4, 79.0, 0.8)
    else:
        yield bar.note(0, 8.4, 72.0, 0.55)


def crystal(bar: Bar) -> Iterator[Note]:
    """Struck glass: pure inharmonic tones on the chord."""
    for at in _scattered(bar, 3.4):
        at = round(at * 2) / 2
        tones = _tones(bar, 80, min(at, 3.9))
        pitch = tones[int(bar.rng.integers(len(tones)))]
        yield bar.note(at, 1.0, pitch, float(bar.rng.uniform(0.55, 0.85)), float(bar.rng.uniform(-0.8, 0.8)))


def pad_whisper(bar: Bar) -> Iterator[Note]:
    """Noise filtered to the tones of the chord."""
    for number, pitch in enumerate(_tones(bar, 74)[:3]):
        yield bar.note(0.0, 4.4, pitch, 0.7, 0.6 * (number - 1))


_SWELL = ((0.0, 0.0, 1.0), (0.45, 1.0, 1.3), (1.0, 0.0, 0.9))

STYLES = {
    "none": Style(none, {}),
    "shimmer": Style(
        shimmer, {"main": Wave("glass", 9000, 0.03, 0.3, 0.3, 0.35, 2, 9, 0.4, tremolo=(0.7, 9.0), level=0.6)}
    ),
    "shimmer_slow": Style(
        shimmer_slow, {"main": Wave("glass", 7000, 0.9, 2.0, 0.7, 1.5, 2, 7, 0.6, tremolo=(0.3, 0.7), level=0.6)}
    ),
    "vinyl_crackle": Style(
        vinyl_crackle,
        {
            "speck": Shot(shots.crackle, takes=9, attack=0.0),
            "pop": Shot(shots.pop, attack=0.0),
            "hiss": Air(((0, 0, 1), (0.07, 1, 1), (0.93, 1, 1), (1, 0, 1)), resonance=0.5, level=0.02, band=0.6),
        },
    ),
    "breath": Style(
        breath,
        {
            "in": Air(((0, 0, 0.8), (0.7, 1.0, 1.3), (1, 0, 1.5)), resonance=1.6, level=0.3),
            "out": Air(((0, 0, 1.2), (0.25, 1.0, 1.0), (1, 0, 0.6)), resonance=1.3, level=0.3),
        },
    ),
    "stars": Style(stars, {"main": Shot(shots.star, attack=0.6)}),
    "glitch": Style(glitch, {"grain": Shot(shots.grain, takes=4, attack=0.05)}),
    "noise_wash": Style(noise_wash, {"main": Air(((0, 0, 0.5), (0.4, 1, 1.6), (1, 0, 0.4)), 0.55, 0.3, 0.3)}),
    "crystal": Style(crystal, {"main": Shot(shots.crystal)}),
    "pad_whisper": Style(pad_whisper, {"main": Air(_SWELL, resonance=14.0, level=0.5)}),
}
