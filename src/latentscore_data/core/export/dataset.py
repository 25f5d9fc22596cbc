"""The scored rows as a folder that ``datasets.load_dataset`` reads, with a card that says where they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from latentscore_data.core.base.errors import InputError, VerificationError, require
from latentscore_data.core.base.jsonl import read_lines, read_rows, replace_rows, writing
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.export.columns import Kind, arrow_schema, columns_of, fitted

# Ours alone: it names a question in our cache and means nothing to a reader.
_PRIVATE_COLUMNS = ("input_fingerprint", "unfinished")
_BATCH = 1000

Rows = Callable[[], Iterable[ScoredRow]]
"""Rows that can be read more than once, each time as a stream."""


def split_name(split: str) -> str:
    """A split as ``datasets`` allows it to be called: SFT-Train is SFT_Train there."""
    return split.replace("-", "_")


@dataclass
class DatasetFacts:
    """What was written, as the card tells it."""

    columns: dict[str, Kind]
    rows: dict[str, int]
    """Rows per split, in our own names of splits."""
    bytes: dict[str, int]
    parquet: bool
    with_config: int = 0
    noisy: int = 0
    levels: Counter[str] = field(default_factory=Counter)
    scopes: Counter[str] = field(default_factory=Counter)
    vibe_models: Counter[str] = field(default_factory=Counter)
    config_models: Counter[str] = field(default_factory=Counter)
    sources: dict[str, set[str]] = field(default_factory=dict)
    """Source documents per split."""
    winners: dict[str, list[float]] = field(default_factory=dict)
    """Scorer -> the winners' scores."""
    candidates: dict[str, list[float]] = field(default_factory=dict)
    """Scorer -> all candidates' scores."""
    best_of: Counter[int] = field(default_factory=Counter)
    """How many candidates rows have."""


def wants_parquet(setting: str) -> bool:
    """Whether Parquet is written: ``always`` needs pyarrow (:class:`MissingError`), ``auto`` takes it where it is."""
    if setting == "always":
        require("pyarrow", "hub", "writing Parquet")
    return setting != "never" and find_spec("pyarrow") is not None


def write_dataset(folder: Path, splits: Mapping[str, Rows], *, parquet: bool) -> DatasetFacts:
    """Write ``jsonl/<SPLIT>.jsonl`` and, when asked, ``data/<SPLIT>.parquet`` with equal columns; splits without rows
    are left out.

    Raises :class:`InputError` when there are no rows at all.
    """
    # One set of columns for all splits: a column that is empty in one of them still has its type there.
    columns = columns_of(exported(row) for rows in splits.values() for row in rows())
    facts = DatasetFacts(columns, rows={}, bytes={}, parquet=parquet)
    for split, rows in splits.items():
        path = folder / "jsonl" / f"{split_name(split)}.jsonl"
        count = replace_rows(path, (fitted(exported(row), columns) for row in _counted(split, rows(), facts)))
        if count == 0:
            path.unlink()
            continue
        facts.rows[split], facts.bytes[split] = count, path.stat().st_size
        if parquet:
            _write_parquet(folder / "data" / f"{split_name(split)}.parquet", path, columns)
    if not facts.rows:
        raise InputError("there are no scored rows to export", "run lsdata configs first")
    return facts


def exported(row: ScoredRow) -> dict[str, Any]:
    """A row as it is published: every field, pages always as a list."""
    values = row.model_dump(mode="json", exclude=set(_PRIVATE_COLUMNS))
    pages = values["text_page"]
    values["text_page"] = pages if isinstance(pages, list) else [pages]
    return values


def _counted(split: str, rows: Iterable[ScoredRow], facts: DatasetFacts) -> Iterator[ScoredRow]:
    for row in rows:
        facts.with_config += row.config_payload is not None
        facts.noisy += row.vibe_noisy is not None and row.vibe_noisy != row.vibe_original
        facts.levels[row.vibe_level] += 1
        facts.scopes[row.vibe_scope] += 1
        facts.vibe_models[row.vibe_model or "not stated"] += 1
        facts.config_models[row.config_model or "not stated"] += 1
        facts.sources.setdefault(split, set()).add(row.source_id)
        facts.best_of[len(row.config_candidates)] += 1
        for scorer, scores in row.candidate_scores.items():
            facts.candidates.setdefault(scorer, []).extend(score for score in scores if score is not None)
            if row.best_index is not None and row.best_index < len(scores):
                best = scores[row.best_index]
                if best is not None:
                    facts.winners.setdefault(scorer, []).append(best)
        yield row


def count_rows(splits: Mapping[str, Rows]) -> DatasetFacts:
    """What :func:`write_dataset` would say of the rows, without writing any."""
    facts = DatasetFacts({}, rows={}, bytes={}, parquet=False)
    for split, rows in splits.items():
        count = sum(1 for _ in _counted(split, rows(), facts))
        if count:
            facts.rows[split] = count
    return facts


def all_rows(splits: Mapping[str, Rows]) -> Iterator[ScoredRow]:
    """The rows of all splits, one after the other."""
    for rows in splits.values():
        yield from rows()


def _write_parquet(path: Path, rows: Path, columns: Mapping[str, Kind]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = arrow_schema(columns)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            lines = (line for _, line in read_lines(rows))
            while batch := list(islice(lines, _BATCH)):
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))


def verify_dataset(folder: Path, facts: DatasetFacts) -> None:
    """Read back what was written: JSONL as rows of ours, Parquet equal to the JSONL.

    Raises :class:`VerificationError`.
    """
    for split, expected in facts.rows.items():
        jsonl = folder / "jsonl" / f"{split_name(split)}.jsonl"
        lines = [line for _, line in read_lines(jsonl)]
        if len(lines) != expected:
            raise VerificationError(f"{jsonl} has {len(lines)} rows, not {expected}", "export it again")
        if facts.parquet:
            import pyarrow.parquet

            path = folder / "data" / f"{split_name(split)}.parquet"
            if pyarrow.parquet.read_table(path).to_pylist() != lines:
                raise VerificationError(f"{path} differs from {jsonl}", "export it again")


def readers(
    workspace_file: Callable[[str], Path], splits: Sequence[str], left_out: frozenset[str] = frozenset()
) -> dict[str, Rows]:
    """The rows of each split that has a file, read anew each time, without those whose ids are ``left_out``.

    Raises :class:`InputError` when no split has a file.
    """
    from functools import partial

    def kept(path: Path) -> Iterator[ScoredRow]:
        return (row for row in read_rows(path, ScoredRow) if row.row_id not in left_out)

    found = {split: path for split in splits if (path := workspace_file(split)).exists()}
    if not found:
        raise InputError(f"no scored rows in {workspace_file(splits[0]).parent}", "run lsdata configs first")
    return {split: partial(kept, path) for split, path in found.items()}
