"""The rows of a workspace for the page: filtered and sorted in pages, and one row in full."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from latentscore.config import MusicConfigPromptPayload
from latentscore.files import open_file
from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import MAX_LINE_BYTES, Line, read_lines
from latentscore_data.core.base.marks import Mark, add_mark, add_preference, read_marks, read_preferences
from latentscore_data.core.base.rows import LEVELS, SPLITS, ScoredRow
from latentscore_data.core.base.settings import BUILTIN_MODEL, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.configs.candidate_generation import questions
from latentscore_data.core.llm.cache import AnswerCache
from latentscore_data.core.llm.client import ModelClient
from latentscore_data.core.llm.types import Question
from latentscore_data.studio.preferences import by_candidate, preference_of

log = logging.getLogger(__name__)

PAGE = 60


@dataclass(slots=True)
class RowLine:
    """The parts of a row that lists and filters need. ``place`` is its line: file, first byte, length in bytes."""

    row_id: str
    vibe: str
    split: str
    dataset: str
    level: str
    title: str
    score: float | None
    state: str
    error: str
    """The row's own error, if it has no config."""
    failure: str
    candidates: int
    config: Mapping[str, Any]
    colors: list[str]
    text: str
    """The text that is searched, casefolded."""
    place: tuple[Path, int, int]

    def shown(self, mark: Mark | None) -> JsonObject:
        return {
            "id": self.row_id, "vibe": self.vibe[:600], "split": self.split, "dataset": self.dataset,
            "level": self.level, "title": self.title, "score": self.score, "state": self.state,
            "failure": self.failure[:300], "candidates": self.candidates, "colors": self.colors,
            "verdict": mark.verdict if mark else "none", "noted": bool(mark and mark.note),
        }  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A filter and an order. Each text that is not empty must match; ``least`` is the lowest score."""

    search: str = ""
    split: str = ""
    dataset: str = ""
    level: str = ""
    state: str = ""
    verdict: str = ""
    field: str = ""
    label: str = ""
    least: float | None = None
    sort: str = "file"
    descending: bool = False

    def matches(self, row: RowLine, marks: Mapping[str, Mark]) -> bool:
        """Return whether a row passes the filter."""
        return (
            all(getattr(self, name) in ("", getattr(row, name)) for name in ("split", "dataset", "level", "state"))
            and self.search.casefold() in row.text
            and self.verdict in ("", marks.get(row.row_id, Mark()).verdict)
            and (not self.field or str(row.config.get(self.field)) == self.label)
            and (self.least is None or (row.score is not None and row.score >= self.least))
        )


SORTS: dict[str, Callable[[RowLine], Any]] = {
    "file": lambda row: 0,
    "score": lambda row: row.score if row.score is not None else float("-inf"),
    "vibe": lambda row: row.vibe.casefold(),
    "title": lambda row: row.title.casefold(),
    "level": lambda row: LEVELS.index(row.level) if row.level in LEVELS else len(LEVELS),  # type: ignore[arg-type]
}


Stamp = tuple[int, int]
"""Modification time in nanoseconds and size in bytes of a file."""


@dataclass
class _Read:
    """The rows in memory, and the state of the files when they were read. ``lines`` holds the rows of each file."""

    stamps: dict[Path, Stamp] = field(default_factory=dict)
    lines: dict[Path, list[RowLine]] = field(default_factory=dict)
    rows: dict[str, RowLine] = field(default_factory=dict)


class Rows:
    """The rows of a workspace. A file is read again when it changes; only :class:`RowLine` objects stay in memory."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self._workspace, self._settings = workspace, settings
        self._read = _Read()
        self._lock = threading.Lock()

    def page(self, wanted: Wanted, offset: int) -> JsonObject:
        """Return up to :data:`PAGE` matching rows from ``offset`` on, their number, and the values of the filters.

        Pages with different ``version`` are of different states of the files and do not belong together.
        """
        read, marks = self._current(), read_marks(self._workspace.root)
        rows = read.rows
        found = [row for row in rows.values() if wanted.matches(row, marks)]
        if wanted.sort != "file":
            found.sort(key=SORTS[wanted.sort], reverse=wanted.descending)
        elif wanted.descending:
            found.reverse()
        page = found[offset : offset + PAGE]
        return {
            "total": len(found),
            "all": len(rows),
            "offset": offset,
            "version": digest(*itertools.chain.from_iterable(read.stamps.values())),
            "rows": [row.shown(marks.get(row.row_id)) for row in page],
            "facets": {
                "split": Counter(row.split for row in rows.values()),
                "dataset": dict(Counter(row.dataset for row in rows.values()).most_common(50)),
                "level": Counter(row.level for row in rows.values()),
                "state": Counter(row.state for row in rows.values()),
            },
        }

    def row(self, row_id: str) -> JsonObject:
        """Return one row in full, with the model's question and all its answers in the cache.

        Raises :class:`InputError` for an unknown row, and for one that has changed on disk.
        """
        line = self._line(row_id)
        row = self._whole(line)
        mark = read_marks(self._workspace.root).get(row_id, Mark())
        scorer = next(iter(row.candidate_scores), None)
        scores = row.candidate_scores.get(scorer or "", [])
        people = by_candidate(row, read_preferences(self._workspace.root, ties=True))
        return {
            **line.shown(mark),
            "vibe": row.vibe_original,
            "note": mark.note,
            "noisy": row.vibe_noisy if row.vibe_noisy != row.vibe_original else None,
            "tags": row.tags_original,
            "document": f"{row.dataset}: {row.id_in_dataset}",
            "model": row.config_model,
            "scorer": scorer,
            "best": row.best_index,
            "error": row.config_error,
            "candidates": [
                {"payload": payload, "score": scores[i] if i < len(scores) else None, "people": people.get(i),
                 "all_scores": {name: values[i] for name, values in row.candidate_scores.items() if i < len(values)}}
                for i, payload in enumerate(row.config_candidates)
            ],
            **self._asked(row),
        }  # fmt: skip

    def mark(self, row_id: str, mark: Mark) -> None:
        """Append a verdict and a note. Raises :class:`InputError` for an unknown row."""
        self._line(row_id)
        add_mark(self._workspace.root, row_id, mark)

    def prefer(self, row_id: str, better: int, worse: int, *, tied: bool) -> None:
        """Append a preference (:func:`preference_of`). Raises :class:`InputError` for an unknown row or candidate."""
        row = self._whole(self._line(row_id))
        add_preference(self._workspace.root, preference_of(row, better, worse, tied=tied))

    def _asked(self, row: ScoredRow) -> JsonObject:
        """Return the question that a model gets for the row, and its attempts from the cache."""
        settings = self._settings.configs.model_copy(update={"n": max(len(row.config_candidates), 1)})
        asked = questions(row, settings)
        model = row.config_model or ""
        attempts: list[JsonObject] = []
        if model and model != BUILTIN_MODEL and self._workspace.llm_cache.exists():
            attempts = list(self._attempts(asked, model))
        prompt = {"system": asked[0].system, "user": asked[0].user}
        return {"prompt": prompt, "sampling": asked[0].sampling, "attempts": attempts}

    def _attempts(self, asked: list[Question], model: str) -> Iterator[JsonObject]:
        cache = AnswerCache(self._workspace.llm_cache)
        try:
            llm = ModelClient(model, self._settings.llm, cache=cache)
            for number, question in enumerate(asked):
                key = llm.key(question, MusicConfigPromptPayload)
                for reason, stored in cache.attempts(key):
                    yield {
                        "candidate": number, "key": key, "problem": reason, "answer": stored.answer,
                        "tokens_in": stored.tokens_in, "tokens_out": stored.tokens_out, "cost_usd": stored.cost_usd,
                        "seconds": stored.seconds, "created": stored.created, "finish": stored.finish_reason,
                    }  # fmt: skip
        finally:
            cache.close()

    def _line(self, row_id: str) -> RowLine:
        line = self._current().rows.get(row_id)
        if line is None:
            raise InputError(f"there is no row {row_id[:100]!r} in this workspace", "reload the page")
        return line

    def _whole(self, line: RowLine) -> ScoredRow:
        path, start, length = line.place
        with open_file(path) as file:
            file.seek(start)
            try:
                return ScoredRow.model_validate(orjson.loads(file.read(length)))
            except (ValueError, ValidationError):
                raise InputError(f"row {line.row_id[:100]!r} has changed on disk", "reload the page") from None

    def _current(self) -> _Read:
        """Return the rows, after reading the files again that have changed.

        While a stage runs, it appends to the file of failures. This does not read the rows again, which takes seconds
        for ten thousand rows.
        """
        splits = {
            path: split for split in SPLITS for path in (self._workspace.scored(split), self._workspace.vibes(split))
        }
        failures = self._workspace.failures("configs")
        with self._lock:
            before = self._read
            stamps = {path: stamp for path in (*splits, failures) if (stamp := stamp_of(path))}
            if stamps == before.stamps:
                return before
            lines = {
                path: before.lines[path] if stamps[path] == before.stamps.get(path) else list(_lines(path, split))
                for path, split in splits.items()
                if path in stamps
            }
            rows: dict[str, RowLine] = {}
            for line in itertools.chain.from_iterable(lines.values()):
                rows.setdefault(line.row_id, line)
            failed = self._failures()
            for row in rows.values():
                row.failure = failed.get(row.row_id) or row.error
                if row.state != "scored":
                    row.state = "failed" if row.failure else "waiting"
            self._read = _Read(stamps, lines, rows)
            return self._read

    def _failures(self) -> dict[str, str]:
        path = self._workspace.failures("configs")
        if not path.exists():
            return {}
        lines = read_lines(path, torn="drop")
        return {str(line.get("row_id")): f"{line.get('kind')}: {line.get('message')}" for _, line in lines}


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file; None if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _lines(path: Path, split: str) -> Iterator[RowLine]:
    """Yield the rows of a file. A line that is not a row is logged and left out."""
    start = 0
    with open_file(path) as file:
        for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            place, start = (path, start, len(raw)), start + len(raw)
            if not raw.strip():
                continue
            try:
                yield _short(_row(orjson.loads(raw)), split, place)
            except (ValueError, TypeError, AttributeError, KeyError, ValidationError):
                log.warning("%s:%d: not a row; the page leaves it out", path, number)


