"""The state of each stage, from its manifest and files, and the cost of the workspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.layers import leaves, merge
from latentscore_data.core.base.ledger import Usage, totals
from latentscore_data.core.base.manifest import FileFact, StageFiles, read_manifest, stale_reasons
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages.base import STAGES, Stage, stage_named
from latentscore_data.core.stages.configs import winners


@dataclass
class StageStatus:
    """The state of one stage."""

    stage: str
    state: str = "not run"
    why: list[str] = field(default_factory=list)
    finished: str = ""
    rows: int | None = None
    failed: dict[str, int] = field(default_factory=dict)
    cost_usd: float | None = 0.0
    details: JsonObject = field(default_factory=dict)


Reload = Callable[..., Settings]
"""Reloads the settings with these sections as flags."""


def look(settings: Settings, workspace: Workspace, reload: Reload) -> list[StageStatus]:
    """Return every stage's state. A stage with a valid manifest and unchanged inputs and settings is fresh."""
    facts: dict[Path, FileFact] = {}
    found: list[StageStatus] = []
    as_typed = _reloaded(settings, reload)
    for stage in STAGES:
        try:
            one = stage_named(stage)
            parts = [_as_run(part, one, workspace, as_typed) for part in one.files(settings, workspace)]
        except InputError as error:  # an input, such as a folder of texts, was deleted
            found.append(StageStatus(stage, "stale", [error.message]))
            continue
        found += [_look_at(part, workspace, facts) for part in parts] or [StageStatus(stage)]
    for seen in found:
        if seen.stage == "score" and seen.finished:
            scores: list[float] = winners(settings, workspace)["winner_scores"]
            seen.details["winner_scores"] = scores
    return found


def _reloaded(settings: Settings, reload: Reload) -> Callable[[JsonObject], Settings]:
    """Return a function from the flags of a run to the settings with them, which loads each set of flags once.

    The flags of this call, such as those of ``--sample``, always hold.
    """
    loaded: dict[str, Settings] = {}

    def load(typed: JsonObject) -> Settings:
        key = json.dumps(typed, sort_keys=True)
        if key not in loaded:
            loaded[key] = reload(**merge(typed, settings.typed), paths={"root": settings.paths.root})
        return loaded[key]

    return load


def _as_run(
    part: StageFiles, stage: Stage, workspace: Workspace, as_typed: Callable[[JsonObject], Settings]
) -> StageFiles:
    """Return a part of a stage under the settings of its last run, with the flags of that run.

    A flag does not hold any more if the value that it replaced in the settings file was changed after the run. Each part has
    its own flags: an interrupted or running stage has written the manifest of its first part only.
    """
    manifest = read_manifest(part.manifest) or {}
    typed = manifest.get("typed", {})
    if not typed:
        return part
    settings = as_typed(typed)
    if "replaced" in manifest:  # an earlier version did not write it
        settings = as_typed(_unchanged(typed, manifest["replaced"], settings.replaced))
    again = stage.files(settings, workspace)
    return next((one for one in again if one.manifest == part.manifest), part)


def _unchanged(typed: JsonObject, before: JsonObject, now: JsonObject) -> JsonObject:
    """Return the flags whose replaced values are the same before and now."""
    then, today = dict(leaves(before)), dict(leaves(now))

    def kept(values: JsonObject, prefix: str) -> JsonObject:
        return {
            name: kept(cast(JsonObject, value), f"{prefix}{name}.") if isinstance(value, dict) else value
            for name, value in values.items()
            if isinstance(value, dict) or then.get(prefix + name) == today.get(prefix + name)
        }

    return kept(typed, "")


def _look_at(part: StageFiles, workspace: Workspace, facts: dict[Path, FileFact]) -> StageStatus:
    seen = StageStatus(part.stage)
    manifest = read_manifest(part.manifest)
    if manifest is None:
        if part.manifest.parent.is_dir() and any(part.manifest.parent.iterdir()):
            seen.state, seen.why = _without_manifest(part)
        return seen
    seen.why = stale_reasons(part, workspace.root, facts)
    seen.state = "stale" if seen.why else "fresh"
    seen.finished = manifest.get("finished", "")
    # The file of extracted answers is beside the rows that are made from it.
    outputs = {
        name: fact for name, fact in manifest.get("outputs", {}).items() if workspace.root / name != workspace.extracted
    }
    counts = [fact.get("rows") for fact in outputs.values()]
    seen.rows = sum(count for count in counts if count is not None) if any(c is not None for c in counts) else None
    seen.failed = manifest.get("failed", {})
    seen.cost_usd = manifest.get("cost_usd", 0.0)
    seen.details = manifest.get("details", {})
    return seen


def _without_manifest(part: StageFiles) -> tuple[str, list[str]]:
    """Return the state without the chain's manifest, from the folders of runs by hand and their marks of completion."""
    mark = stage_named(part.stage).finished_mark if part.stage in STAGES else ""
    folders = [path for path in part.manifest.parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    finished = sum((folder / mark).is_file() for folder in folders) if mark else 0
    if finished == 0:
        return "begun", ["run the same command again to continue"]
    why = [f"{finished} finished, none by run-all"]
    if begun := len(folders) - finished:
        why.append(f"{begun} started: run the same command again to continue")
    return "begun" if begun else "finished", why


def money_spent(workspace: Workspace) -> Usage:
    """Return the total of the ledger, over all runs in this workspace."""
    total = Usage()
    for usage in totals(workspace.ledger).values():
        total.add(usage)
    return total
