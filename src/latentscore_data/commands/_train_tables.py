"""The tables of ``lsdata train``: the plan of a dry run, the runs of a workspace, the results of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from latentscore_data.commands._options import end_dry_run
from latentscore_data.core.base.display import (
    OUTPUT,
    clean,
    console,
    duration,
    money,
    print_facts,
    print_json,
    print_rows,
    styled,
)
from latentscore_data.core.base.errors import MissingError, raised_by


def show_plans(plans: list[dict[str, Any]], check: Callable[[], object], *, alone: bool) -> None:
    """Show the plans of dry runs; with ``--json`` an object if ``alone``, else a list.

    Exits as the runs would: with the code for something missing, or of the error that ``check`` raises.
    """
    if OUTPUT.json:
        print_json(plans[0] if alone else plans)
    else:
        for plan in plans:
            _show_plan(plan)
    if any(plan["missing"] for plan in plans):
        raise typer.Exit(MissingError.exit_code)
    end_dry_run(next(raised_by(check), None))


def _show_plan(plan: dict[str, Any]) -> None:
    """Show every value with its origin, then the rows, the estimated time and cost, and what is missing."""
    values = [
        [styled(cell, "" if origin != "default" else "dim") for cell in (name, "-" if value is None else value, origin)]
        for name, (value, origin) in plan["spec"].items()
    ]
    print_rows(("value", "", "from"), values, clean(plan["run_id"] or "a run that cannot start yet"))
    facts = {}
    for name, value in plan["audit"].items():
        text = ", ".join(f"{k} {v:,}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,}"
        facts[name.replace("_", " ")] = text or "none"
    if modal := plan["modal"]:
        low, high = duration(modal["low_seconds"]), duration(modal["high_seconds"])
        cost = f"{money(modal['low_usd'])} to {money(modal['high_usd'])}, at most {money(modal['cap_usd'])}"
        facts["with --on modal"] = f"{low} to {high}, {cost} ({modal['basis']})"
    if plan["audit"]:
        print_facts("rows and time", facts.items())
    for line in plan["missing"]:
        console().print(styled(f"missing: {line}", "red"))


def show_runs(lines: list[dict[str, Any]]) -> None:
    """Print a line for each run, the newest first."""
    if OUTPUT.json:
        print_json(lines)
        return
    rows = []
    for line in lines:
        what = [f"{line['kind']} of {line['base_model']}"] if line["kind"] else []
        what.append("on Modal" if line["where"] == "modal" else "here")
        what += [f"{name} {line[name]:.4g}" for name in ("step", "loss", "reward") if line[name] is not None]
        what += [line["error"]] if line["error"] else []
        rows.append((line["run"], line["state"], ", ".join(what)))
    if rows:
        # Users copy the run's name, so it is never wrapped; the other columns are.
        print_rows(("run", "state", "what"), rows, whole=2)
    else:
        console().print("no runs yet: lsdata train sft")


def show_sweep(lines: list[dict[str, Any]]) -> None:
    """Print the members of a sweep as a table; nothing with ``--json``, because the summary contains them."""
    if OUTPUT.json:
        return
    columns = [name for name in lines[0] if any(line[name] is not None for line in lines)]
    rows = [
        [
            duration(line[name]) if name == "seconds" and line[name] is not None
            else f"{line[name]:.4g}" if isinstance(line[name], float) else line[name]
            for name in columns
        ]
        for line in lines
    ]  # fmt: skip
    print_rows([name.replace("_", " ") for name in columns], rows)


def show_check(found: dict[str, Any]) -> None:
    """Print the hash of the code and the versions in a Modal container."""
    if OUTPUT.json:
        print_json(found)
    else:
        typer.echo(f"Modal has the same code ({found['code'][:12]}) and torch {found['versions'].get('torch')}")
