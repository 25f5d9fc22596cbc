"""The client's own HTTP session: what it sends, where it does not go, and what it makes of odd answers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, SecretStr

from latentscore_data.core.llm import http_session
from latentscore_data.core.llm.endpoints import endpoint_of
from latentscore_data.core.llm.retry import CallError, classify
from latentscore_data.core.llm.routes import Route
from latentscore_data.core.llm.structured import Shape
from latentscore_data.core.llm.transport import (
    Completion,
    LiteLLMTransport,
    OpenAITransport,
    Transport,
    transport_for,
)
from servers import completion

KEY = "sk-0123456789abcdef"
MESSAGES = [{"role": "system", "content": "Answer with a word."}, {"role": "user", "content": "rain"}]
SAMPLING = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 50, "seed": 3}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Word(BaseModel):
    word: str


FORMAT = Shape(Word).response_formats["schema"]


@contextlib.asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that does what ``handler`` does."""
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def made(route: Route, kind: type | None = None) -> Transport:
    if kind is LiteLLMTransport:
        return LiteLLMTransport(route, "claude" in route.model, 60)
    return transport_for(route, marks_prompt="claude" in route.model, timeout_seconds=10, connections=8)


async def ask(transport: Transport, messages: Any = MESSAGES, sampling: Any = SAMPLING) -> Completion:
    try:
        async with asyncio.timeout(60):  # LiteLLM imports much at its first call
            return await transport.complete([dict(message) for message in messages], dict(sampling), FORMAT)
    finally:
        await transport.aclose()


def outcome(handler: Handler, model: str = "hosted_vllm/test") -> Completion | CallError:
    """What comes of a call to a server, sorted as the client sorts it."""

    async def run() -> Completion | CallError:
        async with serving(handler) as base:
            transport = made(Route(model, base, SecretStr(KEY)))
            assert isinstance(transport, OpenAITransport)
            try:
                return await ask(transport)
            except Exception as error:
                return classify(error, secret=transport.secret)

    return asyncio.run(run())


def answering(body: Any, **how: Any) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response(body, **how)

    return handle


GOOD = completion('{"word": "rain"}', {"model": "m", "messages": MESSAGES})

MODELS = [
    "openai/test",
    "openai/gpt-4o",
    "openai/gpt-5-mini",
    "openai/o3",
    "openai/gpt-audio",
    "hosted_vllm/org/test",
    "hosted_vllm/claude-like",
    "openrouter/anthropic/claude-sonnet-4",
    "openrouter/google/gemini-2.5-flash",
    "lm_studio/test",
    "llamafile/test",
    "litellm_proxy/test",
    "custom_openai/test",
]
SOUND = [
    MESSAGES[0],
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "rain"},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        ],
    },
]


