"""What scorers may use beyond their own settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from latentscore_data.core.base.settings import LLMSettings, ScoringSettings
from latentscore_data.core.scoring.cache import ScoreCache

if TYPE_CHECKING:
    pass


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
