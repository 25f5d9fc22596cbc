"""The loop that every slow step shares: skip what is done, work, append, stop early."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from latentscore_data.core.errors import EXIT_SOME_FAILED, LsdataError, StoppedError
from latentscore_data.core.jsonl_io import Appender, read_lines

log = logging.getLogger(__name__)

InT = TypeVar("InT")

Line = dict[str, Any]

RETRYABLE_KINDS = frozenset({"transient", "answer", "render", "score"})
"""Failures that the next run tries again by itself; the others (bad requests) only with --retry-failed."""


class RowFailure(Exception):
    """One row could not be done. The run goes on.

    ``kind`` is the row of the error table it belongs to; ``message`` must hold no secrets.
    """

    def __init__(self, kind: str, message: str, status: int | None = None, attempts: int = 1) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.attempts = attempts


@dataclass
class Summary:
    """What a stage did. ``exit_code`` is 0 when nothing is missing and 1 when some rows failed or came short."""

    stage: str
    done: int = 0
    skipped: int = 0
    failed: Counter[str] = field(default_factory=lambda: Counter())
    short: int = 0
    """Rows that are done with fewer results than asked for."""
    seconds: float = 0.0
    calls: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0
    """``None`` when the price of a model is unknown."""
    saved_usd: float = 0.0
    fresh: bool = False
    """True when nothing had changed, so nothing was done."""
    details: dict[str, Any] = field(default_factory=lambda: {})
    outputs: list[str] = field(default_factory=lambda: [])
    next_step: str = ""

    @property
    def exit_code(self) -> int:
        return EXIT_SOME_FAILED if self.failed or self.short else 0

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: plain values, the same names."""
        return {
            "stage": self.stage,
            "done": self.done,
            "skipped": self.skipped,
            "failed": dict(self.failed),
            "short": self.short,
            "seconds": round(self.seconds, 3),
            "calls": self.calls,
            "cached": self.cached,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "cost_usd": self.cost_usd,
            "saved_usd": self.saved_usd,
            "fresh": self.fresh,
            "details": self.details,
            "outputs": self.outputs,
            "next_step": self.next_step,
            "exit_code": self.exit_code,
        }


@dataclass(frozen=True)
class Job(Generic[InT]):
    """What a stage does with one input.

    ``key`` names the input, ``fingerprint`` says which answer it would get (vibe text, model, prompt and schema hash,
    sampling), ``work`` makes the line to append, and ``complete`` says whether a line found in the output holds enough.
    """

    name: str
    key: Callable[[InT], str]
    fingerprint: Callable[[InT], str]
    work: Callable[[InT], Awaitable[Line]]
    complete: Callable[[Line], bool] = lambda line: True
    line_key: str = "row_id"
    breaker_window: int = 40
    breaker_at_least: int = 20


class Progress:
    """Told what happens; the display shows it. This one shows nothing."""

    def start(self, stage: str, total: int | None) -> None: ...

    def update(self, summary: Summary, in_flight: int) -> None: ...

    def finish(self, summary: Summary) -> None: ...


def done_lines(output: Path, line_key: str) -> dict[str, tuple[str | None, Line]]:
    """The newest line for each key in an appended output, with its fingerprint."""
    if not output.exists():
        return {}
    return {str(line[line_key]): (line.get("input_fingerprint"), line) for _, line in read_lines(output, torn="drop")}


