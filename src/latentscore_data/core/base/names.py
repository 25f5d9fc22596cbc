"""Display and output of names and texts that are not valid UTF-8.

File names may contain any bytes, which Python represents as lone surrogates, and JSON may escape half of a surrogate
pair. Neither can be encoded as UTF-8.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from latentscore.files import user_path

if TYPE_CHECKING:
    from pydantic import BaseModel


def printable(text: object) -> str:
    r"""Return the text with characters that UTF-8 cannot encode as escapes: ``caf\xe9`` for a byte, ``\ud83d`` for a lone
    surrogate."""
    text = str(text)
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        pass
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")


def path_named(text: str) -> Path:
    """Return the path with that name, or else the existing path whose printable name it is."""
    path = user_path(text)
    if os.path.lexists(path) or "\\x" not in text:
        return path
    name = _BYTE.sub(lambda byte: bytes.fromhex(byte[1].decode()), os.fsencode(path))
    return Path(os.fsdecode(name)) if os.path.lexists(name) else path


def json_bytes(value: Any, options: int = 0, default: Callable[[Any], Any] | None = None) -> bytes:
    """Return the value as JSON with the options of ``orjson``; texts that are not valid Unicode are made printable, and whole
    numbers beyond 64 bits, which ``orjson`` cannot write, become floating-point ones.

    Raises :class:`TypeError` for what JSON cannot hold.
    """
    try:
        return orjson.dumps(value, default, options)
    except TypeError:
        return orjson.dumps(made_printable(value), default and (lambda one: made_printable(default(one))), options)


def model_text(model: BaseModel, exclude: Mapping[str, Any] | None = None) -> str:
    """Return the model as pydantic's JSON, without the fields of ``exclude``; texts that are not valid Unicode are made printable."""
    from pydantic_core import PydanticSerializationError

    left_out = dict(exclude or {})
    try:
        return model.model_dump_json(exclude=left_out)
    except PydanticSerializationError:
        return json_bytes(model.model_dump(mode="json", exclude=left_out)).decode()


def made_printable(value: Any) -> Any:
    """Return a JSON value whose texts and names are all printable, and whose whole numbers have 64 bits at most."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value) if abs(value) < 2**1023 else None
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {made_printable(name): made_printable(one) for name, one in items}
    if isinstance(value, list | tuple):
        return [made_printable(one) for one in cast("list[Any]", value)]
    return value


def leads_out(entry: Path, folder: Path) -> bool:
    """Return whether an entry of a folder is a link to something outside the folder."""
    return not entry.resolve().is_relative_to(folder.resolve())
