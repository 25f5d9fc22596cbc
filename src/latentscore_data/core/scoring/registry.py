"""The table of scorers, and the scorers of the settings.

A scorer says how well a sound fits a vibe. The first scorer named in the settings chooses the best of N; the
others are stored beside it, so that the choice can be made again without a render or a call.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.scoring.acoustic import AcousticKind
from latentscore_data.core.scoring.clap import ClapKind, clap_missing
from latentscore_data.core.scoring.custom import CustomKind
from latentscore_data.core.scoring.deps import ScorerDeps, ScorerKind
from latentscore_data.core.scoring.judge import JudgeKind
from latentscore_data.core.scoring.types import Scorer

SCORERS: dict[str, ScorerKind] = {
    "acoustic": AcousticKind(),
    "clap": ClapKind(),
    "judge": JudgeKind(),
}
"""The kinds of scorers by name, or by the prefix in ``judge:MODEL``. ``file.py:fn`` is a custom scorer."""

CUSTOM = CustomKind()


def spellings() -> list[str]:
    """Return how a user writes each scorer of the table: ``acoustic``, ``judge:MODEL``."""
    return [f"{name}:{kind.argument}" if kind.argument else name for name, kind in SCORERS.items()]


def kind_of(name: str) -> ScorerKind:
    """Return the kind of the scorer with this name. Raises :class:`InputError` for an unknown name."""
    kind = SCORERS.get(name.partition(":")[0])
    if kind is not None:
        return kind
    if ":" in name:
        return CUSTOM
    raise InputError(
        f"unknown scorer {name}", f"scorers are auto, {', '.join(spellings())}, path/to/file.py:fn and module:fn"
    )


def make_scorer(name: str, deps: ScorerDeps) -> Scorer:
    """Return the scorer with this name.

    Raises :class:`InputError` for a name that is none, :class:`MissingError` where weights, an extra or a key is missing.
    """
    if name == "auto":
        name, _ = resolve_auto(deps.scoring)
    return kind_of(name).make(name, deps)


def make_scorers(deps: ScorerDeps) -> list[Scorer]:
    """Return the scorers of the settings, in order; the first one selects the winner.

    Raises what :func:`make_scorer` raises, and what would keep one of them from scoring: a key that is not set, a custom scorer
    that nobody trusted. Loads no model.
    """
    names = scorer_names(deps.scoring)
    if not names:
        raise InputError("no scorer is named", "set scoring.scorers or pass --scorer")
    scorers = [make_scorer(name, deps) for name in names]
    for scorer in scorers:
        _call(scorer, "check")
    return scorers


def prepare(scorer: Scorer) -> None:
    """Load what a scorer needs, before any work is done for it."""
    _call(scorer, "check")
    _call(scorer, "prepare")


def close(scorer: Scorer) -> None:
    """Release a scorer's resources."""
    _call(scorer, "close")


def total_usage(scorers: Sequence[Scorer]) -> Usage:
    """Return the calls and cost of these scorers' models."""
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
    """Return the names of the settings' scorers in order, each once, with ``auto`` resolved."""
    names = [resolve_auto(settings)[0] if name == "auto" else name for name in settings.scorers]
    return list(dict.fromkeys(names))


def resolve_auto(settings: ScoringSettings) -> tuple[str, str]:
    """Return (scorer, reason) for ``auto``: clap if it can run, otherwise acoustic. Imports no heavy library."""
    missing = clap_missing(settings)
    if missing is None:
        return "clap", "CLAP and its weights are installed"
    return "acoustic", f"{missing.message} ({missing.remedy})"


def scorer_plans(pairs: int, deps: ScorerDeps) -> list[Plan]:
    """Return the plans of the settings' paid scorers for that number of pairs."""
    plans = (kind_of(name).plan(name, pairs, deps) for name in scorer_names(deps.scoring))
    return [plan for plan in plans if plan is not None]


def remote_blocker(scoring: ScoringSettings) -> str | None:
    """Return why the scorers of the settings cannot run on another machine; None if they can."""
    reasons = (kind_of(name).remote_blocker(name, scoring) for name in scorer_names(scoring))
    return next((reason for reason in reasons if reason is not None), None)
