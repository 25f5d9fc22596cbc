"""Fetching a model from a hub on a loopback port, with the real client."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.weights import fetch_model, fetched_file

COMMIT = "a" * 40
FILES = {
    "config.json": b'{"model_type": "clap"}',
    "model.safetensors": b"\x01" * 300_000,
    "merges.txt": b"#version: 0.2\n",
    "pytorch_model.bin": b"\x80a pickle",
    "evil.py": b"print('no')",
}


class Hub(BaseHTTPRequestHandler):
    """One model repository, with what the client asks for: the list of files, and their heads and bodies."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/api/models/them/clap"):
            files = [{"type": "file", "path": name, "size": len(data), "oid": "b" * 40} for name, data in FILES.items()]
            self.reply(json.dumps(files).encode(), body, {})
            return
        name = self.path.rpartition("/")[2]
        if not self.path.startswith("/them/clap/resolve/") or name not in FILES:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = FILES[name]
        self.reply(data, body, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def reply(self, data: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_only_safetensors_and_what_belongs_to_it_are_fetched_and_counted(hub: str) -> None:
    on_progress: dict[str, int] = {}

    def note(name: str, count: int) -> None:
        on_progress[name] = on_progress.get(name, 0) + count

    folder = fetch_model("them/clap", note, endpoint=hub)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "merges.txt", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert on_progress["model.safetensors"] == 300_000
    assert not any("pytorch_model" in path or "evil" in path for path in Hub.asked)


def test_what_is_not_there_or_not_remote_is_one_line(hub: str, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="nobody/nothing cannot be fetched"):
        fetch_model("nobody/nothing", endpoint=hub)
    with pytest.raises(InputError, match="local"):
        fetch_model(str(tmp_path))
    with pytest.raises(MissingError, match="cannot be fetched"):
        fetch_model("them/clap", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"refs/main": "c0ffee"},
        {"refs/main": "c0ffee", "snapshots/c0ffee/modules.json": "[]"},
        {"refs/main": "c0ffee", "snapshots/other/modules.json": "[]"},
        {"snapshots/c0ffee/modules.json": "[]"},
    ],
    ids=["nothing", "a name", "the file", "another version", "no name"],
)
def test_weights_are_found_where_the_hub_s_library_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    from huggingface_hub import constants, try_to_load_from_cache

    for name, content in files.items():
        path = tmp_path / "models--some--repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = fetched_file("some/repo", "modules.json")
    assert (found and str(found)) == try_to_load_from_cache("some/repo", "modules.json", cache_dir=tmp_path)
