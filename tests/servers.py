"""Loopback servers for the real clients.

``ChatServer`` is an OpenAI-compatible chat-completions server that counts what it is sent and can fail on purpose.
In a test it lives in a thread; a benchmark starts it as a process of its own (``python tests/servers.py --help``)
so that it does not share an interpreter with what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

FAULTS = ("hang", "500", "close", "malformed", "truncated", "empty", "wrong-schema")
"""What ``Faults`` can do to a request."""

Body = dict[str, Any]
Reply = Callable[[Body], str | Body]


@dataclass
class Received:
    """One request as the server saw it. ``status`` is 0 until it has been answered."""

    at: float
    body: Body
    headers: dict[str, str]
    status: int = 0

    @property
    def user(self) -> str:
        """The text of the last user message."""
        content = [m for m in self.body["messages"] if m["role"] == "user"][-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@dataclass
class Bucket:
    """A token bucket: ``per_second`` requests on average, ``burst`` at once."""

    per_second: float
    burst: float
    _level: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._level, self._at = self.burst, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._level = min(self.burst, self._level + (now - self._at) * self.per_second)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


@dataclass
class Faults:
    """Each fault's share of the requests. Drawn from a seeded generator in the order of arrival."""

    shares: dict[str, float]
    seed: int = 0
    hang_seconds: float = 30.0
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def draw(self) -> str | None:
        at = self._rng.random()
        for fault, share in self.shares.items():
            at -= share
            if at < 0:
                return fault
        return None


class ChatServer:
    """A chat-completions server on a loopback port.

    ``reply`` makes the answer's text from the request's body; a dict it returns is the whole response. ``script``
    holds faults (or None) for the first requests, in order; after it, ``faults`` are drawn. ``keys`` are those that
    are let in (None: all). ``bucket`` refuses with 429 and ``retry_after``.
    """

    def __init__(
        self,
        reply: Reply,
        *,
        delay_seconds: float = 0.0,
        script: Sequence[str | None] = (),
        faults: Faults | None = None,
        keys: set[str] | None = None,
        bucket: Bucket | None = None,
        retry_after: str | None = "1",
        refuse: tuple[int, Body] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.reply = reply
        self.delay_seconds = delay_seconds
        self.script = list(script)
        self.faults = faults
        self.keys = keys
        self.bucket = bucket
        self.retry_after = retry_after
        self.refuse = refuse
        self.host = host
        self.received: list[Received] = []
        self.in_flight = self.most_in_flight = 0
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._numbers = itertools.count()

    # -- life

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self.start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def start(self, port: int = 0) -> web.AppRunner:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_get("/stats", self._stats)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, self.host, port, backlog=4096)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return runner

    # -- what the tests ask

    @property
    def statuses(self) -> Counter[int]:
        return Counter(request.status for request in self.received)

    # -- answering

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        seen = Received(time.monotonic(), body, dict(request.headers))
        self.received.append(seen)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            response = await self._respond(request, body)
            seen.status = response.status
            return response
        finally:
            self.in_flight -= 1

    async def _respond(self, request: web.Request, body: Body) -> web.StreamResponse:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.keys is not None and key not in self.keys:
            return _error(401, f"Incorrect API key provided: {key}", code="invalid_api_key")
        if self.refuse is not None:
            return web.json_response(self.refuse[1], status=self.refuse[0])
        if self.bucket is not None and not self.bucket.take():
            return _error(
                429, "rate limit reached", headers={"Retry-After": self.retry_after} if self.retry_after else {}
            )
        number = next(self._numbers)
        if number < len(self.script):
            fault = self.script[number]
        else:
            fault = self.faults.draw() if self.faults else None
        if fault == "hang":
            await asyncio.sleep(self.faults.hang_seconds if self.faults else 30.0)
        elif self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if fault and fault.isdigit():
            return _error(int(fault), "failing on purpose", headers={"Retry-After": "0"} if fault == "429" else {})
        made = self.reply(body)
        if isinstance(made, dict):
            return web.json_response(made)
        finish = "stop"
        if fault == "malformed":
            made = made.replace(":", " ", 3)
        elif fault == "truncated":
            made, finish = made[: len(made) // 2], "length"
        elif fault == "empty":
            made = ""
        elif fault == "wrong-schema":
            made = json.dumps({"surprise": True})
            # Not orjson: a hostile answer may hold half a surrogate pair.
        payload = json.dumps(completion(made, body, finish)).encode()
        if fault == "close":
            # The head promises more than comes.
            half = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(payload))})
            await half.prepare(request)
            await half.write(payload[: len(payload) // 2])
            if request.transport is not None:
                request.transport.abort()
            return half
        return web.Response(body=payload, content_type="application/json")

    async def _stats(self, request: web.Request) -> web.Response:
        since = float(request.query.get("skip_seconds", 0))
        starts = sorted(r.at for r in self.received)
        late = [r for r in self.received if starts and r.at >= starts[0] + since]
        return web.json_response(
            {
                "requests": len(self.received),
                "statuses": dict(self.statuses),
                "seconds": (starts[-1] - starts[0]) if starts else 0.0,
                "most_in_flight": self.most_in_flight,
                "late_statuses": dict(Counter(r.status for r in late)),
                "late_seconds": (max(r.at for r in late) - min(r.at for r in late)) if late else 0.0,
            }
        )


def _error(status: int, message: str, code: str = "error", headers: dict[str, str] | None = None) -> web.Response:
    kind = {401: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
    return web.json_response(
        {"error": {"message": message, "type": kind, "code": code}}, status=status, headers=headers
    )


_ids = itertools.count()


def completion(text: str, body: Body, finish_reason: str = "stop") -> Body:
    """A chat completion with usage figures: a token for every four characters."""
    asked = len(orjson.dumps(body["messages"]))
    tokens_in, tokens_out = asked // 4, max(len(text) // 4, 1)
    return {
        "id": f"chatcmpl-{next(_ids)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
    }


def config_reply(title: str = "Study") -> Reply:
    """Answers every question with a valid payload that depends on the question alone."""
    import numpy as np

    from factories import make_palette
    from latentscore import random_config

    rng = np.random.default_rng(0)
    texts = [
        json.dumps(
            {
                "thinking": "Slow rain calls for a dark room, a soft pulse and few notes. " * 6,
                "title": f"{title} {number}",
                "config": random_config(rng).model_dump(),
                "palettes": [make_palette() for _ in range(3)],
            }
        )
        for number in range(64)
    ]
    return lambda body: texts[zlib.crc32(f"{body['messages'][1]['content']}{body.get('seed')}".encode()) % len(texts)]


def main() -> None:
    """Serve until killed; the first line on stdout is the address."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before an answer")
    parser.add_argument("--rate", type=float, default=None, help="requests per second that are allowed")
    parser.add_argument("--burst", type=float, default=10)
    given = parser.parse_args()
    bucket = Bucket(given.rate, given.burst) if given.rate else None
    server = ChatServer(config_reply(), delay_seconds=given.delay, bucket=bucket)
    gc.disable()  # it keeps what it received, which the collector would walk again and again

    async def serve() -> None:
        await server.start()
        print(server.url, flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
