"""The record of provider batches: one SQLite file per workspace, written before and after each remote step."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from latentscore_data.core.base.closing import Closing
from latentscore_data.core.base.database import naming, open_database, open_to_read, transaction
from latentscore_data.core.base.errors import InputError

FILE_NAME = "batches.sqlite"
WHAT = "record of batches"

State = Literal["prepared", "uploaded", "submitting", "open", "booking", "collected"]
"""The state of a batch.

``prepared``: nothing was sent. ``uploaded``: the file with the questions is uploaded, which costs nothing.
``submitting``: the request that costs money may have been sent; its response is unknown. ``open``: the provider has the
batch as ``remote_id``. ``booking``: its answers are in the cache and its cost is being written to the ledger.
``collected``: the batch is finished.
"""

IN_FLIGHT: tuple[State, ...] = ("submitting", "open", "booking")
"""States in which a batch may cost money and its answers have not been collected."""

_TABLES = """
CREATE TABLE IF NOT EXISTS batches (
    tag TEXT PRIMARY KEY, stage TEXT NOT NULL, model TEXT NOT NULL, api_base TEXT, state TEXT NOT NULL,
    remote_id TEXT, file_id TEXT, remote_status TEXT NOT NULL DEFAULT '', questions INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, worst_usd REAL, cost_usd REAL,
    created REAL NOT NULL, submitted REAL, doubtful INTEGER NOT NULL DEFAULT 0, run_over INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lines (
    tag TEXT NOT NULL, number INTEGER NOT NULL, key TEXT NOT NULL, answer_type TEXT NOT NULL, PRIMARY KEY (tag, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lines_by_key ON lines (key);
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY, unusable INTEGER NOT NULL, faults INTEGER NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
    said TEXT NOT NULL, failure TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '', status INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusals (
    model TEXT NOT NULL, api_base TEXT NOT NULL, refused TEXT NOT NULL, PRIMARY KEY (model, api_base, refused)
) WITHOUT ROWID;
"""


@dataclass
class Batch:
    """One batch. ``tag`` is our id, which is sent with the batch; amounts are in US dollars, None if the price is unknown."""

    tag: str
    stage: str
    model: str
    api_base: str | None
    state: State
    questions: int
    created: float
    submitted: float | None = None
    remote_id: str | None = None
    file_id: str | None = None
    remote_status: str = ""
    done: int = 0
    failed: int = 0
    worst_usd: float | None = None
    cost_usd: float | None = None
    doubtful: bool = False
    """True while it is uncertain that ``remote_id`` is this batch; its results will confirm it."""
    run_over: bool = False
    """True once its run has ended; it then no longer counts towards the cap."""

    def __post_init__(self) -> None:
        self.doubtful, self.run_over = bool(self.doubtful), bool(self.run_over)  # SQLite has no truth values

    @property
    def in_flight(self) -> bool:
        return self.state in IN_FLIGHT


@dataclass(frozen=True)
class Trial:
    """The attempts at a question without a usable answer.

    ``unusable`` counts unusable answers and ``faults`` failures of the server; ``reason``, ``detail`` and ``said`` are
    of the last unusable answer. With a ``failure`` (a kind of the error table) the question has failed finally.
    """

    key: str
    unusable: int = 0
    faults: int = 0
    reason: str = ""
    detail: str = ""
    said: str = ""
    failure: str = ""
    message: str = ""
    status: int | None = None


_BATCH = [field.name for field in fields(Batch)]
_TRIAL = [field.name for field in fields(Trial)]
_COLUMNS = {
    "batches": _BATCH,
    "lines": ["tag", "number", "key", "answer_type"],
    "trials": _TRIAL,
    "refusals": ["model", "api_base", "refused"],
}


class BatchState(Closing):
    """The record. It is written only under the workspace's lock; ``status`` may read it at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not os.access(path.parent, os.W_OK):
            self._db = open_to_read(path, WHAT)
            return
        self._db = open_database(path, WHAT, _make_tables, _copy_tables)
        # A lost step could be paid for twice, so each one is synced to disk before the next begins.
        self._db.execute("PRAGMA synchronous = FULL")

    # -- batches

    def batches(self, *states: State) -> list[Batch]:
        """The batches, the oldest first; only those in the given states, if any are given."""
        where = f" WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        rows = self._all(f"SELECT {', '.join(_BATCH)} FROM batches{where} ORDER BY created, tag", *states)
        found = [Batch(*row) for row in rows]
        for batch in found:
            counts = (batch.questions, batch.done, batch.failed, batch.created, batch.submitted or 0)
            money = (batch.worst_usd or 0, batch.cost_usd or 0)
            if not all(isinstance(value, int | float) for value in (*counts, *money)):
                raise InputError(
                    f"{self.path}: the record of batch {batch.tag} holds text instead of a number",
                    "restore the file from a copy: otherwise its questions are paid for twice",
                )
        return found

    def add(self, batch: Batch, lines: Sequence[tuple[str, str]]) -> None:
        """Record a batch with its lines, (key, name of the answer type) each; the first one has number 0."""
        with self._together():
            self._many(_insert_into("batches"), [astuple(batch)])
            self._many(_insert_into("lines"), [(batch.tag, number, *line) for number, line in enumerate(lines)])

    def save(self, batch: Batch) -> None:
        """Record the changes of a batch."""
        names = [name for name in _BATCH if name != "tag"]
        values = [getattr(batch, name) for name in names]
        self._run(f"UPDATE batches SET {', '.join(f'{name} = ?' for name in names)} WHERE tag = ?", *values, batch.tag)

    def drop(self, tag: str) -> None:
        """Delete a batch that was never submitted."""
        with self._together():
            self._run("DELETE FROM lines WHERE tag = ?", tag)
            self._run("DELETE FROM batches WHERE tag = ?", tag)

    def finish(self, batch: Batch, trials: Iterable[Trial], answered: Iterable[str]) -> None:
        """Close a batch and record the outcomes of its questions, in one transaction."""
        batch.state = "collected"
        with self._together():
            self._many(_insert_into("trials"), [astuple(trial) for trial in trials])
            self._many("DELETE FROM trials WHERE key = ?", [(key,) for key in answered])
            self._run("DELETE FROM lines WHERE tag = ?", batch.tag)
            self.save(batch)

    def lines(self, tag: str) -> dict[int, tuple[str, str]]:
        """The lines of a batch by number: key and name of the answer type."""
        rows = self._all("SELECT number, key, answer_type FROM lines WHERE tag = ?", tag)
        return {number: (key, answer_type) for number, key, answer_type in rows}

    def keys_in_flight(self) -> set[str]:
        """Return the keys of the questions in open batches."""
        marks = ", ".join("?" * len(IN_FLIGHT))
        rows = self._all(f"SELECT key FROM lines JOIN batches USING (tag) WHERE batches.state IN ({marks})", *IN_FLIGHT)
        return {key for (key,) in rows}

    # -- questions

    def trials(self) -> dict[str, Trial]:
        """Return the questions without a usable answer, by key."""
        rows = self._all(f"SELECT {', '.join(_TRIAL)} FROM trials")
        return {row[0]: Trial(*row) for row in rows}

    def forget(self, keys: Iterable[str]) -> None:
        """Delete the trials of these questions, so that the next run asks them again."""
        with self._together():
            self._many("DELETE FROM trials WHERE key = ?", [(key,) for key in keys])

    # -- what a model refuses

    def refusals(self, model: str, api_base: str | None) -> list[str]:
        rows = self._all("SELECT refused FROM refusals WHERE model = ? AND api_base = ?", model, api_base or "")
        return [refused for (refused,) in rows]

    def add_refusal(self, model: str, api_base: str | None, refused: str) -> None:
        self._many(_insert_into("refusals"), [(model, api_base or "", refused)])

    def close(self) -> None:
        self._db.close()

    # -- SQLite

    @contextmanager
    def _together(self) -> Generator[None, None, None]:
        with naming(self.path, WHAT), transaction(self._db, "BEGIN IMMEDIATE"):
            yield

    def _run(self, statement: str, *values: Any) -> None:
        with naming(self.path, WHAT):
            self._db.execute(statement, values)

    def _many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with naming(self.path, WHAT):
            self._db.executemany(statement, rows)

    def _all(self, question: str, *values: Any) -> list[Any]:
        with naming(self.path, WHAT):
            return self._db.execute(question, values).fetchall()


def _insert_into(table: str) -> str:
    columns = _COLUMNS[table]
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _make_tables(db: sqlite3.Connection) -> None:
    db.executescript(_TABLES)
    for table, columns in _COLUMNS.items():
        db.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0")


def _copy_tables(damaged: sqlite3.Connection, new: sqlite3.Connection) -> str:
    """Copy the readable part of a damaged record, because a lost batch would be paid for twice."""
    lost: list[str] = []
    for table, columns in _COLUMNS.items():
        try:
            new.executemany(
                _insert_into(table), damaged.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
            )
        except sqlite3.Error:
            lost.append(table)
    return f"its {' and '.join(lost)} could not be read" if lost else "all of it was kept"


def open_batches(path: Path) -> list[Batch]:
    """Return the open batches of a workspace."""
    if not path.exists():
        return []
    with BatchState(path) as state:
        return state.batches(*IN_FLIGHT)


def questions_in_flight(cache_path: Path) -> set[str]:
    """Return the keys of the questions in open batches of the workspace with this answer cache."""
    path = cache_path.with_name(FILE_NAME)
    if not path.exists():
        return set()
    with BatchState(path) as state:
        return state.keys_in_flight()


def age_in_words(batch: Batch) -> str:
    """Return the time since a batch was submitted: 12 min, 3 h 05 min."""
    seconds = max(0.0, time.time() - (batch.submitted or batch.created))
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
