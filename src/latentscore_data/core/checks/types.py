"""The types of the checks: findings, the report, and the columns of a scored row that checks read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from latentscore import FIELDS
from latentscore.json_search import JsonObject
from latentscore_data.core.base.jsonl import read_rows
from latentscore_data.core.base.rows import SPLITS, ScoredRow
from latentscore_data.core.base.workspace import Workspace

Verdict = Literal["ok", "note", "fault"]
EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One measure. The verdict ``fault`` is beyond its limit; ``note`` has no limit or could not be measured."""

    group: str
    name: str
    value: str
    verdict: Verdict = "note"
    limit: str = ""
    rows: tuple[str, ...] = ()
    """Ids of affected rows, at most :data:`EXAMPLES`."""


def share_finding(group: str, name: str, ids: Sequence[str], total: int, limit: float) -> Finding:
    """Return a finding for the rows ``ids`` of ``total``; it is a fault if their share is above ``limit``."""
    share = len(ids) / total if total else 0.0
    value = f"{len(ids):,} of {total:,} ({share:.1%})"
    return Finding(group, name, value, "fault" if share > limit else "ok", f"{limit:.1%}", tuple(ids[:EXAMPLES]))


@dataclass(frozen=True, slots=True)
class RowView:
    """The parts of a scored row that checks read. A view needs a few hundred bytes, so that all rows fit in memory."""

    row_id: str
    split: str
    source: str
    vibe: str
    model: str
    config: bytes
    """The winner's labels as indices into ``FIELDS``, one byte each; empty without a winner."""
    scores: tuple[tuple[str, float], ...]
    """(scorer, the winner's score); the first is the scorer that selected the winner."""
    margin: float | None
    """The winner's score minus that of the next candidate, by the scorer that selected it."""
    unread: bool
    """Whether the scorer that selected the winner knows no word of the vibe."""


_INDEX = {name: {value: i for i, value in enumerate(spec.labels)} for name, spec in FIELDS.items()}


def read_views(workspace: Workspace, note: Callable[[ScoredRow], None]) -> list[RowView]:
    """Return views of the scored rows of all splits. ``note`` gets each whole row, so that files are read once."""
    views: list[RowView] = []
    for split in SPLITS:
        path = workspace.scored(split)
        for row in read_rows(path, ScoredRow) if path.exists() else ():
            note(row)
            views.append(view_of(row, split))
    return views


def view_of(row: ScoredRow, split: str) -> RowView:
    """Return the view of a row. Values that do not fit the schema count as missing."""
    scorer, scores = next(iter(row.candidate_scores.items()), ("", []))
    known = sorted((score for score in scores if score is not None), reverse=True)
    details = row.scores_external.get(scorer)
    return RowView(
        row_id=row.row_id,
        split=split,
        source=row.source_id,
        vibe=row.vibe_original,
        model=f"{row.vibe_model or ''}\n{row.config_model or ''}",
        config=labels_of((row.config_payload or {}).get("config")),
        scores=tuple(row.winner_scores.items()),
        margin=known[0] - known[1] if len(known) > 1 else None,
        unread=isinstance(details, Mapping) and details.get("words") == 0,
    )


def labels_of(config: Any) -> bytes:
    """Return the labels of a config as indices, one byte each; empty for a config that does not fit the schema."""
    if not isinstance(config, Mapping):
        return b""
    try:
        return bytes(_INDEX[name][config[name]] for name in FIELDS)
    except (KeyError, TypeError):
        return b""


def label_matrix(views: Iterable[RowView]) -> NDArray[np.uint8]:
    """Return the winners' label indices, shape (winners, fields)."""
    joined = b"".join(view.config for view in views if view.config)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, len(FIELDS))


@dataclass
class Report:
    """All findings of a workspace."""

    findings: list[Finding]
    rows: int

    @property
    def faults(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict == "fault"]

    def to_dict(self) -> JsonObject:
        return {"faults": len(self.faults), "findings": [asdict(finding) for finding in self.findings]}
