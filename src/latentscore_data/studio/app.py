"""The web application: static files, the routes of the API, and access control (Host, Origin, token, size)."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from latentscore import InvalidConfigError
from latentscore.errors import LatentScoreError
from latentscore.json_search import JsonObject
from latentscore_data.core.base.display import clean, redact
from latentscore_data.core.base.errors import (
    FULL_DISK,
    InputError,
    LsdataError,
    MissingError,
    OutputError,
    StoppedError,
)
from latentscore_data.core.base.workers import WorkerFailure
from latentscore_data.studio.api import ROUTES, Handler, Studio
from latentscore_data.studio.exchange import Call, Gone, Reply, as_json
from latentscore_data.studio.places import SERVED

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)

MOST_BODY_BYTES = 512 * 1024
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No inline scripts, no requests to other hosts, no embedding in frames."""

HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Inline scripts, and files beside the page; no requests to other hosts, because a workspace can be from elsewhere."""

REPORT_HEADERS = {
    "Content-Security-Policy": REPORT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""A report's page has an opaque origin, so that its scripts can access neither the token nor the API."""

MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
               ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}  # fmt: skip


@dataclass(frozen=True)
class Access:
    """Access control: the token, and the address that the server listens on."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    host: str = "127.0.0.1"

    @property
    def loopback(self) -> bool:
        """Whether the server listens on this machine only."""
        return _is_loopback(self.host)

    def refusal(self, headers: Mapping[str, str]) -> str | None:
        """Return why a request is refused (a foreign Host, as in DNS rebinding, or Origin); None if it is allowed."""
        host = headers.get("host", "")
        if not self._knows(_without_port(host)):
            return "the Host header names another machine"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "the request comes from another page"
        return None

    def _knows(self, name: str) -> bool:
        """Return whether a Host is this machine's. Another site can make its own name resolve to this machine, but not
        an IP address or this machine's name."""
        if _is_loopback(name) or name == self.host:
            return True
        return not self.loopback and (_is_address(name) or name.lower() == socket.gethostname().lower())

    def accepts(self, headers: Mapping[str, str]) -> bool:
        """Return whether the token is right, comparing in constant time."""
        given = headers.get("authorization", "").removeprefix("Bearer ")
        return secrets.compare_digest(given.encode(), self.token.encode())


def _is_loopback(name: str) -> bool:
    if name in LOOPBACK_NAMES:
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def static_files() -> dict[str, tuple[bytes, str]]:
    """Return the page's files by address. Addresses are keys of this table, so that none becomes a path."""
    folder = files("latentscore_data.studio").joinpath("static")
    found = {
        f"/static/{item.name}": (item.read_bytes(), MEDIA_TYPES[suffix])
        for item in folder.iterdir()
        if (suffix := PurePath(item.name).suffix) in MEDIA_TYPES
    }
    return {**found, "/": found["/static/index.html"]}


def make_app(studio: Studio, access: Access) -> Starlette:
    """Return the application. API calls need the token; the page's files contain no secrets."""
    from starlette.applications import Starlette
    from starlette.responses import FileResponse
    from starlette.routing import Route

    table = static_files()

    async def page(request: Request) -> Response:
        if (refused := access.refusal(request.headers)) is not None:
            return _response(as_json({"error": refused}, 403))
        found = table.get(request.url.path)
        if found is None:
            return _response(as_json({"error": "there is nothing here"}, 404))
        return _response(Reply(*found))

    async def opened(request: Request) -> Response:
        if (refused := access.refusal(request.headers)) is not None:
            return _response(as_json({"error": refused}, 403))
        path = studio.places.file(request.path_params["key"], request.path_params["name"])
        if path is None:
            return _response(as_json({"error": "this report is not open; open it from the studio again"}, 404))
        return FileResponse(path, media_type=SERVED[path.suffix], headers=REPORT_HEADERS)

    routes = [
        Route(path, _endpoint(handler, studio, access), methods=[method]) for (method, path), handler in ROUTES.items()
    ]
    routes.append(Route("/open/{key}/{name:path}", opened, methods=["GET"]))
    return Starlette(routes=[*routes, Route("/{path:path}", page, methods=["GET"])])


def _endpoint(handler: Handler, studio: Studio, access: Access) -> Any:
    async def endpoint(request: Request) -> Response:
        if (refused := access.refusal(request.headers)) is not None:
            return _response(as_json({"error": refused}, 403))
        if not access.accepts(request.headers):
            remedy = "open the address that lsdata studio printed"
            return _response(as_json({"error": "the token is missing or of an earlier start", "remedy": remedy}, 401))
        try:
            call = Call(await _json(request), lambda: _disconnected(request))
            return _response(await handler(studio, call))
        except Gone:
            return _response(Reply(b"", status=499))
        except Exception as error:
            return _response(_failure(error))

    return endpoint


def _failure(error: Exception) -> Reply:
    """Return the reply for an error, with message and remedy. An unknown error is logged."""
    if isinstance(error, LsdataError):
        status = {InputError: 400, MissingError: 404, StoppedError: 402, OutputError: 507}.get(type(error), 500)
        return as_json({"error": redact(clean(error.message)), "remedy": redact(clean(error.remedy))}, status)
    if isinstance(error, InvalidConfigError | LatentScoreError):
        return as_json({"error": clean(str(error)), "remedy": ""}, 400)
    if isinstance(error, WorkerFailure):
        full = any(os.strerror(code) in error.message for code in FULL_DISK)
        remedy = f"free some disk space under {tempfile.gettempdir()}" if full else "try again"
        return as_json(
            {"error": f"the sound could not be rendered: {clean(error.message)}", "remedy": remedy},
            507 if full else 500,
        )
    log.error("a request failed", exc_info=error)
    return as_json({"error": "this is a bug in lsdata; its terminal shows more", "remedy": ""}, 500)


async def _json(request: Request) -> JsonObject:
    """Return the JSON object of a POST, an empty one for a GET. Raises :class:`InputError` for another body."""
    if request.method == "GET":
        return {}
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise InputError("the request is not JSON")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            raise InputError(f"the request is longer than {MOST_BODY_BYTES // 1024} kB")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("the request is not valid JSON") from None
    if not isinstance(value, dict):
        raise InputError("the request is not a JSON object")
    return value


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _response(reply: Reply) -> Response:
    from starlette.responses import Response

    return Response(reply.body, reply.status, HEADERS, media_type=reply.media_type)
