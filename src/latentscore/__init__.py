"""Render music from a sentence or from a config of labels.

Importing the package does not import numpy or numba: each module is imported when one of its names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latentscore.errors import AudioError, InvalidConfigError, LatentScoreError, MapError, ModelError
from latentscore.labels import FIELDS
from latentscore.version import RENDERER_VERSION

if TYPE_CHECKING:
    from latentscore.answers import Answer, answer
    from latentscore.audio import Audio, Metadata, read_audio, write_audio
    from latentscore.compat import SAMPLE_RATE, RenderHooks, Streamable, StreamHooks, prefetch, save_wav
    from latentscore.config import (
        MusicConfig,
        MusicConfigPrompt,
        MusicConfigPromptPayload,
        MusicConfigUpdate,
        Palette,
        PaletteColor,
        Step,
        convert_config,
        parse_config,
        parse_payload,
        random_config,
        schema_hash,
    )
    from latentscore.loudness import integrated_lufs, true_peak
    from latentscore.runtime import arender, render
    from latentscore.streaming import AudioStream, LiveStream, Playlist, Track, astream, live, stream
    from latentscore.synth.excerpt import render_excerpt
    from latentscore.synth.midi import write_midi
    from latentscore.synth.notes import LAYERS
    from latentscore.synth.score import Score, compose
    from latentscore.synth.stream import Stream
    from latentscore.vibe_map import Match, VibeMap, load_map, lookup, starter_map, starter_pairs

_LAZY = {
    "Answer": "answers",
    "answer": "answers",
    "Audio": "audio",
    "Metadata": "audio",
    "read_audio": "audio",
    "write_audio": "audio",
    "MusicConfig": "config",
    "MusicConfigPrompt": "config",
    "MusicConfigPromptPayload": "config",
    "MusicConfigUpdate": "config",
    "Step": "config",
    "Palette": "config",
    "PaletteColor": "config",
    "convert_config": "config",
    "parse_config": "config",
    "parse_payload": "config",
    "random_config": "config",
    "schema_hash": "config",
    "integrated_lufs": "loudness",
    "true_peak": "loudness",
    "render": "compat",
    "arender": "compat",
    "stream": "compat",
    "astream": "compat",
    "live": "compat",
    "prefetch": "compat",
    "save_wav": "compat",
    "RenderHooks": "compat",
    "StreamHooks": "compat",
    "SAMPLE_RATE": "compat",
    "Streamable": "compat",
    "Track": "compat",
    "Playlist": "streaming",
    "AudioStream": "streaming",
    "LiveStream": "streaming",
    "Score": "synth.score",
    "compose": "synth.score",
    "render_excerpt": "synth.excerpt",
    "Stream": "synth.stream",
    "LAYERS": "synth.notes",
    "write_midi": "synth.midi",
    "Match": "vibe_map",
    "VibeMap": "vibe_map",
    "load_map": "vibe_map",
    "lookup": "vibe_map",
    "starter_map": "vibe_map",
    "starter_pairs": "vibe_map",
}

__all__ = [
    "FIELDS",
    "LAYERS",
    "RENDERER_VERSION",
    "SAMPLE_RATE",
    "Answer",
    "Audio",
    "AudioError",
    "AudioStream",
    "InvalidConfigError",
    "LatentScoreError",
    "LiveStream",
    "MapError",
    "Match",
    "Metadata",
    "ModelError",
    "MusicConfig",
    "MusicConfigPrompt",
    "MusicConfigPromptPayload",
    "MusicConfigUpdate",
    "Palette",
    "PaletteColor",
    "Playlist",
    "RenderHooks",
    "Score",
    "Step",
    "Stream",
    "StreamHooks",
    "Streamable",
    "Track",
    "VibeMap",
    "answer",
    "arender",
    "astream",
    "compose",
    "convert_config",
    "integrated_lufs",
    "live",
    "load_map",
    "lookup",
    "parse_config",
    "parse_payload",
    "prefetch",
    "random_config",
    "read_audio",
    "render",
    "render_excerpt",
    "save_wav",
    "schema_hash",
    "starter_map",
    "starter_pairs",
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
