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
        "drone": -6.0,
        "sustained": -9.4,
        "pulsing": -5.8,
        "walking": -1.5,
        "fifth_drone": -8.9,
        "sub_pulse": -7.3,
        "octave": -7.7,
        "arp_bass": -7.2,
    },
    "pad": {
        "warm_slow": -12.9,
        "dark_sustained": -13.0,
        "cinematic": -13.8,
        "thin_high": -10.3,
        "ambient_drift": -11.9,
        "stacked_fifths": -11.8,
        "bright_open": -14.5,
    },
    "melody": {
        "procedural": -9.9,
        "contemplative": -4.3,
        "rising": -2.5,
        "falling": 5.2,
        "minimal": -0.7,
        "ornamental": -10.5,
        "arp_melody": -5.2,
        "contemplative_minor": -11.3,
        "call_response": -7.1,
        "heroic": -11.4,
    },
    "rhythm": {
        "minimal": -6.0,
        "heartbeat": -7.4,
        "soft_four": -8.9,
        "hats_only": -1.1,
        "electronic": -11.9,
        "kit_light": -4.6,
        "kit_medium": -10.6,
        "military": -10.5,
        "tabla_essence": -10.1,
        "brush": -1.6,
    },
    "texture": {
        "shimmer": -5.9,
        "shimmer_slow": -10.0,
        "vinyl_crackle": 8.5,
        "breath": 3.9,
        "stars": -6.7,
        "glitch": -6.8,
        "noise_wash": 8.9,
        "crystal": -6.3,
        "pad_whisper": 8.3,
    },
    "accent": {
        "bells": -4.1,
        "pluck": 3.9,
        "chime": -7.7,
        "bells_dense": -3.5,
        "blip": 2.7,
        "blip_random": 2.0,
        "brass_hit": -13.5,
        "wind": 9.7,
        "arp_accent": -5.7,
        "piano_note": -5.6,
    },
}
"""Decibels that bring each style to the place of its layer in the mix; printed by ``benchmarks/levels.py``."""


def style_of(layer: str, label: str) -> Style:
    """The style behind a label of a style field."""
    return STYLES[layer][label]
