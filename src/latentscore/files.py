"""Open and read untrusted files: pipes do not block, and devices and very long files are refused."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

MOST_BYTES = 2**28
"""The longest file that is read completely, 256 MiB. The JSON documents of a workspace are much smaller."""


def user_path(path: Path | str) -> Path:
    """Return the path with the home folder in place of a ``~`` or ``~name`` at its beginning, if there is such a folder."""
    return Path(os.path.expanduser(path))


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading. A pipe without a writer is treated as empty instead of blocking.

    Raises :class:`OSError`, also for a device, which may have no end.
    """
    file = cast(BinaryIO, open(path, "rb", opener=_without_waiting))  # noqa: SIM115 (it is returned open)
    try:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise OSError(errno.EINVAL, "it is a device, not a file", str(path))
        os.set_blocking(file.fileno(), True)
    except BaseException:
        file.close()
        raise
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_whole(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the bytes of a file. Raises :class:`OSError` as :func:`open_file` does, and for a file of more than ``most``
    bytes."""
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        # Not EFBIG: that number belongs to writing, and is reported as a disk without space.
        raise OSError(errno.EINVAL, f"it is longer than {most / 2**20:g} MiB", str(path))
    return content


def why_no_file(path: Path) -> str:
    """Return why a path is not a file, for a message that begins with the path."""
    return "is not a file" if os.path.lexists(path) else "does not exist"
