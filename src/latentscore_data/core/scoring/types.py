"""Scores, the protocols of scorers, and the reasons why a candidate has no score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from latentscore import Audio

Vectors = NDArray[np.float32]
"""One vector of shape (dim,), or a matrix of shape (sounds, dim)."""


@dataclass(frozen=True)
class Score:
    """The fit of a sound and a vibe. ``final_score`` is unbounded, higher is better; ``parts`` are its components."""

    final_score: float
    parts: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, float]:
        return {**self.parts, "final_score": self.final_score}


UNFINISHED = "unfinished"
"""Field of a line that is incomplete because of a temporary failure (a killed renderer, a busy judge); the next run retries
it."""


@dataclass(frozen=True)
class Unscored:
    """The reason why a candidate has no score.

    ``kind`` is ``config`` (cannot be played), ``render`` (the renderer failed), ``sound`` (silent or not finite),
    ``scorer`` (the scorer failed) or ``request`` (the scorer's model refused the request); ``reason`` is one line that repeats for the same cause, so that it can be counted.
    """

    kind: str
    reason: str

    @property
    def may_pass(self) -> bool:
        """True if the same candidate may get a score in the next run."""
        return self.kind in ("render", "scorer")


Outcome = Score | Unscored


class Scorer(Protocol):
    """Scores sounds against vibes, pair by pair.

    ``fingerprint`` changes whenever the same pair could get another score: it is part of every cache key. Making a
    scorer is cheap. Three methods may be there: ``check()`` raises what would keep it from scoring and can be known without
    loading anything, ``prepare()`` loads what it needs, ``close()`` gives it back. One that asks models has their
    :class:`Usage` as ``usage``.
    """

    name: str
    fingerprint: str

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Outcome]:
        """Return one outcome per pair, in order. Most scorers do not use ``configs``."""
        ...


@runtime_checkable
class EmbeddingScorer(Scorer, Protocol):
    """A scorer that first embeds a sound, independently of the vibe.

    The vectors are cached, so that another vibe, another wording or another run needs no new render and no new embedding.
    ``embed_in_worker`` is a module-level function from one audio to its vector that the rendering processes can run
    themselves, or None where embedding needs a model that is loaded once.
    """

    embedding_fingerprint: str
    embed_in_worker: Callable[[Audio], Vectors] | None

    def embed(self, audios: Sequence[Audio]) -> Sequence[Vectors | Unscored]:
        """Return one vector of shape (dim,) per sound, or the reason why there is none."""
        ...

    def compare(self, vibes: Sequence[str], vectors: Vectors) -> Sequence[Outcome]:
        """Return one outcome per vibe and row of ``vectors``."""
        ...
