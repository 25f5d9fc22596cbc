"""The row loop of all slow steps: skip finished rows, process, append, stop early."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from latentscore_data.core.base.errors import StoppedError
from latentscore_data.core.base.jsonl import Appender, Line, read_lines, replace_rows
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.row_index import Entry, RowIndex
from latentscore_data.core.base.summary import RETRYABLE_KINDS, Progress, Summary
from latentscore_data.core.base.writer import BackgroundWriter

log = logging.getLogger(__name__)

InT = TypeVar("InT")

BREAKER_WINDOW, BREAKER_AT_LEAST = 40, 20
"""Number of last outcomes that the circuit breaker counts, and of outcomes from which it counts."""
SKIPPED_AT_ONCE = 200
"""Yield to the event loop after this many skipped rows."""


class RowFailure(Exception):
    """A row failed; the run continues.

    ``kind`` is the kind of failure in the error table; ``message`` must not contain secrets.
    """

    def __init__(self, kind: str, message: str, status: int | None = None, attempts: int = 1) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.attempts = attempts


class NotAttempted(Exception):
    """The run is stopping, and this row's question was not sent or its sound not rendered. The row stays undone and does
    not count as failed."""


class Client(Protocol):
    """The interface of the model client that the loop needs."""

    usage: Usage

    def drain(self) -> None:
        """Start no new calls; calls in flight may finish."""

    async def aclose(self) -> None:
        """Close connections and files. Call this in the event loop of the calls."""


@dataclass(frozen=True)
class Job(Generic[InT]):
    """The processing of one input by a stage.

    ``key`` names the input. ``fingerprint`` identifies its answer (vibe text, model, prompt and schema hash, sampling).
    ``work`` returns the line to append. ``complete`` returns whether an existing line is sufficient, and ``short``
    whether it has fewer results than requested. ``refresh`` updates the input's fields in a finished line; a changed
    line is appended again, without work. ``client`` is told when to stop, asked for its usage, and closed. ``drain`` is
    called when the run stops early; work that has not begun then raises :class:`NotAttempted`.
    """

    name: str
    key: Callable[[InT], str]
    fingerprint: Callable[[InT], str]
    work: Callable[[InT], Awaitable[Line]]
    complete: Callable[[Line], bool] = lambda line: True
    short: Callable[[Line], bool] = lambda line: False
    refresh: Callable[[InT, Line], Line] | None = None
    client: Client | None = None
    drain: Callable[[], None] = lambda: None
    unit: str = "row"
    """What an input is called, in the singular."""
    line_key: str = "row_id"


def run_stage(
    job: Job[InT],
    inputs: Iterable[InT],
    output: Path,
    failures: Path,
    *,
    max_in_flight: int = 16,
    total: int | None = None,
    retry_failed: bool = False,
    overwrite: set[str] | None = None,
    progress: Progress | None = None,
    index: RowIndex | None = None,
) -> Summary:
    """Process every input that is not done yet, and append one line per input to ``output``.

    With ``overwrite``, every input whose key is not in that set is processed again. Its line is replaced when the new
    one exists, and lines of other inputs are kept, so that a limit, a split or an interruption loses no paid answers.
    ``index`` is the index of ``output``, which is updated. Failures go to ``failures``, one line each. When the stage
    completes, both files are compacted to the newest line of each key, in the order of the inputs, without lines of
    failed inputs that have another fingerprint. Raises :class:`StoppedError` if at least half of the last 40 outcomes
    failed (and at least 20 are known), and the exceptions of ``work`` except :class:`RowFailure`; appended lines are
    kept. The first Ctrl-C finishes the work in flight before KeyboardInterrupt is raised; a second one stops at once.
    """
    own = index is None
    index = index or RowIndex(output, job.line_key)
    run = _Run(job, inputs, index, failures, max_in_flight, total, retry_failed, overwrite, progress or Progress())
    # Installed outside the event loop, so that asyncio does not handle Ctrl-C.
    try:
        with _draining(run.interrupt):
            asyncio.run(run.to_the_end())
    finally:
        if own:
            index.close()
    if run.stop:
        if isinstance(run.stop[0], KeyboardInterrupt):
            log.warning("%s", run.so_far())
        raise run.stop[0]
    if run.interrupted:  # too late to stop anything
        raise KeyboardInterrupt
    return run.summary


@dataclass
class _Run(Generic[InT]):
    """One run of a stage."""

    job: Job[InT]
    inputs: Iterable[InT]
    index: RowIndex
    failures: Path
    max_in_flight: int
    total: int | None
    retry_failed: bool
    overwrite: set[str] | None
    progress: Progress
    causes: Counter[str] = field(default_factory=Counter[str])
    stop: list[BaseException] = field(default_factory=list[BaseException])
    interrupted: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    order: list[str] = field(default_factory=list[str])
    failing: dict[str, str] = field(default_factory=dict[str, str])
    """The inputs without an answer, and the fingerprint of the missing answer."""
    in_flight: int = 0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.waiting = iter(self.inputs)
        most = self.max_in_flight if self.total is None else min(self.max_in_flight, self.total)
        self.workers = max(1, most)
        self.summary = Summary(self.job.name, unit=self.job.unit)
        self.outcomes: deque[bool] = deque(maxlen=BREAKER_WINDOW)

    async def to_the_end(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.progress.start(self.job.name, self.total)
        try:
            with (
                Appender(self.index.path) as self.out,
                Appender(self.failures) as self.failed,
                closing(BackgroundWriter()) as self.writer,
            ):
                again = self.retry_failed or self.overwrite is not None
                newest = {} if again else _newest_failures(self.failures, self.job.line_key)
                # These are retried only with --retry-failed.
                self.given_up = {key: line for key, line in newest.items() if line.get("kind") not in RETRYABLE_KINDS}
                ticking = asyncio.create_task(self.tick())
                try:
                    await asyncio.gather(*(self.work_on() for _ in range(self.workers)))
                finally:
                    ticking.cancel()
                    if self.job.client is not None:
                        await self.job.client.aclose()
            if not self.stop:
                self.compact()
        finally:
            self.count()
            self.progress.finish(self.summary)

    async def work_on(self) -> None:
        """Run one of the workers that share the inputs."""
        try:
            for item in self.waiting:
                if self.stop:
                    return
                key, fingerprint = self.job.key(item), self.job.fingerprint(item)
                self.order.append(key)
                if await self.done_already(item, key, fingerprint):
                    if len(self.order) % SKIPPED_AT_ONCE == 0:
                        self.show()
                        await asyncio.sleep(0)
                else:
                    self.in_flight += 1
                    try:
                        await self.one(item, key, fingerprint)
                    finally:
                        self.in_flight -= 1
                    self.show()
        except Exception as error:
            # Calls in flight may be billed, so they are finished before the error ends the run.
            self.halt(error)

    async def done_already(self, item: InT, key: str, fingerprint: str) -> bool:
        entry = self.index.entries.get(key)
        if self.overwrite is not None and key not in self.overwrite:
            return False
        if entry is not None and entry.fingerprint == fingerprint and self.job.complete(line := self.index.line(key)):
            self.summary.skipped += 1
            self.summary.short += self.job.short(line)
            if self.job.refresh is not None:
                after = {**self.job.refresh(item, dict(line)), "input_fingerprint": fingerprint}
                if after != line:
                    await self.append(key, after)
            return True
        failure = self.given_up.get(key)
        if failure is not None and failure.get("input_fingerprint") == fingerprint:
            self.summary.failed[str(failure.get("kind"))] += 1
            self.failing[key] = fingerprint
            return True
        return False

    async def one(self, item: InT, key: str, fingerprint: str) -> None:
        try:
            line = await self.job.work(item)
            line.setdefault(self.job.line_key, key)
            line["input_fingerprint"] = fingerprint
            await self.append(key, line)
            if self.overwrite is not None:
                self.overwrite.add(key)
            self.summary.done += 1
            self.summary.short += self.job.short(line)
            self.summary.unfinished += not self.job.complete(line)
            self.outcomes.append(True)
        except NotAttempted:
            return
        except RowFailure as failure:
            await self.note(failure, key, fingerprint)
        bad = self.outcomes.count(False)
        if len(self.outcomes) >= BREAKER_AT_LEAST and bad * 2 >= len(self.outcomes) and not self.stop:
            names = "; ".join(f"{count} x {cause}" for cause, count in self.causes.most_common(3))
            self.halt(
                StoppedError(
                    f"{self.job.name} stopped: {bad} of the last {len(self.outcomes)} rows failed ({names})",
                    "fix the cause and run the same command again; finished work is kept",
                )
            )

    async def append(self, key: str, line: Line) -> None:
        offset, length = await self.writer.write(self.out.append, line)
        self.index.note(key, line, offset, length)

    async def note(self, failure: RowFailure, key: str, fingerprint: str) -> None:
        self.summary.failed[failure.kind] += 1
        self.failing[key] = fingerprint
        self.causes[f"{failure.kind}: {failure.message}"] += 1
        self.outcomes.append(False)
        await self.writer.write(
            self.failed.append,
            {
                self.job.line_key: key,
                "input_fingerprint": fingerprint,
                "kind": failure.kind,
                "status": failure.status,
                "attempts": failure.attempts,
                "message": failure.message,
            },
        )

    def halt(self, reason: BaseException) -> None:
        """Start no new work; work in flight may finish."""
        self.stop.append(reason)
        if self.job.client is not None:
            self.job.client.drain()
        self.job.drain()

    def interrupt(self) -> None:
        """Signal handler, which may run between any two instructions; the loop itself does the stopping."""
        if self.interrupted or self.loop is None:
            raise KeyboardInterrupt
        self.interrupted = True
        log.warning("finishing the calls in flight; press Ctrl-C again to stop at once")
        with suppress(RuntimeError):  # the loop has ended already
            self.loop.call_soon_threadsafe(self.halt, KeyboardInterrupt())

    def so_far(self) -> str:
        """What an interrupted run leaves: the panel, which said it, is gone."""
        done, cost = self.summary.done + self.summary.skipped, self.summary.cost_usd
        of_all = f" of {self.total:,}" if self.total else ""
        return f"{self.job.name}: {done:,}{of_all} {self.job.unit}s done" + (f", ${cost:.4f} spent" if cost else "")

    def count(self) -> None:
        self.summary.seconds = time.monotonic() - self.started
        if self.job.client is not None:
            self.summary.count(self.job.client.usage)

    def show(self) -> None:
        self.count()
        self.progress.update(self.summary, self.in_flight)

    async def tick(self) -> None:
        while True:
            self.show()
            await asyncio.sleep(0.5)

    def compact(self) -> None:
        """Keep the newest line of each key, in the order of the inputs, followed by lines of other keys.

        A failed input loses its line with another fingerprint, because an answer to another question must not be used.
        Lines from other tools are kept unchanged.
        """
        entries = self.index.entries
        for key, fingerprint in self.failing.items():
            entry = entries.get(key)
            if entry is not None and entry.ours and entry.fingerprint != fingerprint:
                del entries[key]
        wanted = dict.fromkeys(key for key in self.order if key in entries)
        self.index.keep([*wanted, *(key for key in entries if key not in wanted)])
        _forget_mended(self.failures, self.job.line_key, entries)


def _newest_failures(failures: Path, line_key: str) -> dict[str, Line]:
    if not failures.exists():
        return {}
    return {str(line.get(line_key)): line for _, line in read_lines(failures, torn="drop")}


def _forget_mended(failures: Path, line_key: str, done: dict[str, Entry]) -> None:
    """Keep the newest failure of each row that has no line with the same fingerprint; delete the file if there is none."""
    newest = _newest_failures(failures, line_key)
    left = [
        line for key, line in newest.items() if key not in done or done[key].fingerprint != line["input_fingerprint"]
    ]
    if left:
        replace_rows(failures, left)
    else:
        failures.unlink(missing_ok=True)


@contextmanager
def _draining(interrupt: Callable[[], None]) -> Generator[None, None, None]:
    """Context manager: Ctrl-C calls ``interrupt`` instead of ending the program."""
    try:
        before = signal.signal(signal.SIGINT, lambda signum, frame: interrupt())
    except ValueError:  # not in the main thread: the caller deals with signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
