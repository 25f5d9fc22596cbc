"""What was heard before: vectors of sounds and texts, and scores, in one SQLite file."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from latentscore_data.core.base.errors import OutputError
from latentscore_data.core.base.seeds import digest
from latentscore_data.core.scoring.types import Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS vectors (kind TEXT, key TEXT, vector BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
    scorer TEXT, sound TEXT, vibe TEXT, final_score REAL, parts TEXT, PRIMARY KEY (scorer, sound, vibe)
) WITHOUT ROWID;
"""


class ScoreCache:
    """Vectors by (who made it, of what) and scores by (scorer fingerprint, sound, vibe).

    Vectors are raw little-endian float32, scores are numbers and JSON: reading the file runs no code. Safe to use from
    several threads. Only successes are stored. A file that is no database is set aside, since all of it can be made again.
    Without a path it lives in memory. Raises :class:`OutputError` when it cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        if path is None:
            self._db = self._open()
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error) and "malformed" not in str(error):
                raise OutputError(f"{path} cannot be opened ({error})", "check the disk and the permissions") from None
            aside = path.with_suffix(".damaged")
            log.warning("%s is damaged; it was moved to %s and scores are made again", path, aside.name)
            path.replace(aside)
            self._db = self._open()
        except OSError as error:
            raise OutputError(
                f"{path} cannot be opened ({error.strerror})", "check the disk and the permissions"
            ) from None

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            # SQLite gives its side files the permissions of the database, so these must be right before it opens it.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            os.chmod(self.path, 0o600)
        db = sqlite3.connect(self.path or ":memory:", check_same_thread=False, isolation_level=None, timeout=30)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript(_TABLES)
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    def vector(self, kind: str, key: str) -> NDArray[np.float32] | None:
        import numpy as np

        with self._lock:
            found = self._db.execute("SELECT vector FROM vectors WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if found is None else np.frombuffer(found[0], dtype="<f4").copy()

    def keep_vector(self, kind: str, key: str, vector: NDArray[np.float32]) -> None:
        blob = vector.astype("<f4").tobytes()
        self._write("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", (kind, key, blob))

    def score(self, scorer: str, sound: str, vibe: str) -> Score | None:
        with self._lock:
            found = self._db.execute(
                "SELECT final_score, parts FROM scores WHERE scorer = ? AND sound = ? AND vibe = ?",
                (scorer, sound, digest(vibe)),
            ).fetchone()
        return None if found is None else Score(found[0], json.loads(found[1]))

    def keep_score(self, scorer: str, sound: str, vibe: str, score: Score) -> None:
        self._write(
            "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?)",
            (scorer, sound, digest(vibe), score.final_score, json.dumps(score.parts)),
        )

    def dump(self) -> dict[str, list[list[object]]]:
        """Everything that is held, as plain values for :meth:`merge` of another cache."""
        with self._lock:
            vectors = self._db.execute("SELECT kind, key, vector FROM vectors").fetchall()
            scores = self._db.execute("SELECT scorer, sound, vibe, final_score, parts FROM scores").fetchall()
        return {
            "vectors": [[kind, key, base64.b64encode(vector).decode()] for kind, key, vector in vectors],
            "scores": [list(score) for score in scores],
        }

    def merge(self, held: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Take over what another cache held, as :meth:`dump` gives it. Nothing is taken unless all of it can be."""
        vectors = [(kind, key, base64.b64decode(vector)) for kind, key, vector in held["vectors"]]
        scores = [tuple(score) for score in held["scores"]]
        with self._writing() as db:
            db.execute("BEGIN")
            try:
                db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", vectors)
                db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?)", scores)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._writing() as db:
            db.execute(statement, values)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._db
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"{self.path} cannot be written ({error})", "free some disk space, then run the same command again"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._db.close()
