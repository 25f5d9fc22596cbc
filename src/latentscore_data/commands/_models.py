"""What the stages that cost money share: who answers, what it would cost, and the question before money is spent."""

from __future__ import annotations

from latentscore_data.core.base.display import OUTPUT, clean, console, money, print_json
from latentscore_data.core.llm.plan import Plan


def show_plan(plan: Plan) -> None:
    """The plan of a dry run, as a table or as one JSON document."""
    if OUTPUT.json:
        print_json({"dry_run": True, **plan.to_dict()})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="dry run: nothing is asked, nothing is spent", title_justify="left", show_header=False, box=None
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    facts = {
        "model": plan.model,
        "rows": f"{plan.rows:,}",
        "calls": f"{plan.calls:,} ({plan.cached:,} more are in the cache)",
        "tokens": f"{plan.tokens_in:,} in, about {plan.tokens_out:,} out",
        "cost": money(plan.cost_usd) + (f", {money(plan.worst_usd)} at the very most" if plan.worst_usd else ""),
        "basis": plan.basis,
    }
    for name, value in facts.items():
        table.add_row(name, Text(clean(value)))
    console().print(table)
