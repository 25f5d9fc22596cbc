"""lsdata improve: rounds of answering, scoring and training on the best answers."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from latentscore_data.commands._models import show_dry_run, trusted_scorers
from latentscore_data.commands._options import (
    DryRunOption,
    MaxCostOption,
    OnOption,
    SearchOption,
    SecondsOption,
    TrustScorersOption,
    WorkersOption,
    YesOption,
    complete_run,
    load,
    sets_settings,
    setting_option,
    show,
)
from latentscore_data.commands._scorer_options import ScorerOption, complete_scorer
from latentscore_data.commands._train_tables import show_sweep
from latentscore_data.core.base.display import OUTPUT, money, print_facts, say
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.scoring.executor import Executor
from latentscore_data.core.stages.base import RunContext
from latentscore_data.core.stages.improve import Rounds, check_start, plan_improve, plans, run_improve
from latentscore_data.core.stages.spending import RunPlan

OPTIONS = {
    "improve.rounds": setting_option("improve.rounds", help="Maximum number of rounds (default 3)."),
    "improve.method": setting_option("improve.method", help="dpo (the default), or sft on the best answers."),
    "improve.model": setting_option(
        "improve.model",
        metavar="RUN|PATH",
        help="Model to improve (default: the newest SFT run; none for the base model).",
        autocompletion=complete_run,
    ),
    "train.base_model": setting_option("train.base_model", help="Base model, as in train."),
    "improve.n": setting_option("improve.n", "--n", "-n", help="Answers to each vibe (default 8)."),
    "search.renders": SearchOption,
    "scoring.scorers": ScorerOption,
    "improve.judge": setting_option("improve.judge", autocompletion=complete_scorer),
    "improve.limit": setting_option("improve.limit", help="At most this many vibes, spread over the texts."),
    "scoring.seconds": SecondsOption,
    "scoring.workers": WorkersOption,
    "train.on": OnOption,
    "llm.max_cost": MaxCostOption,
    "improve.name": setting_option("improve.name"),
}


@sets_settings(OPTIONS)
def improve(
    *,
    given: Values,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any training value: optim.learning_rate=1e-5."),
    ] = None,
    trust_settings: TrustScorersOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Improve a model in rounds: answer the GRPO vibes, train on the best answers, and let a judge decide.

    Examples:

        lsdata improve --rounds 3 --scorer acoustic --judge clap
        lsdata improve --method sft --search 64 --scorer acoustic --judge clap --dry-run
    """
    settings = load(**given)
    executor = make_executor(settings.train.on, settings, say)
    context = RunContext(yes, trusted=trusted_scorers(settings, given, trust_settings))
    asked = Rounds(settings, set_ or [], context)
    if dry_run:
        _show_plan(asked, executor)
        return
    with Workspace(settings.paths.root).lock("improve"), closing(executor):
        summary = run_improve(asked, executor)
    show_sweep(
        [{name: "" if value is None else value for name, value in line.items()} for line in summary.details["rounds"]]
    )
    if not OUTPUT.json:
        del summary.details["rounds"]
    show(summary)


def _show_plan(asked: Rounds, executor: Executor) -> None:
    """Show the plan of all rounds, then exit with the code that the run would have."""
    plan = plan_improve(asked, executor)
    if not OUTPUT.json:
        facts = {
            key.replace("_", " "): f"{value:,}" if isinstance(value, int) else value
            for key, value in plan.items()
            if value is not None and key not in ("plans", "cap_usd")
        }
        if executor.remote:
            facts["at most"] = money(plan["cap_usd"])
        print_facts("dry run: nothing is rendered or trained", facts.items())

    show_dry_run(RunPlan(plans(asked), [], executor), lambda: check_start(asked, executor), document=plan)
