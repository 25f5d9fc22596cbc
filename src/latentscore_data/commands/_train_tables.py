"""What ``lsdata train`` prints for people: the plan of a dry run, the runs of a workspace, the table of a sweep."""

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
    """A line for each run, the newest first."""
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
        # The run's name is typed again after this, so it stays whole and the rest gives way.
        print_rows(("run", "state", "what"), rows, whole=2)
    else:
        console().print("no runs yet: lsdata train sft")


def show_sweep(lines: list[dict[str, Any]]) -> None:
    """The members of a sweep beside each other; nothing with ``--json``, where the summary holds them."""
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
    """What a container on Modal sees of this code."""
    if OUTPUT.json:
        print_json(found)
    else:
        typer.echo(f"Modal sees this code ({found['code'][:12]}) with torch {found['versions'].get('torch')}")