def run_stage(
    job: Job[InT],
    inputs: Iterable[InT],
    output: Path,
    failures: Path,
    *,
    max_in_flight: int = 16,
    total: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Do the job for every input that is not done yet, appending one line per input to ``output``.

    Failures go to ``failures``, one line each. Raises :class:`StoppedError` when at least half of the last 40 final
    outcomes failed (20 seen at least); raises what ``work`` raises when it is an :class:`LsdataError`; everything
    already appended stays. KeyboardInterrupt drains what is in flight before it is raised; a second one stops now.
    """
    return asyncio.run(
        _run(job, inputs, output, failures, max_in_flight, total, retry_failed, overwrite, progress or Progress())
    )


async def _run(
    job: Job[InT],
    inputs: Iterable[InT],
    output: Path,
    failures: Path,
    max_in_flight: int,
    total: int | None,
    retry_failed: bool,
    overwrite: bool,
    progress: Progress,
) -> Summary:
    started = time.monotonic()
    summary = Summary(job.name)
    if overwrite:
        output.unlink(missing_ok=True)
    done = {
        key: fingerprint for key, (fingerprint, line) in done_lines(output, job.line_key).items() if job.complete(line)
    }
    given_up = {} if retry_failed or overwrite else _given_up(failures)
    outcomes: deque[bool] = deque(maxlen=job.breaker_window)
    causes: Counter[str] = Counter()
    stop: list[BaseException] = []
    waiting = iter(inputs)
    progress.start(job.name, total)

    with Appender(output) as out, Appender(failures) as failed, _draining(stop):
        in_flight: set[asyncio.Task[None]] = set()

        async def one(item: InT, key: str, fingerprint: str) -> None:
            try:
                line = await job.work(item)
            except RowFailure as failure:
                summary.failed[failure.kind] += 1
                causes[f"{failure.kind}: {failure.message}"] += 1
                failed.append(
                    {
                        job.line_key: key,
                        "input_fingerprint": fingerprint,
                        "kind": failure.kind,
                        "status": failure.status,
                        "attempts": failure.attempts,
                        "message": failure.message,
                    }
                )
                outcomes.append(False)
            except LsdataError as error:
                stop.append(error)
            else:
                line.setdefault(job.line_key, key)
                line["input_fingerprint"] = fingerprint
                out.append(line)
                summary.done += 1
                outcomes.append(True)
            bad = outcomes.count(False)
            if len(outcomes) >= job.breaker_at_least and bad * 2 >= len(outcomes) and not stop:
                names = "; ".join(f"{count} x {cause}" for cause, count in causes.most_common(3))
                stop.append(
                    StoppedError(
                        f"{job.name} stopped: {bad} of the last {len(outcomes)} rows failed ({names})",
                        "mend the cause and run the same command again; what was done is kept",
                    )
                )

        def next_task() -> asyncio.Task[None] | None:
            for item in waiting:
                key, fingerprint = job.key(item), job.fingerprint(item)
                if done.get(key, "") == fingerprint:
                    summary.skipped += 1
                    continue
                if given_up.get(key) == fingerprint:
                    summary.failed["bad request"] += 1
                    continue
                return asyncio.create_task(one(item, key, fingerprint))
            return None

        while True:
            while not stop and len(in_flight) < max_in_flight:
                task = next_task()
                if task is None:
                    break
                in_flight.add(task)
            summary.seconds = time.monotonic() - started
            progress.update(summary, len(in_flight))
            if not in_flight:
                break
            finished, in_flight = await asyncio.wait(in_flight, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()

    summary.seconds = time.monotonic() - started
    progress.finish(summary)
    if stop:
        raise stop[0]
    return summary


def _given_up(failures: Path) -> dict[str, str]:
    """Rows whose newest failure is of a kind that only --retry-failed tries again."""
    newest: dict[str, Line] = {}
    if failures.exists():
        for _, line in read_lines(failures, torn="drop"):
            newest[str(line.get("row_id") or line.get("source_id"))] = line
    return {
        key: str(line.get("input_fingerprint"))
        for key, line in newest.items()
        if line.get("kind") not in RETRYABLE_KINDS
    }


@contextmanager
def _draining(stop: list[BaseException]) -> Generator[None, None, None]:
    """First Ctrl-C: take nothing new and finish what is in flight. Second: stop now."""

    def interrupt(signum: int, frame: object) -> None:
        if any(isinstance(reason, KeyboardInterrupt) for reason in stop):
            raise KeyboardInterrupt
        log.warning("finishing what is in flight; press Ctrl-C again to stop now")
        stop.append(KeyboardInterrupt())

    try:
        before = signal.signal(signal.SIGINT, interrupt)
    except ValueError:  # not in the main thread: the caller deals with signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
