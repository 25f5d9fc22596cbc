"""Rows of CSV and TSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import Line

TABLE_SUFFIXES = (".csv", ".tsv")
MAX_CELL_CHARS = 8 * 2**20
DELIMITERS = ",;\t|"
"""What may stand between the cells of a CSV file; of these the one that its first line has most of."""


def read_table(path: Path, encoding: str) -> Iterator[tuple[int, Line]]:
    """(line where the row ends, row) of a table whose first line names its columns, streamed.

    Cells are texts, and None where a row is short. Blank lines are skipped. Raises :class:`InputError` naming file and line for
    a quotation mark that is not closed, and for a row with more cells than there are columns.
    """
    columns: list[str] = []
    for line, cells in _lines(path, encoding):
        if not columns:
            columns = _unique(cells)
            continue
        if len(cells) > len(columns):
            raise InputError(
                f"{path}:{line}: {len(cells)} cells in a table of {len(columns)} columns",
                "put cells that hold the delimiter into quotation marks",
            )
        missing = [None] * (len(columns) - len(cells))
        yield line, dict(zip(columns, [*cells, *missing], strict=True))


def read_columns(path: Path, encoding: str) -> list[str]:
    """The names of a table's columns. Raises :class:`InputError` for a first line that cannot be read."""
    return _unique(next((cells for _, cells in _lines(path, encoding)), []))


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """(line where the row ends, cells) of the rows that are not blank."""
    csv.field_size_limit(MAX_CELL_CHARS)
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=_delimiter(path, file.readline()), strict=True)
        file.seek(0)
        try:
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except csv.Error as error:
            raise InputError(
                f"{path}:{reader.line_num}: not a table that can be read ({error})", "correct it"
            ) from None


def _delimiter(path: Path, first: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(DELIMITERS, key=first.count)  # of equal counts the first one: a comma


def _unique(names: list[str]) -> list[str]:
    """Names of columns without spaces around them; one that comes again gets a number."""
    found: list[str] = []
    for name in (name.strip() for name in names):
        again = 1
        while (unique := name if again == 1 else f"{name}~{again}") in found:
            again += 1
        found.append(unique)
    return found
