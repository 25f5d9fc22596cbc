"""lsdata doctor: show what is installed, what would fail, and the fix."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from latentscore_data.commands._globals import Globals
from latentscore_data.commands._options import load
from latentscore_data.core.base.display import OUTPUT, clean, print_json, print_rows, styled
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.layers import Values, leaves
from latentscore_data.core.base.settings import resolve_settings
from latentscore_data.core.stages.base import BY_HAND, STAGES
from latentscore_data.core.stages.doctor import Finding, examine, fetch_prices, fetch_weights


def _stages() -> list[str]:
    return [*STAGES, *BY_HAND]


def doctor(
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="STAGE", help="Check what this stage needs.", autocompletion=_stages),
    ] = None,
    fetch: Annotated[
        str | None,
        typer.Option(
            metavar="clap|minilm|prices",
            help="Download these weights, or OpenRouter's price list, now.",
            autocompletion=lambda: ["clap", "minilm", "prices"],
        ),
    ] = None,
    settings: Annotated[bool, typer.Option("--settings", help="Show each effective setting and its origin.")] = False,
) -> None:
    """Show what is installed, which keys and weights exist, what would fail, and the fix.

    Exit code 3 if something is missing, otherwise 0.

    Examples:

        lsdata doctor
        lsdata doctor --for train
        lsdata doctor --fetch clap
        lsdata doctor --fetch prices
    """
    effective = load()
    if settings:
        show_settings()
        return
    if fetch == "prices":
        fetch_prices(effective)
        return
    if fetch is not None:
        fetch_weights(fetch, effective)
        return
    findings = list(examine(effective, for_))
    show_findings(findings)
    broken = [finding for finding in findings if finding.state == "missing"]
    if broken:
        raise typer.Exit(MissingError.exit_code)


def show_findings(findings: list[Finding]) -> None:
    if OUTPUT.json:
        print_json([asdict(finding) for finding in findings])
        return
    marks = {"ok": ("ok", "green"), "absent": ("-", "dim"), "missing": ("missing", "red")}
    rows = []
    subject = ""
    for finding in findings:
        mark, style = marks[finding.state]
        detail = styled(finding.detail)
        if finding.fix:
            detail.append(f"\n-> {clean(finding.fix)}", style="cyan" if finding.state == "missing" else "dim")
        head = styled(finding.subject if finding.subject != subject else "", "bold")
        rows.append((head, finding.name, styled(mark, style), detail))
        subject = finding.subject
    print_rows(("", "", "", ""), rows)


def show_settings() -> None:
    flags: Values = {"paths": {"root": Globals.root}} if Globals.root else {}
    resolved = resolve_settings(Globals.config, **flags)
    rows = [(name, value, resolved.origins[name]) for name, value in leaves(resolved.value.model_dump())]
    if OUTPUT.json:
        print_json([{"name": name, "value": value, "from": origin} for name, value, origin in rows])
        return
    print_rows(("setting", "value", "from"), rows)
