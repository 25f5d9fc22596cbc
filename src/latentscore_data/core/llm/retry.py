"""What can go wrong with a call and what happens then: one error table, retry, pace, adaptive concurrency, budget."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from latentscore_data.core.base.errors import StoppedError
from latentscore_data.core.base.loop import NotAttempted
from latentscore_data.core.base.secrets import without
from latentscore_data.core.base.settings import SpendTracker
from latentscore_data.core.llm.server_errors import WORDS_IN, ServerError, read_server_error

Kind = Literal["auth", "bad request", "transient", "answer"]
"""``answer``: the model wrote something that the server refused as no JSON."""


@dataclass(frozen=True)
class CallError:
    """A failed call, as the error table sees it. ``retry_after`` is what the server asked for, in seconds."""

    kind: Kind
    status: int | None
    message: str
    retry_after: float | None = None
    unstructured: bool = False
    """True when the server refused the way in which the answer's shape was asked for."""
    maybe_billed: bool = False
    """True when the server may have answered although we did not see it."""
    spent: bool = False
    """True when the account has nothing left."""
    too_fast: bool = False
    """True when the server says that we are too fast, whatever the status."""
    refused: str | None = None
    """The sampling parameter that the model does not take."""
    draw: str = ""
    """What the model wrote, with ``answer``."""

    @property
    def crowded(self) -> bool:
        """True when the server says that we are too fast."""
        return self.too_fast or self.status == 429 or (self.status in (503, 529) and self.retry_after is not None)


NOT_SENT = CallError("transient", None, "not sent")
"""For a slot that is given back unused: nothing is learned from it."""

# Codes and types say more than words: "quota" is a spent balance with one provider and a minute's allowance with another.
_SPENT = re.compile(
    r"insufficient_?(quota|balance|credit|fund)|exceeded_current_quota|billing|arrear|payment_?required"
    r"|credits?_(exhausted|depleted)|out_of_credits"
)
_TOO_FAST = re.compile(
    r"rate_?limit|too_?many_?requests|throttl|resource_?exhausted|overloaded|quota_?exceeded|limit_(requests|burst)"
    r"|^(tokens|requests)$"
)
_SPENT_WORDS = re.compile(
    r"(credits?|balance|funds)\b[^.]{0,30}\b(too low|depleted|exhausted|insufficient|used up|run out|spent)"
    r"|(insufficient|not enough|no remaining|out of)\s(account\s)?(balance|credits?|funds)|payment required|in arrears",
    re.IGNORECASE,
)
_QUOTA_WORDS = re.compile(
    r"insufficient_quota|exceeded your current quota|\bbilling|credit balance|payment", re.IGNORECASE
)
_NO_JSON = re.compile(r"json_validate_failed|tool_use_failed|output_parse_failed|^model_error$")
_FILTERED = re.compile(r"content_?filter|content_?policy|responsible_?ai|moderation")
_TOO_LONG = re.compile(r"context_?length|string_above_max|too_?large|too_?long")
_STRUCTURE = re.compile(
    r"response_?format|response_?schema|json_schema|json_object|structured output|grammar|schema", re.IGNORECASE
)
_SHAPE_PARAM = re.compile(r"response_?format|text\.format|schema|output_(config|format)|tool|grammar", re.IGNORECASE)

SAMPLING = ("top_p", "temperature", "seed", "max_tokens")
"""Parameters that a model may refuse; of two that it does not take together, the first one is left out."""

_REFUSES = re.compile(
    r"unsupported|not support|n't support|deprecated|only[^.]{0,40}\b(1|default)\b|cannot both|not allowed|not permitted"
    r"|unknown|unrecognized|unexpected|extra inputs",
    re.IGNORECASE,
)
_JUDGED = (400, 403, 429)
"""Statuses that providers give for a spent balance, for calls that come too fast and for bad requests alike."""

_TABLE: dict[int, Kind] = {
    401: "auth",
    402: "auth",
    403: "auth",
    400: "bad request",
    404: "bad request",
    413: "bad request",
    422: "bad request",
    408: "transient",
    409: "transient",
    425: "transient",
    429: "transient",
}


def classify(error: BaseException, now: Callable[[], float] = time.time, secret: SecretStr | None = None) -> CallError:
    """The row of the table that a failed call belongs to; ``secret`` is kept out of the message."""
    name = type(error).__name__
    if isinstance(error, TimeoutError) or name == "Timeout":
        return CallError("transient", 408, "the call timed out", maybe_billed=True)
    server = read_server_error(error, now)
    # Taken out before the message is cut, which could leave half of it.
    message = _one_line(without(server.message, secret))
    if "Invalid response object" in str(error):
        return CallError("transient", None, f"the server's answer cannot be read: {message}", maybe_billed=True)
    if name == "APIConnectionError":
        return CallError("transient", None, f"connection failed: {message}", maybe_billed=True)
    if server.draw is not None or (server.status in (400, 422) and server.named(_NO_JSON)):
        return CallError("answer", server.status, message, maybe_billed=True, draw=server.draw or "")
    if name == "ContentPolicyViolationError" or server.named(_FILTERED):
        return CallError("bad request", server.status, message)
    return _by_status(server, message, name)


