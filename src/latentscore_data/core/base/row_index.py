"""An index of the newest line of each row in an appended JSONL file, built once and updated when lines are appended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import orjson

from latentscore.files import open_file
from latentscore_data.core.base.closing import Closing
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import Line, read_lines, replace_bytes
from latentscore_data.core.base.manifest import FileFact, file_fact

FROM_ELSEWHERE = "from_elsewhere"
"""The field that is true in a line from another tool that a stage has processed since."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Entry:
    """The position of the newest line of a key, and the facts that are needed without reading it again."""

    fingerprint: str | None
    offset: int
    length: int
    ours: bool
    """Whether a stage made the line. Lines from other tools have no fingerprint, and are never removed."""
    split: str | None
    has_config: bool
    """Whether the line holds a config, or a candidate that is one."""


class RowIndex(Closing):
    """The newest line of each key in a file. Lines stay on disk, so memory grows by about 0.5 kB a row.

    ``unnamed`` counts the lines without a key, which get the one that ``name`` makes of (line, place). Raises
    :class:`InputError` naming file and line for what is not a JSON object, and for a line without a key where there is
    no ``name``.
    """

    def __init__(self, path: Path, line_key: str = "row_id", name: Callable[[Line, str], str] | None = None) -> None:
        self.path, self.line_key = path, line_key
        self.entries: dict[str, Entry] = {}
        self.unnamed = 0
        self._fact: FileFact | None = None
        self._file: IO[bytes] | None = None
        if path.exists():
            self._read(name)

    def _read(self, name: Callable[[Line, str], str] | None) -> None:
        offset, lines, sha, torn = 0, 0, hashlib.sha256(), False
        with open_file(self.path) as file:
            for number, raw in enumerate(file, 1):
                line = self._parse(raw, number)
                if line is None:
                    torn = True
                    break
                if line:
                    # A complete line without a newline gets it when the file is next appended to or written.
                    whole = raw.endswith(b"\n")
                    torn = not whole
                    key = self._key(line, f"{self.path}:{number}", name)
                    self.note(key, line, offset, len(raw) + (not whole))
                sha.update(raw)
                offset += len(raw)
                lines += 1
        if not torn:
            self._fact = FileFact(sha.hexdigest(), offset, lines)

    def _key(self, line: Line, place: str, name: Callable[[Line, str], str] | None) -> str:
        key = line.get(self.line_key)
        if key:
            return str(key)
        if name is None:
            raise InputError(f"{place}: the line has no {self.line_key}", "correct or delete the line")
        self.unnamed += 1
        return name(line, place)

    def _parse(self, raw: bytes, number: int) -> Line | None:
        """The object of a line, empty for a blank one; None for a last line without its end."""
        text = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
        if not text.strip():
            return {}
        try:
            line = orjson.loads(text)
        except orjson.JSONDecodeError:
            line = None
        if isinstance(line, dict):
            return line
        # The slower reader raises an error with file, line and reason.
        for _ in read_lines(self.path, torn="drop"):
            pass
        return None

    def note(self, key: str, line: Line, offset: int, length: int) -> None:
        """Remember a line that was appended."""
        held = (line.get("config_payload"), line.get("config"), *(line.get("config_candidates") or ()))
        fingerprint = line.get("input_fingerprint")
        ours = fingerprint is not None and not line.get(FROM_ELSEWHERE)
        self.entries[key] = Entry(fingerprint, offset, length, ours, line.get("split"), any(held))
        self._fact = None

    def line(self, key: str) -> Line:
        """The newest line of a key."""
        return orjson.loads(self._bytes(self.entries[key]).removeprefix(_BYTE_ORDER_MARK))

    def lines(self, keys: Iterable[str]) -> Iterator[Line]:
        """The newest line of each of these keys, in this order; keys without a line are left out."""
        return (self.line(key) for key in keys if key in self.entries)

    def _bytes(self, entry: Entry) -> bytes:
        if self._file is None:
            self._file = open_file(self.path)
        self._file.seek(entry.offset)
        line = self._file.read(entry.length)
        return line if line.endswith(b"\n") else line + b"\n"

    def keep(self, keys: list[str]) -> None:
        """Make the file hold the newest line of these keys, in this order, and nothing else."""
        offset, moved = 0, {}
        tidy = True
        for key in keys:
            entry = self.entries[key]
            tidy = tidy and entry.offset == offset
            moved[key] = entry if entry.offset == offset else replace(entry, offset=offset)
            offset += entry.length
        if not tidy or offset != self.path.stat().st_size:
            replace_bytes(self.path, (self._bytes(self.entries[key]) for key in keys))
            self.close()
            self._fact = None
        self.entries = moved

    def fact(self) -> FileFact:
        """Hash, size and lines of the file as it is now; read again only where it changed."""
        if self._fact is None:
            self._fact = file_fact(self.path)
        return self._fact

    def clear(self) -> None:
        """Delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.entries, self.unnamed, self._fact = {}, 0, None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read_newest(output: Path, line_key: str, keys: Iterable[str] | None = None) -> Iterator[Line]:
    """The newest line for each key, in the order of ``keys`` (those without a line are left out) or of the file."""
    with RowIndex(output, line_key) as index:
        yield from index.lines(list(index.entries) if keys is None else keys)
