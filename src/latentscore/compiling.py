"""Compile the inner loops with numba, once per machine, into an optional disk cache."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, UserWideCacheLocator
from numba.core.ir import Loc

from latentscore.installed import available_cores

log = logging.getLogger("latentscore")

# A multiplication and an addition may be fused to one instruction. No other reordering is allowed: the feedback of
# filters is written in the order with the lowest latency.
_FASTMATH = {"contract"}


_path_from_here = Loc._get_path


def _path_of(self: Loc) -> Any:
    """Return the path of a source file for numba's messages, also if the working folder was deleted."""
    try:
        return _path_from_here(self)
    except FileNotFoundError:
        return self.filename


# Numba makes such messages during every compilation, because it handles them as exceptions of its own.
Loc._get_path = _path_of


class SealedFiles(IndexDataCacheFile):
    """The index and the machine code of one loop. Each file ends with the SHA-256 of its content.

    After a power failure, files may be empty, truncated or full of zeros. Numba unpickles them without a check, and
    damaged machine code would crash the process. A file without a valid hash counts as missing and is written again.
    """

    def _load_index(self) -> dict[Any, str]:
        return super()._load_index() if self._is_sealed(self._index_path) else {}

    def _load_data(self, name: str) -> Any:
        if not self._is_sealed(self._data_path(name)):
            raise OSError(f"{name} is damaged, or of another version")
        return super()._load_data(name)

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[Any]:
        content = io.BytesIO()
        yield content
        with super()._open_for_write(filepath) as file:
            # The hash after the content is ignored when unpickling, because a pickle marks its own end.
            file.write(content.getvalue() + self._seal(content.getvalue()))

    def _is_sealed(self, path: str) -> bool:
        try:
            data = Path(path).read_bytes()
        except OSError:
            return False
        return data[-_SEAL_BYTES:] == self._seal(data[:-_SEAL_BYTES])

    def _seal(self, content: bytes) -> bytes:
        """Return the hash. It includes the versions, so files of another numba version are not unpickled."""
        return hashlib.sha256(f"{self._version} {self._source_stamp}\n".encode() + content).digest()


_SEAL_BYTES = hashlib.sha256().digest_size


class _UsersFolder(UserWideCacheLocator):
    """The user's cache folder. Without a home folder there is none: numba would create a folder named ``~`` in the working
    folder."""

    def ensure_cache_path(self) -> None:
        if not os.path.isabs(self.get_cache_path()):
            raise FileNotFoundError(self.get_cache_path())
        super().ensure_cache_path()


class _Folders(CompileResultCacheImpl):
    """Numba's choice of the cache folder."""

    _locator_classes = [  # noqa: RUF012
        _UsersFolder if one is UserWideCacheLocator else one for one in CompileResultCacheImpl._locator_classes
    ]


class _OptionalCache(FunctionCache):
    """Numba's disk cache, but a full, read-only or damaged disk only causes another compilation."""

    _impl_class = _Folders

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self._name = f"{loop.__module__}.{loop.__qualname__}"
        self._cache_file = SealedFiles(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        while True:
            # Checked before the folder is read, so that files that the second process wrote just before its end are
            # found.
            waits = self._name in ROOM_LOOPS and _Announcer.is_compiling_beside()
            found = self._load(sig, target_context)
            if found is not None or not waits:
                return found
            time.sleep(0.02)

    def _load(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # for any error, the loop can be compiled again
            log.info("a cached sound loop cannot be loaded (%r); it is compiled again", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            log.info("the compiled sound loops cannot be cached (%s)", error)


def compiled(loop: Callable[..., Any], inner: bool = False) -> Callable[..., Any]:
    """Return the loop as machine code, compiled at its first call. It releases the GIL and uses one thread, so results
    never vary.

    An ``inner`` loop can only be called by other loops: a call from Python would crash the process.
    """
    # Undocumented options of numba: omit the wrappers for C function pointers, which are not used, and for Python.
    entries: Any = {"no_cfunc_wrapper": True, "no_cpython_wrapper": inner}
    made: Any = numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy", **entries)(loop)
    try:
        made._cache = _OptionalCache(made.py_func)
    except RuntimeError:
        _Announcer.uncached = True
    return made


ROOM_LOOPS = frozenset(
    ("latentscore.synth.space._room", "latentscore.synth.space._tone", "latentscore.loudness._hop_energies",
     "latentscore.synth.space._limit")
)  # fmt: skip
"""The loops that a second process compiles at the first render on a machine, while this process compiles the others."""


def telling(message: str) -> AbstractContextManager[None]:
    """Context manager: log ``message``, or :data:`UNCACHED`, before the first loop is compiled inside the block; with a second core, start a
    second process that compiles :data:`ROOM_LOOPS`."""
    return event.install_listener("numba:compile", _Announcer(message))


UNCACHED = (
    "compiling the sound loops (about ten seconds) in each process, because no folder for them is writable; "
    "set NUMBA_CACHE_DIR to one"
)
BESIDE_SECONDS = 60.0
"""Maximum wait for the second process, in seconds; it needs about five on an idle core."""


class _Announcer(event.Listener):
    done = False
    uncached = False
    """True if a loop has no folder to be cached in."""
    beside: subprocess.Popen[bytes] | None = None
    waited_until = 0.0
    """A time of ``time.monotonic``, in seconds."""

    def __init__(self, message: str) -> None:
        self._message = message

    def on_start(self, event: Any) -> None:
        if not _Announcer.done:
            _Announcer.done = True
            log.warning(UNCACHED if _Announcer.uncached else self._message)
            _Announcer.beside, _Announcer.waited_until = _compile_beside(), time.monotonic() + BESIDE_SECONDS

    def on_end(self, event: Any) -> None:
        pass

    @classmethod
    def is_compiling_beside(cls) -> bool:
        """Return whether the second process is still running and the wait is not over."""
        return cls.beside is not None and cls.beside.poll() is None and time.monotonic() < cls.waited_until


def end_second_process() -> None:
    """Wait for the second process, if there is one, and kill it if it hangs. Needed by processes that treat all of their
    children as workers."""
    process = _Announcer.beside
    if process is None:
        return
    try:
        process.wait(max(0.0, _Announcer.waited_until - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_BESIDE = "import sys; sys.path[:] = sys.argv[1:]; from latentscore.synth.space import compile_room; compile_room()"


def _compile_beside() -> subprocess.Popen[bytes] | None:
    """Start a process that compiles :data:`ROOM_LOOPS` into the same folder. Return None if there is only one core, no
    interpreter, or no writable folder. If the process fails or is killed, this process compiles the loops itself."""
    if available_cores() < 2 or not sys.executable or getattr(sys, "frozen", False) or not _keeps_loops():
        return None
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _BESIDE, *sys.path],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        log.info("cannot start a second process to compile the sound loops (%s)", error)
        return None


def _keeps_loops() -> bool:
    """Return whether the cache folder is writable and lacks :data:`ROOM_LOOPS`."""
    space = sys.modules.get("latentscore.synth.space")
    loop = getattr(space, "_room", None)
    if loop is None:
        return False
    try:
        cache = _OptionalCache(loop.__wrapped__)
    except RuntimeError:
        return False
    return os.access(cache.cache_path, os.W_OK) and not Path(cache._cache_file._index_path).exists()
