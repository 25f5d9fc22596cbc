"""Files of rows that somebody put into the workspace: every row gets a name, and nothing else changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentscore_data.core.base.jsonl import read_lines, replace_rows, typed_row
from latentscore_data.core.base.rows import VibeRow


def name_rows(path: Path) -> int:
    """Write a ``row_id`` into the rows of a file that have none; returns how many that were.

    Rows of equal content get different ids, so that none replaces another. Raises :class:`InputError` for a row without
    a vibe; then the file stays as it is.
    """
    if not path.exists():
        return 0
    unnamed = sum(not line.get("row_id") for _, line in read_lines(path, "drop"))
    if unnamed:
        replace_rows(path, _named(path))
    return unnamed


def _named(path: Path) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for number, line in read_lines(path, "drop"):
        if line.get("row_id"):
            yield line
            continue
        row = typed_row(line, VibeRow, f"{path}:{number}")
        seen[row.row_id] += 1
        again = f":{seen[row.row_id]}" if seen[row.row_id] > 1 else ""
        yield {**line, "row_id": row.row_id + again, "dataset": row.dataset, "id_in_dataset": row.id_in_dataset}
