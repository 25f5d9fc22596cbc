"""A loopback data set hub for the real client: the part of its API that lists, inspects and streams a small repository.

It can ask for a token, and fail on purpose: answer 429 or 500, or drop the connection in the middle of a file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback import LoopbackServer

SHA = "0123456789abcdef0123456789abcdef01234567"


def jsonl_gz(rows: list[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


@dataclass
class HubServer(LoopbackServer):
    """``files`` of one dataset repository. ``faults`` are used up one by one by requests for file contents."""

    repo: str
    files: Mapping[str, bytes]
    token: str | None = None
    gated: bool = False
    faults: list[str] = field(default_factory=list)
    slow_after: int | None = None
    """After so many requests for file contents, the next ones wait: time to kill a client."""
    requests: Counter[str] = field(default_factory=Counter)
    bytes_sent: int = 0

    # -- one request

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(request.path).path)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            code = "GatedRepo" if self.gated else "RepoNotFound"
            self.reply(request, 403 if self.gated else 401, {"error": code}, {"X-Error-Code": code})
            return
        if match := re.fullmatch(rf"/datasets/{self.repo}/resolve/[^/]+/(.+)", path):
            self.file(request, match[1])
            return
        self.requests["api"] += 1
        api = f"/api/datasets/{self.repo}"
        if path == api or re.fullmatch(rf"{api}/revision/[^/]+", path):
            self.reply(request, 200, self.info())
        elif re.match(rf"{api}/tree/[^/]+", path):
            folder = path.split("/tree/", 1)[1].partition("/")[2].strip("/")
            entries = self.tree(folder, recursive="recursive=true" in request.path.lower())
            if folder and not entries:
                self.reply(request, 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            self.reply(request, 200, entries)
        elif re.match(rf"{api}/paths-info/[^/]+", path):
            wanted = set(json.loads(body or b"{}").get("paths", []))
            self.reply(request, 200, [e for e in self.entries() if e["path"] in wanted])
        else:
            self.reply(request, 404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})

    def info(self) -> dict[str, Any]:
        return {
            "_id": "1", "id": self.repo, "author": self.repo.split("/")[0], "sha": SHA, "private": False,
            "disabled": False, "gated": False, "downloads": 0, "likes": 0, "tags": [], "cardData": {},
            "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": name, "size": len(data), "blobId": "0"} for name, data in self.files.items()],
        }  # fmt: skip

    def entries(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": name}
            for name, data in self.files.items()
        ]

    def tree(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        below = folder + "/" if folder else ""
        inside = [e for e in self.entries() if e["path"].startswith(below)]
        folders = {below + rest.split("/")[0] for e in inside if "/" in (rest := e["path"][len(below) :])}
        files = [e for e in inside if recursive or "/" not in e["path"][len(below) :]]
        return [{"type": "directory", "oid": "0", "size": 0, "path": path} for path in sorted(folders)] + files

    def file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        if name not in self.files:
            self.reply(request, 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        data = self.files[name]
        self.requests[name] += 1
        if self.slow_after is not None and self.data_requests() > self.slow_after:
            time.sleep(2)
        fault = self.faults.pop(0) if self.faults and request.command == "GET" and not name.endswith(".md") else ""
        if fault in ("403", "429", "500"):
            self.reply(request, int(fault), {"error": "try later"}, {"Retry-After": "1"} if fault == "429" else {})
            return
        start, end = 0, len(data)
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or ""):
            start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else len(data), len(data))
        request.send_response(206 if request.headers.get("Range") else 200)
        if request.headers.get("Range"):
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        request.send_header("Content-Length", str(end - start))
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        request.send_header("X-Repo-Commit", SHA)
        request.end_headers()
        if request.command == "HEAD":
            return
        if fault == "drop":
            request.wfile.write(data[start : start + (end - start) // 2])
            request.wfile.flush()
            request.connection.close()
            request.close_connection = True
            return
        try:
            for at in range(start, end, 1 << 16):
                piece = data[at : min(at + (1 << 16), end)]
                request.wfile.write(piece)
                self.bytes_sent += len(piece)
        except ConnectionError:
            request.close_connection = True  # the client has read enough

    def data_requests(self) -> int:
        """Requests for file contents so far."""
        return sum(count for name, count in list(self.requests.items()) if name.startswith("data/"))

    def reply(
        self, request: BaseHTTPRequestHandler, status: int, value: Any, headers: Mapping[str, str] | None = None
    ) -> None:
        self.requests[str(status)] += 1
        super().reply(request, status, value, headers)
