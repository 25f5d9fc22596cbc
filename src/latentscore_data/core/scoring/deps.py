"""The dependencies of scorers beyond their settings, and the base class of kinds of scorers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.settings import LLMSettings, ScoringSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.types import Scorer


@dataclass(frozen=True)
class ScorerDeps:
    """The dependencies of scorers beyond their own settings."""

    scoring: ScoringSettings
    llm: LLMSettings = field(default_factory=LLMSettings)
    cache: ScoreCache | None = None
    trusted: frozenset[str] = frozenset()
    """Custom scorers that the user named on the command line (or every one, with --trust-settings)."""
    llm_cache: Path | None = None
    ledger: Path | None = None
    """The ledger for the judge's costs."""
    spend: SpendTracker = field(default_factory=SpendTracker)
    """The run's spending, which counts towards its cap."""

    @classmethod
    def of_run(
        cls,
        settings: Settings,
        workspace: Workspace,
        cache: ScoreCache,
        trusted: frozenset[str] = frozenset(),
        spend: SpendTracker | None = None,
    ) -> ScorerDeps:
        """Return the dependencies of a run, with the answer cache and the ledger of its workspace."""
        kept = workspace.llm_cache, workspace.ledger
        return cls(settings.scoring, settings.llm, cache, trusted, *kept, spend or SpendTracker())


class ScorerKind:
    """A kind of scorer: how one is made, what it costs, and where it can run.

    To add a scorer, write a subclass in the scorer's file and one line in ``registry.SCORERS``. ``usual`` describes
    typical scores, so that users can interpret a score; empty if they were not measured. ``argument`` names what follows the
    scorer's name and a colon, such as MODEL in ``judge:MODEL``; empty for nothing.
    """

    usual: str = ""
    argument: str = ""

    def make(self, name: str, deps: ScorerDeps) -> Scorer:
        """Return the scorer with this name, without loading a model. Raises :class:`InputError` or :class:`MissingError`."""
        raise NotImplementedError

    def remote_blocker(self, name: str, scoring: ScoringSettings) -> str | None:
        """Return why it cannot run on another machine; None if it can."""
        return f"{name} is code on this machine, which Modal cannot read"

    def plan(self, name: str, pairs: int, deps: ScorerDeps) -> Plan | None:
        """Return the calls and cost of scoring that number of pairs; None for a scorer without calls."""
        return None