def _by_status(server: ServerError, message: str, name: str) -> CallError:
    status, retry_after = server.status, server.retry_after
    kind = _TABLE.get(status or 0, "bad request" if status and 400 <= status < 500 else "transient")
    if status in _JUDGED:
        if _is_spent(server):
            return CallError("auth", status, message, spent=True)
        if status == 429 or server.named(_TOO_FAST) or retry_after is not None:
            return CallError("transient", status, message, retry_after, too_fast=True)
    if kind != "bad request" or server.named(_TOO_LONG) or name == "ContextWindowExceededError":
        return CallError(kind, status, message, retry_after, spent=status == 402)
    refused = _refused_parameter(server)
    unstructured = refused is None and _refuses_shape(server, name)
    return CallError(kind, status, message, retry_after, unstructured, refused=refused)


def _is_spent(server: ServerError) -> bool:
    """True for a spent balance; a quota that has a time at which it can be used again is none."""
    if server.named(_SPENT):
        return True
    if server.retry_after is not None:
        return False
    if _SPENT_WORDS.search(server.message[:WORDS_IN]):
        return True
    return server.status == 429 and not server.named(_TOO_FAST) and bool(_QUOTA_WORDS.search(server.message))


def _refused_parameter(server: ServerError) -> str | None:
    """The sampling parameter that the model does not take, if that is what the server says."""
    said = server.message[:WORDS_IN]
    if server.param is not None:
        found = [name for name in SAMPLING if name == server.param]
    else:
        found = [name for name in SAMPLING if re.search(rf"\b{name}\b", said)]
    if not found or not (_REFUSES.search(said) or server.named(_REFUSES)):
        return None
    if found[0] == "max_tokens" and "max_completion_tokens" not in said:
        return None
    return found[0]


def _refuses_shape(server: ServerError, name: str) -> bool:
    if server.param is not None:
        return bool(_SHAPE_PARAM.search(server.param))
    return name == "UnsupportedParamsError" or bool(_STRUCTURE.search(server.message))


def _one_line(message: str, most: int = 300) -> str:
    line = " ".join(message.split())
    line = re.sub(r"^(litellm\.\w+: )+", "", line)
    return line if len(line) <= most else line[: most - 1] + "…"


def retry_delay(attempt: int, retry_after: float | None, cap: float, rng: random.Random) -> float:
    """Seconds until the next try: full jitter on a doubling base, never earlier than the server asked, at most ``cap``."""
    jitter = rng.uniform(0, min(cap, 0.5 * 2 ** (attempt - 1)))
    if retry_after is None:
        return jitter
    # A little jitter on top, so that those refused together do not come back together.
    return min(cap, retry_after + rng.uniform(0, 0.25 * max(retry_after, 0.2)))


class RateLimiter:
    """At most ``per_second`` units on average, ``burst`` at once."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst_seconds = per_second, burst / per_second
        self._due = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until something may start."""
        return max(0.0, self._due - self._burst_seconds - now)

    def take(self, units: float, now: float) -> None:
        self._due = max(self._due, now) + units / self._per_second

    def correct(self, units: float) -> None:
        """Book more, or give back, once the real number is known."""
        self._due += units / self._per_second


FIRST_LIMIT = 4.0
SHRINK = 0.75


