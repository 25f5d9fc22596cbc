"""What the music package raises, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LatentScoreError(Exception):
    """Anything that went wrong in the music package for a reason it can name."""


class InvalidConfigError(LatentScoreError, ValueError):
    """A config, payload or render argument that cannot be used.

    ``field`` is the dotted name of the first thing that is wrong ("config.tempo", "seconds"), and
    ``problems`` lists all of them as (field, reason) pairs.
    """

    def __init__(self, field: str, reason: str, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.problems = list(problems) or [(field, reason)]

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.field, self.reason, self.problems))


class AudioError(LatentScoreError, ValueError):
    """Samples that are not sound (wrong shape, NaN) or a file that cannot be read or written."""


class MapError(LatentScoreError, ValueError):
    """A retrieval map that cannot be read, or that was made with another embedder."""


class ModelError(LatentScoreError):
    """A model that does not exist, cannot be asked here, or gave no usable answer."""
