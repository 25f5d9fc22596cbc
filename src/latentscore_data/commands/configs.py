"""lsdata configs: N music configs for each vibe from a model, and the one that sounds most like it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentscore_data.commands._options import (
    ApiBaseOption,
    ApiKeyEnvOption,
    DryRunOption,
    Globals,
    LimitOption,
    MaxConcurrencyOption,
    MaxCostOption,
    MaxQpsOption,
    ModelOption,
    OnOption,
    OverwriteOption,
    RetryFailedOption,
    ScorerOption,
    SecondsOption,
    SeedOption,
    WorkersOption,
    YesOption,
    load,
    show,
)

if TYPE_CHECKING:
    from latentscore_data.core.errors import LsdataError
    from latentscore_data.core.generation import Source
    from latentscore_data.core.llm.plan import Plan
    from latentscore_data.core.rows import VibeRow
    from latentscore_data.core.settings import Settings
    from latentscore_data.core.stage import Summary
    from latentscore_data.core.workspace import StageFiles, Workspace


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
    seed: SeedOption = None,
    max_concurrency: MaxConcurrencyOption = None,
    max_qps: MaxQpsOption = None,
    max_cost: MaxCostOption = None,
    api_base: ApiBaseOption = None,
    api_key_env: ApiKeyEnvOption = None,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Ask a model for N configs per vibe, render and score them, and keep the best.

    Examples:

    lsdata configs --n 8

    lsdata configs "rain on a tin roof" --n 8 --audio out/

    lsdata configs --model openai/gpt-4o-mini --max-cost 5
    """
    from latentscore_data.commands._models import show_plan, trust_key_to
    from latentscore_data.core.errors import InputError
    from latentscore_data.core.secrets import read_dotenv
    from latentscore_data.core.settings import chosen
    from latentscore_data.core.workspace import Workspace

    if only not in (None, "generate", "score"):
        raise InputError(f"--only {only!r} is unknown", "halves: generate, score")
    read_dotenv()
    settings = load(
        configs=chosen(
            model=model, n=n, temperature=temperature, limit=limit, splits=split, batch_size=batch_size, seed=seed
        ),
        scoring=chosen(scorers=scorer, seconds=seconds, workers=workers),
        llm=chosen(
            max_concurrency=max_concurrency,
            max_qps=max_qps,
            max_cost=max_cost,
            api_base=api_base,
            api_key_env=api_key_env,
        ),
    )
    trust_key_to(settings.llm, api_key_env)
    workspace, rows = choose_rows(settings, Workspace(settings.paths.root))
    if dry_run:
        show_plan(make_plan_for(rows, settings, workspace))
        return
    with workspace.lock("configs"):
        show(
            run_configs(
                settings,
                workspace=workspace,
                rows=rows,
                only=only,
                yes=yes,
                retry_failed=retry_failed,
                overwrite=overwrite,
            )
        )


def model_name(settings: Settings) -> str:
    """The model this stage asks."""
    return settings.configs.model or settings.llm.model


def choose_rows(settings: Settings, workspace: Workspace) -> tuple[Workspace, Source | list[VibeRow]]:
    """The vibe rows to work on and where; the bundled sample rows, in a place of their own, where there are none yet."""
    from latentscore_data.core.display import say
    from latentscore_data.core.generation import VibeRows, require_rows, sample_rows
    from latentscore_data.core.workspace import Workspace

    if workspace.vibe_files() or workspace.text_files():
        rows = VibeRows(workspace, settings.configs)
        require_rows(rows, settings.configs)
        return workspace, rows
    if Globals.root is None:
        workspace = Workspace(workspace.root / "sample")
    rows = sample_rows(settings.configs)
    say(f"configs: there are no vibe rows yet, so here are the {len(rows)} bundled sample vibes ({workspace.root})")
    return workspace, rows


def run_configs(
    settings: Settings,
    *,
    workspace: Workspace,
    rows: Source | list[VibeRow],
    only: str | None = None,
    yes: bool = False,
    retry_failed: bool = False,
    overwrite: bool = False,
) -> Summary:
    """Candidates for the rows, then the winners. The lock is held by the caller."""
    from latentscore_data.core.errors import InputError

    if only == "score":
        raise InputError("scoring is not part of this version yet", "use --only generate")
    summary = run_generate(
        settings, workspace=workspace, rows=rows, yes=yes, retry_failed=retry_failed, overwrite=overwrite
    )
    if only is None:
        raise InputError("scoring is not part of this version yet", "use --only generate")
    return summary


