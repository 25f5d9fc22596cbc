"""Formats of local files: encodings (UTF-8, UTF-16 with a byte-order mark, or the user's), CSV and TSV tables."""

from __future__ import annotations

import codecs
import csv
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import Line, open_packed

BLOCK_BYTES = 1 << 20
UTF8 = "utf-8-sig"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def find_encoding(path: Path, otherwise: str | None = None) -> str:
    """Return an encoding that decodes the whole file: UTF-8, UTF-16 with a byte-order mark, or ``otherwise``.

    Raises :class:`InputError` if there is none (the remedy names an option that decodes the file), and for a file that
    cannot be opened. Damaged compressed files raise no error here; their reader reports them.
    """
    misfit = _misfit(path, UTF8)
    if misfit is None:
        return UTF8
    with open_packed(path) as file:
        encoding = "utf-16" if file.read(2) in UTF16_MARKS else otherwise
    if encoding is None:
        raise InputError(
            f"{path}:{misfit.line}: not UTF-8 at byte {misfit.at} of the line",
            f"save it as UTF-8, or pass --encoding {_likely(misfit.block)}",
        )
    if (misfit := _misfit(path, encoding)) is not None:
        raise InputError(f"{path}:{misfit.line}: neither UTF-8 nor {encoding}", "name another one with --encoding")
    return encoding


@dataclass(frozen=True)
class _Misfit:
    """The position of the first bytes that an encoding cannot decode."""

    line: int
    at: int
    """Offset in the line, in bytes."""
    block: bytes
    """The block of the file that contains them."""


def _misfit(path: Path, encoding: str) -> _Misfit | None:
    decoder = codecs.getincrementaldecoder(encoding)()
    line, at = 1, 0
    before = b""
    try:
        with open_packed(path) as file:
            while True:
                block = file.read(BLOCK_BYTES)
                try:
                    decoder.decode(block, final=not block)
                except UnicodeError as error:
                    good = (before + block)[: error.start] if isinstance(error, UnicodeDecodeError) else b""
                    line, at = _after(good, line, at)
                    return _Misfit(line, at, block)
                whole = before + block
                before = decoder.getstate()[0]
                line, at = _after(whole[: len(whole) - len(before)], line, at)
                if not block:
                    return None
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "check its permissions") from None
    except (OSError, EOFError, zlib.error):
        return None


def _after(read: bytes, line: int, at: int) -> tuple[int, int]:
    """Return line and byte offset after ``read``, from those before it."""
    ends = read.count(b"\n")
    return line + ends, len(read) - read.rfind(b"\n") - 1 if ends else at + len(read)


def _likely(piece: bytes) -> str:
    """Return the probable encoding: cp1252 has letters and quotes where Latin-1 has control characters."""
    return "cp1252" if any(0x80 <= byte < 0xA0 for byte in piece) else "latin-1"


TABLE_SUFFIXES = (".csv", ".tsv")
MAX_CELL_CHARS = 8 * 2**20
DELIMITERS = ",;\t|"
"""Delimiters of CSV files; the most frequent one in the first line is used."""


def read_table(path: Path, encoding: str) -> Iterator[tuple[int, Line]]:
    """Yield (last line of the row, row) of a table whose first line names the columns.

    Cells are texts; missing ones at the end of a row are None. Blank lines are skipped. Raises :class:`InputError` with
    file and line for an unclosed quotation mark, and for a row with more cells than columns.
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
    """Return the names of a table's columns. Raises :class:`InputError` for a first line that cannot be parsed."""
    return _unique(next((cells for _, cells in _lines(path, encoding)), []))


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (last line of the row, cells) of the rows that are not blank."""
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
    return max(DELIMITERS, key=first.count)  # the first one for equal counts: a comma


def _unique(names: list[str]) -> list[str]:
    """Return column names without surrounding spaces; a repeated name gets a number."""
    found: list[str] = []
    for name in (name.strip() for name in names):
        again = 1
        while (unique := name if again == 1 else f"{name}~{again}") in found:
            again += 1
        found.append(unique)
    return found
