"""What people think of rows: good, bad, a note, and which of two candidates fits better, in one file of the workspace."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentscore_data.core.base.jsonl import Appender, read_lines

Verdict = Literal["good", "bad", "none"]
VERDICTS: tuple[Verdict, ...] = ("good", "bad", "none")


@dataclass(frozen=True)
class Mark:
    """The newest verdict on a row; ``none`` takes an earlier one back."""

    verdict: Verdict = "none"
    note: str = ""


def marks_file(root: Path) -> Path:
    """Where the marks of a workspace are kept. The file is only ever appended to."""
    return root / ".marks" / "marks.jsonl"


def add_mark(root: Path, row_id: str, mark: Mark) -> None:
    """Append a verdict. Raises :class:`OutputError` when the disk refuses."""
    _append(root, {"kind": "mark", "row_id": row_id, "verdict": mark.verdict, "note": mark.note})


def add_preference(root: Path, row_id: str, vibe: str, better: dict[str, Any], worse: dict[str, Any]) -> None:
    """Append that of two payloads for a vibe one fits better. Raises :class:`OutputError` when the disk refuses."""
    _append(root, {"kind": "pair", "row_id": row_id, "vibe": vibe, "better": better, "worse": worse})


def _append(root: Path, line: dict[str, Any]) -> None:
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


def bad_rows(root: Path) -> frozenset[str]:
    """The ids of the rows that are marked bad."""
    return frozenset(row_id for row_id, mark in read_marks(root).items() if mark.verdict == "bad")