@pytest.mark.parametrize("messages", [MESSAGES, SOUND], ids=["text", "sound"])
@pytest.mark.parametrize("model", MODELS)
def test_the_body_and_the_key_are_those_that_litellm_sends(model: str, messages: Any) -> None:
    seen: list[tuple[dict[str, Any], str, str]] = []
    sampling = {**SAMPLING, "temperature": 1.0} if "gpt-5" in model or "o3" in model else SAMPLING
    sampling = {name: value for name, value in sampling.items() if name != "top_p" or "test" in model}

    async def keep(request: web.Request) -> web.Response:
        body = await request.json()
        body.pop("stream", None)
        seen.append((body, request.headers["Authorization"], request.path))
        return web.json_response(GOOD)

    async def run() -> None:
        async with serving(keep) as base:
            route = Route(model, base, SecretStr(KEY))
            for kind in (LiteLLMTransport, OpenAITransport):
                transport = made(route, kind)
                assert isinstance(transport, kind)
                answer = await ask(transport, messages, sampling)
                assert answer.message.text == '{"word": "rain"}'
                assert (answer.tokens_in, answer.tokens_out) == (
                    GOOD["usage"]["prompt_tokens"], GOOD["usage"]["completion_tokens"]
                )  # fmt: skip

    asyncio.run(run())
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("openai/gpt-4o", "https://api.openai.com/v1/chat/completions"),
        ("gpt-4o", "https://api.openai.com/v1/chat/completions"),
        ("openrouter/google/gemini-2.5-flash", "https://openrouter.ai/api/v1/chat/completions"),
        ("hosted_vllm/x", "http://gpu:8000/v1/chat/completions"),
        ("openai/gpt-5-pro", None),
        ("anthropic/claude-sonnet-4-5", None),
        ("gemini/gemini-2.5-flash", None),
        ("groq/x", None),
    ],
)
def test_which_routes_have_the_session(model: str, url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORGANIZATION", "org-1")
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", "http://gpu:8000/v1")
    endpoint = endpoint_of(Route(model))
    assert (endpoint.url if endpoint else None) == url
    if endpoint is not None and "gpt" in model:
        assert endpoint.headers["OpenAI-Organization"] == "org-1"
        assert endpoint.headers["Authorization"] == f"Bearer {KEY}"
    own = endpoint_of(Route("openai/x", "http://h/v1/?a=b", SecretStr("no-key")))
    assert own is not None
    assert own.url == "http://h/v1/chat/completions?a=b"
    assert "OpenAI-Organization" not in own.headers


def test_a_socks_proxy_is_left_to_litellm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    assert endpoint_of(Route("hosted_vllm/x", "https://example.org/v1")) is None
    assert endpoint_of(Route("hosted_vllm/x", "http://127.0.0.1:8000/v1")) is not None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirection_is_followed(status: int) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "http://elsewhere.example/v2?secret=1"})

    found = outcome(elsewhere)
    assert isinstance(found, CallError)
    assert (found.kind, found.status, found.maybe_billed) == ("bad request", status, False)
    assert "http://elsewhere.example/v2," in found.message
    assert "--api-base" in found.message
    assert len(asked) == 1


def test_an_answer_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_session, "ANSWER_AT_MOST", 100_000)
    body = json.dumps({**GOOD, "padding": "x" * 10_000_000}).encode()
    sent: list[int] = []

    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(body), 10_000):
                await response.write(body[start : start + 10_000])
                sent.append(start)
        return response

    async def packed(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})

    for handler in (flood, packed):
        found = outcome(handler)
        assert isinstance(found, CallError)
        assert (found.kind, found.maybe_billed) == ("bad request", True)
        assert "longer than 100,000 bytes" in found.message


REFUSED_WITH_200 = [
    ({"error": {"code": 429, "message": "slow down"}}, "transient", 429),
    ({"error": {"code": 502, "message": "Provider returned error"}}, "transient", 502),
    ({"error": {"code": 402, "message": "Insufficient credits"}}, "auth", 402),
    ({"error": {"code": 400, "message": f"no, and your key is {KEY}"}}, "bad request", 400),
    ({"error": "cannot"}, "bad request", 422),
    ({"choices": None}, "transient", None),
    ({"choices": [{"text": "x"}]}, "transient", None),
    ({}, "transient", None),
    ([], "transient", None),
    ("x", "transient", None),
    (None, "transient", None),
]


@pytest.mark.parametrize(("body", "kind", "status"), REFUSED_WITH_200)
def test_what_is_no_completion_is_an_error_although_the_status_is_good(
    body: Any, kind: str, status: int | None
) -> None:
    found = outcome(answering(body))
    assert isinstance(found, CallError)
    assert (found.kind, found.status) == (kind, status)
    assert KEY not in found.message


def test_an_empty_error_beside_an_answer_is_none() -> None:
    for error in ({}, {"message": "", "code": None}, None, ""):
        found = outcome(answering({**GOOD, "error": error}))
        assert isinstance(found, Completion)


