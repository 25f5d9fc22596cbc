"""What several commands share: option types, and the way from flags to settings and from a summary to an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from latentscore_data.core.settings import Settings
    from latentscore_data.core.stage import Summary

MODELS = "Model calls"
RESULT = "Result"

ModelOption = Annotated[
    str | None,
    typer.Option(help="Model to ask: builtin/keywords (offline, free) or a LiteLLM name.", rich_help_panel=MODELS),
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of everything random in this stage.", min=0)]
LimitOption = Annotated[int | None, typer.Option(help="Take only the first so many.", min=1)]
MaxConcurrencyOption = Annotated[
    int | None, typer.Option(help="Most calls in flight at once.", min=1, rich_help_panel=MODELS)
]
MaxQpsOption = Annotated[
    float | None, typer.Option(help="Most calls started per second.", min=0.001, rich_help_panel=MODELS)
]
MaxCostOption = Annotated[float | None, typer.Option(help="Hard stop in US dollars.", min=0, rich_help_panel=MODELS)]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before money is spent or much is fetched.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it would cost.")]
RetryFailedOption = Annotated[bool, typer.Option("--retry-failed", help="Try bad requests again, too.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Start this stage from nothing; the cache stays.")]
ApiBaseOption = Annotated[
    str | None, typer.Option(help="Address of an OpenAI-compatible server.", rich_help_panel=MODELS)
]
ApiKeyEnvOption = Annotated[
    str | None,
    typer.Option(help="Environment variable whose key goes to --api-base.", rich_help_panel=MODELS),
]
ScorerOption = Annotated[
    list[str] | None,
    typer.Option(help="Who listens: auto, acoustic, clap, judge:MODEL, file.py:fn. The first one chooses. Repeatable."),
]
SecondsOption = Annotated[float | None, typer.Option(help="Seconds of audio per candidate.", min=0.5, max=600)]
WorkersOption = Annotated[int | None, typer.Option(help="Processes that render (default: one per core).", min=1)]
OnOption = Annotated[str | None, typer.Option(help="Where it runs: local or modal.")]


class Globals:
    """The options that work before and after the command's name."""

    config: Path | None = None
    root: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False


def load(**flags: dict[str, Any]) -> Settings:
    """The effective settings of this run: file, environment, these flags (see ``chosen``), ``--root``."""
    from latentscore_data.core.settings import load_settings

    if Globals.root is not None:
        flags["paths"] = {**flags.get("paths", {}), "root": Globals.root}
    return load_settings(Globals.config, **flags)


def show(summary: Summary) -> None:
    """Print what a stage did and leave with its exit code."""
    from latentscore_data.core.display import print_summary

    print_summary(summary)
    raise typer.Exit(summary.exit_code)
