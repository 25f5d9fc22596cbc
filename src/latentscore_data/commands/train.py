"""lsdata train: train a small model to answer vibes, on this machine, on Modal or on Ray."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from latentscore_data.commands._options import DryRunOption, load, sets_settings, show, with_flags
from latentscore_data.commands._train_options import (
    ADAPTER_FLAG,
    CHOICE_FLAGS,
    PRESET_FLAG,
    RECIPE_HELP,
    REMOTE_AND_JUDGE_FLAGS,
    SETTING_FLAGS,
    START_FLAGS,
    TRUST_FLAG,
    settings_and_choices,
)
from latentscore_data.commands._train_tables import show_check, show_plans, show_runs, show_sweep
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.settings import Recipe
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.modal import check_code
from latentscore_data.core.models.spec import kind_of_sweep
from latentscore_data.core.stages.train import (
    StartOptions,
    attach_run,
    check_runs,
    fetch_run,
    plan_one,
    plan_sweep,
    run_lines,
    run_sweep,
    train_one,
)

app = typer.Typer(
    help="Train a model on the rows: SFT, GRPO, DPO and ablations, here, on Modal or on Ray.",
    no_args_is_help=True,
    add_completion=False,
)


def _add_recipe(kind: Recipe, about: str) -> None:
    """Add the command of a recipe. All recipes have the same options; GRPO and DPO also have --adapter."""
    some = {**({} if kind == "sft" else ADAPTER_FLAG), **(TRUST_FLAG if kind == "grpo" else {})}

    @sets_settings(SETTING_FLAGS)
    @with_flags("chosen", {**some, **PRESET_FLAG, **CHOICE_FLAGS})
    @with_flags("how", {**START_FLAGS, **REMOTE_AND_JUDGE_FLAGS})
    def recipe(given: Values, chosen: dict[str, Any], how: dict[str, Any], dry_run: DryRunOption = False) -> None:
        settings, choices = settings_and_choices(kind, given, chosen, dry_run)
        if dry_run:
            show_plans([plan_one(settings, choices)], lambda: check_runs(settings, 1, SpendTracker()), alone=True)
            return
        with Workspace(settings.paths.root).lock(f"train {kind}"):
            summary = train_one(settings, choices, StartOptions(**how))
        show(summary)

    recipe.__doc__ = about
    app.command(kind)(recipe)


for _kind, _about in RECIPE_HELP.items():
    _add_recipe(_kind, _about)


@app.command()
@sets_settings(SETTING_FLAGS)
@with_flags("chosen", {**ADAPTER_FLAG, **CHOICE_FLAGS, **TRUST_FLAG})
@with_flags("how", START_FLAGS)
def sweep(
    given: Values,
    family: Annotated[str, typer.Argument(help="lora_rank, learning_rate, batch_size, grpo_beta or dpo_beta.")],
    chosen: dict[str, Any],
    how: dict[str, Any],
    kind: Annotated[str, typer.Option(help="sft, grpo or dpo (default: depends on the family).")] = "",
    dry_run: DryRunOption = False,
) -> None:
    """Train every preset of a family, one after the other, and compare them in one table.

    Example:

        lsdata train sweep lora_rank --base-model gemma3-270m --max-steps 200
    """
    settings, choices = settings_and_choices(kind_of_sweep(kind, family), given, chosen, dry_run)
    if dry_run:
        plans = plan_sweep(settings, family, choices)
        show_plans(plans, lambda: check_runs(settings, len(plans), SpendTracker()), alone=False)
        return
    with Workspace(settings.paths.root).lock(f"train sweep {family}"):
        summary = run_sweep(settings, family, choices, StartOptions(**how))
    show_sweep(summary.details["runs"])
    show(summary)


@app.command()
def status() -> None:
    """List the runs of this workspace with recipe, base model, last step and state on Modal.

    Example:

        lsdata train status
    """
    show_runs(run_lines(load()))


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, as train status lists it.")]


@app.command()
def attach(run: RunArgument) -> None:
    """Show the log of a run on Modal until it ends, then fetch the run.

    Example:

        lsdata train attach sft-gemma-3-270m-it-1a2b3c4d
    """
    show(attach_run(load(), run))


@app.command()
def fetch(
    run: RunArgument,
    delete_remote: Annotated[
        bool, typer.Option("--delete-remote", help="Delete the remote copy after comparing every file.")
    ] = False,
) -> None:
    """Download a finished run from Modal and compare every file with the run's SHA-256 list.

    Example:

        lsdata train fetch sft-gemma-3-270m-it-1a2b3c4d
    """
    show(fetch_run(load(), run, delete_remote=delete_remote))


@app.command()
def check() -> None:
    """Start one small container on Modal and compare its code with the code on this machine.

    Example:

        lsdata train check
    """
    load()
    show_check(check_code())
