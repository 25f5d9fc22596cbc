"""Server-side state of pages under random names, such as endless streams. Only the newest few are kept, because a page
that is closed does not report it."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

import latentscore
from latentscore import parse_config
from latentscore_data.core.base.errors import InputError

if TYPE_CHECKING:
    from latentscore import Stream


ValueT = TypeVar("ValueT")


class Kept(Generic[ValueT]):
    """Up to ``most`` values; the least recently used one is dropped. Thread-safe.

    ``what`` and ``remedy`` are for the error of a name without a value.
    """

    def __init__(self, most: int, what: str, remedy: str) -> None:
        self._most, self._what, self._remedy = most, what, remedy
        self._values: OrderedDict[str, tuple[ValueT, threading.Lock]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, value: ValueT) -> str:
        """Keep a value, and return its name."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._values[name] = value, threading.Lock()
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return name

    @contextmanager
    def use(self, name: str) -> Iterator[ValueT]:
        """Give the value of a name to one thread at a time. Raises :class:`InputError` if there is none."""
        with self._lock:
            if name not in self._values:
                raise InputError(f"this {self._what} has ended", self._remedy)
            self._values.move_to_end(name)
            value, lock = self._values[name]
        with lock:
            yield value

    def drop(self, name: str) -> None:
        """Drop the value of a name."""
        with self._lock:
            self._values.pop(name, None)


MOST_STREAMS = 4
"""Largest number of streams, one for each page that plays; the one that was read longest ago ends."""

LONGEST_BLOCK_SECONDS = 2.0


class Streams:
    """The streams of all pages. Methods block for a moment: call them in a thread."""

    def __init__(self) -> None:
        self._streams: Kept[Stream] = Kept(MOST_STREAMS, "stream", "play the piece again")

    def open(self, config: Mapping[str, Any], seed: int) -> str:
        """Start a stream, and return its name. Raises :class:`InvalidConfigError` for an invalid config."""
        return self._streams.add(latentscore.Stream(parse_config(config), seed))

    def read(self, name: str, seconds: float) -> bytes:
        """Return the next seconds as little-endian 16-bit samples at 48 kHz, left and right interleaved.

        Raises :class:`InputError` for a stream that has ended.
        """
        with self._streams.use(name) as stream:
            block = stream.read(round(seconds * stream.sample_rate))
        return np.round(np.clip(block, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()

    def update(self, name: str, config: Mapping[str, Any]) -> None:
        """Change the config at the next bar line.

        Raises :class:`InputError` for a stream that has ended, :class:`InvalidConfigError` for an invalid config.
        """
        with self._streams.use(name) as stream:
            stream.update(parse_config(config))
