"""lsdata vibes: ask a model what moods the texts hold; thin the answers out, split them, add noise."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentscore_data.commands._models import show_dry_run
from latentscore_data.commands._options import (
    DryRunOption,
    ModelOption,
    OnOption,
    OverwriteOption,
    RetryFailedOption,
    SeedOption,
    YesOption,
    calls_models,
    load,
    show,
)
from latentscore_data.core.base.display import say
from latentscore_data.core.base.secrets import read_dotenv
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.stages.spending import check_remote_jobs, check_spending, trust_key_to
from latentscore_data.core.stages.vibes import make_plan_for, remote_estimates, require_texts, run_vibes

if TYPE_CHECKING:
    pass


@calls_models
def vibes(
    model: ModelOption = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.", min=0, max=2)] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most this many texts, from the start.", min=1)] = None,
    max_vibes: Annotated[int | None, typer.Option(help="Most vibes to keep from one text.", min=1, max=50)] = None,
    max_input_words: Annotated[int | None, typer.Option(help="A text is cut after this many words.", min=1)] = None,
    page_words: Annotated[int | None, typer.Option(help="Words on a page.", min=1)] = None,
    characters: Annotated[
        bool | None, typer.Option("--characters/--no-characters", help="Keep the moods of characters, too.")
    ] = None,
    noise_rate: Annotated[float | None, typer.Option(help="Share of vibes with typing noise.", min=0, max=1)] = None,
    dedupe_threshold: Annotated[
        float | None, typer.Option(help="Cosine from which a vibe is a near-duplicate.", min=0.01, max=1)
    ] = None,
    dedupe_model: Annotated[
        str | None, typer.Option(help="Embedder: auto, minilm, words, a folder or a hub id.")
    ] = None,
    split_by: Annotated[str | None, typer.Option(help="Draw splits by source or by row.")] = None,
    on: OnOption = None,
    seed: SeedOption = None,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    *,
    calls: dict[str, Any],
) -> None:
    """Extract vibe rows from the downloaded texts, drop near-duplicates, draw splits, add noise.

    Examples:

        lsdata vibes
        lsdata vibes --model openai/gpt-4o-mini --limit 50 --max-cost 1
    """
    read_dotenv()
    settings = load(
        vibes=chosen(
            model=model,
            temperature=temperature,
            limit=limit,
            max_vibes=max_vibes,
            max_input_words=max_input_words,
            page_words=page_words,
            characters=characters,
            seed=seed,
        ),
        noise=chosen(rate=noise_rate, seed=seed),
        dedupe=chosen(threshold=dedupe_threshold, model=dedupe_model),
        splits=chosen(split_by=split_by, seed=seed),
        llm=calls,
    )
    trust_key_to(settings.llm, calls.get("api_key_env"))
    workspace = Workspace(settings.paths.root)
    executor = make_executor(on or "here", settings, say)
    if dry_run:
        require_texts(workspace)
        plan = make_plan_for(settings, workspace)
        away = remote_estimates(settings, workspace, executor) if executor.remote else []

        def check() -> None:
            check_spending(plan, settings.llm)
            check_remote_jobs(away, settings)

        show_dry_run([plan], check, remote=[one.in_words() for one in away])
        return
    with workspace.lock("vibes"), closing(executor):
        summary = run_vibes(settings, yes=yes, retry_failed=retry_failed, overwrite=overwrite, executor=executor)
    show(summary)
