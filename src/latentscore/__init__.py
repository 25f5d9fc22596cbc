"""Music from a config in words.

Importing the package loads no number crunching: sound is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latentscore.errors import AudioError, InvalidConfigError, LatentScoreError, MapError
from latentscore.labels import FIELDS
from latentscore.version import RENDERER_VERSION

if TYPE_CHECKING:
    from latentscore.audio import Audio, read_audio, write_audio
    from latentscore.config import (
        MusicConfig,
        MusicConfigPrompt,
        MusicConfigPromptPayload,
        Palette,
        PaletteColor,
        convert_config,
        parse_config,
        parse_payload,
        random_config,
        schema_hash,
    )
    from latentscore.loudness import integrated_lufs, true_peak
    from latentscore.synth.midi import write_midi
    from latentscore.synth.notes import LAYERS
    from latentscore.synth.render import render
    from latentscore.synth.score import Score, compose
    from latentscore.synth.stream import Stream, stream
    from latentscore.vibe_map import Match, VibeMap, load_map, lookup

_LAZY = {
    "Audio": "audio",
    "read_audio": "audio",
    "write_audio": "audio",
    "MusicConfig": "config",
    "MusicConfigPrompt": "config",
    "MusicConfigPromptPayload": "config",
    "Palette": "config",
    "PaletteColor": "config",
    "convert_config": "config",
    "parse_config": "config",
    "parse_payload": "config",
    "random_config": "config",
    "schema_hash": "config",
    "integrated_lufs": "loudness",
    "true_peak": "loudness",
    "render": "synth.render",
    "Score": "synth.score",
    "compose": "synth.score",
    "Stream": "synth.stream",
    "stream": "synth.stream",
    "LAYERS": "synth.notes",
    "write_midi": "synth.midi",
    "Match": "vibe_map",
    "VibeMap": "vibe_map",
    "load_map": "vibe_map",
    "lookup": "vibe_map",
}

__all__ = [
    "FIELDS",
    "LAYERS",
    "RENDERER_VERSION",
    "Audio",
    "AudioError",
    "InvalidConfigError",
    "LatentScoreError",
    "MapError",
    "Match",
    "MusicConfig",
    "MusicConfigPrompt",
    "MusicConfigPromptPayload",
    "Palette",
    "PaletteColor",
    "Score",
    "Stream",
    "VibeMap",
    "compose",
    "convert_config",
    "integrated_lufs",
    "load_map",
    "lookup",
    "parse_config",
    "parse_payload",
    "random_config",
    "read_audio",
    "render",
    "schema_hash",
    "stream",
    "true_peak",
    "write_audio",
    "write_midi",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(import_module(f"latentscore.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'latentscore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
