"""The candidates and scored rows of a workspace; each file is read once per run, and rows from other tools get ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from latentscore_data.core.base.closing import Closing
from latentscore_data.core.base.jsonl import Line, read_lines, replace_rows, typed_row
from latentscore_data.core.base.manifest import FileFact
from latentscore_data.core.base.row_index import RowIndex
from latentscore_data.core.base.rows import ScoredRow, Split, VibeRow
from latentscore_data.core.base.workspace import Workspace

FIRST_SPLIT: Split = "SFT-Train"
"""The split of rows without a split."""


class RowFiles(Closing):
    """``.processed/candidates.jsonl`` and ``.processed/<SPLIT>.jsonl``, indexed when first needed.

    Both halves of the stage ``configs`` share one instance, so that files are not read twice. Code that replaces a file
    without its index must call :meth:`forget`.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._known: dict[Path, RowIndex] = {}

    @property
    def candidates(self) -> RowIndex:
        return self._index(self.workspace.candidates)

    def scored(self, split: str) -> RowIndex:
        return self._index(self.workspace.scored(split))

    def _index(self, path: Path) -> RowIndex:
        if path not in self._known:
            self._known[path] = RowIndex(path, name=lambda line, place: typed_row(line, ScoredRow, place).row_id)
        return self._known[path]

    def homes(self) -> Mapping[str, Split]:
        """The split of each row that has candidates."""
        return {key: cast("Split", entry.split or FIRST_SPLIT) for key, entry in self.candidates.entries.items()}

    def put_there(self, split: str, homes: Mapping[str, Split]) -> dict[str, bool]:
        """Return the scored rows of a split from other tools or workspaces, and whether each has a config that can be
        scored.

        These are rows that no stage made, and rows without candidates in this workspace.
        """
        entries = self.scored(split).entries
        return {key: entry.has_config for key, entry in entries.items() if not (entry.ours and key in homes)}

    def name_rows(self, path: Path) -> None:
        """Write a ``row_id`` into the rows of a file that have none.

        Rows of equal content get different ids, so that none replaces another. Raises :class:`InputError` for a row
        without a vibe; then the file stays as it is.
        """
        if self._index(path).unnamed:
            replace_rows(path, _named(path))
            self.forget(path)

    def forget(self, path: Path) -> None:
        """Read the file again when it is needed next."""
        if (index := self._known.pop(path, None)) is not None:
            index.close()

    def facts(self) -> dict[Path, FileFact]:
        """What a manifest says of the files that were read."""
        return {path: index.fact() for path, index in self._known.items() if path.exists()}

    def close(self) -> None:
        for path in list(self._known):
            self.forget(path)


def _named(path: Path) -> Iterator[Line]:
    seen: Counter[str] = Counter()
    for number, line in read_lines(path, "drop"):
        if line.get("row_id"):
            yield line
            continue
        row = typed_row(line, VibeRow, f"{path}:{number}")
        seen[row.row_id] += 1
        again = f":{seen[row.row_id]}" if seen[row.row_id] > 1 else ""
        yield {**line, "row_id": row.row_id + again, "dataset": row.dataset, "id_in_dataset": row.id_in_dataset}