class AdaptiveLimiter:
    """Who may call now.

    The number of calls in flight starts at a few and grows by one for each good answer while all slots are taken, until
    the server refuses for the first time; from then on by one for each round of calls. It shrinks by a quarter once per
    burst of refusals. Between whole numbers the pace is kept by spacing the starts. The very first call goes alone: a
    bad key costs one request, and prompt caches are warm for the rest. Retries are let in before new calls.
    """

    def __init__(
        self,
        most: int,
        max_qps: float | None = None,
        max_tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = float(most)
        self.limit = min(FIRST_LIMIT, self.most)
        self.in_flight = 0
        self.refused = 0
        self._clock = clock
        self._alone = True
        self._calls = RateLimiter(max_qps, 1) if max_qps else None
        # A tenth of a minute's tokens may go at once; the rest is spread evenly.
        self._tokens = (
            RateLimiter(max_tokens_per_minute / 60, max_tokens_per_minute / 10) if max_tokens_per_minute else None
        )
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._closed: BaseException | None = None
        self._resting: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._congested = False
        self._seconds = 0.0
        self._next_start = 0.0
        self._cut_at = -math.inf
        self._hold_until = 0.0
        self._refused_in_a_row = 0

    async def enter(self, tokens: int = 0, again: bool = False) -> float:
        """Wait for a slot. Returns the time of the start, to be handed to :meth:`leave`.

        Raises what :meth:`close` was given once the gate is closed.
        """
        self.check()
        if not self._waiting and self._wait_seconds(self._clock()) == 0.0:
            return self._start(tokens)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (0 if again else 1, next(self._numbers), tokens, future))
        self._admit()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.in_flight -= 1
            self._admit()
            raise
        return self._clock()

    def check(self) -> None:
        """Raise what the gate was closed with, if it was."""
        if self._closed is not None:
            raise self._closed

    def leave(self, started: float, call_error: CallError | None = None, extra_tokens: int = 0) -> None:
        """Give the slot back and learn from how the call went."""
        now = self._clock()
        full = self.in_flight + 1 > self.limit or bool(self._waiting)
        self.in_flight -= 1
        # A refused way of asking is found out alone, too.
        self._alone = self._alone and call_error is not None and call_error.unstructured
        if self._tokens is not None and extra_tokens:
            self._tokens.correct(extra_tokens)
        if call_error is None:
            self._refused_in_a_row = 0
            self._seconds = (now - started) if not self._seconds else 0.9 * self._seconds + 0.1 * (now - started)
            if full:
                step = max(1.0, 0.05 * self.limit) / self.limit if self._congested else 1.0
                self.limit = min(self.most, self.limit + step)
        elif call_error.crowded:
            self._on_refusal(started, now, call_error)
        self._admit()

    def _on_refusal(self, started: float, now: float, call_error: CallError) -> None:
        self.refused += 1
        self._congested = True
        self._refused_in_a_row += 1
        # Refusals of calls that began before the last cut, or within a round of it, belong to the same burst.
        if started >= self._cut_at and now >= self._cut_at + self._seconds:
            self.limit = max(1.0, self.limit * SHRINK)
            self._cut_at = now
        if self._refused_in_a_row >= max(5.0, self.limit / 2):
            # Nothing gets through at all: a wall, not a crowd. Waiting is all that helps.
            self._hold_until = now + min(call_error.retry_after if call_error.retry_after is not None else 1.0, 60.0)

    async def rest(self, seconds: float) -> None:
        """Wait outside until a retry is due; a closing gate ends the wait at once."""
        resting = self._resting = self._resting or asyncio.Event()
        try:
            await asyncio.wait_for(resting.wait(), seconds)
        except TimeoutError:
            return

    def close(self, reason: BaseException | None = None) -> None:
        """Let nobody in any more; those who wait get ``reason``."""
        self._closed = self._closed or reason or NotAttempted()
        if self._resting is not None:
            self._resting.set()
        for _, _, _, future in self._waiting:
            if not future.done():
                future.set_exception(self._closed)
        self._waiting.clear()

    def _wait_seconds(self, now: float) -> float:
        """0 when a call may start now, infinity when somebody has to leave first."""
        if self.in_flight >= (1 if self._alone else max(1, math.ceil(self.limit))):
            return math.inf
        wait = max(0.0, self._hold_until - now)
        if self._congested:
            wait = max(wait, self._next_start - now)
        for pace in (self._calls, self._tokens):
            if pace is not None:
                wait = max(wait, pace.wait(now))
        return wait

    def _start(self, tokens: int) -> float:
        now = self._clock()
        self.in_flight += 1
        if self._congested:
            self._next_start = max(self._next_start, now) + self._seconds / self.limit
        if self._calls is not None:
            self._calls.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        return now

    def _admit(self) -> None:
        while self._waiting:
            _, _, tokens, future = self._waiting[0]
            if future.done():
                heapq.heappop(self._waiting)
                continue
            now = self._clock()
            wait = self._wait_seconds(now)
            if wait > 0:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                if wait < math.inf:
                    self._timer = asyncio.get_running_loop().call_later(wait, self._admit)
                return
            heapq.heappop(self._waiting)
            self._start(tokens)
            future.set_result(None)


class Budget:
    """A hard stop in dollars that counts what is in flight.

    A call may start only when everything spent, everything in flight at its worst, and this call at its worst fit. With a
    ``purse`` the other models of a run count as well; what they have in flight is taken as spent, and not waited for.
    """

    def __init__(self, cap: float | None, spend: SpendTracker | None = None) -> None:
        self.cap = cap
        self._spend = spend or SpendTracker()
        self._reserved = 0.0
        self._settled = asyncio.Event()

    @property
    def spent(self) -> float:
        return self._spend.spent

    async def reserve(self, worst: float) -> float:
        """Wait until the call fits. Raises :class:`StoppedError` when it cannot fit any more."""
        if self.cap is None:
            return 0.0
        while self.spent + self._spend.in_flight + worst > self.cap + 1e-12:
            if self._reserved <= 1e-12:
                raise StoppedError(
                    f"the next call could take the cost over --max-cost {self.cap:g} (spent ${self.spent:.4f})",
                    "raise --max-cost and run the same command again; everything paid for is kept",
                )
            # What is in flight mostly turns out cheaper than its worst case.
            self._settled.clear()
            await self._settled.wait()
        self._reserved += worst
        self._spend.in_flight += worst
        return worst

    def settle(self, reserved: float, cost: float) -> None:
        """The call has come back and did cost so much."""
        self._reserved = max(0.0, self._reserved - reserved)
        self._spend.in_flight = max(0.0, self._spend.in_flight - reserved)
        self._spend.spent += cost
        self._settled.set()
