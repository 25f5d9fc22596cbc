"""Music from a config of 34 words."""

from latentscore.audio import Audio
from latentscore.config import (
    MusicConfig,
    MusicConfigPrompt,
    MusicConfigPromptPayload,
    Palette,
    PaletteColor,
    parse_config,
    parse_payload,
    random_config,
    schema_hash,
)
from latentscore.errors import AudioError, InvalidConfigError, LatentScoreError
from latentscore.labels import FIELDS

__all__ = [
    "FIELDS",
    "Audio",
    "AudioError",
    "InvalidConfigError",
    "LatentScoreError",
    "MusicConfig",
    "MusicConfigPrompt",
    "MusicConfigPromptPayload",
    "Palette",
    "PaletteColor",
    "parse_config",
    "parse_payload",
    "random_config",
    "schema_hash",
]
