"""A Ray cluster: the one in the settings, or one on this machine that ends with the command."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from latentscore.installed import available_cores
from latentscore_data.core.base.errors import LsdataError, MissingError, OutputError, StoppedError, first_line, require
from latentscore_data.core.base.settings import ComputeSettings
from latentscore_data.core.compute.entrypoints import check_deadline, entry_point

OBJECT_STORE_BYTES = 256 * 2**20
"""Shared memory of a cluster on this machine. Shards and results have about 100 kB each, and few are in flight."""

LOOK_SECONDS = 0.5
"""Seconds between two checks of the deadline and of :meth:`RayCluster.close` while waiting for a shard."""

REACH_SECONDS = END_SECONDS = 10.0

WHAT_A_LOCAL_CLUSTER_READS = {
    # With this value, all of Ray's servers listen on 127.0.0.1 only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # Otherwise SIGTERM causes a core dump instead of Ray's own exit.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}

NOT_STARTED = ("start_api_server", "start_monitor", "start_log_monitor")
"""Methods of Ray's node that start unused services: the dashboard's server, the autoscaler, the log monitor. Ray has no option
to disable them. They take a quarter of the start's time and two fifths of its CPU (Ray 2.60)."""

FOLDER = "lsdata-ray-"


class WorkersDiedError(OutputError):
    """A shard failed on Ray; a retry may succeed."""


@dataclass
class _Running:
    """A shard that was sent. ``deaths`` counts the workers that died with it."""

    text: str
    answer: Any
    deaths: int = 0