def run_generate(
    settings: Settings,
    *,
    workspace: Workspace,
    rows: Source | list[VibeRow],
    yes: bool = False,
    retry_failed: bool = False,
    overwrite: bool = False,
) -> Summary:
    """The first half: ask for the candidates."""
    from latentscore_data.commands._models import announce, confirm_spending
    from latentscore_data.core.display import progress
    from latentscore_data.core.generation import generate
    from latentscore_data.core.ledger import Ledger
    from latentscore_data.core.llm.client import connect
    from latentscore_data.core.llm.prices import costs_nothing
    from latentscore_data.core.workspace import write_manifest

    model = model_name(settings)
    announce("configs", model, settings.llm)
    if not costs_nothing(model, settings.llm):
        confirm_spending(make_plan_for(rows, settings, workspace), settings.llm, yes)
    llm = connect(
        model,
        settings.llm,
        cache_path=workspace.llm_cache,
        ledger=Ledger(workspace.ledger),
        stage="configs",
        batch_size=settings.configs.batch_size,
    )
    summary = generate(
        rows,
        llm,
        settings.configs,
        workspace,
        max_concurrency=settings.llm.max_concurrency,
        retry_failed=retry_failed,
        overwrite=overwrite,
        progress=progress(),
    )
    summary.outputs = [str(workspace.candidates)]
    summary.details["model"] = model
    write_manifest(generate_files(settings, workspace), workspace.root, [workspace.candidates], summary)
    return summary


def make_plan_for(rows: Source | list[VibeRow], settings: Settings, workspace: Workspace) -> Plan:
    """What the first half would ask and cost."""
    from latentscore import MusicConfigPromptPayload
    from latentscore_data.core.generation import example_answer, questions
    from latentscore_data.core.llm.plan import make_plan

    return make_plan(
        model_name(settings),
        (questions(row, settings.configs) for row in rows),
        MusicConfigPromptPayload,
        example_answer(),
        settings.llm,
        workspace.llm_cache,
        settings.configs.batch_size,
    )


def generate_files(settings: Settings, workspace: Workspace) -> StageFiles:
    """What the first half reads, and what decides its result."""
    from latentscore import schema_hash
    from latentscore_data.core.llm.prompts import config_prompt_hash
    from latentscore_data.core.workspace import StageFiles

    decides = ("n", "temperature", "top_p", "max_tokens", "limit", "splits", "seed")
    return StageFiles(
        stage="configs",
        manifest=workspace.configs_dir / "generate.manifest.json",
        inputs=[path for split in settings.configs.splits if (path := workspace.vibes(split)).exists()],
        settings={
            "model": model_name(settings),
            "api_base": settings.llm.api_base,
            **{name: getattr(settings.configs, name) for name in decides},
        },
        versions={"prompt": config_prompt_hash(), "schema": schema_hash()},
    )


def stage_files(settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """Both halves, for run-all and status."""
    return [generate_files(settings, workspace)]


def preflight(settings: Settings) -> list[LsdataError]:
    """What is missing for this stage: a key, a price for the cap."""
    from latentscore_data.core.errors import LsdataError
    from latentscore_data.core.llm.client import check_route

    try:
        check_route(model_name(settings), settings.llm)
    except LsdataError as error:
        return [error]
    return []


def estimate(settings: Settings, workspace: Workspace) -> dict[str, Any]:
    """Calls and cost of this stage as things stand."""
    from latentscore_data.core.generation import VibeRows

    return make_plan_for(VibeRows(workspace, settings.configs), settings, workspace).to_dict()


def run_stage_for_chain(settings: Settings, *, yes: bool) -> Summary:
    """The whole stage for run-all, under the lock that it holds."""
    from latentscore_data.core.workspace import Workspace

    workspace, rows = choose_rows(settings, Workspace(settings.paths.root))
    return run_configs(settings, workspace=workspace, rows=rows, yes=yes)
