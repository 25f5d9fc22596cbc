"""A pool of worker processes that run one function, one call at a time, and can be killed.

A pool of the standard library breaks if one of its processes dies, and cannot stop a call that hangs. Here a thread
watches each process, so a time-out or a dead process fails only one call.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from latentscore_data.core.base.errors import OutputError

log = logging.getLogger(__name__)

START_SECONDS = 300.0
"""Time-out for starting a process, including imports and compilation."""

_ONE_THREAD: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class WorkerFailure(Exception):
    """A call in a worker process failed; the message is one line, ``kind`` is raised, timeout, died or start."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


Make = Callable[..., Callable[..., Any]]
"""A module-level function that is called once in each process and returns the function for the calls."""


class WorkerPool:
    """``count`` worker processes. They start with the first calls and end with :meth:`close`.

    ``make(*make_args)`` runs once in each process. With ``preload``, the named modules are imported once, in a process that
    the workers are forked from, so that each of them starts in milliseconds; without it each is a fresh interpreter.
    Calls fail with :class:`WorkerFailure`: when the function raises, when it takes longer than ``timeout_seconds`` (the
    process is killed and another one takes its place) or when ``tries`` processes died with it.
    """

    def __init__(
        self,
        make: Make,
        make_args: tuple[Any, ...] = (),
        *,
        count: int,
        timeout_seconds: float,
        start_seconds: float = START_SECONDS,
        preload: Sequence[str] = (),
        slots: threading.Semaphore | None = None,
        tries: int = 1,
    ) -> None:
        self._make, self._make_args = make, make_args
        self._timeout, self._start_timeout = timeout_seconds, start_seconds
        self._preload = list(preload)
        self._slots, self._tries = slots, tries
        self._jobs: queue.SimpleQueue[tuple[Future[Any], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._closed = False
        self._watchers = [
            threading.Thread(target=self._watch, name=f"{make.__name__}-{i}", daemon=True) for i in range(count)
        ]
        self._started = 0
        self._lock = threading.Lock()

    def submit(self, *args: Any) -> Future[Any]:
        """Return the future of one call. Arguments and results must be picklable."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._jobs.put((future, args))
            if self._started < len(self._watchers):
                self._watchers[self._started].start()
                self._started += 1
        return future

    def close(self) -> None:
        """End the processes; calls that have not started are cancelled."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(queue.Empty):
                while True:
                    job = self._jobs.get_nowait()
                    if job is not None:
                        job[0].cancel()
            for _ in range(self._started):
                self._jobs.put(None)
            started = self._watchers[: self._started]
        for watcher in started:
            watcher.join(timeout=self._timeout + 10)

    def _watch(self) -> None:
        worker: _Worker | None = None
        try:
            while (job := self._jobs.get()) is not None:
                future, args = job
                if not future.set_running_or_notify_cancel():
                    continue
                if self._slots is not None:
                    self._slots.acquire()
                for left in reversed(range(self._tries)):
                    try:
                        if worker is None:
                            worker = _Worker(self._make, self._make_args, self._preload, self._start_timeout)
                        result = worker.call(args, self._timeout)
                    except WorkerFailure as failure:
                        if failure.kind != "raised" and worker is not None:
                            worker.kill()
                            worker = None
                        if failure.kind == "died" and left:
                            log.warning("a worker process died (%s); its call is made again", failure.message)
                            continue
                        future.set_exception(failure)
                    except Exception as error:
                        future.set_exception(error)
                    else:
                        future.set_result(result)
                    break
        finally:
            if worker is not None:
                worker.end()


class _Worker:
    """One worker process and the parent's end of its pipe."""

    def __init__(self, make: Make, make_args: tuple[Any, ...], preload: list[str], start_seconds: float) -> None:
        context = multiprocessing.get_context("forkserver") if preload else multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe = ours
        with _starting(preload), _without_main():
            self._process = context.Process(target=_serve, args=(theirs, make, make_args), daemon=True)
            self._process.start()
        theirs.close()
        try:
            self._answer(start_seconds, "did not start within")
        except WorkerFailure as failure:
            self.kill()
            raise WorkerFailure("start", failure.message) from None

    def call(self, args: tuple[Any, ...], timeout_seconds: float) -> Any:
        try:
            self._pipe.send(args)
        except OSError:
            raise WorkerFailure("died", self._last_words()) from None
        return self._answer(timeout_seconds, "took longer than")

    def _answer(self, timeout_seconds: float, complaint: str) -> Any:
        try:
            if not self._pipe.poll(timeout_seconds):
                raise WorkerFailure("timeout", f"{complaint} {timeout_seconds:g} s")
            fine, value = self._pipe.recv()
        except (EOFError, OSError):
            raise WorkerFailure("died", self._last_words()) from None
        if not fine:
            raise WorkerFailure("raised", value)
        return value

    def _last_words(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"the process was ended by {signal.Signals(-code).name}"
        return f"the process ended with code {code}"

    def kill(self) -> None:
        self._process.kill()
        self._process.join(timeout=5)
        self._pipe.close()

    def end(self) -> None:
        """Close the pipe, which tells the process to exit; kill it if it does not."""
        self._pipe.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(timeout=5)


def _serve(pipe: Connection, make: Make, make_args: tuple[Any, ...]) -> None:
    """The main function of a worker process."""
    # Ctrl-C is sent to the whole process group; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Output of a renderer or a user's scorer must not be mixed into the JSON document on stdout.
    os.dup2(sys.stderr.fileno() if _has_descriptor(sys.stderr) else 2, 1)
    try:
        work = make(*make_args)
    except BaseException as error:
        pipe.send((False, _one_line(error)))
        return
    pipe.send((True, None))
    while True:
        try:
            args = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            reply = (True, work(*args))
        except (Exception, SystemExit) as error:
            log.debug("a call failed", exc_info=True)
            reply = (False, _one_line(error))
        try:
            pipe.send(reply)
        except OSError:
            return
        except Exception as error:  # a result that cannot be pickled
            pipe.send((False, f"the result cannot be sent: {_one_line(error)}"))


def _has_descriptor(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_start_lock = threading.Lock()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Context manager: start processes without running the main module, which the standard library would run in each of
    them.

    Workers do not need it, and a script that starts a stage at module level would start it in every worker. Used inside
    :func:`_starting`'s lock.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Context manager: block SIGINT in the processes that this thread starts.

    Ctrl-C is sent to the whole process group, and only the parent handles it. A process that ignored it in its own code
    would print a traceback if it came while that code is imported.
    """
    # When it starts its own process, the resource tracker unblocks SIGINT in the calling thread.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _starting(preload: list[str]) -> Iterator[None]:
    """Context manager: start the process from which workers are forked, if ``preload`` is given.

    It inherits the current environment: the import path (the standard library does not pass it before Python 3.12) and
    one thread for the numeric libraries, so that two workers on two cores do not run eight threads.
    """
    with _start_lock, _without_ctrl_c():
        if not preload:
            yield
            return
        from multiprocessing import forkserver

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(preload)
        before = dict(os.environ)
        os.environ.update(_ONE_THREAD)
        os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        try:
            _ensure_forkserver(forkserver)
            yield
        finally:
            for name in (*_ONE_THREAD, "PYTHONPATH"):
                if name in before:
                    os.environ[name] = before[name]
                else:
                    os.environ.pop(name, None)


def _ensure_forkserver(forkserver: types.ModuleType) -> None:
    """Start the process that workers are forked from. Raises :class:`OutputError` if its socket has no usable folder."""
    try:
        forkserver.ensure_running()
    except OSError as error:
        # Without a number: the path of the socket is longer than about 100 bytes. ENOENT: no temporary folder is writable.
        if error.errno not in (None, errno.ENOENT):
            raise
        raise OutputError(
            f"the worker processes cannot be started ({error.strerror or error})",
            "set TMPDIR to a writable folder with a short path",
        ) from None
