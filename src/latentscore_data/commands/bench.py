"""lsdata bench: several generators answer the same vibes; every answer is played, scored and put on one page."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from latentscore_data.commands._models import show_dry_run
from latentscore_data.commands._options import (
    DryRunOption,
    OnOption,
    OverwriteOption,
    RetryFailedOption,
    ScorerOption,
    SeedOption,
    SystemOption,
    TrustScorersOption,
    YesOption,
    calls_models,
    complete_source,
    complete_split,
    load,
    sets_settings,
    setting_option,
    show,
)
from latentscore_data.core.base.display import say
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.secrets import read_dotenv
from latentscore_data.core.base.settings import Settings, chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.prepare import compared
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.compute.types import Executor
from latentscore_data.core.stages.bench import check_run, evaluate_answers, plans, remote_estimates, run_bench
from latentscore_data.core.stages.spending import trust_key_to

LISTENERS = "People listen"
SOURCES_HELP = (
    "What is compared: dataset:config_payload, litellm:MODEL, local:PATH, "
    "baseline:NAME (random, keywords, most-common, lookup, clap-lookup)."
)


OPTIONS = {
    "bench.sources": setting_option(
        "bench.sources", "--source", metavar="KIND:NAME[=LABEL]", help=SOURCES_HELP, autocompletion=complete_source
    ),
    "bench.split": setting_option("bench.split", autocompletion=complete_split),
    "bench.suite": setting_option(
        "bench.suite", metavar="NAME|FILE", help="short, typo, out-of-domain, controllability, or a file."
    ),
    "bench.limit": setting_option("bench.limit"),
    "prompts.system": SystemOption,
    "scoring.seconds": setting_option("scoring.seconds"),
    "bench.baseline": setting_option("bench.baseline", help="Source that the others are compared with."),
    "bench.name": setting_option("bench.name"),
    "bench.keep_audio": setting_option("bench.keep_audio", "--keep-audio", help="Also write FLAC files."),
    "scoring.workers": setting_option("scoring.workers"),
    "bench.seed": SeedOption,
}


@calls_models
@sets_settings(OPTIONS)
def bench(
    *,
    given: Values,
    scorer: ScorerOption = None,
    human_pack: Annotated[
        bool, typer.Option("--human-pack", help="Write a blind listening test for people.", rich_help_panel=LISTENERS)
    ] = False,
    human_answers: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Evaluate answers to a listening test. Repeatable.", rich_help_panel=LISTENERS
        ),
    ] = None,
    on: OnOption = None,
    trust_settings: TrustScorersOption = False,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    calls: Values,
) -> None:
    """Compare generators on the same rows: scores with intervals, times, cost, and a page to listen to.

    Examples:

        lsdata bench
        lsdata bench --source litellm:openai/gpt-4o-mini=mini --source baseline:random --max-cost 2
        lsdata bench --suite controllability --source baseline:keywords
    """
    read_dotenv()
    given["scoring"] = {**given.get("scoring", {}), **chosen(scorers=scorer)}
    settings = load(**given, llm=calls)
    executor = make_executor(on or "here", settings, say)
    trust_key_to(settings.llm, calls.get("api_key_env"))
    workspace = Workspace(settings.paths.root)
    if dry_run:
        show_plans(settings, workspace, executor)
        return
    if human_answers:
        show(evaluate_answers(human_answers, workspace))
        return
    with workspace.lock("bench"), closing(executor):
        show(
            run_bench(
                settings,
                human_pack=human_pack,
                trusted=frozenset(settings.scoring.scorers if trust_settings else scorer or ()),
                yes=yes,
                retry_failed=retry_failed,
                overwrite=overwrite,
                executor=executor,
                of_the_chain="name" not in given.get("bench", {}),
            )
        )


def show_plans(settings: Settings, workspace: Workspace, executor: Executor) -> None:
    """What the run would ask and cost; ends as the run would."""
    both = compared(settings.bench, workspace)
    asked = plans(settings, workspace, both)
    away = remote_estimates(settings, both, executor) if executor.remote else []
    document = {
        "plans": [plan.to_dict() for plan in asked],
        "remote": [{**asdict(one), "cap_usd": one.cap_usd} for one in away],
    }
    if not asked and not away:
        say("bench: dry run: none of these sources costs money")
    words = [one.in_words() for one in away]
    show_dry_run(asked, lambda: check_run(asked, away, settings), document=lambda: document, remote=words)
