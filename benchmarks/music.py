"""Measure the music: form, harmony, voice leading, melody, loudness, room and mix over random and named configs.

    python benchmarks/music.py [--configs 40] [--only form,harmony] [--json]

The groups are form, harmony, melody, directions, room, pad, spectrum and mix; the last one takes two minutes for ten configs.

Each row is named after what it measures; the columns are the mean over random configs, over the named configs of
docs/sound/configs.json, and what is wanted. To compare with another version, run this file with PYTHONPATH set to the
``src`` folder of a worktree of it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import _room
import numpy as np
from numpy.typing import NDArray

from latentscore import FIELDS, MusicConfigPrompt, Score, compose, random_config, render
from latentscore.labels import beats_per_minute

Floats = NDArray[np.floating[Any]]
Notes = Sequence[Any]

CONFIGS = Path(__file__).parents[1] / "docs" / "sound" / "configs.json"
RATE = 22_050
PITCHED = {
    "bass": None, "pad": None, "melody": None,
    "texture": ("shimmer", "shimmer_slow", "stars", "crystal", "pad_whisper"),
    "accent": ("bells", "pluck", "chime", "bells_dense", "blip", "blip_random", "brass_hit", "arp_accent", "piano_note"),
}  # fmt: skip
"""Layers that have a pitch, and the labels for which that holds; ``None`` for all."""


@dataclass(frozen=True)
class Row:
    """One figure: its name, what is wanted of it, and its value for a config (``None`` where it does not apply)."""

    name: str
    wanted: str
    measure: Callable[[MusicConfigPrompt], float | None]
    digits: int = 2


def random_configs(count: int) -> list[MusicConfigPrompt]:
    """The random configs of this table: the same ones in each run."""
    return [random_config(np.random.default_rng([15, n])) for n in range(count)]


def named_configs() -> list[MusicConfigPrompt]:
    """The named configs, with today's defaults for fields that they do not name."""
    defaults = {name: spec.nearest_label(spec.default) for name, spec in FIELDS.items()}
    return [MusicConfigPrompt(**{**defaults, **words}) for words in json.loads(CONFIGS.read_text("utf-8")).values()]


@lru_cache(maxsize=512)
def score_of(config: MusicConfigPrompt, seconds: float = 120.0, seed: int = 0) -> Score:
    """The score of a config."""
    return compose(config.to_config(), seconds, seed)


@lru_cache(maxsize=4)
def sound_of(config: MusicConfigPrompt, seconds: float = 60.0, seed: int = 0) -> Floats:
    """The samples of a config, shape (frames, 2)."""
    return render(config, seconds, seed, RATE).samples


def beat_seconds(score: Score) -> float:
    """Seconds of a beat."""
    return 60.0 / score.piece.bpm


# --- 1 form -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def mel_bank(size: int = 2048, bands: int = 64) -> Floats:
    """Triangles of equal width on the mel scale from 40 Hz to 10.6 kHz, shape (bands, bins)."""
    hz = np.fft.rfftfreq(size, 1 / RATE)
    edges = 700 * (
        10 ** (np.linspace(*(2595 * np.log10(1 + f / 700) for f in (40.0, 0.48 * RATE)), bands + 2) / 2595) - 1
    )
    rise = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rise, fall), 0, None)


def log_mel(mono: Floats) -> Floats:
    """Decibels in 64 mel bands, shape (frames, 64), hop 1024."""
    frames = np.lib.stride_tricks.sliding_window_view(mono, 2048)[::1024]
    power = np.abs(np.fft.rfft(frames * np.hanning(2048), axis=1)) ** 2
    return 10 * np.log10(power @ mel_bank().T + 1e-5)


def halves_apart(config: MusicConfigPrompt) -> float:
    """Mean distance in dB of the mean log-mel spectra of the first and the second 30 s."""
    level = log_mel(sound_of(config).mean(axis=1))
    half = len(level) // 2
    return float(np.abs(level[:half].mean(axis=0) - level[half:].mean(axis=0)).mean())


