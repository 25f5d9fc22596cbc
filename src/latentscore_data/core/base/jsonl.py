"""JSONL: read typed rows, append whole lines, replace whole files."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import mmap
import os
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast

import orjson
from pydantic import BaseModel, ValidationError

from latentscore.files import open_file, read_whole
from latentscore.json_search import JsonObject
from latentscore_data.core.base.closing import Closing
from latentscore_data.core.base.errors import InputError, OutputError, in_a_sentence
from latentscore_data.core.base.names import json_bytes, printable

log = logging.getLogger(__name__)

RowT = TypeVar("RowT", bound=BaseModel)

Line = JsonObject
"""A line of a JSONL file, before it is checked against a row's type."""

MAX_LINE_BYTES = 8 * 1024 * 1024
"""Maximum length of a row; longer lines are refused to protect the memory."""

TornLine = Literal["refuse", "drop"]


def read_lines(
    path: Path, torn: TornLine = "refuse", content: bytes | None = None, encoding: str | None = None
) -> Iterator[tuple[int, Line]]:
    """Yield (line number, object) for each line of a JSONL file, streamed; or of its ``content``, if it was read
    already.

    A byte-order mark and CRLF are accepted, blank lines are skipped, ``.gz`` is decompressed. ``torn="drop"`` drops an
    incomplete last line, as a crash leaves it in appended files. The default ``encoding`` is UTF-8. Raises
    :class:`InputError`, which names file and line.
    """
    try:
        file = open_packed(path) if content is None else io.BytesIO(content)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", "check the path") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "check the path and its permissions") from None
    with file if encoding is None else cast("IO[bytes]", _Recoded(file, encoding)) as file:
        number = 0
        while line := _next_line(path, file):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InputError(
                    f"{path}:{number}: the line is longer than {MAX_LINE_BYTES // 2**20} MiB",
                    "split it or leave it out",
                )
            if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
            whole = line.endswith(b"\n")
            line = line.strip()
            if not line:
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if not whole and torn == "drop":
                    log.warning("%s:%d: dropped an incomplete last line", path, number)
                    return
                raise InputError(*_why_not_json(path, number, line, whole, error)) from None
            if not isinstance(value, dict):
                raise InputError(
                    f"{path}:{number}: must be a JSON object, not {type(value).__name__}", "correct the line"
                )
            yield number, value


class _Recoded(Closing):
    """The lines of a file with another encoding, converted to UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._text = io.TextIOWrapper(file, encoding=encoding, newline="\n")

    def readline(self, most: int) -> bytes:
        return self._text.readline(most).encode("utf-8", "replace")

    def close(self) -> None:
        self._text.close()


def open_packed(path: Path) -> IO[bytes]:
    """Open a file for reading and decompress it if its name ends in ``.gz``. Raises :class:`OSError`."""
    if path.name.lower().endswith(".gz"):
        import gzip

        raw = open_file(path)
        packed = gzip.GzipFile(fileobj=raw)
        packed.myfileobj = raw  # type: ignore[assignment]  # closed with it, as where gzip opens the file itself
        return cast("IO[bytes]", packed)
    return open_file(path)


def _next_line(path: Path, file: IO[bytes]) -> bytes:
    try:
        return file.readline(MAX_LINE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read to its end ({error})", "fetch or pack the file again") from None


def _why_not_json(path: Path, number: int, line: bytes, whole: bool, error: Exception) -> tuple[str, str]:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as bad:
        return f"{path}:{number}: not UTF-8 at byte {bad.start} of the line", "save the file as UTF-8"
    if not whole:
        return f"{path}:{number}: the last line is incomplete", "complete or delete the last line"
    return f"{path}:{number}: not valid JSON ({error})", "correct or delete the line"


def count_lines(paths: Iterable[Path]) -> int:
    """How many lines that are not blank the files hold that are there."""
    count = 0
    for path in paths:
        if path.exists():
            with open_file(path) as file:
                count += sum(1 for line in file if line.strip())
    return count


def read_rows(path: Path, row_type: type[RowT], torn: TornLine = "refuse") -> Iterator[RowT]:
    """Typed rows, streamed. Raises :class:`InputError` naming file, line and field."""
    for number, value in read_lines(path, torn):
        yield typed_row(value, row_type, f"{path}:{number}")


def typed_row(value: Line, row_type: type[RowT], where: str) -> RowT:
    """Return the typed row. Raises :class:`InputError`, which names ``where``, for an invalid value."""
    try:
        return row_type.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "row"
        raise InputError(
            f"{where}: field {field}: {in_a_sentence(first['msg'])}", f"correct the field {field} in that line"
        ) from None


def read_object(path: Path, remedy: str) -> JsonObject:
    """Return the JSON object in a file. Raises :class:`InputError` for a file that is empty, truncated or not an object."""
    try:
        value = json.loads(read_whole(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error})", remedy) from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged (it is not a JSON object)", remedy)
    return value


def object_or_empty(path: Path) -> JsonObject:
    """Return the JSON object in a file; empty for a file that is missing, unreadable or not an object."""
    try:
        return read_object(path, "")
    except InputError:
        return {}


def dump_line(row: BaseModel | Line) -> bytes:
    """Return a row as one line of JSON with a newline. Unset optional fields of typed rows are omitted."""
    value = row.model_dump(mode="json", exclude_unset=True) if isinstance(row, BaseModel) else row
    return json_bytes(value, orjson.OPT_APPEND_NEWLINE)


@contextlib.contextmanager
def writing(path: Path, elsewhere: str = "choose another folder with --root") -> Iterator[None]:
    """Context manager: convert system errors while writing ``path`` to :class:`OutputError`; ``elsewhere`` describes how to
    choose another place."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error})",
            f"free some disk space or {elsewhere}, then run the same command again",
        ) from None


