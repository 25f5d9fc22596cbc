"""lsdata bench: compare generators on the same vibes; render and score every answer, and write one page."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from latentscore_data.commands._models import load_to_ask, show_dry_run, trusted_scorers
from latentscore_data.commands._options import (
    DryRunOption,
    OnOption,
    SecondsOption,
    SeedOption,
    SystemOption,
    TrustScorersOption,
    WorkersOption,
    YesOption,
    calls_models,
    complete_run,
    complete_split,
    from_settings,
    repeats,
    sets_settings,
    setting_option,
    show,
)
from latentscore_data.commands._scorer_options import ScorerOption
from latentscore_data.core.base.display import say
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.prepare import compared
from latentscore_data.core.bench.suites import SUITES
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.generators.registry import BASELINES, KINDS
from latentscore_data.core.generators.simple import WINNERS
from latentscore_data.core.scoring.executor import Executor
from latentscore_data.core.stages.base import RunContext
from latentscore_data.core.stages.bench import (
    check_run,
    evaluate_answers,
    hosted_sources,
    plans,
    remote_estimates,
    run_bench,
)
from latentscore_data.core.stages.spending import RunPlan

LISTENERS = "People listen"
SOURCES_HELP = f"Source: dataset:{WINNERS}, litellm:MODEL, local:PATH, baseline:NAME ({', '.join(BASELINES)})."


def complete_source() -> list[str]:
    """The kinds of sources, the sources in the settings, and the runs of this workspace."""
    kinds = [f"{kind}:" for kind in KINDS if kind not in ("baseline", "dataset")]
    baselines = [f"baseline:{name}" for name in BASELINES]
    runs = [f"local:{run}" for run in complete_run()]
    named = from_settings(lambda settings: settings.bench.sources)
    return [f"dataset:{WINNERS}", *kinds, *baselines, *runs, *named]


def one_split(splits: list[str]) -> str:
    """Return the only split. Raises :class:`InputError` for several: the option takes one, unlike that of ``configs``."""
    if len(splits) > 1:
        raise InputError(f"--split has {len(splits)} values: {', '.join(splits)}", "run lsdata bench once per split")
    return splits[0]


OPTIONS = {
    "bench.sources": setting_option(
        "bench.sources", "--source", metavar="KIND:NAME[=LABEL]", help=SOURCES_HELP, autocompletion=complete_source
    ),
    "bench.split": Annotated[
        list[str] | None,
        typer.Option("--split", help="Split whose rows the sources answer.", autocompletion=complete_split),
    ],
    "bench.suite": setting_option("bench.suite", metavar="NAME|FILE", help=f"{', '.join(SUITES)}, or a file."),
    "bench.limit": setting_option("bench.limit"),
    "prompts.system": SystemOption,
    "scoring.scorers": ScorerOption,
    "scoring.seconds": SecondsOption,
    "bench.baseline": setting_option("bench.baseline", help="Source that the others are compared with."),
    "bench.name": setting_option("bench.name"),
    "bench.keep_audio": setting_option("bench.keep_audio", "--keep-audio"),
    "scoring.workers": WorkersOption,
    "bench.seed": SeedOption,
}


@calls_models
@repeats
@sets_settings(OPTIONS)
def bench(
    *,
    given: Values,
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
    again: Values,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    calls: Values,
) -> None:
    """Compare generators on the same rows: scores with intervals, times, cost, and a page with players.

    Examples:

        lsdata bench
        lsdata bench --source litellm:openai/gpt-4o-mini=mini --source baseline:random --max-cost 2
        lsdata bench --suite controllability --source baseline:keywords
    """
    flags = given.get("bench", {})
    if "split" in flags:
        flags["split"] = one_split(flags["split"])
    settings = load_to_ask(calls, hosted_sources, **given)
    executor = make_executor(on or "here", settings, say)
    workspace = Workspace(settings.paths.root)
    if dry_run:
        show_plans(settings, workspace, executor)
        return
    if human_answers:
        show(evaluate_answers(human_answers, workspace))
        return
    trusted = trusted_scorers(settings, given, trust_settings)
    context = RunContext(yes, executor=executor, trusted=trusted, **again)
    of_the_chain = "name" not in flags
    with workspace.lock("bench"), closing(executor):
        show(run_bench(settings, context, human_pack=human_pack, of_the_chain=of_the_chain))


def show_plans(settings: Settings, workspace: Workspace, executor: Executor) -> None:
    """Show the calls and the cost of the run, then exit with the code that the run would have."""
    both = compared(settings.bench, workspace)
    remote = remote_estimates(settings, both, executor) if executor.remote else []
    plan = RunPlan(plans(settings, workspace, both), remote, executor)
    document = {
        "plans": [one.to_dict() for one in plan.asked],
        "remote": [{**asdict(one), "cap_usd": one.cap_usd} for one in plan.remote],
    }
    if not plan.asked and not plan.remote:
        say("bench: dry run: none of these sources costs money")
    show_dry_run(plan, lambda: check_run(plan, settings), document=document)
