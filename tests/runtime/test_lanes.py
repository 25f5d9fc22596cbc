"""Steps of work on one or two threads: each step runs once, in order, after those that it waits for."""

from __future__ import annotations

import threading

import pytest

from latentscore.synth.lanes import Lane, run_lanes


@pytest.mark.parametrize("threads", [1, 2])
def test_every_step_runs_once_after_those_it_waits_for(threads: int) -> None:
    events: list[tuple[str, int]] = []

    def note(name: str, number: int) -> None:
        events.append((name, number))

    first = Lane(lambda n: note("first", n), 50, 0)
    other = Lane(lambda n: note("other", n), 30, 0)
    second = Lane(lambda n: note("second", n), 50, 1, lambda n: n < first.done)
    nothing = Lane(lambda n: note("nothing", n), 0, 2)
    run_lanes([first, other, second, nothing], threads)
    for name, count in (("first", 50), ("other", 30), ("second", 50)):
        assert [number for lane, number in events if lane == name] == list(range(count))
    assert all(events.index(("first", n)) < events.index(("second", n)) for n in range(50))


@pytest.mark.parametrize("fails", ["low", "high"])
def test_an_error_of_either_thread_ends_both(fails: str) -> None:
    started = threading.Barrier(2, timeout=10.0)

    def step(name: str, number: int) -> None:
        if number == 0:
            started.wait()
        if name == fails:
            raise ValueError(name)

    low = Lane(lambda n: step("low", n), 2, 0)
    high = Lane(lambda n: step("high", n), 2, 1)
    waits_for_both = Lane(lambda n: None, 1, 2, lambda n: low.done == 2 and high.done == 2)
    with pytest.raises(ValueError, match=fails):
        run_lanes([low, high, waits_for_both], 2)
    assert waits_for_both.done == 0