class Appender(Closing):
    """Appends whole lines to a file; a crash leaves at most one incomplete last line, which the next run drops.

    Each line is passed to the operating system at once (it survives a crash of the process) and synced to disk every
    ``sync_seconds`` and at the end (it survives a crash of the machine).
    """

    def __init__(self, path: Path, sync_seconds: float = 5.0, *, mode: int = 0o644) -> None:
        self.path = path
        self._sync_seconds = sync_seconds
        self._last_sync = 0.0
        if path.is_symlink():
            # In a workspace from another source, the link could point to any file of this machine.
            raise OutputError(f"{path} is a link, and its target would be changed", "replace the link by the file")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _end_with_newline(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)

    def append(self, row: BaseModel | Line) -> tuple[int, int]:
        """Write one row and return its offset and length in bytes.

        Raises :class:`OutputError` if the disk is full or fails; the file then still consists of whole lines.
        """
        import time

        line = dump_line(row)
        with writing(self.path):
            before = os.fstat(self._fd).st_size
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._fd, line[written:])
            except OSError:
                os.ftruncate(self._fd, before)
                raise
            if time.monotonic() - self._last_sync > self._sync_seconds:
                os.fsync(self._fd)
                # Measured from the end of the sync, so that a slow disk does not sync after every line.
                self._last_sync = time.monotonic()
        return before, len(line)

    @property
    def replaced(self) -> bool:
        """Return whether the path now belongs to another file, so that appended lines would be lost."""
        try:
            return not os.path.samestat(os.fstat(self._fd), os.stat(self.path))
        except FileNotFoundError:
            return True

    def close(self) -> None:
        with writing(self.path):
            try:
                os.fsync(self._fd)
            finally:
                os.close(self._fd)


def _end_with_newline(path: Path) -> None:
    """Drop an incomplete last line, or add a missing newline to a complete one, before appending."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            keep = content.rfind(b"\n") + 1
            tail = content[keep:]
        if tail and _is_whole(tail):
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
        elif tail:
            log.warning("%s: dropped an incomplete last line", path)
            file.truncate(keep)


def _is_whole(line: bytes) -> bool:
    """Return whether a line without a newline is a complete JSON object."""
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def replace_rows(path: Path, rows: Iterable[BaseModel | Line], mode: int = 0o644) -> int:
    """Replace a file of rows atomically: a reader sees the old file or the new one. Returns the number of rows."""
    return replace_several(((path, row) for row in rows), [path], mode)[path]


DRAFT_ENDING = ".lsdata-draft"
_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}" + re.escape(DRAFT_ENDING))


def draft_of(path: Path) -> Path:
    """Return a hidden path beside ``path`` for a draft, which is renamed to ``path`` when it is complete."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{DRAFT_ENDING}")


def is_draft(path: Path) -> bool:
    """Return whether the name is one that :func:`draft_of` gives."""
    return _DRAFT.fullmatch(path.name) is not None


def replace_bytes(path: Path, chunks: Iterable[bytes], mode: int = 0o644) -> None:
    """Replace a file atomically; it is synced before the rename."""
    with _replacing(path, mode) as out:
        for chunk in chunks:
            with writing(path):
                out.write(chunk)


def replace_several(
    rows: Iterable[tuple[Path, BaseModel | Line]], paths: Iterable[Path], mode: int = 0o644
) -> dict[Path, int]:
    """Replace several files of rows, each atomically, in one pass over (file, row); files without rows are also
    written.

    Returns the number of rows of each.
    """
    counts = dict.fromkeys(paths, 0)
    with contextlib.ExitStack() as drafts:
        outs = {path: drafts.enter_context(_replacing(path, mode)) for path in counts}
        for path, row in rows:
            counts[path] += 1
            with writing(path):
                outs[path].write(dump_line(row))
    return counts


@contextlib.contextmanager
def _replacing(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Context manager: a draft that replaces ``path`` if the block succeeds."""
    draft = draft_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with writing(path):
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        out = os.fdopen(fd, "wb")
        try:
            yield out
            with writing(path):
                out.flush()
                os.fsync(out.fileno())
        finally:
            # Closing tries again to write data that a full disk refused.
            with writing(path):
                out.close()
        with writing(path):
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) atomically."""
    replace_bytes(path, [printable(text).encode()])


def replace_json(path: Path, value: Any) -> None:
    """Replace a file with one indented JSON document, atomically."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    replace_bytes(path, [json_bytes(value, options)])
