"""Addresses of servers, and which calls go through the proxy that the environment names.

The HTTP clients take ``HTTP_PROXY`` and its kin for servers on this machine too, and of ``NO_PROXY`` they know neither
networks (``10.0.0.0/8``) nor stars. So the hosts that are to be called directly are written into it one by one.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from contextlib import suppress
from urllib.parse import urlsplit


def check_address(address: str) -> None:
    """Raise :class:`ValueError` for what is no address of an HTTP server; the message says what is wrong with it."""
    if any(char.isspace() or not char.isprintable() for char in address):
        raise ValueError("there is a blank in the address")
    if "://" not in address:
        raise ValueError(f"the address has no scheme, write http://{address.lstrip('/')} or https://...")
    try:
        parts = urlsplit(address)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        port_wrong = str(error).startswith("Port")
        raise ValueError(
            "the port is a number from 1 to 65535" if port_wrong else f"this is no address ({error})"
        ) from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("the address begins with http:// or https://")
    if not parts.hostname:
        raise ValueError("the address has no host")
    if port == 0:
        raise ValueError("the port is a number from 1 to 65535")
    if "@" in parts.netloc:
        raise ValueError("a name or password does not belong into the address, name a key with api_key_env")


LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


def proxy_variables() -> list[str]:
    """The variables that name a proxy, as they are spelled in the environment."""
    kinds = ("http_proxy", "https_proxy", "all_proxy")
    return sorted(name for name, value in os.environ.items() if name.lower() in kinds and value)


def no_proxy() -> list[str]:
    """The entries of ``NO_PROXY``; the clients read the spelling in small letters first."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return [entry for part in given.split(",") if (entry := part.strip())]


def call_directly(address: str | None = None) -> None:
    """Keep the proxy out of calls to this machine, and to ``address`` where it is here or ``NO_PROXY`` means it.

    Changes ``NO_PROXY`` of this process, in both spellings. Has to come before an HTTP client is made.
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
    """True when calls to the address pass by the proxy."""
    host = _host(address)
    return _is_here(host) or any(_means(entry, host) for entry in no_proxy())


def proxy_for(address: str) -> str | None:
    """The proxy that calls to the address go through, user and password included; None where they go directly."""
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
