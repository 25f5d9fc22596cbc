"""Music without an end for the page: a few streams, read block by block and changed while they play."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import latentscore
from latentscore import parse_config
from latentscore_data.studio.kept import Kept

if TYPE_CHECKING:
    from latentscore import Stream

MOST_STREAMS = 4
"""Streams that are kept, one for each page that plays; the one that was read longest ago ends."""

LONGEST_BLOCK_SECONDS = 2.0


@dataclass
class _Live:
    stream: Stream
    lock: threading.Lock = field(default_factory=threading.Lock)


class Streams:
    """The streams of all pages, by a random name. Methods block for a moment and belong into a thread."""

    def __init__(self) -> None:
        self._live: Kept[_Live] = Kept(MOST_STREAMS, "stream", "play the piece again")

    def open(self, config: Mapping[str, Any], seed: int) -> str:
        """Begin a stream; its name is what the other methods take. Raises :class:`InvalidConfigError`."""
        return self._live.add(_Live(latentscore.Stream(parse_config(config), seed)))

    def read(self, name: str, seconds: float) -> bytes:
        """The next seconds as 16-bit stereo samples at 48 kHz, left and right in turn. Raises :class:`InputError`."""
        live = self._live.get(name)
        with live.lock:
            block = live.stream.read(round(seconds * live.stream.sample_rate))
        return np.round(np.clip(block, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()

    def update(self, name: str, config: Mapping[str, Any]) -> None:
        """Go on with another config from the next bar line. Raises :class:`InputError`, :class:`InvalidConfigError`."""
        live = self._live.get(name)
        with live.lock:
            live.stream.update(parse_config(config))
