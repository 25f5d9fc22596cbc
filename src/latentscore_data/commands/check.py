"""lsdata check: measure the scored rows before they are published."""

from __future__ import annotations

import typer

from latentscore_data.commands._options import load, sets_settings, setting_option
from latentscore_data.core.base.display import OUTPUT, print_json, print_rows, say, styled
from latentscore_data.core.base.errors import EXIT_CHECK_FAILED
from latentscore_data.core.base.layers import Values
from latentscore_data.core.checks.run import run_checks
from latentscore_data.core.checks.types import Report

MARKS = {"ok": ("ok", "green"), "note": ("", "dim"), "fault": ("fault", "red")}


OPTIONS = {
    "export.license": setting_option("export.license", help="Licence that you want to publish under."),
    "check.sounds": setting_option("check.sounds"),
}


@sets_settings(OPTIONS)
def check(*, given: Values) -> None:
    """Check the scored rows before you publish them: duplicates, diversity, leaks, scores, texts and licences.

    Exit code 8 if a measure exceeds its limit; the limits are settings (section check). Changes nothing.

    Examples:

        lsdata check --license cc-by-4.0
        lsdata check --json
    """
    report = run_checks(load(**given))
    say(f"check: {report.rows:,} rows")
    if OUTPUT.json:
        print_json(report.to_dict())
    else:
        _show(report)
    raise typer.Exit(EXIT_CHECK_FAILED if report.faults else 0)


def _show(report: Report) -> None:
    rows = []
    group = ""
    for finding in report.findings:
        mark, style = MARKS[finding.verdict]
        if finding.group != group:
            rows.append((styled(finding.group, "bold"),))
        rows.append((finding.name, finding.value, finding.limit, styled(mark, style)))
        group = finding.group
    print_rows(("measure", "value", "limit", ""), rows)
    for fault in report.faults:
        rows = f"; look at {', '.join(fault.rows)}" if fault.rows else ""
        say(f"check: {fault.group}: {fault.name}: {fault.value}{rows}")
    if not report.faults:
        say("check: every measure is within its limit")