def test_odd_json_is_read_and_odd_figures_are_nothing() -> None:
    usage = {"prompt_tokens": float("nan"), "completion_tokens": "7", "cost": float("inf")}

    async def odd(request: web.Request) -> web.Response:
        text = json.dumps({**completion("half \ud800", {"model": "m", "messages": MESSAGES}), "usage": usage})
        assert "NaN" in text
        assert "\\ud800" in text
        return web.Response(text=text, content_type="text/plain")

    found = outcome(odd, "openrouter/test")
    assert isinstance(found, Completion)
    assert (found.tokens_in, found.tokens_out, found.cost_usd, found.message.text) == (0, 0, None, "half ?")


def test_no_json_is_transient() -> None:
    async def words(request: web.Request) -> web.Response:
        return web.Response(text="<html>Good day</html>")

    found = outcome(words)
    assert isinstance(found, CallError)
    assert (found.kind, found.message, found.maybe_billed) == ("transient", "the server's answer is not JSON", True)


def test_openrouter_tells_the_cost() -> None:
    body = {**GOOD, "usage": {**GOOD["usage"], "cost": 0.0125}}
    for model, cost in (("openrouter/a/b", 0.0125), ("hosted_vllm/b", None)):
        found = outcome(answering(body), model)
        assert isinstance(found, Completion)
        assert found.cost_usd == cost


async def test_a_cancelled_call_gives_its_connection_up() -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        arrived.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        return web.Response()

    async with serving(hang) as base:
        transport = made(Route("hosted_vllm/test", base, SecretStr(KEY)))
        asking = asyncio.create_task(transport.complete(MESSAGES, SAMPLING, FORMAT))
        await asyncio.wait_for(arrived.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(left.wait(), 5)
        await transport.aclose()


def test_a_server_that_is_not_there_was_not_paid() -> None:
    async def run() -> CallError:
        async with serving(answering(GOOD)) as base:
            pass
        try:
            await ask(made(Route("hosted_vllm/test", base, SecretStr(KEY))))
        except Exception as error:
            return classify(error)
        raise AssertionError("nobody is there")

    found = asyncio.run(run())
    assert (found.kind, found.maybe_billed) == ("transient", False)
    assert found.message.startswith("connection failed")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl here")
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.mark.long
@pytest.mark.parametrize("trusted", [False, True])
def test_a_certificate_counts_when_its_authority_is_named(
    trusted: bool, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def run() -> Completion:
        async with serving(answering(GOOD), context) as base:
            return await ask(made(Route("hosted_vllm/test", base, SecretStr(KEY))))

    if trusted:
        assert asyncio.run(run()).message.text == '{"word": "rain"}'
        return
    with pytest.raises(Exception, match="not trusted") as caught:
        asyncio.run(run())
    found = classify(caught.value)
    assert (found.kind, found.maybe_billed) == ("bad request", False)
    assert "SSL_CERT_FILE" in found.message


def test_calls_to_others_go_through_the_proxy_with_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    async def proxy(request: web.Request) -> web.Response:
        seen.append((str(request.url), request.headers.get("Proxy-Authorization", "")))
        return web.json_response(GOOD)

    async def run() -> Completion:
        async with serving(proxy) as base:
            monkeypatch.setenv("http_proxy", base.removesuffix("/v1").replace("://", "://me:word@"))
            return await ask(made(Route("hosted_vllm/test", "http://models.example:81/v1", SecretStr(KEY))))

    assert asyncio.run(run()).message.text == '{"word": "rain"}'
    assert seen == [("http://models.example:81/v1/chat/completions", "Basic bWU6d29yZA==")]


def test_a_long_body_is_sent_whole() -> None:
    lengths: list[int] = []

    async def measure(request: web.Request) -> web.Response:
        lengths.append(len((await request.json())["messages"][1]["content"]))
        return web.json_response(GOOD)

    async def run() -> None:
        async with serving(measure) as base:
            long = [MESSAGES[0], {"role": "user", "content": "x" * 3_000_000}]
            await ask(made(Route("hosted_vllm/test", base, SecretStr(KEY))), long)

    asyncio.run(run())
    assert lengths == [3_000_000]