def windows_apart(config: MusicConfigPrompt) -> float:
    """How much further windows of 5 s that lie 30 s apart are from each other than neighbours, in dB."""
    level = log_mel(sound_of(config).mean(axis=1))
    windows = np.array([part.mean(axis=0) for part in np.array_split(level, 12)])
    near = np.abs(np.diff(windows, axis=0)).mean()
    return float(np.abs(windows[6:] - windows[:-6]).mean() - near)


def last_entry(config: MusicConfigPrompt) -> float:
    """Seconds until every layer has played."""
    score = score_of(config)
    return max(notes[0].start for notes in score.layers.values() if notes) * beat_seconds(score)


def rests_long(config: MusicConfigPrompt) -> float:
    """Whether some layer rests for 12 s or more between two notes, in two minutes."""
    return float(longest_layer_rest(config) >= 12.0)


def longest_layer_rest(config: MusicConfigPrompt) -> float:
    """The longest silence of a layer between its notes in two minutes, in seconds; the longest of all layers."""
    score = score_of(config)
    longest = 0.0
    for notes in score.layers.values():
        end = notes[0].start + notes[0].length if notes else 0.0
        for note in notes:
            longest = max(longest, note.start - end)
            end = max(end, note.start + note.length)
    return longest * beat_seconds(score)


# --- 8 loudness range ---------------------------------------------------------------------------------------------


