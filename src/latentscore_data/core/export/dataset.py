"""The scored rows as a folder that ``datasets.load_dataset`` reads, with a card that says where they come from."""

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

# Internal: they name a question in the answer cache and mean nothing to a reader.
_PRIVATE_COLUMNS = ("input_fingerprint", "unfinished")

TAGS_COLUMN = "text_tags"

Rows = Callable[[], Iterable[ScoredRow]]
"""Rows that can be read more than once, each time as a stream."""


@dataclass
class DatasetFacts:
    """What the rows are, as card and report state it."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows per split, in our own names of splits."""
    with_config: int = 0
    noisy: int = 0
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


def write_dataset(
    folder: Path,
    splits: Mapping[str, Rows],
    *,
    parquet: bool,
    sounds: Sounds | None = None,
    answers: Sequence[Preference] = (),
) -> list[Table]:
    """Write the configurations ``default`` (all columns), ``sft`` and ``preference``, each with its splits.

    With Parquet the rows of ``default`` are also in ``jsonl/``. ``sounds`` adds the column ``audio`` to ``default``, ``answers`` people's pairs to ``preference``. Splits and
    configurations without rows are left out. Raises :class:`InputError` when there are no rows at all, and
    :class:`VerificationError` when what is read back differs.
    """
    whole: dict[str, Lines] = {split: partial(_whole_lines, rows, sounds) for split, rows in splits.items()}
    tables = [
        write_table(folder, "default", "data" if parquet else "jsonl", whole, parquet=parquet),
        write_table(folder, "sft", "sft", lines_of(splits, sft_lines), parquet=parquet),
        write_table(
            folder,
            "preference",
            "preference",
            lines_of(splits, partial(preference_lines, answers=answers)),
            parquet=parquet,
        ),
    ]
    if not tables[0].rows:
        raise InputError("there are no scored rows to export", "run lsdata configs first")
    if parquet:
        plain: dict[str, Lines] = {split: partial(_whole_lines, rows, None) for split, rows in splits.items()}
        columns = {name: kind for name, kind in tables[0].columns.items() if kind != AUDIO}
        for split, lines in plain.items():
            write_lines(folder / "jsonl" / split_name(split), fitting(lines, columns))
    return [table for table in tables if table.rows]


def lines_of(splits: Mapping[str, Rows], form: Callable[[Iterable[ScoredRow]], Iterable[Line]]) -> dict[str, Lines]:
    """Each split's rows in another form."""
    return {split: lambda rows=rows: form(rows()) for split, rows in splits.items()}


def _whole_lines(rows: Rows, sounds: Sounds | None) -> Iterator[Line]:
    for row in rows():
        values = exported(row)
        yield {**values, "audio": sounds.of(row)} if sounds else values


def exported(row: ScoredRow) -> Line:
    """A row as it is published: every field, pages always as a list, and the tags of its text."""
    values = row.model_dump(mode="json", exclude=set(_PRIVATE_COLUMNS))
    pages = values["text_page"]
    values["text_page"] = pages if isinstance(pages, list) else [pages]
    return {**values, TAGS_COLUMN: tags_of(row.vibe_original)}


def count_rows(splits: Mapping[str, Rows], note: Callable[[ScoredRow], None]) -> DatasetFacts:
    """What the rows are, for the card and the report; splits without rows are left out. ``note`` is given each row, too."""
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
    for scorer, scores in row.candidate_scores.items():
        facts.candidates.setdefault(scorer, []).extend(score for score in scores if score is not None)
        if row.best_index is not None and row.best_index < len(scores):
            best = scores[row.best_index]
            if best is not None:
                facts.winners.setdefault(scorer, []).append(best)


def all_rows(splits: Mapping[str, Rows]) -> Iterator[ScoredRow]:
    """The rows of all splits, one after the other."""
    for rows in splits.values():
        yield from rows()


def readers(
    workspace_file: Callable[[str], Path],
    splits: Sequence[str],
    exclude: Collection[str] = (),
    left_out: frozenset[str] = frozenset(),
) -> dict[str, Rows]:
    """The rows of each split that has a file, read anew each time, without those with a tag of ``exclude`` and those whose
    ids are ``left_out``.

    Raises :class:`InputError` when no split has a file.
    """
    found = {split: path for split in splits if (path := workspace_file(split)).exists()}
    if not found:
        raise InputError(f"no scored rows in {workspace_file(splits[0]).parent}", "run lsdata configs first")
    return {split: partial(_read, path, frozenset(exclude), left_out) for split, path in found.items()}


def _read(path: Path, exclude: frozenset[str], left_out: frozenset[str]) -> Iterator[ScoredRow]:
    rows = (row for row in read_rows(path, ScoredRow) if row.row_id not in left_out)
    return (row for row in rows if not exclude or not exclude.intersection(tags_of(row.vibe_original)))
