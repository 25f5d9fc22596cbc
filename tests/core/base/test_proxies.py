"""A proxy in the environment gets no call to this machine, nor to a host that NO_PROXY means."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from pydantic import BaseModel

from conftest import Lsdata
from latentscore_data.core.base.proxies import call_directly, is_called_directly, no_proxy
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.llm.client import ModelClient
from latentscore_data.core.llm.types import Question
from servers import ChatServer

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """None of the variables is set, and whatever a test leaves is taken back."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a proxy that refuses everything, and what it was sent."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    seen.append(connection.recv(65_536))
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", seen
        server.shutdown(socket.SHUT_RDWR)


class Word(BaseModel):
    word: str


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.5"])
@pytest.mark.parametrize("model", ["openai/test", "hosted_vllm/test"])
def test_calls_to_this_machine_pass_by_the_proxy(
    model: str, host: str, variable: str, proxy: tuple[str, list[bytes]], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(variable, proxy[0])

    async def ask(address: str) -> Word:
        llm = ModelClient(model, LLMSettings(api_base=address, max_attempts=1, timeout_seconds=10))
        try:
            return (await llm.ask(Question("Answer.", "say rain"), Word)).value
        finally:
            await llm.aclose()

    with ChatServer(lambda body: json.dumps({"word": "rain"}), host="0.0.0.0") as server:
        address = server.url.replace("0.0.0.0", host)
        assert asyncio.run(ask(address)) == Word(word="rain")
    assert proxy[1] == []


@pytest.mark.parametrize(
    ("entries", "address", "directly"),
    [
        ("", "http://127.0.0.1:80", True),
        ("", "http://[::1]:80", True),
        ("", "http://example.org", False),
        ("example.org", "http://example.org", True),
        ("example.org", "http://models.example.org", True),
        (".example.org", "http://models.example.org", True),
        ("*.example.org", "http://models.example.org", True),
        ("*.example.org", "http://notexample.org", False),
        ("10.0.0.0/8", "http://10.1.2.3:8000/v1", True),
        ("10.0.0.0/8", "http://11.1.2.3:8000/v1", False),
        ("10.0.0.0/8", "http://example.org", False),
        ("fd00::/8, other", "http://[fd00::1]:80", True),
        ("10.0.0.0/99", "http://10.1.2.3", False),
        ("*", "http://example.org", True),
    ],
)
def test_no_proxy_means_what_it_says(
    entries: str, address: str, directly: bool, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("NO_PROXY", entries)
    assert is_called_directly(address) is directly
    call_directly(address)
    host = urlsplit(address).hostname or ""
    assert bool(urllib.request.proxy_bypass_environment(host)) is directly  # type: ignore[attr-defined]
    assert {entry.strip() for entry in entries.split(",") if entry.strip()} <= set(no_proxy())


def test_entries_are_kept_whichever_spelling_they_stand_in(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NO_PROXY", "a.org")
    environment.setenv("no_proxy", "b.org")
    call_directly()
    call_directly()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "b.org,localhost,127.0.0.1,::1"


def test_doctor_says_which_calls_go_through_the_proxy(lsdata: Lsdata) -> None:
    env = {"HTTPS_PROXY": "http://me:secret@proxy.example.org:3128", "NO_PROXY": "10.0.0.0/8"}
    found = {finding["name"]: finding for finding in json.loads(lsdata("doctor", "--json", env=env).stdout)}
    assert found["proxy"]["detail"] == "HTTPS_PROXY set; called without it: localhost, 127.0.0.1, ::1, 10.0.0.0/8"
    for base, way in (("http://10.1.1.1/v1", "without"), ("https://example.org", "through")):
        out = lsdata("doctor", "--json", env={**env, "LSDATA_LLM__API_BASE": base})
        found = {finding["name"]: finding for finding in json.loads(out.stdout)}
        assert f"{way} the proxy" in found["llm.api_base"]["detail"]
        assert "secret" not in out.stdout
