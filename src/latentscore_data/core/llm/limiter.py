"""Limits on starting calls: rate limits and an adaptive number of calls in flight."""

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
    """A token bucket: at most ``per_second`` units per second on average, and ``burst`` at once."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst_seconds = per_second, burst / per_second
        self._due = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until something may start."""
        return max(0.0, self._due - self._burst_seconds - now)

    def take(self, units: float, now: float) -> None:
        self._due = max(self._due, now) + units / self._per_second

    def correct(self, units: float) -> None:
        """Adjust the bucket once the actual number of units is known."""
        self._due += units / self._per_second


FIRST_LIMIT = 4.0


SHRINK = 0.75


class AdaptiveLimiter:
    """Adaptive concurrency (additive increase, multiplicative decrease).

    The number of calls in flight starts small and grows by one for each good answer while all slots are used, until the
    server first refuses a call; then by one for each round of calls. It shrinks by a quarter once per burst of
    refusals. Fractional limits are realized by spacing the starts. The first call is made alone, so that an invalid key
    costs one request and prompt caches are warm for the others. Retries have priority over new calls.

    With ``wide``, all calls may start at once, for a local model that works in batches.
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
        # A tenth of a minute's tokens may be used at once; the rest is spread evenly.
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
        """Wait for a slot and return the start time, which is passed to :meth:`leave`.

        Raises the exception of :meth:`close` after it was called.
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
        """Raise the exception of :meth:`close` if it was called."""
        if self._closed is not None:
            raise self._closed

    def leave(self, started: float, call_error: CallError | None = None, extra_tokens: int = 0) -> None:
        """Release the slot and adapt the limit to the outcome."""
        now = self._clock()
        full = self.in_flight + 1 > self.limit or bool(self._waiting)
        self.in_flight -= 1
        # After a refused response format, the next call is also made alone.
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
        # Refusals of calls that started before the last decrease, or within a round after it, belong to the same burst.
        if started >= self._cut_at and now >= self._cut_at + self._seconds:
            self.limit = max(1.0, self.limit * SHRINK)
            self._cut_at = now
        if self._refused_in_a_row >= max(5.0, self.limit / 2):
            # All calls are refused, so lower concurrency does not help; only waiting does.
            self._hold_until = now + min(call_error.retry_after if call_error.retry_after is not None else 1.0, 60.0)

    async def rest(self, seconds: float) -> None:
        """Wait without a slot until a retry is due; :meth:`close` ends the wait at once."""
        resting = self._resting = self._resting or asyncio.Event()
        try:
            await asyncio.wait_for(resting.wait(), seconds)
        except TimeoutError:
            return

    def close(self, reason: BaseException | None = None) -> None:
        """Admit no more calls; waiting calls raise ``reason``."""
        self._closed = self._closed or reason or NotAttempted()
        if self._resting is not None:
            self._resting.set()
        for _, _, _, future in self._waiting:
            if not future.done():
                future.set_exception(self._closed)
        self._waiting.clear()

    def _wait_seconds(self, now: float) -> float:
        """Return 0 if a call may start now, and infinity if a slot must be released first."""
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
    """A hard limit in US dollars that includes calls in flight.

    A call may start only if the amount spent, the maximum cost of the calls in flight, and the maximum cost of this
    call fit. With ``spend``, the other models of a run are included; their calls in flight count as spent and are not
    waited for.
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
        """Wait until the call fits. Raises :class:`StoppedError` if it can no longer fit."""
        if self.cap is None:
            return 0.0
        while self.spent + self._spend.in_flight + worst > self.cap + 1e-12:
            if self._reserved <= 1e-12:
                raise StoppedError(
                    f"the next call could use the cost over --max-cost {self.cap:g} (spent ${self.spent:.4f})",
                    "raise --max-cost and run the same command again; everything paid for is kept",
                )
            # Calls in flight usually cost less than their maximum.
            self._settled.clear()
            await self._settled.wait()
        self._reserved += worst
        self._spend.in_flight += worst
        return worst

    def settle(self, reserved: float, cost: float) -> None:
        """Replace the reservation of a finished call by its actual cost."""
        self._reserved = max(0.0, self._reserved - reserved)
        self._spend.in_flight = max(0.0, self._spend.in_flight - reserved)
        self._spend.spent += cost
        self._settled.set()
