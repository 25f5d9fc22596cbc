"""The studio's server: access, socket, address with token, and the loop that runs until Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.base.settings import Settings
from latentscore_data.studio.api import Studio
from latentscore_data.studio.app import Access, make_app

SHORTEST_TOKEN = 16


def choose_access(host: str | None, token: str | None) -> Access:
    """Return the access control. Without ``host``, the server listens on this machine only; without ``token``, it makes
    one.

    Raises :class:`InputError` for another host without a token, and for a short token.
    """
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise InputError(
            f"--token has {len(token)} characters; at least {SHORTEST_TOKEN} are required",
            'make one: python -c "import secrets; print(secrets.token_urlsafe(24))"',
        )
    access = Access(host=host or "127.0.0.1", **({} if token is None else {"token": token}))
    if not access.loopback and token is None:
        raise InputError(
            f"--host {host} serves other machines, which needs --token as well",
            "add --token TEXT, or leave --host out to serve this machine only",
        )
    return access


def listen(access: Access, port: int) -> socket.socket:
    """Return a listening socket; port 0 is a free port. Raises :class:`OutputError` for a port in use and for an address
    that this machine does not have."""
    family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((access.host, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        unknown = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        remedy = "name an address of this machine with --host" if unknown else "choose another port with --port"
        raise OutputError(f"{access.host}:{port} cannot be served ({error.strerror})", remedy) from None
    return bound


def address(access: Access, bound: socket.socket) -> str:
    """Return the address to open. The token is in the fragment, which browsers do not send to servers."""
    host = f"[{access.host}]" if ":" in access.host else access.host
    return f"http://{host}:{bound.getsockname()[1]}/#token={access.token}"


def serve(
    settings: Settings, access: Access, port: int, ready: Callable[[str], None], trusted: frozenset[str] = frozenset()
) -> None:
    """Serve until SIGINT or SIGTERM. ``ready`` is called with the address before the loop starts."""
    import uvicorn

    with listen(access, port) as bound, Studio(settings, trusted) as studio:
        config = uvicorn.Config(
            make_app(studio, access),
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            lifespan="off",
        )
        ready(address(access, bound))
        # Ctrl-C is the normal way to stop the server.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[bound])
