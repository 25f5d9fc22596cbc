"""The bundled sample: real passages and a few vibes, so that everything can be tried without a download.

The passages are from Moby-Dick (Herman Melville, 1851), in the public domain; the vibes are the project's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from latentscore_data.core.base.jsonl import read_rows
from latentscore_data.core.base.rows import SourceText, VibeRow

_FOLDER = Path(__file__).parents[2] / "sample"
PASSAGES = _FOLDER / "passages.jsonl"
VIBES = _FOLDER / "vibes.jsonl"


def sample_texts() -> Iterator[SourceText]:
    """The bundled passages."""
    return read_rows(PASSAGES, SourceText)


def sample_vibes() -> list[VibeRow]:
    """The bundled vibes, for a first look at ``lsdata configs``."""
    return list(read_rows(VIBES, VibeRow))
