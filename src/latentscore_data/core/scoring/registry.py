"""What a score is, who can give one, and the table of scorers.

A scorer hears audio and says how well it fits a vibe. The first scorer named in the settings chooses the best of N; the
others are stored beside it, so that the choice can be made again without a render or a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.settings import LLMSettings, ScoringSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latentscore import Audio
    from latentscore_data.core.scoring.cache import ScoreCache

    Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Score:
    """How well a sound fits a vibe: ``final_score`` is unbounded and higher is better; ``parts`` say why."""

    final_score: float
    parts: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, float]:
        return {**self.parts, "final_score": self.final_score}


@dataclass(frozen=True)
class Unscored:
    """Why a candidate has no score.

    ``kind`` is ``config`` (cannot be played), ``render`` (the renderer failed), ``sound`` (silent or not finite) or
    ``scorer`` (the scorer failed); ``reason`` is one line that repeats for the same cause, so that it can be counted.
    """

    kind: str
    reason: str


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
        """One outcome per pair, in order. ``configs`` are there for scorers that want to see them."""
        ...


@runtime_checkable
class EmbeddingScorer(Scorer, Protocol):
    """A scorer that turns a sound into a vector first, whatever the vibe.

    The vectors are cached, so that another vibe, another wording or another run needs neither a render nor a listen.
    ``listen_in_worker`` is a module-level function from one audio to its vector that the rendering processes can run
    themselves, or None where listening needs a model that is loaded once.
    """

    embedding_fingerprint: str
    embed_in_worker: Callable[[Audio], Vectors] | None

    def embed(self, audios: Sequence[Audio]) -> Sequence[Vectors | Unscored]:
        """One vector of shape (dim,), or the reason for none, per sound."""
        ...

    def compare(self, vibes: Sequence[str], vectors: Vectors) -> Sequence[Outcome]:
        """One outcome per vibe and row of ``vectors``."""
        ...


@dataclass(frozen=True)
class ScorerDeps:
    """What scorers may use beyond their own settings."""

    scoring: ScoringSettings
    llm: LLMSettings = field(default_factory=LLMSettings)
    cache: ScoreCache | None = None
    trusted: frozenset[str] = frozenset()
    """Custom scorers that the user named on the command line (or every one, with --trust-settings)."""
    llm_cache: Path | None = None
    ledger: Path | None = None
    """Where the judge keeps its answers and what they cost."""


def _acoustic(name: str, needs: ScorerDeps) -> Scorer:
    from latentscore_data.core.scoring.acoustic import AcousticScorer

    return AcousticScorer()


def _clap(name: str, needs: ScorerDeps) -> Scorer:
    from latentscore_data.core.scoring.clap import ClapScorer

    return ClapScorer(needs.scoring, needs.cache)


def _judge(name: str, needs: ScorerDeps) -> Scorer:
    from latentscore_data.core.scoring.judge import JudgeScorer

    return JudgeScorer(name, needs)


SCORERS: dict[str, Callable[[str, ScorerDeps], Scorer]] = {
    "acoustic": _acoustic,
    "clap": _clap,
    "judge": _judge,
}
"""The kinds of scorers by name; what stands before the colon in ``judge:MODEL``."""


def make_scorer(name: str, needs: ScorerDeps) -> Scorer:
    """The scorer of that name.

    Raises :class:`InputError` for a name that is none, :class:`MissingError` where weights, an extra or a key is missing.
    """
    if name == "auto":
        name, _ = resolve_auto(needs.scoring)
    kind = name.partition(":")[0]
    if kind in SCORERS:
        return SCORERS[kind](name, needs)
    if ":" in name:
        from latentscore_data.core.scoring.custom import CustomScorer

        return CustomScorer(name, needs)
    raise InputError(
        f"unknown scorer {name}", f"scorers are auto, {', '.join(SCORERS)}, path/to/file.py:fn and module:fn"
    )


def make_scorers(needs: ScorerDeps) -> list[Scorer]:
    """The scorers of the settings, in order; the first one chooses.

    Raises what :func:`make_scorer` raises, and what would keep one of them from scoring: a key that is not set, a custom scorer
    that nobody trusted. Loads no model.
    """
    names = scorer_names(needs.scoring)
    if not names:
        raise InputError("no scorer is named", "set scoring.scorers or pass --scorer")
    scorers = [make_scorer(name, needs) for name in names]
    for scorer in scorers:
        _call(scorer, "check")
    return scorers


def prepare(scorer: Scorer) -> None:
    """Get a scorer ready, before any work is done for it."""
    _call(scorer, "check")
    _call(scorer, "prepare")


def close(scorer: Scorer) -> None:
    """Give back what a scorer holds."""
    _call(scorer, "close")


def total_usage(scorers: Sequence[Scorer]) -> Usage:
    """What models were asked by these scorers, and what that cost."""
    total = Usage()
    for scorer in scorers:
        if (usage := getattr(scorer, "usage", None)) is not None:
            total.add(usage)
    return total


def _call(scorer: Scorer, method: str) -> None:
    function = getattr(scorer, method, None)
    if function is not None:
        function()


def scorer_names(settings: ScoringSettings) -> list[str]:
    """The scorers of the settings in order, each once, with ``auto`` resolved."""
    names = [resolve_auto(settings)[0] if name == "auto" else name for name in settings.scorers]
    return list(dict.fromkeys(names))


def resolve_auto(settings: ScoringSettings) -> tuple[str, str]:
    """(scorer, why) for ``auto``: clap when it can run, else acoustic. Imports nothing heavy."""
    from latentscore_data.core.scoring.clap import clap_missing

    missing = clap_missing(settings)
    if missing is None:
        return "clap", "CLAP and its weights are here"
    return "acoustic", f"{missing.message} ({missing.remedy})"
