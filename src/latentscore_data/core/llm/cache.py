"""The answer cache: answers by question.

One SQLite file with JSON text. It has separate connections for reading and writing, so that reads never wait for
writes.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from latentscore.json_search import JsonObject
from latentscore_data.core.base.closing import Closing
from latentscore_data.core.base.database import connect, is_bad_text, naming, open_database, unusable
from latentscore_data.core.base.names import json_bytes
from latentscore_data.core.llm.types import Messages, Sampling

KEY_VERSION = 1
WHAT = "answer cache"

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

_TYPES = (str, str, str, int, int, float | int | None, float | int, str, str, str)


def cache_key(
    model: str,
    api_base: str | None,
    messages: Messages,
    schema: JsonObject,
    sampling: Sampling,
    sample_idx: int,
) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of everything that the model gets."""
    seen = {
        "key_version": KEY_VERSION,
        "model": model,
        "api_base": api_base,
        "messages": messages,
        "schema": schema,
        "sampling": sampling,
        "sample_idx": sample_idx,
    }
    return hashlib.sha256(json_bytes(seen, orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True)
class Stored:
    """An unparsed answer: its text, tokens, cost and time."""

    answer: str
    model: str
    finish_reason: str
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    seconds: float
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    litellm_version: str = ""
    answer_type: str = ""
    """The name of its type, for estimates, because answers of one type have similar lengths."""


_COLUMNS = ", ".join(field.name for field in fields(Stored))


class AnswerCache(Closing):
    """Valid answers by key; unusable ones are also stored, for inspection, and never returned as answers.

    A stored answer survives a crash of the process (write-ahead log). Only the owner can read the file. One thread may
    write while another reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hits = 0
        self._gathering = self._begun = False
        self._db = open_database(path, WHAT, _make_tables, _copy_answers)
        self._reading = connect(path)

    def get(self, key: str) -> Stored | None:
        """Return the stored answer to a question, or None; a damaged answer counts as missing."""
        row = self._read(f"SELECT {_COLUMNS} FROM answers WHERE key = ?", key)
        return Stored(*row) if row and _types_fit(row) else None

    def has(self, key: str) -> bool:
        return self._read("SELECT 1 FROM answers WHERE key = ?", key) is not None

    def attempts(self, key: str) -> list[tuple[str, Stored]]:
        """Return all attempts at a question in order: (reason why it is unusable, answer); the usable one is last, with ""."""
        with naming(self.path, WHAT):
            bad = self._reading.execute(f"SELECT reason, {_COLUMNS} FROM negatives WHERE key = ? ORDER BY id", (key,))
            found = [(str(row[0]), Stored(*row[1:])) for row in bad if _types_fit(row[1:])]
        good = self.get(key)
        return [*found, ("", good)] if good is not None else found

    def put(self, entries: Iterable[tuple[str, Stored]]) -> None:
        """Store the answers of one call in one transaction. Raises :class:`OutputError` if they cannot be written."""
        rows = [(key, *astuple(entry)) for key, entry in entries]
        self._write(f"INSERT OR REPLACE INTO answers (key, {_COLUMNS}) VALUES ({', '.join('?' * 11)})", rows)

    def put_negative(self, key: str, reason: str, entry: Stored) -> None:
        """Store an unusable answer (``truncated``, ``filtered``, ``empty``, ``invalid``)."""
        self._write(
            f"INSERT INTO negatives (key, reason, {_COLUMNS}) VALUES ({', '.join('?' * 12)})",
            [(key, reason, *astuple(entry))],
        )

    def _read(self, question: str, *values: str) -> Any:
        try:
            return self._reading.execute(question, values).fetchone()
        except sqlite3.Error as error:
            if is_bad_text(error):
                return None
            raise unusable(self.path, WHAT, error) from None

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        several = len(rows) > 1 and not self._gathering
        with self.together() if several else nullcontext(), naming(self.path, WHAT):
            if self._gathering and not self._begun:
                self._db.execute("BEGIN")
                self._begun = True
            self._db.executemany(statement, rows)

    @contextmanager
    def together(self) -> Generator[None]:
        """Context manager: one transaction for all writes of the block; it begins at the first write.

        Raises :class:`OutputError` at its end if nothing could be stored.
        """
        self._gathering = True
        try:
            yield
        finally:
            begun, self._begun, self._gathering = self._begun, False, False
            try:
                if begun:
                    self._db.execute("COMMIT")
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise unusable(self.path, WHAT, error) from None

    def mean_tokens_out(self, model: str, answer_type: str) -> float | None:
        """Return the mean length, in tokens, of this model's valid answers of one type; None if there are none."""
        (mean,) = self._read(
            "SELECT AVG(tokens_out) FROM answers WHERE model = ? AND answer_type = ? AND tokens_out > 0",
            model,
            answer_type,
        )
        return mean

    def facts(self) -> dict[str, int]:
        """For ``doctor``: answers, negatives, hits so far and bytes on disk."""
        row = self._read("SELECT value FROM counters WHERE name = 'hits'")
        return {
            "answers": int(self._read("SELECT COUNT(*) FROM answers")[0]),
            "negatives": int(self._read("SELECT COUNT(*) FROM negatives")[0]),
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
            raise unusable(self.path, WHAT, error) from None


def _make_tables(db: sqlite3.Connection) -> None:
    db.executescript(_TABLES)
    _add_answer_type(db)
    for table in ("answers", "negatives"):
        db.execute(f"SELECT key, {_COLUMNS} FROM {table} LIMIT 0")


def _copy_answers(damaged: sqlite3.Connection, new: sqlite3.Connection) -> str:
    """Copy the readable answers and return a description of them.

    Ranges of keys are copied separately, because a damaged page affects only its ranges.
    """
    copied = 0
    for prefix in (f"{number:03x}" for number in range(16**3)):
        try:
            rows = damaged.execute(
                f"SELECT key, {_COLUMNS} FROM answers WHERE key >= ? AND key < ?", (prefix, prefix + "g")
            ).fetchall()
        except sqlite3.Error:
            continue
        whole = [row for row in rows if _types_fit(row[1:])]
        new.executemany(f"INSERT INTO answers (key, {_COLUMNS}) VALUES ({', '.join('?' * 11)})", whole)
        copied += len(whole)
    return f"{copied:,} of its answers were kept" if copied else "none of its answers could be read"


def _types_fit(entry: tuple[Any, ...]) -> bool:
    """Return False for a row (without its key) with wrong types, as damage can leave them in a readable file."""
    return all(isinstance(value, kind) for value, kind in zip(entry, _TYPES, strict=True))


def _add_answer_type(db: sqlite3.Connection) -> None:
    """Add the column to files of older versions, so that their answers stay usable."""
    for table in ("answers", "negatives"):
        if "answer_type" not in {row[1] for row in db.execute(f"PRAGMA table_info({table})")}:
            db.execute(f"ALTER TABLE {table} ADD COLUMN answer_type TEXT NOT NULL DEFAULT ''")
