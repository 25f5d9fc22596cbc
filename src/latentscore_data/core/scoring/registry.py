"""What a score is, who can give one, and the table of scorers.

A scorer hears audio and says how well it fits a vibe. The first scorer named in the settings chooses the best of N; the
others are stored beside it, so that the choice can be made again without a render or a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.llm.prices import costs_nothing
from latentscore_data.core.scoring.acoustic import AcousticScorer
from latentscore_data.core.scoring.clap import ClapScorer, clap_missing
from latentscore_data.core.scoring.custom import CustomScorer
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.judge import JudgeScorer, judge_plan
from latentscore_data.core.scoring.types import Scorer

if TYPE_CHECKING:
    pass


def _acoustic(name: str, needs: ScorerDeps) -> Scorer:
    return AcousticScorer()


def _clap(name: str, needs: ScorerDeps) -> Scorer:
    return ClapScorer(needs.scoring, needs.cache)


def _judge(name: str, needs: ScorerDeps) -> Scorer:
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
    missing = clap_missing(settings)
    if missing is None:
        return "clap", "CLAP and its weights are here"
    return "acoustic", f"{missing.message} ({missing.remedy})"


def judges_plans(pairs: int, needs: ScorerDeps) -> list[Plan]:
    """What each judge among the scorers that costs money would be asked for so many pairs."""
    judges = [name for name in scorer_names(needs.scoring) if name.startswith("judge:")]
    return [judge_plan(name, pairs, needs) for name in judges if not costs_nothing(name.partition(":")[2], needs.llm)]
