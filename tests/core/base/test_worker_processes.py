"""Ctrl-C during the start of worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLOW_TO_IMPORT = """
import os, pathlib, time
pathlib.Path("importing").touch()
time.sleep(0.5)
def make():
    return os.getpid
"""

PARENT = """
import signal, threading
from latentscore_data.core.base.workers import WorkerPool
import {made}
signal.signal(signal.SIGINT, lambda *_: None)
pool = WorkerPool({made}.make, count=1, timeout_seconds=20, preload={preload})
print(pool.submit().result() > 0)
pool.close()
"""


@pytest.mark.parametrize("preload", [["slow_to_import"], []])
def test_ctrl_c_does_not_reach_a_worker_that_is_starting(tmp_path: Path, preload: list[str]) -> None:
    (tmp_path / "slow_to_import.py").write_text(SLOW_TO_IMPORT)
    (tmp_path / "parent.py").write_text(PARENT.format(made="slow_to_import", preload=preload))
    running = subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        seen = 0
        while seen < 2 and running.poll() is None:  # first by the parent, then by its worker
            if (tmp_path / "importing").exists():
                (tmp_path / "importing").unlink()
                seen += 1
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (out, err) == ("True\n", "")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 then puts the socket elsewhere")
def test_a_temporary_folder_that_no_socket_fits_in_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (long := tmp_path / ("x" * 100)).mkdir()
    program = """
from latentscore_data.core.base.errors import OutputError
from latentscore_data.core.base.workers import WorkerPool
try:
    WorkerPool(print, count=1, timeout_seconds=9, preload=["json"]).submit().result()
except OutputError as error:
    print(error.remedy)
"""
    out = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert out.stdout == "set TMPDIR to a writable folder with a short path\n", out.stderr