def loudness_range(config: MusicConfigPrompt) -> float | None:
    """EBU R 128 loudness range (Tech 3342) of 90 s of a piece of up to 95 beats a minute, in LU."""
    if config.to_config().tempo > 0.36:
        return None
    from scipy.signal import sosfilt

    samples = sound_of(config, 90.0).astype(np.float64)
    weighted = sosfilt(_k_weighting(), samples, axis=0)
    total = np.concatenate([[0.0], np.cumsum((weighted**2).sum(axis=1))])
    energy = ((total[3 * RATE :] - total[: -3 * RATE]) / (3 * RATE))[:: RATE // 10]
    level = -0.691 + 10 * np.log10(energy + 1e-12)
    level = level[level > -70]
    level = level[level > 10 * np.log10(np.mean(10 ** (level / 10))) - 20]
    return float(np.quantile(level, 0.95) - np.quantile(level, 0.10))


@lru_cache(maxsize=1)
def _k_weighting() -> Floats:
    """Shelf and high-pass of BS.1770 at this table's sample rate, by bilinear transform of their prototypes."""
    sections = []
    for hz, q, high, band in ((1681.97, 0.7072, 1.58486, 1.25872), (38.135, 0.5003, 1.0, 0.0)):
        k = np.tan(np.pi * hz / RATE)
        a0 = 1 + k / q + k * k
        low = k * k if high > 1 else 0.0
        b = (
            [(high + band * k / q + low) / a0, 2 * (low - high) / a0, (high - band * k / q + low) / a0]
            if high > 1 else [1.0, -2.0, 1.0]
        )  # fmt: skip
        sections.append([*b, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0])
    return np.array(sections)


# --- 6 clashes ----------------------------------------------------------------------------------------------------


def pitched(score: Score) -> Iterator[tuple[str, Notes]]:
    """The layers of a score that have a pitch."""
    for layer, labels in PITCHED.items():
        if labels is None or getattr(score.piece.config, layer) in labels:
            yield layer, score.layers[layer]


def clash_seconds(config: MusicConfigPrompt) -> float | None:
    """Seconds a minute in which two layers are a semitone apart for longer than 0.3 s; without chromatic notes."""
    if config.chromatic_prob != "none":
        return None
    return _clash_seconds(config)


def _clash_seconds(config: MusicConfigPrompt) -> float:
    score = score_of(config)
    beat = beat_seconds(score)
    spans = []
    for (_, a), (_, b) in combinations(pitched(score), 2):
        first = 0
        for note in a:
            while first < len(b) and b[first].start < note.start - 20.0:
                first += 1
            for other in b[first:]:
                if other.start >= note.start + note.length:
                    break
                begin = max(note.start, other.start)
                end = min(note.start + note.length, other.start + other.length)
                if (end - begin) * beat > 0.3 and abs(round(note.pitch) - round(other.pitch)) == 1:
                    spans.append((begin, end))
    return _covered(spans) * beat * 60.0 / 120.0


def _covered(spans: list[tuple[float, float]]) -> float:
    total, until = 0.0, -1.0
    for begin, end in sorted(spans):
        total += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return total


def before_closing(score: Score, layer: str) -> Notes:
    """The notes of a layer but for those of the closing, whose chord is not in the plan."""
    return [n for n in score.layers[layer] if n.start < 0.93 * score.piece.beats]


def off_chord(config: MusicConfigPrompt) -> float | None:
    """Share of the melody's notes of more than 0.5 s that are no tone of the chord they begin in."""
    score = score_of(config)
    long = [n for n in before_closing(score, "melody") if n.length * beat_seconds(score) > 0.5]
    if not long:
        return None
    return sum((round(n.pitch) - score.piece.key) % 12 not in _classes(score, n.at) for n in long) / len(long)


def strong_beats(config: MusicConfigPrompt) -> float | None:
    """Share of the melody's notes on one and three that are tones of their chord; without chromatic notes."""
    if config.chromatic_prob != "none" or config.melody in ("ornamental", "contemplative_minor"):
        return None
    score = score_of(config)
    strong = [n for n in before_closing(score, "melody") if n.at % 2 == 0]
    return sum((round(n.pitch) - score.piece.key) % 12 in _classes(score, n.at) for n in strong) / max(len(strong), 1)


def _classes(score: Score, beat: float) -> set[int]:
    return {tone % 12 for tone in score.piece.chord_at(beat).tones}


def chords_of_pad(score: Score) -> list[list[int]]:
    """The pitches of the pad that begin within each chord's first bar, chord by chord; the closing is left out."""
    chords: dict[float, set[int]] = defaultdict(set)
    for note in before_closing(score, "pad"):
        chords[score.piece.chord_at(note.at).start].add(round(note.pitch))
    return [sorted(chords[n]) for n in sorted(chords)]


def pad_semitones(config: MusicConfigPrompt) -> float:
    """Share of pad chords that hold a semitone."""
    chords = chords_of_pad(score_of(config))
    return sum(any(b - a == 1 for a, b in pairwise(chord)) for chord in chords) / len(chords)


# --- 7 voice leading ----------------------------------------------------------------------------------------------


def _moves(config: MusicConfigPrompt) -> Iterator[list[int]]:
    """What each voice of the pad moves by at each change of chord."""
    for a, b in pairwise(chords_of_pad(score_of(config))):
        if a == b:
            continue
        if len(a) == len(b):
            yield [q - p for p, q in zip(a, b, strict=True)]
        else:
            yield [min((q - p for p in a), key=abs) for q in b]


def voice_moves(config: MusicConfigPrompt) -> float | None:
    """Semitones that each voice of the pad moves by where the chord changes."""
    moves = [abs(move) for voices in _moves(config) for move in voices]
    return float(np.mean(moves)) if moves else None


def parallel(config: MusicConfigPrompt) -> float | None:
    """Share of the changes in which all voices of the pad move by the same interval."""
    changes = [len(set(voices)) == 1 and voices[0] != 0 for voices in _moves(config)]
    return float(np.mean(changes)) if changes else None


# --- 10 melody ----------------------------------------------------------------------------------------------------


def phrase_rest(config: MusicConfigPrompt) -> float:
    """The longest silence of the melody within a phrase's span and up to the next, median over phrases, in seconds."""
    score = score_of(config)
    notes = score.layers["melody"]
    beats = 4.0 * config.phrase_len_bars
    rests: dict[int, float] = defaultdict(float)
    for a, b in pairwise(notes):
        phrase = int(a.at // beats)
        if b.at // beats - phrase <= 1:
            rests[phrase] = max(rests[phrase], b.start - a.start - a.length)
    return float(np.median(list(rests.values()))) * beat_seconds(score) if rests else 0.0


def cells(score: Score) -> list[tuple[tuple[float, int], ...]]:
    """The bars of the melody with three notes or more: place of each note and interval to the one before, without graces."""
    bars: dict[int, list[Any]] = defaultdict(list)
    for note in score.layers["melody"]:
        if note.length > 0.115:
            bars[int(note.at // 4)].append(note)
    return [
        tuple((round((b.at - a.at) * 4), int(np.sign(round(b.pitch) - round(a.pitch)))) for a, b in pairwise(bar))
        for _, bar in sorted(bars.items()) if len(bar) > 2
    ]  # fmt: skip


def returns(config: MusicConfigPrompt) -> float | None:
    """Share of bars of the melody that have the rhythm and the contour of an earlier bar."""
    found = cells(score_of(config))
    if len(found) < 4:
        return None
    return sum(cell in found[:n] for n, cell in enumerate(found)) / len(found)


def above_c7(config: MusicConfigPrompt) -> float:
    """Share of the melody's notes above C7 (MIDI 96)."""
    notes = score_of(config).layers["melody"]
    return sum(note.pitch > 96.5 for note in notes) / max(len(notes), 1)


# --- directions ---------------------------------------------------------------------------------------------------


def phrase_span(config: MusicConfigPrompt) -> float:
    """Beats between the clear rests of the melody: those of at least 0.6 of the median of the three longest. Rests of more
    than two bars are those of the form. The 96 bars hold more than three ends of long phrases beside those of the form."""
    score = score_of(config, 96 * 240.0 / beats_per_minute(config.to_config().tempo))
    rests = [b.start - a.start - a.length for a, b in pairwise(score.layers["melody"])]
    rests = [rest for rest in rests if rest < 8.0]
    clear = 0.6 * float(np.median(sorted(rests)[-3:]))
    return score.piece.beats / (sum(rest >= clear for rest in rests) + 1)


def cadence_weight(config: MusicConfigPrompt) -> float:
    """Share of phrases that end on a tone of the home chord, and how long their last note lasts in beats."""
    score = score_of(config)
    beats = 4.0 * config.phrase_len_bars
    last: dict[int, Any] = {}
    for note in score.layers["melody"]:
        last[int(note.at // beats)] = note
    home = {score.piece.scale[degree] for degree in (0, 2, 4)}
    stable = np.mean([(round(n.pitch) - score.piece.key) % 12 in home for n in last.values()])
    return float(stable + 0.1 * np.mean([n.length for n in last.values()]))


def late_strength(config: MusicConfigPrompt) -> float:
    """Mean velocity in bars 25 to 32 against bars 9 to 24: it falls with an arc, stays with waves, rises with a ramp."""
    bars = [(n.at / 4, n.velocity) for n in [*score_of(config).layers["pad"], *score_of(config).layers["melody"]]]
    late = np.mean([velocity for bar, velocity in bars if 24 <= bar < 32])
    return float(late / np.mean([velocity for bar, velocity in bars if 8 <= bar < 24]))


def modulation(config: MusicConfigPrompt) -> float:
    """Mean change of the pad's left level from one fiftieth of a second to the next, weighted by its rate up to 12 Hz: over
    held chords that begin softly, because those that change hide the rest."""
    words = {
        **config.model_dump(),
        "chord_change_bars": "very_slow",
        "chromatic_prob": "none",
        "attack": "soft",
        "space": "small",
        "echo": "none",
    }
    step = RATE // 50
    level = np.sqrt(
        (_room.alone(MusicConfigPrompt(**words), "pad", RATE, 12.0)[0][: 600 * step].reshape(-1, step) ** 2).mean(
            axis=1
        )
    )
    level = level[50:-50] / level[50:-50].mean() - 1.0
    power = np.abs(np.fft.rfft(level * np.hanning(len(level)))) ** 2
    hz = np.fft.rfftfreq(len(level), 0.02)
    kept = (hz >= 0.1) & (hz <= 12.0)
    return float(np.sqrt((power[kept] * hz[kept]).sum()) / len(level))


def flux(config: MusicConfigPrompt) -> float:
    """Mean change of the mix's mel spectrum from one twentieth of a second to the next, in dB, over held chords."""
    words = {
        **config.model_dump(),
        "chord_change_bars": "very_slow",
        "chromatic_prob": "none",
        "attack": "soft",
        "space": "small",
        "echo": "none",
    }
    level = log_mel(sound_of(MusicConfigPrompt(**words), 12.0).mean(axis=1))
    return float(np.abs(np.diff(level[20:], axis=0)).mean())


def edge(config: MusicConfigPrompt) -> float:
    """How fast the mix rises where it rises fastest: the mean over mel bands of the steepest hundredth of the changes from one
    hundredth of a second to the next, in dB."""
    mono = sound_of(config, 12.0).mean(axis=1)
    frames = np.lib.stride_tricks.sliding_window_view(mono, 512)[:: RATE // 100]
    power = np.abs(np.fft.rfft(frames * np.hanning(512), axis=1)) ** 2
    level = 10 * np.log10(power @ mel_bank(512, 24).T + 1e-7)
    return float(np.quantile(np.diff(level[20:], axis=0), 0.99, axis=0).mean())


DIRECTIONS: Mapping[str, tuple[Sequence[Any], Callable[[MusicConfigPrompt], float | None]]] = {
    "motif_repeat_prob": (FIELDS["motif_repeat_prob"].labels, returns),
    "cadence_strength": (FIELDS["cadence_strength"].labels, cadence_weight),
    "phrase_len_bars": (FIELDS["phrase_len_bars"].labels, phrase_span),
    "tension_curve": (("arc", "waves", "ramp"), late_strength),
    "motion": (FIELDS["motion"].labels, modulation),
    "motion in the mix": (FIELDS["motion"].labels, flux),
    "attack": (FIELDS["attack"].labels, edge),
}


def follows(field: str) -> Callable[[MusicConfigPrompt], float | None]:
    """Whether the measure of a field rises from each label to the next, everything else as it is."""
    labels, measure = DIRECTIONS[field]
    field = field.split()[0]

    def measured(config: MusicConfigPrompt) -> float | None:
        values = [measure(MusicConfigPrompt(**{**config.model_dump(), field: label})) for label in labels]
        if any(value is None for value in values):
            return None
        return float(all(b > a for a, b in pairwise(values)))  # type: ignore[operator]

    return measured


# --- 2 to 5, 9 room and mix ---------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _mean_log_mel(config: MusicConfigPrompt, seed: int = 0) -> Floats:
    return log_mel(sound_of(config, 10.0, seed).mean(axis=1))[20:].mean(axis=0)


def labels_apart(field: str, a: str, b: str) -> Callable[[MusicConfigPrompt], float | None]:
    """Mean distance in dB of the mean log-mel spectra of 10 s with one and with another label of a field."""

    def measured(config: MusicConfigPrompt) -> float:
        one, other = (MusicConfigPrompt(**{**config.model_dump(), field: label}) for label in (a, b))
        return float(np.abs(_mean_log_mel(one) - _mean_log_mel(other)).mean())

    return measured


def seeds_apart(config: MusicConfigPrompt) -> float:
    """The same distance for two seeds of a config."""
    return float(np.abs(_mean_log_mel(config) - _mean_log_mel(config, 1)).mean())


def _whatever_config(value: Callable[[], float]) -> Callable[[MusicConfigPrompt], float | None]:
    """A measure that is the same for every config: it is taken once."""
    return lambda _, once=lru_cache(value): once()


SPACES = {label: float(FIELDS["space"].number(label)) for label in FIELDS["space"].labels}


def _room_rows() -> Iterator[Row]:
    wet = dict(zip(SPACES, ("-30", "-18", "-11", "-5", "-1"), strict=True))
    for label, number in SPACES.items():
        yield Row(
            f"2 reverb against dry sound, {label}, dB", wet[str(label)], lambda c, x=str(label): _room.wet_db(c, x), 1
        )
        for name, wanted, measure in (
            ("echo density at 0.1 s", "> 0.9", lambda w: _room.density_at(w, 0.1)),
            ("strongest modes over the mean, dB", "< 12", _room.mode_db),
            ("T60 at 125 Hz, s", "", lambda w: _room.decay_seconds(w, 125.0)),
            ("T60 at 500 Hz, s", "", lambda w: _room.decay_seconds(w, 500.0)),
            ("T60 at 8 kHz, s", "< 0.45 of it", lambda w: _room.decay_seconds(w, 8000.0)),
        ):
            value = _whatever_config(lambda x=number, m=measure: m(_room.response(x)))
            yield Row(f"3 {name}, {label}", wanted, value)


SCORE_ROWS: Mapping[str, Sequence[Row]] = {
    "form": (
        Row("1 first against second 30 s, dB", "> 2.5", halves_apart),
        Row("1 windows 30 s apart against neighbours, dB", "> 0", windows_apart),
        Row("1 last layer enters after, s", "", last_entry),
        Row("1 longest rest of a layer, s", "> 16", longest_layer_rest),
        Row("1 pieces in which a layer rests 12 s", "", rests_long),
        Row("8 loudness range of slow pieces, LU", "6 to 12", loudness_range),
    ),
    "harmony": (
        Row("6 clashes between layers, s a minute", "< 4", clash_seconds),
        Row("6 clashes, all configs, s a minute", "", _clash_seconds),
        Row("6 melody over 0.5 s off the chord", "", off_chord),
        Row("6 strong beats on a chord tone", "> 0.98", strong_beats),
        Row("6 pad chords with a semitone", "", pad_semitones),
        Row("7 semitones a voice per change", "< 2.2", voice_moves),
        Row("7 changes wholly parallel", "< 0.08", parallel),
    ),
    "melody": (
        Row("10 longest rest in a phrase, s", "", phrase_rest),
        Row("10 cells that return", "", returns),
        Row("10 notes above C7", "", above_c7),
    ),
    "room": tuple(_room_rows()),
    "pad": tuple(
        Row(
            f"4 {label} repeats itself within 10 s",
            "< 0.9",
            _whatever_config(
                lambda x=str(label): max(_room.pad_repeat(x, pitch) for pitch in (50.0, 57.0, 64.0, 70.0))
            ),
        )
        for label in FIELDS["pad"].labels
    ),
    "spectrum": (
        *(
            Row(f"9 spectrum, {label}, dB an octave", "-7.5 to -3.5", lambda c, x=str(label): _room.slope(c, x), 1)
            for label in FIELDS["brightness"].labels
        ),
        Row("9 energy under 60 Hz with depth", "< 0.12", _room.under_60),
        *(
            Row(
                f"  aliases of {grain} drive, {hz:g} Hz, dB",
                "< -70",
                _whatever_config(lambda x=hz, g=grain: _room.alias_db(g, x)),
                1,
            )
            for grain in ("warm", "gritty")
            for hz in (1237.0, 3301.0, 5003.0, 9001.0)
        ),
    ),
    "mix": (
        Row("5 two seeds, dB", "", seeds_apart),
        Row("5 space dry / small, dB", "> 0.5", labels_apart("space", "dry", "small")),
        Row("5 cadence_strength medium / strong, dB", "> 0.5", labels_apart("cadence_strength", "medium", "strong")),
        Row("5 chromatic_prob none / light, dB", "> 0.5", labels_apart("chromatic_prob", "none", "light")),
        *(
            Row(f"5 {field} none / {label}, dB", "> two seeds", labels_apart(field, "none", str(label)))
            for field in ("accent", "texture", "rhythm")
            for label in FIELDS[field].labels
            if label != "none"
        ),
    ),
    "directions": tuple(Row(f"{field} rises", "> 0.9", follows(field)) for field in DIRECTIONS),
}
"""Measures of the score, by group."""


def mean_of(row: Row, configs: Sequence[MusicConfigPrompt]) -> tuple[float, int]:
    """The mean of a row over the configs to which it applies, and their number."""
    values = [value for value in map(row.measure, configs) if value is not None]
    return (float(np.mean(values)) if values else float("nan")), len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=30, help="how many random configs")
    parser.add_argument("--only", help=f"groups to measure, of {', '.join(SCORE_ROWS)}; all if left out")
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end")
    arguments = parser.parse_args()
    groups = arguments.only.split(",") if arguments.only else list(SCORE_ROWS)
    samples = {"random": random_configs(arguments.configs), "named": named_configs()}
    print(f"{'figure':46}" + "".join(f"{name:>12}" for name in samples) + f"{'wanted':>10}")
    result: dict[str, dict[str, float]] = {}
    for row in (row for group in groups for row in SCORE_ROWS[group]):
        found = {name: mean_of(row, configs) for name, configs in samples.items()}
        cells_ = "".join(f"{mean:8.{row.digits}f}{f'({count})':>4}" for mean, count in found.values())
        print(f"{row.name:46}{cells_}{row.wanted:>10}", flush=True)
        result[row.name] = {name: round(mean, 4) for name, (mean, _) in found.items()}
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
