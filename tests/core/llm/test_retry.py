"""The error table, the delays, the gate and the budget, with plain values and a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import random
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentscore_data.core.base.errors import StoppedError
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.loop import NotAttempted
from latentscore_data.core.llm.limiter import FIRST_LIMIT, AdaptiveLimiter, Budget, RateLimiter
from latentscore_data.core.llm.retry import CallError, classify, retry_delay
from latentscore_data.core.llm.server_errors import retry_after_seconds

REFUSED = CallError("transient", 429, "too fast", retry_after=1.0)


class Failed(Exception):
    """As litellm's errors look from outside."""

    def __init__(self, status: int | None, message: str = "no", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status_code = status
        self.litellm_response_headers = headers or {}


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (401, "bad key", "auth"),
        (402, "pay first", "auth"),
        (403, "not yours", "auth"),
        (429, "You exceeded your current quota, please check your plan and billing details", "auth"),
        (429, "slow down", "transient"),
        (400, "bad", "bad request"),
        (404, "no such model", "bad request"),
        (422, "no", "bad request"),
        (418, "teapot", "bad request"),
        (408, "slow", "transient"),
        (409, "conflict", "transient"),
        (500, "oops", "transient"),
        (502, "oops", "transient"),
        (503, "oops", "transient"),
        (529, "overloaded", "transient"),
        (None, "strange", "transient"),
    ],
)
def test_the_table(status: int | None, message: str, kind: str) -> None:
    call_error = classify(Failed(status, message))
    assert (call_error.kind, call_error.status) == (kind, status)


def test_a_refused_shape_is_told_from_other_bad_requests() -> None:
    assert classify(Failed(400, "response_format json_schema is not supported")).unstructured
    assert classify(Failed(400, "Invalid schema for response_format 'x'")).unstructured
    assert not classify(Failed(400, "messages: at least one is needed")).unstructured
    assert not classify(Failed(500, "json_schema exploded")).unstructured
    unsupported = type("UnsupportedParamsError", (Failed,), {})
    assert classify(unsupported(400, "this model does not take that")).unstructured


def test_a_time_out_may_have_been_billed() -> None:
    call_error = classify(TimeoutError())
    assert (call_error.kind, call_error.maybe_billed) == ("transient", True)


def test_messages_are_one_short_line() -> None:
    call_error = classify(Failed(500, "litellm.InternalServerError: a\n  b" + "c" * 1000))
    assert call_error.message.startswith("a b")
    assert "\n" not in call_error.message
    assert len(call_error.message) <= 300


