"""Clips for pages: an MP3 file, and the waveform as a short text."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Base64Bytes

from latentscore import Audio
from latentscore.audio import sound_bytes
from latentscore_data.core.base.jsonl import replace_bytes

PEAKS = 96
"""Bars of a waveform picture."""

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
"""A bar's height in 64 steps, as one letter: a waveform is then a short string instead of a picture."""

MP3_COMPRESSION = 0.7
"""libsndfile's scale from 0 (large) to 1 (small); 0.7 is near 100 kbit/s for this music."""


@dataclass(frozen=True)
class Clip:
    """A sound for a page, encoded by the renderer: the bytes of its files (Base64 in JSON), and its waveform."""

    mp3: Base64Bytes
    peaks: str
    flac: Base64Bytes | None = None

    def write(self, path: Path) -> None:
        """Write the MP3 to ``path``, and a FLAC beside it."""
        replace_bytes(path, [self.mp3])
        if self.flac is not None:
            replace_bytes(path.with_suffix(".flac"), [self.flac])


def make_clip(audio: Audio, *, keep_flac: bool = False) -> Clip:
    return Clip(mp3_bytes(audio), waveform(audio), flac_bytes(audio) if keep_flac else None)


def write_mp3(path: Path, audio: Audio) -> None:
    """Write the audio as MP3, atomically. An existing file is not changed."""
    if not path.exists():
        replace_bytes(path, [mp3_bytes(audio)])


def write_flac(path: Path, audio: Audio) -> None:
    """Write the audio as 24-bit FLAC, atomically. An existing file is not changed."""
    if not path.exists():
        replace_bytes(path, [flac_bytes(audio)])


def mp3_bytes(audio: Audio, compression: float = MP3_COMPRESSION) -> bytes:
    return sound_bytes(audio, "MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=compression)


def flac_bytes(audio: Audio) -> bytes:
    return sound_bytes(audio, "FLAC", "PCM_24")


def without_tags(mp3: bytes) -> bytes:
    """Return an MP3 without its ID3 tags (version 2 at the beginning, version 1 at the end)."""
    if mp3[:3] == b"ID3" and len(mp3) > 10:
        size = 0
        for byte in mp3[6:10]:
            size = size << 7 | byte & 0x7F
        mp3 = mp3[10 + size :]
    return mp3[:-128] if mp3[-128:-125] == b"TAG" else mp3


def waveform(audio: Audio) -> str:
    """Return one letter of :data:`ALPHABET` per bar: the loudest sample in its time, on a square-root scale."""
    edges = np.linspace(0, len(audio.samples), PEAKS + 1).astype(int)
    loudest = np.abs(audio.samples).max(axis=1)
    peaks = np.array([loudest[a:b].max() if b > a else 0.0 for a, b in itertools.pairwise(edges)])
    # The square root makes quiet passages visible beside loud ones.
    steps = np.clip(np.sqrt(np.clip(peaks, 0, 1)) * (len(ALPHABET) - 1), 0, len(ALPHABET) - 1).round().astype(int)
    return "".join(ALPHABET[step] for step in steps)
