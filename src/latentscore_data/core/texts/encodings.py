"""How a text file is encoded: UTF-8, UTF-16 with a byte-order mark, or what the user says of files that are neither."""

from __future__ import annotations

import codecs
import zlib
from dataclasses import dataclass
from pathlib import Path

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import open_packed

BLOCK_BYTES = 1 << 20
UTF8 = "utf-8-sig"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def find_encoding(path: Path, otherwise: str | None = None) -> str:
    """The encoding that the whole file can be read with; ``otherwise`` is tried where it is not UTF-8.

    Raises :class:`InputError` that names an option which reads the file, and for a file that cannot be opened. A packed file
    that is damaged is left to its reader.
    """
    misfit = _misfit(path, UTF8)
    if misfit is None:
        return UTF8
    with open_packed(path) as file:
        encoding = "utf-16" if file.read(2) in UTF16_MARKS else otherwise
    if encoding is None:
        raise InputError(
            f"{path}:{misfit.line}: not UTF-8 at byte {misfit.at} of the line",
            f"save it as UTF-8, or pass --encoding {_likely(misfit.block)}",
        )
    if (misfit := _misfit(path, encoding)) is not None:
        raise InputError(f"{path}:{misfit.line}: neither UTF-8 nor {encoding}", "name another one with --encoding")
    return encoding


@dataclass(frozen=True)
class _Misfit:
    """Where the first bytes are that do not belong to an encoding."""

    line: int
    at: int
    """Bytes of the line before them."""
    block: bytes


def _misfit(path: Path, encoding: str) -> _Misfit | None:
    decoder = codecs.getincrementaldecoder(encoding)()
    line, at = 1, 0
    before = b""
    try:
        with open_packed(path) as file:
            while True:
                block = file.read(BLOCK_BYTES)
                try:
                    decoder.decode(block, final=not block)
                except UnicodeError as error:
                    good = (before + block)[: error.start] if isinstance(error, UnicodeDecodeError) else b""
                    line, at = _after(good, line, at)
                    return _Misfit(line, at, block)
                whole = before + block
                before = decoder.getstate()[0]
                line, at = _after(whole[: len(whole) - len(before)], line, at)
                if not block:
                    return None
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "check its permissions") from None
    except (OSError, EOFError, zlib.error):
        return None


def _after(read: bytes, line: int, at: int) -> tuple[int, int]:
    """The line, and the bytes before this place in it, behind what was read."""
    ends = read.count(b"\n")
    return line + ends, len(read) - read.rfind(b"\n") - 1 if ends else at + len(read)


def _likely(piece: bytes) -> str:
    """What these bytes may be: Windows has letters and quotes where Latin-1 has control characters."""
    return "cp1252" if any(0x80 <= byte < 0xA0 for byte in piece) else "latin-1"
