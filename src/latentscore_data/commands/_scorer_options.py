"""The options that name scorers, for the commands that score. They are made from the table of scorers."""

from __future__ import annotations

from typing import Annotated

import typer

from latentscore_data.commands._options import from_settings, setting_option
from latentscore_data.core.scoring.registry import SCORERS, spellings


def complete_scorer() -> list[str]:
    """The scorers of the table, and those in the settings."""
    named = [f"{name}:" if kind.argument else name for name, kind in SCORERS.items()]
    return ["auto", *named, *from_settings(lambda settings: settings.scoring.scorers)]


ScorerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer",
        help=f"auto, {', '.join(spellings())} ...; the first selects.",
        autocompletion=complete_scorer,
    ),
]
JudgeOption = setting_option(
    "search.judge", help="With --search: a scorer that must confirm the gain.", autocompletion=complete_scorer
)
