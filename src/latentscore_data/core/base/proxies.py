"""Addresses of servers, and which calls go through the proxy that the environment names.

The HTTP clients use ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` also for servers on this machine, and do not
support networks (``10.0.0.0/8``) or wildcards in ``NO_PROXY``. So the hosts that must be called directly are added to
it one by one.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from contextlib import suppress
from urllib.parse import urlsplit


def check_address(address: str) -> None:
    """Raise :class:`ValueError`, with the reason, for an invalid address of an HTTP server."""
    if any(char.isspace() or not char.isprintable() for char in address):
        raise ValueError("the address contains white space")
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


LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


def proxy_variables() -> list[str]:
    """The variables that name a proxy, as they are spelled in the environment."""
    kinds = ("http_proxy", "https_proxy", "all_proxy")
    return sorted(name for name, value in os.environ.items() if name.lower() in kinds and value)


def no_proxy() -> list[str]:
    """Return the entries of ``NO_PROXY``; the lower-case variable has precedence, as in the clients."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return [entry for part in given.split(",") if (entry := part.strip())]


def call_directly(address: str | None = None) -> None:
    """Make calls to this machine bypass the proxy, and calls to ``address`` if it is local or ``NO_PROXY`` covers it.

    Changes ``NO_PROXY`` of this process, in both spellings. Call this before creating an HTTP client.
    """
    entries = no_proxy()
    hosts: list[str] = [*LOOPBACK_HOSTS]
    host = _host(address)
    if host and (_is_here(host) or any(_means(entry, host) for entry in entries)):
        hosts.append(host)
    missing = [one for one in dict.fromkeys(hosts) if one not in entries]
    if missing and "*" not in entries:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*entries, *missing])


def is_called_directly(address: str) -> bool:
    """Return True if calls to the address bypass the proxy."""
    host = _host(address)
    return _is_here(host) or any(_means(entry, host) for entry in no_proxy())


def proxy_for(address: str) -> str | None:
    """Return the proxy for calls to the address, with user and password; None if they bypass it."""
    if is_called_directly(address):
        return None
    named = urllib.request.getproxies()
    return named.get(urlsplit(address).scheme) or named.get("all")


def _host(address: str | None) -> str:
    with suppress(ValueError):
        return (urlsplit(address).hostname or "") if address else ""
    return ""


def is_loopback(address: str | None) -> bool:
    """True for a server on this machine."""
    return _is_here(_host(address))


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _means(entry: str, host: str) -> bool:
    """True when an entry of ``NO_PROXY`` covers the host: a name with all below it, an address or a network."""
    if "/" in entry:
        with suppress(ValueError):
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        return False
    name = entry.lower().removeprefix("*").removeprefix(".")
    return host == name or (bool(name) and host.endswith(f".{name}")) or entry == "*"
