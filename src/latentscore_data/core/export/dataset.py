"""The scored rows as a data set that ``datasets.load_dataset`` reads, and its numbers for the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from latentscore_data.core.base.errors import InputError, require
from latentscore_data.core.base.jsonl import Line, read_rows
from latentscore_data.core.base.marks import Preference
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.export.chat import preference_lines, sft_lines
from latentscore_data.core.export.columns import AUDIO
from latentscore_data.core.export.sounds import Sounds
from latentscore_data.core.export.tables import Lines, Table, fitting, split_name, write_lines, write_table
from latentscore_data.core.vibes.tags import tags_of

_PRIVATE_COLUMNS = {"input_fingerprint", "unfinished"}
"""Keys of the answer cache and the state of a row; not published."""

Rows = Callable[[], Iterable[ScoredRow]]
"""Rows that can be read more than once, each time as a stream."""


@dataclass
class DatasetFacts:
    """The numbers of the rows, for the card and the report."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows by split, with the workspace's names of splits."""
    with_config: int = 0
    noisy: int = 0
    vibe_models: Counter[str] = field(default_factory=Counter)
    config_models: Counter[str] = field(default_factory=Counter)
    sources: dict[str, set[str]] = field(default_factory=dict)
    """Source documents by split."""
    winners: dict[str, list[float]] = field(default_factory=dict)
    """Scorer -> the winners' scores."""
    candidates: dict[str, list[float]] = field(default_factory=dict)
    """Scorer -> all candidates' scores."""
    best_of: Counter[int] = field(default_factory=Counter)
    """Number of candidates -> number of rows."""
    converted: Counter[str] = field(default_factory=Counter)
    """Note about a change of a config -> number of rows."""


def wants_parquet(setting: str) -> bool:
    """Return True to write Parquet: for ``always`` and, if pyarrow is installed, for ``auto``.

    Raises :class:`MissingError` for ``always`` without pyarrow.
    """
    if setting == "always":
        require("pyarrow", "hub", "writing Parquet")
    return setting != "never" and find_spec("pyarrow") is not None


def write_dataset(
    folder: Path, splits: Mapping[str, Rows], *, parquet: bool, sounds: Sounds | None, answers: Sequence[Preference]
) -> list[Table]:
    """Write the configurations ``default`` (all columns), ``sft`` and ``preference``; return their tables.

    With Parquet, the rows of ``default`` are also in ``jsonl/``. ``sounds`` adds the column ``audio`` to ``default``,
    and ``answers`` adds people's pairs to ``preference``. Splits and configurations without rows are left out. Raises
    :class:`InputError` without any row, and :class:`VerificationError` if the files differ when they are read back.
    """
    whole = lines_of(splits, partial(_whole_lines, sounds=sounds))
    pairs = lines_of(splits, partial(preference_lines, answers=answers))
    tables = [
        write_table(folder, "default", "data" if parquet else "jsonl", whole, parquet=parquet),
        write_table(folder, "sft", "sft", lines_of(splits, sft_lines), parquet=parquet),
        write_table(folder, "preference", "preference", pairs, parquet=parquet),
    ]
    if not tables[0].rows:
        raise InputError("there are no scored rows to export", "run lsdata configs first")
    if parquet:
        columns = {name: kind for name, kind in tables[0].columns.items() if kind != AUDIO}
        for split, lines in lines_of(splits, _whole_lines).items():
            write_lines(folder / "jsonl" / split_name(split), fitting(lines, columns))
    return [table for table in tables if table.rows]


def lines_of(splits: Mapping[str, Rows], form: Callable[[Iterable[ScoredRow]], Iterable[Line]]) -> dict[str, Lines]:
    """Return each split's rows in another form."""
    return {split: lambda rows=rows: form(rows()) for split, rows in splits.items()}


def _whole_lines(rows: Iterable[ScoredRow], sounds: Sounds | None = None) -> Iterator[Line]:
    """Yield published rows: every field but the private ones, pages always as a list, and the tags of the text."""
    for row in rows:
        values = row.model_dump(mode="json", exclude=_PRIVATE_COLUMNS)
        pages = values["text_page"]
        values["text_page"] = pages if isinstance(pages, list) else [pages]
        values["text_tags"] = tags_of(row.vibe_original)
        yield {**values, "audio": sounds.of(row)} if sounds else values


def count_rows(splits: Mapping[str, Rows], note: Callable[[ScoredRow], None]) -> DatasetFacts:
    """Count the rows for the card and the report, and call ``note`` with each row. Splits without rows are left out."""
    facts = DatasetFacts()
    for split, rows in splits.items():
        for row in rows():
            facts.rows[split] = facts.rows.get(split, 0) + 1
            _count(split, row, facts)
            note(row)
    return facts


def _count(split: str, row: ScoredRow, facts: DatasetFacts) -> None:
    facts.with_config += row.config_payload is not None
    facts.noisy += row.vibe_noisy is not None and row.vibe_noisy != row.vibe_original
    facts.vibe_models[row.vibe_model or "not stated"] += 1
    facts.config_models[row.config_model or "not stated"] += 1
    facts.sources.setdefault(split, set()).add(row.source_id)
    facts.best_of[len(row.config_candidates)] += 1
    facts.converted.update(row.converted)
    for scorer, scores in row.candidate_scores.items():
        facts.candidates.setdefault(scorer, []).extend(score for score in scores if score is not None)
    for scorer, score in row.winner_scores.items():
        facts.winners.setdefault(scorer, []).append(score)


def all_rows(splits: Mapping[str, Rows]) -> Iterator[ScoredRow]:
    """Yield the rows of all splits."""
    for rows in splits.values():
        yield from rows()


def readers(
    workspace_file: Callable[[str], Path],
    splits: Sequence[str],
    exclude: Collection[str] = (),
    left_out: frozenset[str] = frozenset(),
) -> dict[str, Rows]:
    """Return the rows of each split that has a file, without rows with a tag of ``exclude`` or an id of ``left_out``.

    Raises :class:`InputError` if no split has a file.
    """
    found = {split: path for split in splits if (path := workspace_file(split)).exists()}
    if not found:
        raise InputError(f"no scored rows in {workspace_file(splits[0]).parent}", "run lsdata configs first")
    return {split: partial(_read, path, frozenset(exclude), left_out) for split, path in found.items()}


def _read(path: Path, exclude: frozenset[str], left_out: frozenset[str]) -> Iterator[ScoredRow]:
    rows = (row for row in read_rows(path, ScoredRow) if row.row_id not in left_out)
    return (row for row in rows if not exclude or not exclude.intersection(tags_of(row.vibe_original)))
