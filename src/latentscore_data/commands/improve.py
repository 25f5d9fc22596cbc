"""lsdata improve: rounds in which a model answers, its answers are scored, and the next model learns from the best."""

from __future__ import annotations

from typing import Annotated

import typer

from latentscore_data.commands._models import show_dry_run
from latentscore_data.commands._options import (
    DryRunOption,
    JudgeOption,
    LimitOption,
    MaxCostOption,
    OnOption,
    ScorerOption,
    SearchOption,
    SecondsOption,
    TrustScorersOption,
    WorkersOption,
    YesOption,
    complete_run,
    load,
    show,
)
from latentscore_data.commands._train_tables import show_sweep
from latentscore_data.core.base.display import OUTPUT, clean, print_table, say
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.compute.types import Executor
from latentscore_data.core.stages.improve import Rounds, check, plan_improve, plans, run_improve
from latentscore_data.core.stages.spending import RunPlan, check_spending


def improve(
    rounds: Annotated[int | None, typer.Option(help="Rounds at most (default 3).", min=1, max=100)] = None,
    method: Annotated[str | None, typer.Option(help="dpo (the default), or sft on the best answers.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|PATH",
            help="What is improved (default: the newest SFT run; none for the base model).",
            autocompletion=complete_run,
        ),
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Base model, as in train.")] = None,
    n: Annotated[
        int | None, typer.Option("--n", "-n", help="Answers to each vibe (default 8).", min=2, max=256)
    ] = None,
    search: SearchOption = None,
    scorer: ScorerOption = None,
    judge: JudgeOption = None,
    limit: LimitOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any training value: optim.learning_rate=1e-5."),
    ] = None,
    seconds: SecondsOption = None,
    workers: WorkersOption = None,
    on: OnOption = None,
    max_cost: MaxCostOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the rounds' folder and runs.")] = None,
    trust_settings: TrustScorersOption = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Improve a model in rounds: it answers the GRPO vibes, the best answers train the next one, a judge decides.

    Examples:

        lsdata improve --rounds 3 --scorer acoustic --judge clap
        lsdata improve --method sft --search 64 --scorer acoustic --judge clap --dry-run
    """
    settings = load(
        improve=chosen(rounds=rounds, method=method, model=model, n=n, limit=limit, judge=judge, name=name),
        scoring=chosen(scorers=scorer, seconds=seconds, workers=workers),
        search=chosen(renders=search),
        train=chosen(base_model=base_model, on=on),
        llm=chosen(max_cost=max_cost),
    )
    executor = make_executor(settings.train.on, settings, say)
    named = [*(settings.scoring.scorers if trust_settings else scorer or ())]
    if settings.improve.judge and (judge or trust_settings):
        named.append(settings.improve.judge)
    asked = Rounds(settings, set_ or [], frozenset(named), yes)
    if dry_run:
        _show_plan(asked, executor)
        return
    with Workspace(settings.paths.root).lock("improve"):
        summary = run_improve(asked, executor)
    show_sweep(
        [{name: "" if value is None else value for name, value in line.items()} for line in summary.details["rounds"]]
    )
    if not OUTPUT.json:
        del summary.details["rounds"]
    show(summary)


def _show_plan(asked: Rounds, executor: Executor) -> None:
    """What all rounds would do; ends as the run would."""
    from rich.table import Table

    plan = plan_improve(asked, executor)
    paid = plans(asked)
    if not OUTPUT.json:
        facts = Table(
            show_header=False, title="dry run: nothing is rendered or trained", title_justify="left", box=None
        )
        for key, value in plan.items():
            if value is not None and key != "plans":
                facts.add_row(key.replace("_", " "), clean(f"{value:,}" if isinstance(value, int) else value))
        print_table(facts)

    def would_fail() -> None:
        check(asked)
        for one in paid:
            check_spending(one, asked.settings.llm)

    show_dry_run(RunPlan(paid), would_fail, document=lambda: plan)
