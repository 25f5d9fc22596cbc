"""Answers that were paid for, by what the model was asked.

One SQLite file, JSON text inside. Written through one connection and read through another, so that a read never waits for
a write.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from latentscore_data.core.base.errors import OutputError

KEY_VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, answer TEXT NOT NULL, model TEXT NOT NULL, finish_reason TEXT NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, cost_usd REAL, seconds REAL NOT NULL,
    created TEXT NOT NULL, litellm_version TEXT NOT NULL, answer_type TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS negatives (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, reason TEXT NOT NULL, answer TEXT NOT NULL, model TEXT NOT NULL,
    finish_reason TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, cost_usd REAL,
    seconds REAL NOT NULL, created TEXT NOT NULL, litellm_version TEXT NOT NULL, answer_type TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

_COLUMNS = (
    "answer, model, finish_reason, tokens_in, tokens_out, cost_usd, seconds, created, litellm_version, answer_type"
)


def cache_key(
    model: str,
    api_base: str | None,
    messages: list[dict[str, Any]],
    schema: dict[str, Any],
    sampling: dict[str, Any],
    sample_idx: int,
) -> str:
    """SHA-256 of the canonical JSON of what the model sees, and of nothing else."""
    seen = {
        "key_version": KEY_VERSION,
        "model": model,
        "api_base": api_base,
        "messages": messages,
        "schema": schema,
        "sampling": sampling,
        "sample_idx": sample_idx,
    }
    return hashlib.sha256(orjson.dumps(seen, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True)
class Stored:
    """An answer as it was given: its text, and what it took."""

    answer: str
    model: str
    finish_reason: str
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    seconds: float
    created: str = ""
    litellm_version: str = ""
    answer_type: str = ""
    """The name of the type it was read as: answers of one kind are alike in length."""


class AnswerCache:
    """Valid answers by key; bad ones are kept beside them as evidence and never served.

    A stored answer survives the death of the process (write-ahead log). The file is readable by its owner only. One thread
    may write while another reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hits = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite gives its side files the permissions of the database, so these must be right before it opens it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            os.chmod(path, 0o600)
            self._db = _connect(path)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_TABLES)
            _add_answer_type(self._db)
            self._reading = _connect(path)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from None

    def get(self, key: str) -> Stored | None:
        """The answer to a question asked before, or None."""
        try:
            row = self._reading.execute(f"SELECT {_COLUMNS} FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None
        return Stored(*row) if row else None

    def has(self, key: str) -> bool:
        return self._reading.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone() is not None

    def put(self, entries: Iterable[tuple[str, Stored]]) -> None:
        """Keep answers, all of one call in one step. Raises :class:`OutputError` when the disk refuses."""
        rows = [(key, *_values(entry)) for key, entry in entries]
        self._write(f"INSERT OR REPLACE INTO answers (key, {_COLUMNS}) VALUES ({', '.join('?' * 11)})", rows)

    def put_negative(self, key: str, reason: str, entry: Stored) -> None:
        """Keep an answer that could not be used (``truncated``, ``filtered``, ``empty``, ``invalid``)."""
        self._write(
            f"INSERT INTO negatives (key, reason, {_COLUMNS}) VALUES ({', '.join('?' * 12)})",
            [(key, reason, *_values(entry))],
        )

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        try:
            if len(rows) == 1:
                self._db.execute(statement, rows[0])
                return
            self._db.execute("BEGIN")
            try:
                self._db.executemany(statement, rows)
            finally:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None

    def mean_tokens_out(self, model: str, answer_type: str) -> float | None:
        """How long this model's valid answers of one type were on average, in tokens; None when there are none."""
        row = self._reading.execute(
            "SELECT AVG(tokens_out) FROM answers WHERE model = ? AND answer_type = ? AND tokens_out > 0",
            (model, answer_type),
        ).fetchone()
        return row[0]

    def facts(self) -> dict[str, int]:
        """For ``doctor``: answers, negatives, hits so far and bytes on disk."""

        def count(table: str) -> int:
            return int(self._reading.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])

        row = self._reading.execute("SELECT value FROM counters WHERE name = 'hits'").fetchone()
        return {
            "answers": count("answers"),
            "negatives": count("negatives"),
            "hits": (row[0] if row else 0) + self.hits,
            "bytes": self.path.stat().st_size,
        }

    def close(self) -> None:
        """Write the hit count and close. A second call does nothing."""
        try:
            if self.hits:
                self._db.execute(
                    "INSERT INTO counters VALUES ('hits', ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
                    (self.hits, self.hits),
                )
                self.hits = 0
            self._reading.close()
            self._db.close()
        except sqlite3.ProgrammingError:
            pass
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)


def _add_answer_type(db: sqlite3.Connection) -> None:
    """To a file of before there was that column: what was paid for stays good."""
    for table in ("answers", "negatives"):
        if "answer_type" not in {row[1] for row in db.execute(f"PRAGMA table_info({table})")}:
            db.execute(f"ALTER TABLE {table} ADD COLUMN answer_type TEXT NOT NULL DEFAULT ''")


def _values(entry: Stored) -> tuple[Any, ...]:
    created = entry.created or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return (
        entry.answer,
        entry.model,
        entry.finish_reason,
        entry.tokens_in,
        entry.tokens_out,
        entry.cost_usd,
        entry.seconds,
        created,
        entry.litellm_version,
        entry.answer_type,
    )


def _unusable(path: Path, error: Exception) -> OutputError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return OutputError(f"the answer cache {path} is damaged ({reason})", "move it away; a new one is made")
    return OutputError(
        f"the answer cache {path} cannot be used ({reason})", "free some disk space or choose another --root"
    )
