"""lsdata status: show what each stage has done, what is stale and why, what failed, and the cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from latentscore.json_search import JsonObject
from latentscore_data.commands._globals import Globals
from latentscore_data.commands._models import show_batches
from latentscore_data.commands._options import load
from latentscore_data.core.base.display import (
    OUTPUT,
    clean,
    console,
    print_json,
    print_named,
    print_next,
    print_rows,
    print_winner_scores,
    say,
    styled,
)
from latentscore_data.core.base.display import money as dollars
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.batch_state import FILE_NAME, open_batches
from latentscore_data.core.stages.chain import sample_flags
from latentscore_data.core.stages.improve import known_rounds
from latentscore_data.core.stages.status import StageStatus, look, money_spent


def status(
    sample: Annotated[bool, typer.Option("--sample", help="Show the workspace of run-all --sample.")] = False,
) -> None:
    """Show what each stage has done, what is stale and why, what failed, and the cost. Changes nothing.

    Examples:

        lsdata status
        lsdata status --sample --json
    """
    settings = load()
    if (
        not sample
        and Globals.root is None
        and not _begun(settings.paths.root)
        and _begun(settings.paths.root / "sample")
    ):
        say("status: this workspace has no rows yet; this is the sample workspace")
        sample = True
    if sample:
        settings = load(**sample_flags(Globals.root, Globals.config))
    workspace = Workspace(settings.paths.root)
    if (holder := workspace.holder()) is not None:
        say(f"status: in use {holder}: the states are those of the files until now")
    stages = look(settings, workspace, load)
    money = money_spent(workspace)
    rounds = known_rounds(workspace)
    batches = open_batches(workspace.llm_cache.with_name(FILE_NAME))
    if OUTPUT.json:
        found = {"root": str(workspace.root), "stages": [asdict(stage) for stage in stages], "money": asdict(money)}
        found["improve"] = rounds
        print_json({**found, "batches": [vars(batch) for batch in batches]})
        return
    show_status(workspace, stages, money)
    show_rounds(rounds)
    show_batches(batches)


def _begun(root: Path) -> bool:
    return any((root / folder).is_dir() for folder in (".outputs", ".vibes", ".processed"))


def show_rounds(rounds: list[JsonObject]) -> None:
    """Print a line for each `improve`: its progress and its best model."""
    for one in rounds:
        made = len(one["rounds"]) - 1
        judge = next(line.get(one["judge"]) for line in one["rounds"] if line["model"] == one["best"])
        line = f"improve {one['name']}: round {made}, best {one['best']} ({one['judge']} {judge}); {one.get('stopped') or 'can be continued'}"
        console().print(clean(line))


def show_status(workspace: Workspace, stages: list[StageStatus], money: Usage) -> None:
    print_named("workspace", workspace.root)
    colors = {"fresh": "green", "finished": "green", "stale": "yellow", "begun": "yellow", "not run": "dim"}
    lines = []
    for seen in stages:
        failed = ", ".join(f"{count} {kind}" for kind, count in seen.failed.items())
        why = styled("; ".join(seen.why), "dim")
        rows = "" if seen.rows is None else f"{seen.rows:,}"
        cost = dollars(seen.cost_usd) if seen.state in ("fresh", "stale") else ""
        lines.append((seen.stage, styled(seen.state, colors[seen.state]), rows, failed, cost, why))
    print_rows(("stage", "state", "rows", "failed", "cost", "why"), lines)
    if all(seen.state == "not run" for seen in stages):
        print_next("lsdata run-all --sample (bundled passages), or lsdata download --dataset FOLDER (your own texts)")
    for seen in stages:
        print_winner_scores(seen.details)
    if money.calls:
        spent = f"{dollars(money.cost_usd)} spent on {money.calls:,} calls"
        print_named("money", f"{spent}, {dollars(money.saved_usd)} saved by the cache")
