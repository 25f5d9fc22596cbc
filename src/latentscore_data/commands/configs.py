"""lsdata configs: N music configs for each vibe from a model, and the one that sounds most like it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentscore_data.commands._models import show_plan
from latentscore_data.commands._options import (
    DryRunOption,
    LimitOption,
    ModelOption,
    OnOption,
    OverwriteOption,
    RetryFailedOption,
    ScorerOption,
    SecondsOption,
    SeedOption,
    TrustScorersOption,
    WorkersOption,
    YesOption,
    calls_models,
    load,
    show,
)
from latentscore_data.core.base.display import OUTPUT, clean, console, palette_blocks, print_json, say, shorten
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.scoring.best_of import count_inputs
from latentscore_data.core.stages.configs import (
    answer_vibes,
    choose_rows,
    make_plan_for,
    remote_estimates,
    run_configs,
    typed_rows,
)
from latentscore_data.core.stages.spending import trust_key_to


@calls_models
def configs(
    vibe: Annotated[list[str] | None, typer.Argument(help="Vibes to answer right here; no rows are written.")] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Candidates per vibe (default 5).", min=1, max=256)] = None,
    model: ModelOption = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.", min=0, max=2)] = None,
    scorer: ScorerOption = None,
    limit: LimitOption = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Only rows of this split: SFT-Train, SFT-Val, GRPO or TEST. Repeatable."),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only one half: generate or score.")] = None,
    seconds: SecondsOption = None,
    batch_size: Annotated[int | None, typer.Option(help="Vibes asked for in one call.", min=1, max=64)] = None,
    workers: WorkersOption = None,
    on: OnOption = None,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With VIBE: write the winners' sound here, as FLAC.")
    ] = None,
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
        lsdata configs --model openai/gpt-4o-mini --max-cost 5
    """
    if only not in (None, "generate", "score"):
        raise InputError(f"--only {only!r} is unknown", "halves: generate, score")
    if audio is not None and not vibe:
        raise InputError(
            "--audio goes with vibes on the command line", 'lsdata configs "slow rain on a tin roof" --audio out/'
        )
    settings = load(
        configs=chosen(
            model=model, n=n, temperature=temperature, limit=limit, splits=split, batch_size=batch_size, seed=seed
        ),
        scoring=chosen(scorers=scorer, seconds=seconds, workers=workers),
        llm=calls,
    )
    executor = make_executor(on or "here", settings, say)
    if executor.remote and vibe:
        raise InputError("vibes on the command line are answered here", f"leave --on {on} out")
    trust_key_to(settings.llm, calls.get("api_key_env"))
    trusted = frozenset(settings.scoring.scorers if trust_settings else scorer or ())
    workspace = Workspace(settings.paths.root)
    if vibe:
        if dry_run:
            show_plan(make_plan_for(typed_rows(vibe), settings, workspace))
            return
        show_answers(answer_vibes(vibe, settings, workspace, audio=audio, trusted=trusted, yes=yes))
        return
    workspace, rows = choose_rows(settings, workspace, only)
    if not len(rows) and only is None:
        say(
            f"configs: no vibe rows, so the {count_inputs(settings, workspace)} rows in {workspace.configs_dir} are scored"
        )
        only = "score"
    if dry_run:
        show_plan(make_plan_for(rows, settings, workspace))
        if executor.remote and only != "generate":
            for estimate in remote_estimates(settings, len(rows), executor):
                say(estimate.in_words(settings.train.modal))
        return
    with workspace.lock("configs"):
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
        won = f"{answer['best_index'] + 1} of {len(answer['scores'])}, {answer['scorer']} {answer['score']:.3f}"
        out.print(Padding(Text.assemble((clean(payload["title"]), "italic"), f"   {won}"), (0, 2)))
        if answer.get("note"):
            out.print(Padding(Text(clean(answer["note"]), style="yellow"), (0, 2)))
        for palette in payload["palettes"]:
            out.print(Padding(palette_blocks(palette), (0, 2)))
        words = "  ".join(f"{name} {str(word).lower()}" for name, word in payload["config"].items())
        out.print(Padding(Text(clean(words), style="dim"), (0, 2)))
        if answer.get("audio_file"):
            out.print(Padding(Text(clean(answer["audio_file"])), (0, 2)))
        out.print()
    raise typer.Exit(summary.exit_code)
