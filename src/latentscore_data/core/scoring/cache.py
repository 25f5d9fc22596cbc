"""The score cache: embeddings of sounds and texts, and scores, in one SQLite file."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from latentscore.seeds import digest
from latentscore_data.core.base.closing import Closing
from latentscore_data.core.base.database import is_bad_text, open_database, transaction, unusable
from latentscore_data.core.scoring.types import Score

WHAT = "score cache"

_TABLES = """
CREATE TABLE IF NOT EXISTS vectors (kind TEXT, key TEXT, vector BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
    scorer TEXT, sound TEXT, vibe TEXT, final_score REAL, parts TEXT, PRIMARY KEY (scorer, sound, vibe)
) WITHOUT ROWID;
"""


class ScoreCache(Closing):
    """Vectors by (kind of embedding, key) and scores by (scorer fingerprint, sound, vibe).

    Vectors are raw little-endian float32, scores are numbers and JSON: reading the file runs no code. Safe to use from
    several threads. Only successes are stored. A damaged file is moved aside, because its content can be recomputed.
    Without a path it lives in memory. Raises :class:`OutputError` when it cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        if path is not None:
            self._db = open_database(path, WHAT, _make_tables)
        else:
            self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
            _make_tables(self._db)

    def vector(self, kind: str, key: str, size: int | None = None) -> NDArray[np.float32] | None:
        """Return the stored vector, or None. A damaged vector counts as missing, and so does one that does not have ``size``
        numbers (by default, the size of most vectors of its kind)."""
        found = self._read("SELECT vector FROM vectors WHERE kind = ? AND key = ?", kind, key)
        if found is None or not isinstance(found[0], bytes) or not found[0] or len(found[0]) % 4:
            return None
        vector = np.frombuffer(found[0], dtype="<f4").copy()
        whole = np.isfinite(vector).all() and vector.size == (size or self._size_of(kind))
        return vector if whole else None

    def _size_of(self, kind: str) -> int:
        """Return the size of most vectors of a kind; the cache must contain one."""
        if kind not in self._sizes:
            [found] = self._read(
                "SELECT length(vector) FROM vectors WHERE kind = ? GROUP BY length(vector) ORDER BY count(*) DESC", kind
            )
            self._sizes[kind] = found // 4
        return self._sizes[kind]

    def keep_vector(self, kind: str, key: str, vector: NDArray[np.float32]) -> None:
        blob = vector.astype("<f4").tobytes()
        self._write("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", (kind, key, blob))

    def score(self, scorer: str, sound: str, vibe: str) -> Score | None:
        """Return the stored score, or None; a damaged one counts as missing."""
        found = self._read(
            "SELECT final_score, parts FROM scores WHERE scorer = ? AND sound = ? AND vibe = ?",
            scorer,
            sound,
            digest(vibe),
        )
        return None if found is None else _read_score(*found)

    def keep_score(self, scorer: str, sound: str, vibe: str, score: Score) -> None:
        self._write(
            "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?)",
            (scorer, sound, digest(vibe), score.final_score, json.dumps(score.parts)),
        )

    def dump(self) -> dict[str, list[list[object]]]:
        """Return all entries as plain values for :meth:`merge` of another cache."""
        with self._used() as db:
            vectors = db.execute("SELECT kind, key, vector FROM vectors").fetchall()
            scores = db.execute("SELECT scorer, sound, vibe, final_score, parts FROM scores").fetchall()
        return {
            "vectors": [[kind, key, base64.b64encode(vector).decode()] for kind, key, vector in vectors],
            "scores": [list(score) for score in scores],
        }

    def clear(self) -> None:
        """Delete all entries."""
        with self._used() as db:
            db.execute("DELETE FROM vectors")
            db.execute("DELETE FROM scores")

    def merge(self, held: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Add the entries of another cache, from :meth:`dump`: all of them or none."""
        vectors = [(kind, key, base64.b64decode(vector)) for kind, key, vector in held["vectors"]]
        scores = [tuple(score) for score in held["scores"]]
        with self._used() as db, transaction(db):
            db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", vectors)
            db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?)", scores)

    def _read(self, question: str, *values: str) -> Any:
        with self._used() as db:
            try:
                return db.execute(question, values).fetchone()
            except sqlite3.OperationalError as error:
                if is_bad_text(error):
                    return None
                raise

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._used() as db:
            db.execute(statement, values)

    @contextlib.contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._db
        except sqlite3.ProgrammingError:  # closed: a bug
            raise
        except sqlite3.Error as error:
            raise unusable(self.path or Path(":memory:"), WHAT, error) from None

    def close(self) -> None:
        with self._lock:
            self._db.close()


def _make_tables(db: sqlite3.Connection) -> None:
    db.executescript(_TABLES)
    db.execute("SELECT kind, key, vector FROM vectors LIMIT 0")
    db.execute("SELECT scorer, sound, vibe, final_score, parts FROM scores LIMIT 0")


def _read_score(final_score: object, parts: object) -> Score | None:
    try:
        read = json.loads(parts) if isinstance(parts, str) else None
        values = [final_score, *read.values()] if isinstance(read, dict) else [None]
        whole = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    except (ValueError, OverflowError, RecursionError):
        return None
    return Score(cast("float", final_score), cast("dict[str, float]", read)) if whole else None
