"""lsdata configs: ask a model for N configs per vibe and keep the one whose sound fits best."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from latentscore_data.commands._models import load_to_ask, show_dry_run, trusted_scorers
from latentscore_data.commands._options import (
    DryRunOption,
    ExamplesOption,
    ModelOption,
    OnOption,
    SearchOption,
    SecondsOption,
    SeedOption,
    SystemOption,
    TrustScorersOption,
    WorkersOption,
    YesOption,
    calls_models,
    complete_split,
    repeats,
    sets_settings,
    setting_option,
    show,
)
from latentscore_data.commands._scorer_options import JudgeOption, ScorerOption
from latentscore_data.core.base.display import say
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.configs.shown import show_answers, show_winners
from latentscore_data.core.stages.base import RunContext
from latentscore_data.core.stages.configs import (
    answer_vibes,
    check_run,
    choose_rows,
    for_typed,
    planned,
    run_configs,
    typed_rows,
)
from latentscore_data.core.stages.spending import RunPlan

OPTIONS = {
    "configs.n": setting_option("configs.n", "--n", "-n"),
    "configs.model": ModelOption,
    "configs.temperature": setting_option("configs.temperature"),
    "configs.limit": setting_option("configs.limit"),
    "configs.splits": setting_option("configs.splits", "--split", autocompletion=complete_split),
    "configs.vibes_per_call": setting_option("configs.vibes_per_call"),
    "configs.seed": SeedOption,
    "prompts.examples": ExamplesOption,
    "prompts.system": SystemOption,
    "scoring.scorers": ScorerOption,
    "search.renders": SearchOption,
    "search.judge": JudgeOption,
    "scoring.seconds": SecondsOption,
    "scoring.workers": WorkersOption,
}


@calls_models
@repeats
@sets_settings(OPTIONS)
def configs(
    vibe: Annotated[list[str] | None, typer.Argument(help="Vibes to answer directly; no rows are written.")] = None,
    *,
    given: Values,
    only: Annotated[str | None, typer.Option(help="Run only one half: generate or score.")] = None,
    on: OnOption = None,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With VIBE: write the winners as FLAC files.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="With VIBE: play the winners (needs the extra play).")] = False,
    trust_settings: TrustScorersOption = False,
    again: Values,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    calls: Values,
) -> None:
    """Ask a model for N configs per vibe, render and score them, and keep the best.

    Examples:

        lsdata configs --n 8
        lsdata configs "slow rain on a tin roof" --n 8 --audio out/
        lsdata configs --search 64 --scorer acoustic --judge clap
    """
    settings = load_to_ask(calls, lambda s: [s.model_of("configs")], **given)
    check_flags(vibe, only, on, settings, {**given, "llm": calls}, with_sound=audio is not None or play)
    executor = make_executor(on or "here", settings, say)
    trusted = trusted_scorers(settings, given, trust_settings)
    context = RunContext(yes, executor=executor, trusted=trusted, **again)
    workspace = Workspace(settings.paths.root)
    if vibe:
        settings, rows = for_typed(settings), typed_rows(vibe)
    else:
        workspace, rows, only = choose_rows(settings, workspace, only)
    if dry_run:
        plan = planned(rows, settings, workspace, only, executor)
        show_plan(plan, only, lambda: check_run(plan, settings, only, trusted))
    elif vibe:
        summary = answer_vibes(vibe, settings, workspace, context, audio)
        show_answers(summary, settings, play=play)
        raise typer.Exit(summary.exit_code)
    else:
        with workspace.lock("configs"), closing(executor):
            summary = run_configs(settings, context, workspace=workspace, rows=rows, only=only)
        show_winners(summary)
        show(summary)


def check_flags(
    vibe: list[str] | None, only: str | None, on: str | None, settings: Settings, given: Values, *, with_sound: bool
) -> None:
    """Raise :class:`InputError` for flags that cannot be combined."""
    if only not in (None, "generate", "score"):
        raise InputError(f"--only {only!r} is unknown", "halves: generate, score")
    if with_sound and not vibe:
        raise InputError("--audio and --play need vibes on the command line", 'lsdata configs "rain" --audio out/')
    if vibe and on not in (None, "here"):
        raise InputError("vibes on the command line are answered on this machine", f"leave --on {on} out")
    if vibe and given["llm"].get("batch"):
        raise InputError("vibes on the command line cannot be answered in batches", "leave --batch out")
    if "judge" in given.get("search", {}) and settings.search.renders is None:
        raise InputError("--judge needs --search", "lsdata configs --search 64 --judge clap")


def show_plan(plan: RunPlan, only: str | None, check: Callable[[], None]) -> None:
    """Show the calls and the cost of the run, then exit with the code that the run would have."""
    asked = [one.to_dict() for one in plan.asked]
    document = {"judges": asked} if only == "score" else {**asked[0], "judges": asked[1:]}
    if not plan.asked:
        say("configs: dry run: the run calls no model")
    show_dry_run(plan, check, document=document)
