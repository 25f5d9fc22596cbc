"""The program in processes that are forked from one with the libraries loaded, so that a test does not wait for imports.

A call has arguments, environment, working folder and standard streams of its own. What starting alone does is tested in
``test_startup.py``, ``test_streams.py`` and wherever a test starts ``python -m latentscore_data``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOADED = (
    "latentscore_data.commands._models", "latentscore_data.commands.configs", "latentscore_data.commands.status",
    "latentscore_data.commands.vibes", "httpx",
)  # fmt: skip
"""None of them reads the environment while it is imported."""


class Done(subprocess.CompletedProcess[str]):
    """A call of the program that has ended."""

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.stdout)


def ended(done: Done, code: int | None) -> Done:
    """Fail, and show what was said, unless the call ended with this exit code; None allows any."""
    assert code is None or done.returncode == code, done.output[-6000:]
    return done


def python(
    *args: object, code: int | None = 0, env: dict[str, str] | None = None, timeout: float = 280, **options: Any
) -> Done:
    """Run Python in a process that is started anew: ``python("-c", "print(1)")``."""
    words = [sys.executable, *map(str, args)]
    where = {**os.environ, **(env or {})}
    out = subprocess.run(words, env=where, capture_output=True, text=True, timeout=timeout, check=False, **options)
    return ended(Done(words, out.returncode, out.stdout, out.stderr), code)


def begin(*words: object, **options: Any) -> subprocess.Popen[str]:
    """Start ``lsdata WORDS`` in a process of its own, which leads a group, with pipes for what it says."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "latentscore_data", *map(str, words)]
    return subprocess.Popen(command, **{**pipes, "start_new_session": True, **options})


def finish(process: subprocess.Popen[str], code: int | None = None, timeout: float = 120) -> Done:
    """Wait for the end of a process of :func:`begin`."""
    out, err = process.communicate(timeout=timeout)
    return ended(Done(process.args, process.returncode, out, err), code)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process of :func:`begin` and those that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> bool:
    """Return whether this came about before the process ended and before so many seconds had passed."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


class Program:
    """``run`` calls the program; ``close`` ends the process that calls are forked from."""

    def __init__(self) -> None:
        self._parent: subprocess.Popen[str] | None = None

    def run(self, args: list[str], env: dict[str, str], cwd: Path, timeout: float) -> Done:
        """Raises :class:`subprocess.TimeoutExpired` after so many seconds."""
        if self._parent is None:
            self._parent = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )  # fmt: skip
        parent = self._parent
        assert parent.stdin is not None
        assert parent.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            streams = [str(Path(folder, name)) for name in ("out", "err")]
            parent.stdin.write(json.dumps([args, env, str(cwd), streams]) + "\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            late = threading.Event()
            alarm = threading.Timer(timeout, lambda: (late.set(), os.kill(child, signal.SIGKILL)))
            alarm.start()
            code = int(parent.stdout.readline())
            alarm.cancel()
            out, err = (Path(path).read_text(encoding="utf-8", errors="replace") for path in streams)
        if late.is_set():
            raise subprocess.TimeoutExpired(args, timeout, out, err)
        return Done(args, code, out, err)

    def close(self) -> None:
        if self._parent is not None and self._parent.stdin is not None:
            self._parent.stdin.close()
            self._parent.wait(30)


def _become(args: list[str], env: dict[str, str], cwd: str, streams: list[str]) -> None:
    """Make this process what ``python -m latentscore_data ARGS`` would be."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[0] = cwd
    sys.argv = ["lsdata", *args]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)


def _serve() -> None:
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        call: Any = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(*call)
            from latentscore_data.cli import main

            main()
            return
        print(child, file=answers)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers)


if __name__ == "__main__":
    _serve()
