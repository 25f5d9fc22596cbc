"""Marks of rows (good, bad, a note) and answers to "which fits better?", in one file of the workspace."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

from latentscore.seeds import digest
from latentscore_data.core.base.jsonl import Appender, Line, read_lines
from latentscore_data.core.base.payloads import Payload

Verdict = Literal["good", "bad", "none"]
VERDICTS: tuple[Verdict, ...] = ("good", "bad", "none")


@dataclass(frozen=True)
class Mark:
    """The newest verdict on a row; ``none`` removes an earlier one."""

    verdict: Verdict = "none"
    note: str = ""


@dataclass(frozen=True)
class Preference:
    """One answer to "which fits better?": two payloads for one vibe, their sources, and their scores at that time."""

    row_id: str
    vibe: str
    better: Payload
    worse: Payload
    better_source: str = ""
    worse_source: str = ""
    better_score: float | None = None
    worse_score: float | None = None
    document: str = ""
    """The source document of the row, because answers about one document are not independent."""
    tied: bool = False
    """Whether the answer was "no difference"; the order of ``better`` and ``worse`` then has no meaning."""

    @property
    def pair(self) -> tuple[str, ...]:
        """The row and its two configs, whichever was better."""
        return (self.row_id, *sorted(config_digest(payload) for payload in (self.better, self.worse)))


def config_digest(payload: Mapping[str, Any]) -> str:
    """A name for the config of a payload, the same for equal configs."""
    return digest(sorted(dict(payload["config"]).items()))


def marks_file(root: Path) -> Path:
    """Where the marks of a workspace are kept. The file is only ever appended to."""
    return root / ".marks" / "marks.jsonl"


def add_mark(root: Path, row_id: str, mark: Mark) -> None:
    """Append a verdict. Raises :class:`OutputError` when the disk refuses."""
    _append(root, {"kind": "mark", "row_id": row_id, "verdict": mark.verdict, "note": mark.note})


def add_preference(root: Path, preference: Preference) -> None:
    """Append the answer to a pair. Raises :class:`OutputError` if it cannot be written."""
    _append(root, {"kind": "pair", **asdict(preference)})


def _append(root: Path, line: Line) -> None:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with Appender(marks_file(root)) as file:
        file.append({**line, "created": created})


def read_marks(root: Path) -> dict[str, Mark]:
    """The newest mark of each row that has one. Raises :class:`InputError` for a damaged file."""
    path = marks_file(root)
    found: dict[str, Mark] = {}
    for _, line in read_lines(path, torn="drop") if path.exists() else ():
        if line.get("kind") == "mark" and line.get("verdict") in VERDICTS:
            found[str(line.get("row_id"))] = Mark(line["verdict"], str(line.get("note") or ""))
    return {row_id: mark for row_id, mark in found.items() if mark != Mark()}


def read_preferences(root: Path, *, ties: bool = False) -> list[Preference]:
    """Return every answered pair once, in file order, with its newest answer. Lines without two configs are left out,
    and ties unless ``ties`` is true.

    Raises :class:`InputError` for a damaged file.
    """
    path = marks_file(root)
    found: dict[tuple[str, ...], Preference] = {}
    for _, line in read_lines(path, torn="drop") if path.exists() else ():
        if line.get("kind") == "pair" and all(has_config(line.get(side)) for side in ("better", "worse")):
            one = _preference(line)
            found[one.pair] = one
    return [one for one in found.values() if ties or not one.tied]


def _preference(line: Mapping[str, Any]) -> Preference:
    """The answer of a line; what is missing or of another type is left empty."""

    def text(name: str) -> str:
        return str(line.get(name) or "")

    def score(name: str) -> float | None:
        value = line.get(name)
        return value if isinstance(value, int | float) else None

    return Preference(
        text("row_id"), text("vibe"), line["better"], line["worse"], text("better_source"), text("worse_source"),
        score("better_score"), score("worse_score"), text("document"), line.get("tied") is True,
    )  # fmt: skip


def has_config(payload: Any) -> TypeGuard[Payload]:
    """True for a payload with a config in it, whatever the config holds."""
    return isinstance(payload, dict) and isinstance(payload.get("config"), dict)


def bad_rows(root: Path) -> frozenset[str]:
    """The ids of the rows that are marked bad."""
    return frozenset(row_id for row_id, mark in read_marks(root).items() if mark.verdict == "bad")
