"""CLAP: how alike a sound and a text are, by a model that was trained on pairs of both."""

from __future__ import annotations

from latentscore_data.core.errors import MissingError
from latentscore_data.core.settings import ScoringSettings


def clap_missing(settings: ScoringSettings) -> MissingError | None:
    """Why CLAP cannot run here, or None when it can. Imports nothing heavy and asks no network."""
    return MissingError("CLAP scoring is not part of this version", "use the acoustic scorer")
