"""Shared by the commands that call models: the plan of a dry run, and the exit code that the run would have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from latentscore.json_search import JsonObject
from latentscore_data.commands._options import end_dry_run, load
from latentscore_data.core.base.display import OUTPUT, clean, money, print_json, print_table, say
from latentscore_data.core.base.errors import raised_by
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.llm.batch_state import Batch, age_in_words
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.stages.spending import RunPlan, trust_key_to


def show_dry_run(
    plan: RunPlan, check: Callable[[], object], *, document: Callable[[], JsonObject] | None = None
) -> None:
    """Show the plan, then exit as the run would: with the error that ``check`` raises, or with 0.

    ``document`` makes the JSON document; by default it is the plan of the only model.
    """
    problem = next(iter(raised_by(check)), None)
    if OUTPUT.json:
        found = document() if document is not None else plan.asked[0].to_dict()
        if problem is not None:
            found |= {"error": problem.message, "remedy": problem.remedy, "exit_code": problem.exit_code}
        print_json({"dry_run": True, **found})
    else:
        for asked in plan.asked:
            show_plan(asked)
        for job in plan.remote:
            say(job.in_words())
    end_dry_run(problem)


def load_to_ask(calls: Values, **given: Values) -> Settings:
    """Return the settings of a command that calls models, and allow sending the key of ``--api-key-env`` to their address."""
    settings = load(**given, llm=calls)
    trust_key_to(settings.llm, calls.get("api_key_env"))
    return settings


def trusted_scorers(settings: Settings, given: Values, trust_settings: bool) -> frozenset[str]:
    """The scorers whose code may run: those of the flags, and with ``--trust-settings`` those of the settings file."""
    typed = [*given.get("scoring", {}).get("scorers", ())]
    typed += [given.get(section, {}).get("judge") for section in ("search", "improve")]
    of_settings = [*settings.scoring.scorers, settings.search.judge, settings.improve.judge] if trust_settings else []
    return frozenset(name for name in (*typed, *of_settings) if name is not None)


def show_plan(plan: Plan) -> None:
    """The plan of one model as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="dry run: no calls, no cost", title_justify="left", show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    waiting = f", {plan.in_batches:,} in open batches" if plan.in_batches else ""
    facts = {
        "model": plan.model,
        "rows": f"{plan.rows:,}",
        "calls": f"{plan.calls:,} ({plan.cached:,} more in the cache)" + waiting,
        "tokens": f"{plan.tokens_in:,} in, about {plan.tokens_out:,} out",
        "price": plan.price,
        "cost": money(plan.cost_usd) + (f", {money(plan.worst_usd)} at most" if plan.worst_usd else ""),
        "basis": plan.basis,
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, Text(clean(value)))
    print_table(table)


def show_batches(batches: Sequence[Batch]) -> None:
    """Print the open batches, one line each, with the state of the last query."""
    if not batches:
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    table.add_column("batch", no_wrap=True, min_width=12)
    for name in ("stage", "model", "state", "answered", "failed", "age", "at most"):
        table.add_column(name)
    for batch in batches:
        table.add_row(
            batch.tag,
            batch.stage,
            Text(clean(batch.model)),
            Text(clean(batch.remote_status or batch.state)),
            f"{batch.done:,} of {batch.questions:,}",
            f"{batch.failed:,}",
            age_in_words(batch),
            money(batch.worst_usd),
        )
    print_table(table)
