"""lsdata configs: N music configs for each vibe from a model, and the one that sounds most like it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

import latentscore
from latentscore.errors import AudioError
from latentscore_data.commands._models import show_dry_run
from latentscore_data.commands._options import (
    DryRunOption,
    ExamplesOption,
    JudgeOption,
    LimitOption,
    ModelOption,
    OnOption,
    OverwriteOption,
    RetryFailedOption,
    ScorerOption,
    SearchOption,
    SecondsOption,
    SeedOption,
    SystemOption,
    TrustScorersOption,
    WorkersOption,
    YesOption,
    calls_models,
    load,
    show,
)
from latentscore_data.core.base.display import OUTPUT, clean, console, palette_blocks, print_json, say, shorten
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import Settings, chosen
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.compute.types import Executor
from latentscore_data.core.configs.candidate_generation import Source
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


@calls_models
def configs(
    vibe: Annotated[list[str] | None, typer.Argument(help="Vibes to answer right here; no rows are written.")] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", "-n", help="Candidates per vibe (default 5, typed offline 1).", min=1, max=256),
    ] = None,
    model: ModelOption = None,
    examples: ExamplesOption = None,
    system: SystemOption = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.", min=0, max=2)] = None,
    scorer: ScorerOption = None,
    search: SearchOption = None,
    judge: JudgeOption = None,
    limit: LimitOption = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Only this split: SFT-Train, GRPO ... Repeatable."),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only one half: generate or score.")] = None,
    seconds: SecondsOption = None,
    vibes_per_call: Annotated[
        int | None, typer.Option(help="Packing: vibes asked for in one call.", min=1, max=64)
    ] = None,
    workers: WorkersOption = None,
    on: OnOption = None,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With VIBE: write the winners' sound here, as FLAC.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="With VIBE: play the winners (needs the extra play).")] = False,
    trust_settings: TrustScorersOption = False,
    seed: SeedOption = None,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    *,
    calls: dict[str, Any],
) -> None:
    """Ask a model for N configs per vibe, render and score them, and keep the best.

    Examples:

        lsdata configs --n 8
        lsdata configs "slow rain on a tin roof" --n 8 --audio out/
        lsdata configs --search 64 --scorer acoustic --judge clap
    """
    if only not in (None, "generate", "score"):
        raise InputError(f"--only {only!r} is unknown", "halves: generate, score")
    if (audio is not None or play) and not vibe:
        raise InputError(
            "--audio and --play go with vibes on the command line",
            'lsdata configs "slow rain on a tin roof" --audio out/',
        )
    settings = load(
        configs=chosen(
            model=model,
            n=n,
            temperature=temperature,
            limit=limit,
            splits=split,
            vibes_per_call=vibes_per_call,
            seed=seed,
        ),
        scoring=chosen(scorers=scorer, seconds=seconds, workers=workers),
        search=chosen(renders=search, judge=judge),
        prompts=chosen(examples=examples, system=system),
        llm=calls,
    )
    if judge is not None and settings.search.renders is None:
        raise InputError("--judge goes with --search", "lsdata configs --search 64 --judge clap")
    executor = make_executor(on or "here", settings, say)
    if executor.remote and vibe:
        raise InputError("vibes on the command line are answered here", f"leave --on {on} out")
    trust_key_to(settings.llm, calls.get("api_key_env"))
    judges = [settings.search.judge] if settings.search.judge and (judge or trust_settings) else []
    trusted = frozenset([*(settings.scoring.scorers if trust_settings else scorer or ()), *judges])
    workspace = Workspace(settings.paths.root)
    if vibe:
        settings = for_typed(settings)
        if calls.get("batch"):
            raise InputError("vibes on the command line are answered at once", "leave --batch out")
        if dry_run:
            show_plans(typed_rows(vibe), settings, workspace, None, trusted)
            return
        summary = answer_vibes(vibe, settings, workspace, audio=audio, trusted=trusted, yes=yes)
        if play:
            play_answers(summary, settings)
        show_answers(summary)
        return
    workspace, rows = choose_rows(settings, workspace, only)
    if not len(rows) and only is None:
        say(
            f"configs: no vibe rows, so the {count_inputs(settings, workspace)} rows in {workspace.configs_dir} are scored"
        )
        only = "score"
    if dry_run:
        show_plans(rows, settings, workspace, only, trusted, executor)
        return
    with workspace.lock("configs"), closing(executor):
        summary = run_configs(
            settings,
            workspace=workspace,
            rows=rows,
            only=only,
            trusted=trusted,
            yes=yes,
            retry_failed=retry_failed,
            overwrite=overwrite,
            executor=executor,
        )
    show_winners(summary)
    show(summary)


def play_answers(summary: Summary, settings: Settings) -> None:
    """Play the winners, each as long as it was scored. Raises :class:`MissingError` without the extra or a device."""
    for answer in summary.details["answers"]:
        if answer["config_payload"] is not None:
            try:
                latentscore.render(answer["config_payload"], settings.scoring.seconds, settings.scoring.seed).play()
            except AudioError as error:
                raise MissingError(f"--play: {error}", "--audio DIR writes the sound instead") from error


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
    away = remote_estimates(rows, settings, workspace, executor, only) if executor is not None and remote else []

    def check() -> None:
        check_run(plans, settings, only, trusted)
        check_remote_jobs(away, settings)

    def document() -> dict[str, Any]:
        asked = [plan.to_dict() for plan in plans]
        return {"judges": asked} if only == "score" else {**asked[0], "judges": asked[1:]}

    if not plans:
        say("configs: dry run: no model is asked")
    words = [estimate.in_words() for estimate in away]
    show_dry_run(plans, check, document=document, remote=words)


def show_winners(summary: Summary) -> None:
    """The first winners as a table: the vibe, the title, who won with which score, and the first palette."""
    found: list[dict[str, Any]] = summary.details.get("winners", [])
    if OUTPUT.json or not found:
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("vibe", "title", "won", "score", "palette", box=None)
    for winner in found:
        table.add_row(
            Text(shorten(winner["vibe"], 40)),
            Text(shorten(winner["title"], 30)),
            f"{winner['best_index'] + 1} of {winner['candidates']}",
            f"{winner['score']:.3f}",
            palette_blocks(winner["palette"]),
        )
    console().print(table)


def show_answers(summary: Summary) -> None:
    """Each winner with its palettes and its words; or one JSON document."""
    if OUTPUT.json:
        print_json(summary.to_dict())
        raise typer.Exit(summary.exit_code)
    from rich.padding import Padding
    from rich.text import Text

    out = console()
    for answer in summary.details["answers"]:
        out.print(Text.assemble((clean(answer["vibe"]), "bold")))
        payload = answer["config_payload"]
        if payload is None:
            out.print(Padding(Text(clean(answer["failure"]), style="red"), (0, 0, 1, 2)))
            continue
        origins = answer.get("candidate_origins")
        origin = f" ({origins[answer['best_index']]})" if origins else ""
        won = f"{answer['best_index'] + 1} of {len(answer['scores'])}{origin}, {answer['scorer']} {answer['score']:.3f}"
        out.print(Padding(Text.assemble((clean(payload["title"]), "italic"), f"   {won}"), (0, 2)))
        if payload.get("thinking"):
            out.print(Padding(Text(clean(payload["thinking"])), (0, 2)))
        if answer.get("note"):
            out.print(Padding(Text(clean(answer["note"]), style="yellow"), (0, 2)))
        for palette in payload["palettes"]:
            out.print(Padding(palette_blocks(palette), (0, 2)))
        words = "  ".join(f"{name} {str(word).lower()}" for name, word in payload["config"].items())
        out.print(Padding(Text(clean(words), style="dim"), (0, 2)))
        if answer.get("audio_file"):
            out.print(Padding(Text(clean(answer["audio_file"])), (0, 2)))
        out.print()
    if not any(answer.get("audio_file") for answer in summary.details["answers"]):
        say("configs: --audio DIR writes the winner's sound, --play plays it, --seconds sets its length")
    raise typer.Exit(summary.exit_code)
