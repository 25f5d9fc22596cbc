"""All styles by layer and label: the six tables in one."""

from collections.abc import Mapping

from latentscore.synth import accents, bass, drums, pads, textures, tunes
from latentscore.synth.context import Style

STYLES: Mapping[str, Mapping[str, Style]] = {
    "bass": bass.STYLES,
    "pad": pads.STYLES,
    "melody": tunes.STYLES,
    "rhythm": drums.STYLES,
    "texture": textures.STYLES,
    "accent": accents.STYLES,
}

LEVELS_DB: Mapping[str, Mapping[str, float]] = {
    "bass": {
        "drone": -5.4,
        "sustained": -8.9,
        "pulsing": -4.8,
        "walking": -0.8,
        "fifth_drone": -8.4,
        "sub_pulse": -6.9,
        "octave": -6.8,
        "arp_bass": -6.3,
    },
    "pad": {
        "warm_slow": -10.2,
        "dark_sustained": -10.6,
        "cinematic": -11.5,
        "thin_high": -9.9,
        "ambient_drift": -10.0,
        "stacked_fifths": -10.4,
        "bright_open": -11.0,
    },
    "melody": {
        "procedural": -7.1,
        "contemplative": -2.1,
        "rising": -0.1,
        "falling": 8.3,
        "minimal": 1.6,
        "ornamental": -7.6,
        "arp_melody": -2.6,
        "contemplative_minor": -8.7,
        "call_response": -3.9,
        "heroic": -8.7,
    },
    "rhythm": {
        "minimal": -2.4,
        "heartbeat": -1.3,
        "soft_four": -10.5,
        "hats_only": -0.4,
        "electronic": -12.1,
        "kit_light": -4.8,
        "kit_medium": -10.7,
        "military": -10.2,
        "tabla_essence": -10.1,
        "brush": -1.1,
    },
    "texture": {
        "shimmer": -3.5,
        "shimmer_slow": -7.8,
        "vinyl_crackle": 11.5,
        "breath": 6.4,
        "stars": -1.9,
        "glitch": -1.3,
        "noise_wash": 11.3,
        "crystal": -2.3,
        "pad_whisper": 10.7,
    },
    "accent": {
        "bells": 0.4,
        "pluck": 6.8,
        "chime": -2.6,
        "bells_dense": -3.1,
        "blip": 5.6,
        "blip_random": 4.7,
        "brass_hit": -12.3,
        "wind": 8.8,
        "arp_accent": -4.6,
        "piano_note": -0.4,
    },
}
"""Decibels that bring each style to the place of its layer in the mix; printed by ``benchmarks/levels.py``."""


def style_of(layer: str, label: str) -> Style:
    """The style behind a label of a style field."""
    return STYLES[layer][label]
