"""A configuration of a data set: its splits as Parquet shards or JSON lines with one schema, read back and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from latentscore_data.core.base.errors import VerificationError
from latentscore_data.core.base.jsonl import Line, read_lines, replace_rows, writing
from latentscore_data.core.base.rows import PUBLISHED_SPLITS, batched
from latentscore_data.core.export.columns import AUDIO, Kind, arrow_schema, columns_of, fitted

ROWS_PER_GROUP = 1_000
ROWS_PER_SHARD = 100_000
AUDIO_ROWS_PER_GROUP = 50
AUDIO_ROWS_PER_SHARD = 500
"""30 s of FLAC are about 3 MB, so groups are about 150 MB and shards below 2 GB, which dataset viewers can load."""

Lines = Callable[[], Iterable[Mapping[str, Any]]]
"""Rows that can be read more than once, each time as a stream."""


def split_name(split: str) -> str:
    """Return the published name of a split: ``SFT-Train`` is ``train``."""
    return PUBLISHED_SPLITS[split]


@dataclass
class Table:
    """A written configuration. Keys are the workspace's splits; paths are relative to the data set's folder."""

    name: str
    columns: dict[str, Kind]
    rows: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    """The files of each split, in order."""


def write_table(
    root: Path,
    name: str,
    folder: str,
    splits: Mapping[str, Lines],
    *,
    parquet: bool,
    kinds: Mapping[str, Kind] | None = None,
) -> Table:
    """Write each split to ``root/folder`` as ``<split>-00000-of-00001.parquet`` or ``<split>.jsonl``; read it back.

    ``kinds`` sets the types of columns that cannot be inferred. Splits without rows are left out. Raises
    :class:`VerificationError` if the files differ when they are read back.
    """
    # All splits have the same columns and types, even if a column is empty in one of them.
    found = columns_of(line for lines in splits.values() for line in lines())
    table = Table(name, {**found, **{column: kind for column, kind in (kinds or {}).items() if column in found}})
    for split, lines in splits.items():
        target = root / folder / split_name(split)
        fit: Lines = fitting(lines, table.columns)
        paths = _write_parquet(target, fit, table.columns) if parquet else write_lines(target, fit)
        if not paths:
            continue
        read = _read_parquet if parquet else _read_jsonl
        table.rows[split] = _compare(paths, read(paths), fit())
        table.bytes[split] = sum(path.stat().st_size for path in paths)
        table.files[split] = [path.relative_to(root).as_posix() for path in paths]
    return table


def fitting(lines: Lines, columns: Mapping[str, Kind]) -> Lines:
    """Return the lines with every column (:func:`fitted`)."""
    return lambda: (fitted(line, columns) for line in lines())


def write_lines(target: Path, lines: Lines) -> list[Path]:
    """Write ``<target>.jsonl``; return its path, or nothing without rows."""
    path = target.with_name(f"{target.name}.jsonl")
    if replace_rows(path, (dict(line) for line in lines())):
        return [path]
    path.unlink()
    return []


def _write_parquet(target: Path, lines: Lines, columns: Mapping[str, Kind]) -> list[Path]:
    import pyarrow
    import pyarrow.parquet

    schema = arrow_schema(columns)
    sound = AUDIO in columns.values()
    group, most = (AUDIO_ROWS_PER_GROUP, AUDIO_ROWS_PER_SHARD) if sound else (ROWS_PER_GROUP, ROWS_PER_SHARD)
    source = iter(lines())
    drafts: list[Path] = []
    while (first := next(source, None)) is not None:
        shard = islice(chain([first], source), most)
        path = target.with_name(f"{target.name}-{len(drafts):05d}.draft")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Opened here, because Arrow accepts only UTF-8 names.
            with (
                path.open("wb") as out,
                pyarrow.parquet.ParquetWriter(out, schema, compression="zstd", write_page_index=True) as writer,
            ):
                for batch in batched(shard, group):
                    writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
        drafts.append(path)
    # The names contain the number of shards, which is known only now.
    names = (f"{target.name}-{n:05d}-of-{len(drafts):05d}.parquet" for n in range(len(drafts)))
    return [draft.rename(draft.with_name(name)) for draft, name in zip(drafts, names, strict=True)]


def _read_parquet(paths: Iterable[Path]) -> Iterator[Line]:
    import pyarrow.parquet

    for path in paths:
        with path.open("rb") as file:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(ROWS_PER_GROUP):
                yield from batch.to_pylist()


def _read_jsonl(paths: Iterable[Path]) -> Iterator[Line]:
    for path in paths:
        yield from (line for _, line in read_lines(path))


def _compare(paths: list[Path], read: Iterable[Any], expected: Iterable[Any]) -> int:
    count = 0
    for count, (got, wanted) in enumerate(zip_longest(read, expected), start=1):
        if got != wanted:
            raise VerificationError(f"row {count} of {paths[0]} differs from what was written", "export it again")
    return count
