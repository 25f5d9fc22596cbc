"""Steps of work that depend on each other, on one or two threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass


def _always(number: int) -> bool:
    return True


@dataclass(eq=False)
class Lane:
    """Steps that run in order, one at a time: ``step(n)`` for each ``n`` below ``count``.

    Step ``n`` may run once ``is_ready(n)`` is true. ``rank`` is how late the lane is in the work: the lanes that it waits
    for have a lower rank.
    """

    step: Callable[[int], None]
    count: int
    rank: int
    is_ready: Callable[[int], bool] = _always
    done: int = 0
    is_running: bool = False


def run_lanes(lanes: Sequence[Lane], threads: int) -> None:
    """Run all steps of all lanes.

    With one thread the lanes run one after the other, in their order. With two, this thread prefers lanes of low rank and
    the second thread those of high rank.
    """
    if threads == 1:
        for lane in lanes:
            while lane.done < lane.count:
                lane.step(lane.done)
                lane.done += 1
        return
    run = _Run(lanes)
    with ThreadPoolExecutor(1, "latentscore-render") as helper:
        beside = helper.submit(run.work, -1)
        run.work(1)
        beside.result()


class _Run:
    """Two threads that run the steps of the same lanes."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._open = [lane for lane in lanes if lane.count]
        self._turn = threading.Condition()
        self._has_failed = False

    def work(self, sign: int) -> None:
        """Run steps until none is left or the other thread fails. With ``sign`` 1 lanes of low rank come first, with -1
        those of high rank."""
        try:
            lane = self._next(sign)
            while lane is not None:
                lane.step(lane.done)
                lane = self._next(sign, lane)
        except BaseException:
            with self._turn:
                self._has_failed = True
                self._turn.notify()
            raise

    def _next(self, sign: int, finished: Lane | None = None) -> Lane | None:
        """Mark the step of the lane ``finished`` as done, and wait for a lane whose next step is ready. None if there are
        no more steps."""
        with self._turn:
            if finished is not None:
                finished.done += 1
                finished.is_running = False
                if finished.done == finished.count:
                    self._open.remove(finished)
                self._turn.notify()
            while self._open and not self._has_failed:
                ready = [lane for lane in self._open if not lane.is_running and lane.is_ready(lane.done)]
                if ready:
                    lane = min(ready, key=lambda lane: (sign * lane.rank, lane.done))
                    lane.is_running = True
                    return lane
                self._turn.wait()
        return None
