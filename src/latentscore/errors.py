"""The exceptions of the package ``latentscore``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LatentScoreError(Exception):
    """Base class of all errors that the package raises."""


class InvalidConfigError(LatentScoreError, ValueError):
    """An invalid config, payload or argument.

    ``field`` is the dotted name of the first invalid field or argument ("config.tempo", "seconds"), and ``problems``
    lists all of them as (field, reason) pairs.
    """

    def __init__(self, field: str, reason: str, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.problems = list(problems) or [(field, reason)]

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.field, self.reason, self.problems))


class AudioError(LatentScoreError, ValueError):
    """Invalid samples (wrong shape, NaN), a sound file that cannot be read or written, or failed playback."""


class MapError(LatentScoreError, ValueError):
    """A map that cannot be read, or that was made with another embedder."""


class ModelError(LatentScoreError):
    """A model that does not exist, cannot be called, or gave no usable answer."""
