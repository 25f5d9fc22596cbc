"""Which call may start now: rate limits and an adaptive number of calls in flight."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable

from latentscore_data.core.base.errors import StoppedError
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.loop import NotAttempted
from latentscore_data.core.llm.retry import CallError


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
    With ``wide`` all may call from the start, for a model of this process alone that works in batches.
    """

    def __init__(
        self,
        most: int,
        max_qps: float | None = None,
        max_tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        wide: bool = False,
    ) -> None:
        self.most = float(most)
        self.limit = self.most if wide else min(FIRST_LIMIT, self.most)
        self.in_flight = 0
        self.refused = 0
        self._clock = clock
        self._alone = not wide
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
        self._alone = self._alone and call_error is not None and call_error.asks_differently
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
        """Admit no more calls; those that wait get ``reason``."""
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
    ``spend`` the other models of a run count as well; what they have in flight is taken as spent, and not waited for.
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
