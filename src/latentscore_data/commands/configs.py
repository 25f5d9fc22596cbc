"""lsdata configs: N music configs for each vibe from a model, and the one that sounds most like it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from latentscore.json_search import JsonObject
from latentscore_data.commands._models import show_dry_run
from latentscore_data.commands._options import (
    DryRunOption,
    ExamplesOption,
    JudgeOption,
    ModelOption,
    OnOption,
    OverwriteOption,
    RetryFailedOption,
    ScorerOption,
    SearchOption,
    SeedOption,
    SystemOption,
    TrustScorersOption,
    YesOption,
    calls_models,
    complete_split,
    load,
    sets_settings,
    setting_option,
    show,
)
from latentscore_data.core.base.display import say
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.row_files import RowFiles
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import Settings, chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.compute.types import Executor
from latentscore_data.core.configs.candidate_generation import Source
from latentscore_data.core.configs.shown import show_answers, show_winners
from latentscore_data.core.scoring.best_of import count_inputs
from latentscore_data.core.stages.configs import (
    answer_vibes,
    check_run,
    choose_rows,
    for_typed,
    planned,
    remote_estimates,
    run_configs,
    typed_rows,
)
from latentscore_data.core.stages.spending import check_remote_jobs, trust_key_to

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
    "scoring.seconds": setting_option("scoring.seconds"),
    "scoring.workers": setting_option("scoring.workers"),
}


@calls_models
@sets_settings(OPTIONS)
def configs(
    vibe: Annotated[list[str] | None, typer.Argument(help="Vibes to answer right here; no rows are written.")] = None,
    *,
    given: Values,
    scorer: ScorerOption = None,
    search: SearchOption = None,
    judge: JudgeOption = None,
    only: Annotated[str | None, typer.Option(help="Only one half: generate or score.")] = None,
    on: OnOption = None,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With VIBE: write the winners' sound here, as FLAC.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="With VIBE: play the winners (needs the extra play).")] = False,
    trust_settings: TrustScorersOption = False,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
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
    given["scoring"] = {**given.get("scoring", {}), **chosen(scorers=scorer)}
    settings = load(**given, search=chosen(renders=search, judge=judge), llm=calls)
    check_flags(vibe, only, settings, judge, with_sound=audio is not None or play)
    executor = make_executor(on or "here", settings, say)
    if executor.remote and vibe:
        raise InputError("vibes on the command line are answered here", f"leave --on {on} out")
    trust_key_to(settings.llm, calls.get("api_key_env"))
    judges = [settings.search.judge] if settings.search.judge and (judge or trust_settings) else []
    trusted = frozenset([*(settings.scoring.scorers if trust_settings else scorer or ()), *judges])
    workspace = Workspace(settings.paths.root)
    if vibe:
        if calls.get("batch"):
            raise InputError("vibes on the command line are answered at once", "leave --batch out")
        answer_here(vibe, for_typed(settings), workspace, trusted, audio=audio, play=play, dry_run=dry_run, yes=yes)
        return
    workspace, rows = choose_rows(settings, workspace, only)
    if not len(rows) and only is None:
        count = count_inputs(settings, RowFiles(workspace))
        say(f"configs: no vibe rows, so the {count} rows in {workspace.configs_dir} are scored")
        only = "score"
    if dry_run:
        show_plans(rows, settings, workspace, only, trusted, executor)
        return
    with workspace.lock("configs"), closing(executor):
        summary = run_configs(
            settings, workspace=workspace, rows=rows, only=only, trusted=trusted, yes=yes, retry_failed=retry_failed,
            overwrite=overwrite, executor=executor,
        )  # fmt: skip
    show_winners(summary)
    show(summary)


def answer_here(
    vibe: list[str],
    settings: Settings,
    workspace: Workspace,
    trusted: frozenset[str],
    *,
    audio: Path | None,
    play: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Answer vibes of the command line, or show what that would cost."""
    if dry_run:
        show_plans(typed_rows(vibe), settings, workspace, None, trusted)
        return
    summary = answer_vibes(vibe, settings, workspace, audio=audio, trusted=trusted, yes=yes)
    show_answers(summary, settings, play=play)
    raise typer.Exit(summary.exit_code)


def check_flags(
    vibe: list[str] | None, only: str | None, settings: Settings, judge: str | None, *, with_sound: bool
) -> None:
    """Raise :class:`InputError` for flags that do not go together."""
    if only not in (None, "generate", "score"):
        raise InputError(f"--only {only!r} is unknown", "halves: generate, score")
    if with_sound and not vibe:
        raise InputError(
            "--audio and --play go with vibes on the command line",
            'lsdata configs "slow rain on a tin roof" --audio out/',
        )
    if judge is not None and settings.search.renders is None:
        raise InputError("--judge goes with --search", "lsdata configs --search 64 --judge clap")


def show_plans(
    rows: Source | list[VibeRow],
    settings: Settings,
    workspace: Workspace,
    only: str | None,
    trusted: frozenset[str],
    executor: Executor | None = None,
) -> None:
    """What the run would ask and cost; ends as the run would."""
    plans = planned(rows, settings, workspace, only)
    remote = executor is not None and executor.remote
    away = (
        remote_estimates(rows, settings, RowFiles(workspace), executor, only) if executor is not None and remote else []
    )

    def check() -> None:
        check_run(plans, settings, only, trusted)
        check_remote_jobs(away, settings)

    def document() -> JsonObject:
        asked = [plan.to_dict() for plan in plans]
        return {"judges": asked} if only == "score" else {**asked[0], "judges": asked[1:]}

    if not plans:
        say("configs: dry run: no model is asked")
    words = [estimate.in_words() for estimate in away]
    show_dry_run(plans, check, document=document, remote=words)
