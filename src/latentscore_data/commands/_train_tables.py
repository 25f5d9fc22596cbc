"""What ``lsdata train`` prints for people: the plan of a dry run, the runs of a workspace, the table of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from latentscore_data.commands._options import end_dry_run
from latentscore_data.core.base.display import OUTPUT, clean, console, duration, money, print_json, print_table
from latentscore_data.core.base.errors import MissingError, raised_by


def show_plans(plans: list[dict[str, Any]], check: Callable[[], object], *, alone: bool) -> None:
    """Dry runs, one after the other; with ``--json`` one object when it stands alone, else a list.

    Leave as the runs would: with the exit code of a missing thing, or of the error that ``check`` raises.
    """
    if OUTPUT.json:
        print_json(plans[0] if alone else plans)
    else:
        for plan in plans:
            _show_plan(plan)
    if any(plan["missing"] for plan in plans):
        raise typer.Exit(MissingError.exit_code)
    end_dry_run(next(iter(raised_by(check)), None))


def _show_plan(plan: dict[str, Any]) -> None:
    """Every value with its origin, then what the rows are, what training would take, and what is missing."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    values = Table(
        "value", "", "from", title=plan["run_id"] or "a run that cannot start yet", title_justify="left", box=None
    )
    for name, (value, origin) in plan["spec"].items():
        values.add_row(
            name, "-" if value is None else clean(value), clean(origin), style="" if origin != "default" else "dim"
        )
    print_table(values)
    facts = Table(show_header=False, title="rows and time", title_justify="left", box=None)
    for name, value in plan["audit"].items():
        text = ", ".join(f"{k} {v:,}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,}"
        facts.add_row(name.replace("_", " "), clean(text or "none"))
    if modal := plan["modal"]:
        low, high = duration(modal["low_seconds"]), duration(modal["high_seconds"])
        cost = f"{money(modal['low_usd'])} to {money(modal['high_usd'])}, at most {money(modal['cap_usd'])}"
        facts.add_row("with --on modal", f"{low} to {high}, {cost}")
        facts.add_row("", clean(modal["basis"]))
    if plan["audit"]:
        print_table(facts)
    for line in plan["missing"]:
        out.print(Text(f"missing: {clean(line)}", style="red"))


def show_runs(lines: list[dict[str, Any]]) -> None:
    """A line for each run, the newest first."""
    if OUTPUT.json:
        print_json(lines)
        return
    from rich.table import Column, Table

    # The run's name is typed again after this, so it stays whole and the rest gives way.
    table = Table(Column("run", no_wrap=True), Column("state", no_wrap=True), "what", box=None)
    for line in lines:
        what = [f"{line['kind']} of {line['base_model']}"] if line["kind"] else []
        what.append("on Modal" if line["where"] == "modal" else "here")
        what += [f"{name} {line[name]:.4g}" for name in ("step", "loss", "reward") if line[name] is not None]
        what += [line["error"]] if line["error"] else []
        table.add_row(clean(line["run"]), clean(line["state"]), clean(", ".join(what)))
    console().print(table if lines else "no runs yet: lsdata train sft")


def show_sweep(lines: list[dict[str, Any]]) -> None:
    """The members of a sweep beside each other; nothing with ``--json``, where the summary holds them."""
    from rich.table import Table

    if OUTPUT.json:
        return
    columns = [name for name in lines[0] if any(line[name] is not None for line in lines)]
    table = Table(*[name.replace("_", " ") for name in columns], box=None)
    for line in lines:
        cells = [
            duration(line[name]) if name == "seconds" and line[name] is not None
            else f"{line[name]:.4g}" if isinstance(line[name], float) else clean(line[name])
            for name in columns
        ]  # fmt: skip
        table.add_row(*cells)
    print_table(table)


def show_check(found: dict[str, Any]) -> None:
    """What a container on Modal sees of this code."""
    if OUTPUT.json:
        print_json(found)
    else:
        typer.echo(f"Modal sees this code ({found['code'][:12]}) with torch {found['versions'].get('torch')}")
