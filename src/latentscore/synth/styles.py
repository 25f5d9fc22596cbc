"""All styles by layer and label."""

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
        "drone": -4.4,
        "sustained": -7.4,
        "pulsing": -3.8,
        "walking": 0.4,
        "fifth_drone": -7.3,
        "sub_pulse": -5.9,
        "octave": -5.7,
        "arp_bass": -5.1,
    },
    "pad": {
        "warm_slow": -9.3,
        "dark_sustained": -9.3,
        "cinematic": -10.4,
        "thin_high": -8.1,
        "ambient_drift": -8.9,
        "stacked_fifths": -8.3,
        "bright_open": -9.7,
    },
    "melody": {
        "procedural": -4.8,
        "contemplative": 0.1,
        "rising": 2.2,
        "falling": 10.9,
        "minimal": 3.8,
        "ornamental": -5.8,
        "arp_melody": -0.1,
        "contemplative_minor": -6.9,
        "call_response": -2.0,
        "heroic": -6.4,
    },
    "rhythm": {
        "minimal": 1.2,
        "heartbeat": 0.9,
        "soft_four": -7.2,
        "hats_only": 3.5,
        "electronic": -8.8,
        "kit_light": -1.1,
        "kit_medium": -6.8,
        "military": -6.4,
        "tabla_essence": -5.4,
        "brush": 2.7,
    },
    "texture": {
        "shimmer": -1.5,
        "shimmer_slow": -5.3,
        "vinyl_crackle": 13.1,
        "breath": 8.0,
        "stars": -0.1,
        "glitch": 0.0,
        "noise_wash": 13.1,
        "crystal": 1.1,
        "pad_whisper": 12.8,
    },
    "accent": {
        "bells": 3.5,
        "pluck": 11.4,
        "chime": -1.1,
        "bells_dense": -1.2,
        "blip": 7.5,
        "blip_random": 6.8,
        "brass_hit": -9.4,
        "wind": 10.7,
        "arp_accent": -1.7,
        "piano_note": 3.2,
    },
}
"""Gain in dB that brings each style to the target loudness of its layer; printed by ``benchmarks/levels.py``."""


def style_of(layer: str, label: str) -> Style:
    """The style behind a label of a style field."""
    return STYLES[layer][label]
