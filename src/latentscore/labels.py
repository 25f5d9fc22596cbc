"""The table of all fields of a music config.

A row holds a field's labels in order, their numbers, the default and the description for models. The two config
classes, the JSON schema, the prompts, the validity reward, random configs, steps and the documentation are generated
from these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Label = str | int | bool
"""The value of a field in a ``MusicConfigPrompt``: a word, a whole number or a switch."""

Number = float | int | str | bool
"""The value of a field in a ``MusicConfig``: the label's number if it has one, otherwise the label."""

Kind = Literal["scale", "order", "choice", "whole", "switch"]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field.

    ``kind`` is ``scale`` (ordered words with numbers), ``order`` (ordered words without numbers), ``choice`` (words
    without an order), ``whole`` (whole numbers) or ``switch`` (true or false). ``low`` and ``high`` are the bounds of a
    scale's numbers.
    """

    name: str
    kind: Kind
    labels: tuple[Label, ...]
    default: Number
    meaning: str
    numbers: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 1.0
    style: bool = False

    @property
    def ordered(self) -> bool:
        """True if the labels have an order, so that the field can be stepped."""
        return self.kind in ("scale", "order", "whole")

    def number(self, label: Label) -> Number:
        """Return the number of a label."""
        if self.kind == "scale":
            return self.numbers[self.labels.index(label)]
        return label

    def nearest_label(self, number: Number) -> Label:
        """Return the label with the nearest number; the label itself for fields without numbers."""
        if self.kind != "scale":
            return number  # type: ignore[return-value]
        value = float(number)
        distances = [abs(value - n) for n in self.numbers]
        return self.labels[distances.index(min(distances))]


def _scale(
    name: str, meaning: str, default: float, steps: Mapping[str, float], low: float = 0.0, high: float = 1.0
) -> FieldSpec:
    return FieldSpec(name, "scale", tuple(steps), default, meaning, tuple(steps.values()), low, high)


def _choice(name: str, meaning: str, default: str, words: str, style: bool = False, kind: Kind = "choice") -> FieldSpec:
    return FieldSpec(name, kind, tuple(words.split()), default, meaning, style=style)


_ROWS: tuple[FieldSpec, ...] = (
    _scale(
        "tempo",
        "how fast the pulse goes, from about 70 to 155 beats per minute",
        0.35,
        {"very_slow": 0.15, "slow": 0.30, "medium": 0.50, "fast": 0.70, "very_fast": 0.90},
    ),
    _choice("root", "the home note of the scale", "c", "c c# d d# e f f# g g# a a# b"),
    _choice("mode", "the scale: its light or shade", "minor", "major minor dorian mixolydian"),
    _scale(
        "brightness",
        "how much of the high spectrum is let through",
        0.5,
        {"very_dark": 0.1, "dark": 0.3, "medium": 0.5, "bright": 0.7, "very_bright": 0.9},
    ),
    _scale(
        "space",
        "the size of the room and the length of its reverberation",
        0.6,
        {"dry": 0.1, "small": 0.3, "medium": 0.5, "large": 0.7, "vast": 0.95},
    ),
    FieldSpec(
        "density",
        "whole",
        (2, 3, 4, 5, 6),
        5,
        "how many of the layers bass, pad, melody, rhythm, texture and accent carry the piece",
    ),
    _choice(
        "bass",
        "what the low voice does",
        "drone",
        "drone sustained pulsing walking fifth_drone sub_pulse octave arp_bass",
        style=True,
    ),
    _choice(
        "pad",
        "the sustained chords in the middle",
        "warm_slow",
        "warm_slow dark_sustained cinematic thin_high ambient_drift stacked_fifths bright_open",
        style=True,
    ),
    _choice(
        "melody",
        "the shape and manner of the leading voice",
        "contemplative",
        "procedural contemplative rising falling minimal ornamental arp_melody contemplative_minor call_response heroic",
        style=True,
    ),
    _choice(
        "rhythm",
        "the percussion pattern",
        "minimal",
        "none minimal heartbeat soft_four hats_only electronic kit_light kit_medium military tabla_essence brush",
        style=True,
    ),
    _choice(
        "texture",
        "the continuous surface behind the notes",
        "shimmer",
        "none shimmer shimmer_slow vinyl_crackle breath stars glitch noise_wash crystal pad_whisper",
        style=True,
    ),
    _choice(
        "accent",
        "the occasional event that catches the ear",
        "bells",
        "none bells pluck chime bells_dense blip blip_random brass_hit wind arp_accent piano_note",
        style=True,
    ),
    _scale(
        "motion",
        "how fast and how far filters, levels and positions keep moving",
        0.5,
        {"static": 0.1, "slow": 0.3, "medium": 0.5, "fast": 0.7, "chaotic": 0.9},
    ),
    _choice("attack", "how suddenly notes begin", "medium", "soft medium sharp", kind="order"),
    _scale(
        "stereo",
        "how wide the sound spreads between left and right",
        0.5,
        {"mono": 0.0, "narrow": 0.25, "medium": 0.5, "wide": 0.75, "ultra_wide": 1.0},
    ),
    FieldSpec("depth", "switch", (False, True), False, "whether a sub-bass sounds under the bass"),
    _scale(
        "echo",
        "how strongly and how long notes repeat in time with the beat",
        0.5,
        {"none": 0.0, "subtle": 0.25, "medium": 0.5, "heavy": 0.75, "infinite": 0.95},
    ),
    _scale(
        "human",
        "how loosely timing, pitch and loudness are played",
        0.0,
        {"robotic": 0.0, "tight": 0.15, "natural": 0.3, "loose": 0.5, "drunk": 0.8},
    ),
    _choice("grain", "how clean or how driven the tone is", "clean", "clean warm gritty"),
    _choice(
        "melody_engine",
        "whether the melody repeats composed patterns or is improvised phrase by phrase",
        "pattern",
        "pattern procedural",
    ),
    FieldSpec("phrase_len_bars", "whole", (2, 4, 8), 4, "how many bars one phrase of the melody lasts"),
    _scale(
        "melody_density",
        "how many melody notes there are in a bar",
        0.45,
        {"very_sparse": 0.15, "sparse": 0.30, "medium": 0.50, "busy": 0.70, "very_busy": 0.85},
    ),
    _scale(
        "syncopation",
        "how often notes fall off the beat",
        0.20,
        {"straight": 0.0, "light": 0.2, "medium": 0.5, "heavy": 0.8},
    ),
    _scale(
        "swing",
        "how late the off-beats come",
        0.0,
        {"none": 0.0, "light": 0.2, "medium": 0.5, "heavy": 0.8},
    ),
    _scale(
        "motif_repeat_prob",
        "how often a phrase comes back to an earlier motif",
        0.50,
        {"rare": 0.2, "sometimes": 0.5, "often": 0.8},
    ),
    _scale(
        "step_bias",
        "whether the melody moves by leaps or by neighbouring notes",
        0.75,
        {"leapy": 0.4, "balanced": 0.7, "step": 0.9},
    ),
    _scale(
        "chromatic_prob",
        "how often notes outside the scale pass by",
        0.05,
        {"none": 0.0, "light": 0.05, "medium": 0.12, "heavy": 0.25},
    ),
    _scale(
        "cadence_strength",
        "how firmly phrases come to rest on a stable note",
        0.65,
        {"weak": 0.3, "medium": 0.6, "strong": 0.9},
    ),
    FieldSpec(
        "register_min_oct", "whole", tuple(range(1, 9)), 4, "the lowest octave of the melody; not above the highest"
    ),
    FieldSpec(
        "register_max_oct", "whole", tuple(range(1, 9)), 6, "the highest octave of the melody; not below the lowest"
    ),
    _choice("tension_curve", "how intensity grows and falls over a section", "arc", "arc ramp waves"),
    _choice("harmony_style", "the family of chord progressions", "auto", "auto pop jazz cinematic ambient"),
    _scale(
        "chord_change_bars",
        "how fast the chords change: bars for each chord, so very_slow is 4 and fast is 0.5",
        1.0,
        {"very_slow": 4.0, "slow": 2.0, "medium": 1.0, "fast": 0.5},
        low=0.25,
        high=16.0,
    ),
    _choice("chord_extensions", "how rich the chords are", "triads", "triads sevenths lush"),
)

FIELDS: Mapping[str, FieldSpec] = MappingProxyType({row.name: row for row in _ROWS})
"""All fields by name, in the order in which a config is written."""

STYLE_FIELDS: tuple[str, ...] = tuple(row.name for row in _ROWS if row.style)
"""The six fields whose labels are sounds, one per layer: bass, pad, melody, rhythm, texture, accent."""

ORDERED_FIELDS: tuple[str, ...] = tuple(row.name for row in _ROWS if row.ordered)
"""Fields whose labels have an order; :meth:`MusicConfigPrompt.step` can move them."""

PALETTE_WEIGHTS: tuple[str, ...] = ("xs", "sm", "md", "lg", "xl", "xxl")
"""The weights of a colour in a palette, in ascending order."""


def beats_per_minute(tempo: float) -> float:
    """Return beats per minute, 55 to 165, for a ``tempo`` in [0, 1]."""
    return 55.0 + 110.0 * tempo