def _row(line: Line) -> ScoredRow:
    """Return the row of a line. Rows that lsdata wrote are not validated, which takes seconds for ten thousand."""
    known = {name: value for name, value in line.items() if value is not None}
    return ScoredRow.model_construct(**known) if _looks_like_ours(known) else ScoredRow.model_validate(line)


def _looks_like_ours(line: Line) -> bool:
    """Return whether the columns that the page shows have the types that lsdata writes."""
    payload, scores = line.get("config_payload"), line.get("candidate_scores", {})
    config = payload.get("config") if isinstance(payload, dict) else None
    return (
        all(isinstance(line.get(name), str) for name in ("row_id", "vibe_original", "dataset"))
        and isinstance(line.get("vibe_level", ""), str)
        and line.get("split", SPLITS[0]) in SPLITS
        and (payload is None or (isinstance(config, dict) and isinstance(config.get("tempo"), str)))
        and isinstance(scores, dict)
        and all(one is None or isinstance(one, int | float) for given in scores.values() for one in given)
    )


def _short(row: ScoredRow, split: str, place: tuple[Path, int, int]) -> RowLine:
    payload = row.config_payload or {}
    error = row.config_error or "" if not payload else ""
    palettes = payload.get("palettes") or []
    title = str(payload.get("title") or "")
    text = "\n".join((row.vibe_original, title, row.row_id, *row.tags_original)).casefold()
    return RowLine(
        row.row_id, row.vibe_original, row.split or split, row.dataset, row.vibe_level, title, row.winner_score,
        "scored" if payload else "waiting", error, error,
        sum(candidate is not None for candidate in row.config_candidates), payload.get("config") or {},
        [color["hex"] for color in palettes[0]["colors"]] if palettes else [], text, place,
    )  # fmt: skip