class RayCluster:
    """Runs shards of work on Ray. It connects, or starts a cluster on this machine, at the first use. Thread-safe.

    Raises :class:`MissingError` without the extra, or if the cluster cannot be reached.
    """

    def __init__(self, compute: ComputeSettings, runs: Path, say: Callable[[str], None]) -> None:
        self._compute, self._runs, self._say = compute, runs.absolute(), say
        self._ray: Any = None
        self._folder: str | None = None
        self._processes: list[psutil.Process] = []
        self._closing = threading.Event()
        self._idle = threading.Condition()
        self._users = 0
        self._output = ExitStack()

    @property
    def cpus(self) -> int:
        """CPUs of the whole cluster."""
        return max(1, int(self._connected().cluster_resources().get("CPU", 1)))

    @property
    def shards_at_once(self) -> int:
        """Maximum number of shards in flight: one for each CPU, and some in the queue, so that no CPU is idle."""
        return min(self.cpus + max(2, self.cpus // 4), 512)

    def run(
        self, function: str, shards: Iterable[str], deadline: float, *, gpu: bool = False, whole_machine: bool = False
    ) -> Iterator[str]:
        """Yield results in the order of the shards. At most :attr:`shards_at_once` are in flight, and no more are read.

        With ``gpu``, a shard takes a GPU if the cluster has one; otherwise one CPU, or with ``whole_machine`` all CPUs of one
        machine. A shard whose worker or node died is sent again, up to ``ray_retries`` times. Raises the errors of shards,
        :class:`WorkersDiedError`, and :class:`StoppedError` after the deadline (Unix time).
        """
        running: deque[_Running] = deque()
        with self._using() as ray:
            task = ray.remote(max_retries=0, **_resources(ray, gpu, whole_machine))(do_shard)

            def send(text: str) -> Any:
                return task.remote(function, text, str(self._runs))

            waiting = iter(shards)
            running.extend(_Running(text, send(text)) for text in islice(waiting, self.shards_at_once))
            # If the caller stops early, the other shards are not cancelled, because ray.cancel aborts this process if a task
            # ends at the same moment (Ray 2.60). They are few, and they end with the job.
            while running:
                yield self._result(ray, running[0], send, deadline)
                running.popleft()
                running.extend(_Running(text, send(text)) for text in islice(waiting, 1))

    def _result(self, ray: Any, shard: _Running, send: Callable[[str], Any], deadline: float) -> str:
        """Return the result of one shard; it is sent again if its worker died."""
        from ray import exceptions

        died = (
            exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.LocalRayletDiedError,
            exceptions.OutOfMemoryError, exceptions.ObjectLostError,
        )  # fmt: skip
        while True:
            while not ray.wait([shard.answer], timeout=LOOK_SECONDS)[0]:
                check_deadline(deadline)
                if self._closing.is_set():
                    raise StoppedError("the work on Ray was stopped", "run the same command again to continue")
            try:
                return ray.get(shard.answer)
            except died as error:
                shard.deaths += 1
                self._note_death(error, shard.deaths)
                shard.answer = send(shard.text)
            except exceptions.RayTaskError as error:
                if isinstance(error.cause, LsdataError):
                    raise error.cause from None
                raise WorkersDiedError(
                    f"a shard failed on Ray: {first_line(error.cause)}",
                    "run lsdata doctor on the machine of that worker",
                ) from error

    def _note_death(self, error: Exception, deaths: int) -> None:
        most = self._compute.ray_retries
        if deaths > most:
            raise WorkersDiedError(
                f"{deaths} workers on Ray died while working on the same shard: {first_line(error)}",
                "check whether their machine has enough memory, lower compute.ray_cpus, or use --on here",
            ) from error
        self._say(
            f"Ray: a worker died ({first_line(error)}); its shard is retried ({deaths} of at most {most} retries)"
        )

    @contextmanager
    def _using(self) -> Iterator[Any]:
        ray = self._connected()
        with self._idle:
            self._users += 1
        try:
            yield ray
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def _connected(self) -> Any:
        with self._idle:
            if self._ray is None:
                if self._closing.is_set():
                    raise StoppedError("the work on Ray was stopped", "run the same command again to continue")
                require("ray", "ray", "running on Ray")
                # Ray prints messages about its processes on stdout, which is for results.
                self._output.enter_context(redirect_stdout(sys.stderr))
                self._ray = self._connect() if self._compute.ray_address else self._start_for_good()
            return self._ray

    def _connect(self) -> Any:
        address = self._compute.ray_address or ""
        try:
            _reach(address)
            import ray

            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except Exception as error:
            raise MissingError(
                f"the Ray cluster {address} cannot be reached ({first_line(error)})",
                "see ray status there, or leave compute.ray_address empty to start one on this machine",
            ) from error
        self._say(f"Ray: cluster {address}, {int(ray.cluster_resources().get('CPU', 0))} CPUs")
        return ray

    def _start_for_good(self) -> Any:
        """:meth:`_start` in a thread that lives as long as the cluster, because Linux ends Ray's server when the thread that
        started it ends (PR_SET_PDEATHSIG), and the caller's thread may be short-lived."""
        if threading.current_thread() is threading.main_thread():
            return self._start()
        starter = ThreadPoolExecutor(1, thread_name_prefix="starting Ray")
        self._output.callback(starter.shutdown)
        return starter.submit(self._start).result()

    def _start(self) -> Any:
        """Start a cluster that only this machine can reach, with a token that only its processes know."""
        if "ray" in sys.modules and "RAY_AUTH_TOKEN" not in os.environ:
            raise MissingError(
                "this process has already imported Ray, which then listens on every address of this machine",
                "start lsdata in a new process, or name a cluster with compute.ray_address",
            )
        os.environ.update(WHAT_A_LOCAL_CLUSTER_READS)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        cpus = self._compute.ray_cpus or available_cores()
        self._say(f"Ray: starting a cluster of {cpus} CPUs on this machine")
        before = set(psutil.Process().children())
        # This folder contains sockets, whose paths must be short.
        parent = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())
        _remove_left_folders(parent)
        self._folder = tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=parent)
        try:
            with _only_what_is_needed():
                ray.init(
                    address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, configure_logging=False,
                    object_store_memory=OBJECT_STORE_BYTES, _temp_dir=self._folder,
                )  # fmt: skip
        except BaseException as error:
            self._processes = [one for one in psutil.Process().children() if one not in before]
            self._end(ray)
            if isinstance(error, Exception):
                raise MissingError(
                    f"no Ray cluster could be started on this machine ({first_line(error)})", "use --on here"
                ) from error
            raise
        self._processes = [one for one in psutil.Process().children() if one not in before]
        return ray

    def close(self) -> None:
        """Stop the running work, and end a cluster that was started here. A cluster of the settings is not ended."""
        self._closing.set()
        with self._idle:
            ray, self._ray = self._ray, None
            # Threads that wait for a shard stop within LOOK_SECONDS.
            self._idle.wait_for(lambda: self._users == 0, timeout=10 * LOOK_SECONDS)
        if ray is not None:
            self._end(ray)
        self._output.close()

    def _end(self, ray: Any) -> None:
        running = [*self._processes, *(one for root in self._processes for one in _children(root))]
        ray.shutdown()
        if self._folder is None:
            return
        _, left = psutil.wait_procs(running, timeout=END_SECONDS)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=END_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def _only_what_is_needed() -> Iterator[None]:
    """Context manager: Ray starts a node without the services of NOT_STARTED. In a version of Ray in which these methods have
    other names, it starts them."""
    from ray._private import node

    before = {name: getattr(node.Node, name) for name in NOT_STARTED if hasattr(node.Node, name)}
    for name in before:
        setattr(node.Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(node.Node, name, method)


def _remove_left_folders(parent: Path) -> None:
    """Delete the folders of commands that were killed before they could delete them."""
    for folder in parent.glob(f"{FOLDER}*-*"):
        owner = folder.name.removeprefix(FOLDER).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _reach(address: str) -> None:
    """Raise :class:`OSError` if no server listens at HOST:PORT. Ray itself tries for minutes and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()


def do_shard(function: str, shard: str, runs: str) -> str:
    """Run the entry point with this name, in a worker."""
    return entry_point(function, Path(runs))(shard)


def _resources(ray: Any, gpu: bool, whole_machine: bool) -> dict[str, int]:
    """Return the resources of one shard."""
    if gpu and ray.cluster_resources().get("GPU"):
        return {"num_gpus": 1}
    most = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    return {"num_cpus": most if whole_machine else 1}


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
