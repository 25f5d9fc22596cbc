"""Validation of server addresses."""

from __future__ import annotations

from urllib.parse import urlsplit


def check_address(address: str) -> None:
    """Raise :class:`ValueError`, with the reason, for an invalid address of an HTTP server."""
    if any(char.isspace() or not char.isprintable() for char in address):
        raise ValueError("the address contains a space")
    if "://" not in address:
        raise ValueError(f"the address has no scheme, write http://{address.lstrip('/')} or https://...")
    try:
        parts = urlsplit(address)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        port_wrong = str(error).startswith("Port")
        raise ValueError(
            "the port must be a number from 1 to 65535" if port_wrong else f"this is not an address ({error})"
        ) from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("the address must begin with http:// or https://")
    if not parts.hostname:
        raise ValueError("the address has no host")
    if port == 0:
        raise ValueError("the port must be a number from 1 to 65535")
    if "@" in parts.netloc:
        raise ValueError("the address must not contain a name or password; name a key with api_key_env")
