"""Audio: samples with their rate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from latentscore.errors import AudioError

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Audio:
    """Stereo sound.

    ``samples`` is float32 of shape (frames, 2) in [-1, 1]; ``sample_rate`` is in hertz.
    """

    samples: Samples
    sample_rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[1] != 2:
            raise AudioError(f"samples must have the shape (frames, 2), not {self.samples.shape}")

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate

    @cached_property
    def mono(self) -> Samples:
        """The mean of left and right, shape (frames,)."""
        return self.samples.mean(axis=1, dtype=np.float32)
