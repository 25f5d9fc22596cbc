"""SQLite files: open them, move damaged ones aside, and report errors."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from latentscore_data.core.base.errors import OutputError

log = logging.getLogger(__name__)

CHECKED_BYTES = 512 * 2**20
"""Files above this size are checked at opening only after an error, because the check reads the whole file."""
BUSY_SECONDS = 30.0
"""Maximum wait for another process that has locked the file."""

Prepare = Callable[[sqlite3.Connection], None]
"""Creates the tables, and raises :class:`sqlite3.Error` if existing tables have other columns."""
Salvage = Callable[[sqlite3.Connection, sqlite3.Connection], str]
"""Copies the readable rows of the damaged file to the new one, and returns a description of them."""

_OTHER_TABLES = sqlite3.SQLITE_ERROR
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def open_database(path: Path, what: str, prepare: Prepare, salvage: Salvage | None = None) -> sqlite3.Connection:
    """Open the database at ``path`` in autocommit mode, with a write-ahead log and the tables of ``prepare``.

    Only the owner may read the file. A file that is damaged, not a database, or has other tables is renamed with a
    date, which is logged once, and replaced by a new one. ``what`` is the file's kind in messages. Raises
    :class:`OutputError` if the file is locked or cannot be written.
    """
    try:
        try:
            return _open(path, prepare)
        except sqlite3.Error as error:
            if _code(error) not in (*_DAMAGED, _OTHER_TABLES):
                raise
            reason = str(error)
        aside = _set_aside(path)
        db = _open(path, prepare)
        kept = "it will be refilled"
        if salvage is not None:
            with contextlib.closing(connect(aside)) as old:
                kept = salvage(old, db)
        log.warning("the %s %s is damaged (%s) and was moved to %s; %s", what, path, reason, aside.name, kept)
        return db
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, what, error) from None


def open_to_read(path: Path, what: str) -> sqlite3.Connection:
    """Open a file in a read-only folder; a leftover write-ahead log is not read. Raises :class:`OutputError`."""
    try:
        return sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise unusable(path, what, error) from None


def connect(path: Path) -> sqlite3.Connection:
    """Open another connection to a file that :func:`open_database` has opened."""
    return sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, begin: str = "BEGIN") -> Iterator[None]:
    """Context manager: commit all writes of the block, or none."""
    db.execute(begin)
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextlib.contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Context manager: convert SQLite's errors with :func:`unusable`."""
    try:
        yield
    except sqlite3.Error as error:
        raise unusable(path, what, error) from None


def unusable(path: Path, what: str, error: OSError | sqlite3.Error) -> OutputError:
    """Return the error with reason and remedy. A damaged file is marked, so that the next opening checks it completely."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    message = f"the {what} {path} cannot be used ({reason})"
    if _code(error) in _DAMAGED:
        with contextlib.suppress(OSError):
            _mark(path).touch()
        return OutputError(
            f"the {what} {path} is damaged ({reason})",
            "run the same command again: the damaged file is moved aside and replaced",
        )
    if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OutputError(message, "another process is using it: wait, or choose another --root")
    if _code(error) == sqlite3.SQLITE_FULL:
        return OutputError(message, "free some disk space, then run the same command again")
    return OutputError(message, "free some disk space, check the permissions, or choose another --root")


def is_bad_text(error: sqlite3.Error) -> bool:
    """Return True if a value is not UTF-8 in an otherwise valid file. Python raises this error without an SQLite code."""
    return isinstance(error, sqlite3.OperationalError) and "decode to UTF-8" in str(error)


def _open(path: Path, prepare: Prepare) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite creates its side files with the permissions of the database, so they are set before opening.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    os.chmod(path, 0o600)
    db = connect(path)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if path.stat().st_size <= CHECKED_BYTES or _mark(path).exists():
            _check(db)
            _mark(path).unlink(missing_ok=True)
        prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection) -> None:
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        error = sqlite3.DatabaseError(" ".join(str(found).replace("*** in database main ***", "").split())[:200])
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.suspect")


def _set_aside(path: Path) -> Path:
    """Rename the file and its side files; otherwise SQLite would apply the old log to the new file."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    number = itertools.count(2)
    while aside.exists():
        aside = path.with_name(f"{path.stem}.damaged-{stamp}-{next(number)}{path.suffix}")
    for ending in ("-wal", "-shm", ""):
        if (part := path.with_name(path.name + ending)).exists():
            part.replace(aside.with_name(aside.name + ending))
    _mark(path).unlink(missing_ok=True)
    return aside


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 for an error that is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
