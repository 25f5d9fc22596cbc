"""A loopback hub for uploads of the real client: repositories, large files, commits, and injected faults."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback import LoopbackServer

LARGE = (".parquet", ".safetensors", ".gguf", ".mp3")


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


@dataclass
class UploadHub(LoopbackServer):
    """``repos`` by kind and name ("datasets/me/x")."""

    token: str = "hf_write_token_of_a_test"
    repos: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    refuse_after: int | None = None
    """Large files that are taken before the hub goes away, once."""
    refusals: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """What it answers instead, status and body, by the end of the path: "commit/main", "create", "batch", "validate-yaml"."""
    puts: Counter[str] = field(default_factory=Counter)
    taking: threading.Lock = field(default_factory=threading.Lock)
    """Several files come at the same time."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(request.path).path)
        if not path.startswith("/lfs/") and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self.reply(request, 401, {"error": "Invalid username or password."})
        for ending, (status, answer) in self.refusals.items():
            if path.endswith(ending):
                return (
                    self.send(request, answer, status)
                    if isinstance(answer, bytes)
                    else self.reply(request, status, answer)
                )
        if path == "/api/repos/create":
            return self.create(request, json.loads(body))
        if path == "/api/validate-yaml":
            return self.reply(request, 200, {"errors": [], "warnings": []})
        if found := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            return self.put(request, found[1], body)
        if found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.batch(request, json.loads(body))
        if found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/main/(.+)", path):
            return self.send(request, self.repos[found[1]].files[found[2]])
        found = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(preupload|commit|revision)/[^/]+)?", path)
        name = found and ("" if found[1] == "models" else "datasets/") + found[2]
        if not found or name not in self.repos:
            return self.reply(request, 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        repo = self.repos[str(name)]
        if found[3] == "preupload":
            return self.preupload(request, repo, json.loads(body))
        if found[3] == "commit":
            return self.commit(request, repo, str(name), body)
        siblings = [{"rfilename": name} for name in repo.files]
        return self.reply(
            request, 200, {"id": found[2], "private": repo.private, "sha": "0" * 40, "siblings": siblings}
        )

    def send(self, request: BaseHTTPRequestHandler, data: bytes, status: int = 200) -> None:
        request.send_response(status)
        request.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        request.send_header("X-Repo-Commit", "0" * 40)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)

    def create(self, request: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
        prefix = "datasets/" if asked.get("type") == "dataset" else ""
        name = f"{prefix}{asked['organization']}/{asked['name']}"
        private = asked.get("visibility", "public") == "private"
        self.repos.setdefault(name, Repository(private))
        self.reply(request, 200, {"url": f"{self.url}/{name}", "name": f"{asked['organization']}/{asked['name']}"})

    def preupload(self, request: BaseHTTPRequestHandler, repo: Repository, asked: dict[str, Any]) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
        self.reply(request, 200, {"files": files})

    def batch(self, request: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
        objects = []
        for item in asked["objects"]:
            known = {"oid": item["oid"], "size": item["size"], "authenticated": True}
            if item["oid"] not in self.large:
                known["actions"] = {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}
            objects.append(known)
        self.reply(request, 200, {"transfer": "basic", "objects": objects})

    def put(self, request: BaseHTTPRequestHandler, oid: str, body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        with self.taking:
            if self.refuse_after is not None and len(self.large) >= self.refuse_after:
                return self.reply(request, 400, {"error": "the line went dead"})
            self.puts[oid] += 1
            self.large[oid] = body
        return self.reply(request, 200, {})

    def commit(self, request: BaseHTTPRequestHandler, repo: Repository, name: str, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repo.files[value["path"]] = self.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                del repo.files[value["path"]]
        repo.commits += 1
        self.reply(request, 200, {"commitUrl": f"{self.url}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40})
