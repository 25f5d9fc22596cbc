"""A loudspeaker for tests: the part of the library ``sounddevice`` that is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any


class Speaker:
    """Counts the frames that it is given."""

    PortAudioError = RuntimeError
    frames = rate = 0

    def play(self, samples: Any, rate: int, blocking: bool) -> None:
        self.frames += len(samples)
        self.rate = rate

    @contextlib.contextmanager
    def OutputStream(self, samplerate: int, **_: Any) -> Iterator[Any]:
        yield SimpleNamespace(write=lambda block: self.play(block, samplerate, True))
