"""lsdata status: what each stage has done, what is stale and why, what failed, what it cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentscore_data.commands._models import show_batches
from latentscore_data.commands._options import Globals, load
from latentscore_data.core.base.display import OUTPUT, clean, console, histogram, print_json, say
from latentscore_data.core.base.display import money as dollars
from latentscore_data.core.base.layers import merge
from latentscore_data.core.base.ledger import Usage, totals
from latentscore_data.core.base.manifest import StageFiles, read_manifest, stale_reasons
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.batches.state import FILE_NAME, in_json, open_batches
from latentscore_data.core.stages.base import STAGES, Stage, stage_named
from latentscore_data.core.stages.chain import sample_flags
from latentscore_data.core.stages.configs import winners
from latentscore_data.core.stages.improve import known_rounds

if TYPE_CHECKING:
    from pathlib import Path


def status(
    sample: Annotated[bool, typer.Option("--sample", help="The workspace of run-all --sample.")] = False,
) -> None:
    """What each stage has done, what is stale and why, what failed, and what it cost. Changes nothing.

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
        say("status: there are no rows of your own yet; this is the sample workspace")
        sample = True
    if sample:
        settings = load(**sample_flags(Globals.root, Globals.config))
    workspace = Workspace(settings.paths.root)
    stages = look(settings, workspace)
    money = money_spent(workspace)
    rounds = known_rounds(workspace)
    batches = open_batches(workspace.llm_cache.with_name(FILE_NAME))
    if OUTPUT.json:
        found = {"root": str(workspace.root), "stages": [stage.to_dict() for stage in stages], "money": money}
        found["improve"] = rounds
        print_json({**found, "batches": [in_json(batch) for batch in batches]})
        return
    show_status(workspace, stages, money)
    show_rounds(rounds)
    show_batches(batches)


def _begun(root: Path) -> bool:
    return any((root / folder).is_dir() for folder in (".outputs", ".vibes", ".processed"))


@dataclass
class StageStatus:
    """One stage as its manifest and the files beside it tell it."""

    stage: str
    state: str = "not run"
    why: list[str] = field(default_factory=list)
    finished: str = ""
    rows: int | None = None
    failed: dict[str, int] = field(default_factory=dict)
    cost_usd: float | None = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def look(settings: Settings, workspace: Workspace) -> list[StageStatus]:
    """Every stage's state. A stage whose manifest is whole and whose inputs and settings are the same is fresh."""
    found: list[StageStatus] = []
    for stage in STAGES:
        parts = _parts_as_run(stage_named(stage), settings, workspace)
        found += [_look_at(part, workspace) for part in parts] or [StageStatus(stage)]
    for seen in found:
        if seen.stage == "score" and seen.finished:
            scores: list[float] = winners(settings, workspace)["winner_scores"]
            seen.details["winner_scores"] = scores
    return found


def _parts_as_run(stage: Stage, settings: Settings, workspace: Workspace) -> list[StageFiles]:
    """The stage's files under the settings of its last run: what was typed for it then counts as typed now."""
    parts = stage.files(settings, workspace)
    typed: dict[str, Any] = {}
    for part in parts:
        typed = merge(typed, (read_manifest(part.manifest) or {}).get("typed", {}))
    if not typed:
        return parts
    return stage.files(load(**typed, paths={"root": settings.paths.root}), workspace)


def _look_at(part: StageFiles, workspace: Workspace) -> StageStatus:
    seen = StageStatus(part.stage)
    manifest = read_manifest(part.manifest)
    if manifest is None:
        if part.manifest.parent.is_dir() and any(part.manifest.parent.iterdir()):
            seen.state, seen.why = _without_manifest(part)
        return seen
    seen.why = stale_reasons(part, workspace.root)
    seen.state = "stale" if seen.why else "fresh"
    seen.finished = manifest.get("finished", "")
    counts = [fact.get("rows") for fact in manifest.get("outputs", {}).values()]
    seen.rows = sum(count for count in counts if count is not None) if any(c is not None for c in counts) else None
    seen.failed = manifest.get("failed", {})
    seen.cost_usd = manifest.get("cost_usd", 0.0)
    seen.details = manifest.get("details", {})
    return seen


def _without_manifest(part: StageFiles) -> tuple[str, list[str]]:
    """The chain's manifest is missing, but runs by hand have folders of their own, and a mark in each that is finished."""
    mark = stage_named(part.stage).finished_mark if part.stage in STAGES else ""
    folders = [path for path in part.manifest.parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    finished = sum((folder / mark).is_file() for folder in folders) if mark else 0
    if finished == 0:
        return "begun", ["run the same command again to go on"]
    why = [f"{finished} finished, none by run-all"]
    if begun := len(folders) - finished:
        why.append(f"{begun} begun: run the same command again to go on")
    return "begun" if begun else "finished", why


def show_rounds(rounds: list[dict[str, Any]]) -> None:
    """A line for each command improve: how far it is and which model is the best."""
    for one in rounds:
        made = len(one["rounds"]) - 1
        judge = next(line[one["judge"]] for line in one["rounds"] if line["model"] == one["best"])
        line = f"improve {one['name']}: round {made}, best {one['best']} ({one['judge']} {judge}); {one['stopped'] or 'can go on'}"
        console().print(clean(line))


def money_spent(workspace: Workspace) -> dict[str, Any]:
    """What the ledger adds up to, over all runs in this workspace."""
    total = Usage()
    for usage in totals(workspace.ledger).values():
        total.add(usage)
    return asdict(total)


def show_status(workspace: Workspace, stages: list[StageStatus], money: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    out.print(Text.assemble(("workspace ", "dim"), clean(workspace.root)))
    colors = {"fresh": "green", "finished": "green", "stale": "yellow", "begun": "yellow", "not run": "dim"}
    table = Table("stage", "state", "rows", "failed", "cost", "why", box=None)
    for seen in stages:
        failed = clean(", ".join(f"{count} {kind}" for kind, count in seen.failed.items()))
        why = Text(clean("; ".join(seen.why)), style="dim", overflow="fold")
        rows = "" if seen.rows is None else f"{seen.rows:,}"
        cost = dollars(seen.cost_usd) if seen.state in ("fresh", "stale") else ""
        table.add_row(seen.stage, Text(seen.state, style=colors[seen.state]), rows, failed, cost, why)
    out.print(table)
    for seen in stages:
        scores = seen.details.get("winner_scores")
        if isinstance(scores, list) and len(scores) > 1:
            out.print(Text.assemble(("winner scores  ", "dim"), histogram(scores)))
    if money.get("calls"):
        out.print(
            Text.assemble(
                ("money  ", "dim"),
                f"{dollars(money.get('cost_usd'))} spent on {money['calls']:,} calls, "
                f"{dollars(money.get('saved_usd', 0.0))} saved by the cache",
            )
        )