def test_retry_after_is_seconds_or_a_date_and_nonsense_is_nothing() -> None:
    now = 1_700_000_000.0
    assert retry_after_seconds({"retry-after": "7"}) == 7
    assert retry_after_seconds({"retry-after": "0.5"}) == 0.5
    assert retry_after_seconds({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after_seconds({"retry-after": formatdate(now + 30, usegmt=True)}, lambda: now) == pytest.approx(
        30, abs=1
    )
    assert retry_after_seconds({"retry-after": formatdate(now - 30, usegmt=True)}, lambda: now) == 0
    # A clock that is a day off: only the server's own two dates count.
    dates = {"retry-after": formatdate(now + 30, usegmt=True), "date": formatdate(now, usegmt=True)}
    assert [retry_after_seconds(dates, lambda off=off: now + off) for off in (-86400, 0, 86400)] == [30, 30, 30]
    assert retry_after_seconds({**dates, "date": "noon"}, lambda: now) == pytest.approx(30, abs=1)
    assert retry_after_seconds({"retry-after": "soon"}) is None
    assert retry_after_seconds({}) is None


@given(st.integers(1, 20), st.one_of(st.none(), st.floats(0, 1000)), st.floats(0.1, 100), st.integers())
def test_a_delay_is_never_earlier_than_asked_nor_above_the_cap(
    attempt: int, retry_after: float | None, cap: float, seed: int
) -> None:
    delay = retry_delay(attempt, retry_after, cap, random.Random(seed))
    assert 0 <= delay <= cap
    assert retry_after is None or delay >= min(retry_after, cap)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def opened(most: int = 256, **limits: float) -> tuple[AdaptiveLimiter, Clock]:
    """A gate whose first call, the one that goes alone, is over."""
    clock = Clock()
    limiter = AdaptiveLimiter(most, clock=clock, **limits)  # type: ignore[arg-type]
    limiter.leave(await limiter.enter())
    return limiter, clock


async def test_the_first_call_goes_alone() -> None:
    limiter = AdaptiveLimiter(16)
    first = await limiter.enter()
    others = [asyncio.create_task(limiter.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    assert limiter.in_flight == 1
    assert not any(task.done() for task in others)
    limiter.leave(first)
    await asyncio.gather(*others)
    assert limiter.in_flight == 3


async def test_it_grows_while_full_and_healthy_and_not_beyond_the_most() -> None:
    limiter, clock = await opened(most=10)
    for _ in range(20):
        starts = [await limiter.enter() for _ in range(int(limiter.limit))]
        clock.now += 0.1
        for start in starts:
            limiter.leave(start)
    assert limiter.limit == 10


async def test_it_does_not_grow_while_slots_are_free() -> None:
    limiter, clock = await opened()
    for _ in range(20):
        start = await limiter.enter()
        clock.now += 0.1
        limiter.leave(start)
    assert limiter.limit == FIRST_LIMIT


async def test_a_burst_of_refusals_shrinks_it_once_by_a_quarter() -> None:
    limiter, clock = await opened()
    limiter.limit = 40.0
    starts = [await limiter.enter() for _ in range(40)]
    clock.now += 0.5
    for start in starts[:10]:
        limiter.leave(start, REFUSED)
    assert limiter.limit == 30.0
    for start in starts[10:20]:
        limiter.leave(start)
    assert limiter.limit < 33.0, "after the first refusal it grows by about one a round"


async def test_a_wall_of_refusals_is_waited_out() -> None:
    limiter, clock = await opened()
    for _ in range(5):
        start = await limiter.enter()
        limiter.leave(start, CallError("transient", 429, "wall", retry_after=30.0))
    waiting = asyncio.create_task(limiter.enter())
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.now += 31
    limiter.leave(clock.now)
    await asyncio.sleep(0)
    assert waiting.done()


async def test_retries_are_let_in_before_new_calls() -> None:
    limiter, _ = await opened(most=1)
    first = await limiter.enter()
    order: list[str] = []

    async def call(name: str, again: bool) -> None:
        start = await limiter.enter(again=again)
        order.append(name)
        limiter.leave(start)

    tasks = [asyncio.create_task(call("new", False)), asyncio.create_task(call("retry", True))]
    await asyncio.sleep(0)
    limiter.leave(first)
    await asyncio.gather(*tasks)
    assert order == ["retry", "new"]


async def test_a_closed_gate_turns_away_those_who_wait_and_those_who_come() -> None:
    limiter, _ = await opened(most=1)
    held = await limiter.enter()
    waiting = asyncio.create_task(limiter.enter())
    resting = asyncio.create_task(limiter.rest(60))
    await asyncio.sleep(0)
    limiter.close()
    with pytest.raises(NotAttempted):
        await waiting
    with pytest.raises(NotAttempted):
        await limiter.enter()
    await asyncio.wait_for(resting, 1)
    limiter.leave(held)
    assert limiter.in_flight == 0


async def test_a_cancelled_wait_leaks_no_slot() -> None:
    limiter, _ = await opened(most=1)
    held = await limiter.enter()
    waiting = asyncio.create_task(limiter.enter())
    await asyncio.sleep(0)
    limiter.leave(held)  # the slot is handed over ...
    waiting.cancel()  # ... to someone who has just left
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(limiter.enter(), 1)


@given(st.lists(st.sampled_from(["good", "refused", "broken"]), max_size=200))
def test_the_limit_stays_in_bounds_whatever_happens(outcomes: list[str]) -> None:
    async def run() -> None:
        limiter, clock = await opened(most=8)
        for outcome in outcomes:
            clock.now += 61
            start = await limiter.enter()
            clock.now += 0.2
            call_error = {"refused": REFUSED, "broken": CallError("transient", 500, "oops")}.get(outcome)
            limiter.leave(start, call_error)
            assert 1.0 <= limiter.limit <= 8.0
            assert limiter.in_flight == 0

    asyncio.run(run())


def test_a_pace_spreads_what_it_allows() -> None:
    pace, now = RateLimiter(per_second=10, burst=1), 0.0
    starts: list[float] = []
    for _ in range(21):
        now += pace.wait(now)
        pace.take(1, now)
        starts.append(now)
    # One may go at once on top of the one that is due.
    assert starts[-1] == pytest.approx(1.9)


def test_the_gate_keeps_calls_per_second() -> None:
    async def run() -> float:
        limiter = AdaptiveLimiter(100, max_qps=50)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(26):
            limiter.leave(await limiter.enter())
        return loop.time() - began

    assert asyncio.run(run()) >= 0.47


def test_the_gate_keeps_tokens_per_minute() -> None:
    async def run() -> float:
        limiter = AdaptiveLimiter(100, max_tokens_per_minute=60_000)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(14):
            # 1000 tokens were booked, 500 were used.
            limiter.leave(await limiter.enter(1000), extra_tokens=-500)
        return loop.time() - began

    # 7000 tokens at 1000 a second; 6000 may go at once, and the first to come needs not wait.
    assert 0.3 <= asyncio.run(run()) < 2.0


async def test_a_budget_counts_what_is_in_flight() -> None:
    budget = Budget(1.0)
    first = await budget.reserve(0.6)
    second = asyncio.create_task(budget.reserve(0.6))
    await asyncio.sleep(0)
    assert not second.done(), "both at their worst would be above the cap"
    budget.settle(first, 0.1)
    assert await second == 0.6
    budget.settle(0.6, 0.6)
    with pytest.raises(StoppedError, match="max-cost 1"):
        await budget.reserve(0.6)
    assert budget.spent == pytest.approx(0.7)


def test_one_cap_holds_for_all_models_of_a_run() -> None:
    of_the_run = SpendTracker()

    async def spend(budget: Budget, worst: float, cost: float) -> None:
        budget.settle(await budget.reserve(worst), cost)

    one, two = (Budget(1.0, of_the_run) for _ in range(2))
    asyncio.run(spend(one, 0.6, 0.5))
    asyncio.run(spend(two, 0.4, 0.4))
    for budget in (one, two):
        with pytest.raises(StoppedError, match=r"spent \$0.9000"):
            asyncio.run(spend(budget, 0.2, 0.2))
    assert Budget(1.0).spent == 0.0, "another run"


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), max_size=50), st.floats(0, 5))
def test_a_budget_is_never_exceeded(calls: list[tuple[float, float]], cap: float) -> None:
    async def run() -> None:
        budget = Budget(cap)
        for worst, share in calls:
            try:
                budget.settle(await budget.reserve(worst), worst * share)
            except StoppedError:
                return
            assert budget.spent <= cap + 1e-9

    asyncio.run(run())


async def test_without_a_cap_nothing_waits() -> None:
    budget = Budget(None)
    assert await asyncio.wait_for(budget.reserve(1e9), 1) == 0.0
