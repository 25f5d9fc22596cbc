"""lsdata check: measure the scored rows before they are published."""

from __future__ import annotations

from typing import Annotated

import typer

from latentscore_data.commands._options import load
from latentscore_data.core.base.display import OUTPUT, clean, print_json, print_table, say
from latentscore_data.core.base.errors import EXIT_CHECK_FAILED
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.checks.run import run_checks
from latentscore_data.core.checks.types import Report

MARKS = {"ok": ("ok", "green"), "note": ("", "dim"), "fault": ("fault", "red")}


def check(
    license: Annotated[str | None, typer.Option(help="Licence that you want to publish under.")] = None,
    sounds: Annotated[
        int | None, typer.Option(help="Number of winners to render and measure; 0 for none.", min=0)
    ] = None,
) -> None:
    """Check the scored rows before you publish them: duplicates, diversity, leaks, scores, texts and licences.

    Exit code 8 if a measure exceeds its limit; the limits are settings (section check). Changes nothing.

    Examples:

        lsdata check --license cc-by-4.0
        lsdata check --json
    """
    settings = load(export=chosen(license=license), check=chosen(sounds=sounds))
    report = run_checks(settings)
    say(f"check: {report.rows:,} rows")
    if OUTPUT.json:
        print_json(report.to_dict())
    else:
        _show(report)
    raise typer.Exit(EXIT_CHECK_FAILED if report.faults else 0)


def _show(report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("measure", "value", "limit", "", box=None)
    group = ""
    for finding in report.findings:
        mark, style = MARKS[finding.verdict]
        if finding.group != group:
            table.add_row(Text(finding.group, style="bold"))
        table.add_row(
            Text(clean(finding.name)),
            Text(clean(finding.value)),
            Text(clean(finding.limit)),
            Text(mark, style=style),
        )
        group = finding.group
    print_table(table)
    for fault in report.faults:
        rows = f"; look at {', '.join(fault.rows)}" if fault.rows else ""
        say(f"check: {fault.group}: {fault.name}: {fault.value}{rows}")
    if not report.faults:
        say("check: every measure is within its limit")
