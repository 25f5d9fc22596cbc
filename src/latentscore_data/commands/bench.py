"""lsdata bench: several generators answer the same vibes; every answer is played, scored and put on one page."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from latentscore_data.commands._models import show_dry_run
from latentscore_data.commands._options import (
    DryRunOption,
    LimitOption,
    OnOption,
    OverwriteOption,
    RetryFailedOption,
    ScorerOption,
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
from latentscore_data.core.base.display import say
from latentscore_data.core.base.secrets import read_dotenv
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.stages.bench import check_run, evaluate_answers, plans, remote_estimates, run_bench
from latentscore_data.core.stages.spending import trust_key_to

LISTENERS = "People listen"


@calls_models
def bench(
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:NAME[=LABEL]",
            help="What is compared: dataset:config_payload, litellm:MODEL, local:PATH, "
            "baseline:NAME (random, keywords, most-common, lookup, clap-lookup).",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="SFT-Train, SFT-Val, GRPO or TEST (the default).")] = None,
    suite: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="short, typo, out-of-domain, controllability, or a JSONL file."),
    ] = None,
    limit: LimitOption = None,
    system: SystemOption = None,
    scorer: ScorerOption = None,
    seconds: SecondsOption = None,
    baseline: Annotated[str | None, typer.Option(help="Label of the source to compare the others with.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.")] = None,
    keep_audio: Annotated[bool, typer.Option("--keep-audio", help="Keep FLAC files, too.")] = False,
    human_pack: Annotated[
        bool, typer.Option("--human-pack", help="Write a blind listening test for people.", rich_help_panel=LISTENERS)
    ] = False,
    human_answers: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Evaluate answers to a listening test. Repeatable.", rich_help_panel=LISTENERS
        ),
    ] = None,
    workers: WorkersOption = None,
    on: OnOption = None,
    trust_settings: TrustScorersOption = False,
    seed: SeedOption = None,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    *,
    calls: dict[str, Any],
) -> None:
    """Compare generators on the same rows: scores with intervals, times, cost, and a page to listen to.

    Examples:

        lsdata bench
        lsdata bench --source litellm:openai/gpt-4o-mini=mini --source baseline:random --max-cost 2
        lsdata bench --suite controllability --source baseline:keywords
    """
    from dataclasses import asdict

    read_dotenv()
    settings = load(
        bench=chosen(
            sources=source,
            split=split,
            suite=suite,
            limit=limit,
            baseline=baseline,
            name=name,
            keep_audio=keep_audio or None,
            seed=seed,
        ),
        scoring=chosen(scorers=scorer, seconds=seconds, workers=workers),
        prompts=chosen(system=system),
        llm=calls,
    )
    executor = make_executor(on or "here", settings, say)
    trust_key_to(settings.llm, calls.get("api_key_env"))
    workspace = Workspace(settings.paths.root)
    if dry_run:
        asked = plans(settings, workspace)
        away = remote_estimates(settings, workspace, executor) if executor.remote else []
        document = {
            "plans": [plan.to_dict() for plan in asked],
            "remote": [{**asdict(one), "cap_usd": one.cap_usd} for one in away],
        }
        if not asked and not away:
            say("bench: dry run: none of these sources costs money")
        words = [one.in_words() for one in away]
        show_dry_run(asked, lambda: check_run(asked, away, settings), document=lambda: document, remote=words)
        return
    if human_answers:
        show(evaluate_answers(human_answers, workspace))
        return
    with workspace.lock("bench"), closing(executor):
        summary = run_bench(
            settings,
            human_pack=human_pack,
            trusted=frozenset(settings.scoring.scorers if trust_settings else scorer or ()),
            yes=yes,
            retry_failed=retry_failed,
            overwrite=overwrite,
            executor=executor,
            of_the_chain=name is None,
        )
    show(summary)
