"""Keys: read only from the environment or ``.env``, and never displayed."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from latentscore_data.core.base.errors import InputError, MissingError

if TYPE_CHECKING:
    from pydantic import SecretStr

_KEY_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)(_ID)?$", re.IGNORECASE)


def read_dotenv(path: Path = Path(".env")) -> list[str]:
    """Put the keys of ``.env`` into the environment, where they are not set already. Returns their names.

    Only variables named like keys are used, so that an address in a ``.env`` cannot redirect calls. Raises
    :class:`InputError`, which names file and line, for a file that is not UTF-8.
    """
    if not path.is_file():
        return []
    from dotenv import dotenv_values

    values = dotenv_values(stream=io.StringIO(_read_utf8(path)))
    keys = {name: value for name, value in values.items() if value and _KEY_NAME.search(name)}
    for name, value in keys.items():
        os.environ.setdefault(name, value)
    return list(keys)


def _read_utf8(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "check its permissions") from None
    try:
        text = content.decode("utf-8-sig")
        bad, what = text.find("\x00"), "a NUL character"
        line = text.count("\n", 0, max(bad, 0)) + 1
    except UnicodeDecodeError as error:
        bad, what = error.start, f"not UTF-8 (byte 0x{content[error.start]:02x})"
        line = content.count(b"\n", 0, error.start) + 1
        text = ""
    if bad >= 0:
        raise InputError(f"{path}:{line}: {what}", "save the file as UTF-8")
    return text


NAMED: set[str] = set()
"""Variables that were used as keys in this run, whatever their names."""


def key_named(variable: str) -> SecretStr:
    """The key in an environment variable. Raises :class:`MissingError` when it is not set."""
    value = os.environ.get(variable, "")
    if not value:
        raise MissingError(f"{variable} is not set", f"put it into the environment or into .env ({variable}=...)")
    from pydantic import SecretStr

    NAMED.add(variable)
    return SecretStr(value)


_GRANTED: set[str] = set()


def grant(variable: str) -> None:
    """Allow sending the key of this variable to the address in the settings, because the user named it on the command line."""
    _GRANTED.add(variable)


def granted(variable: str) -> bool:
    """Return True if the user, not a settings file, allowed sending this variable's key to another address."""
    return variable in _GRANTED or os.environ.get("LSDATA_LLM__API_KEY_ENV") == variable


def without(text: str, *secrets: SecretStr | None) -> str:
    """The text with each secret's value taken out."""
    for secret in secrets:
        if secret is not None and len(secret.get_secret_value()) >= 4:
            text = text.replace(secret.get_secret_value(), "[redacted]")
    return text
