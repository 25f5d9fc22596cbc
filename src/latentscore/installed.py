"""What this copy runs on: how it was installed, the command that adds an extra to it, and its share of the machine."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "latentscore-data"


def install(extra: str) -> str:
    """Return the command that adds an extra to this installation.

    It names the folder or the repository that the package was installed from (PEP 610), and the installer of this
    environment: pipx, uv, or pip.
    """
    return f"{_installer()} {shlex.quote(_requirement(extra))}"


def _installer() -> str:
    prefix = Path(sys.prefix)
    if (prefix / "pipx_metadata.json").exists():
        return f"pipx runpip {DISTRIBUTION} install"
    if (prefix / "uv-receipt.toml").exists():  # uv tool install
        return f"uv pip install --python {shlex.quote(str(prefix))}"
    # Environments of uv contain no pip.
    return "pip install" if find_spec("pip") else "uv pip install"


def available_cores(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use: its CPU affinity, and the CPU quota of its cgroup (version 2)
    and of those above it, rounded up. Containers and CI runners set such a quota. ``root`` is the root of the file system.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *_quotas(root)])


def _quotas(root: Path) -> Iterator[int]:
    """Yield the quota, in cores, of each cgroup of this process that has one."""
    with contextlib.suppress(OSError, ValueError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        group = next((Path(line[4:]) for line in lines if line.startswith("0::/")), Path())
        for part in (group, *group.parents):
            with contextlib.suppress(FileNotFoundError):  # the root cgroup has no such file
                quota, period = (root / "sys/fs/cgroup" / part / "cpu.max").read_text().split()
                if quota != "max":
                    yield max(1, math.ceil(int(quota) / int(period)))


def _requirement(extra: str) -> str:
    origin = _origin()
    url = str(origin.get("url", ""))
    if "vcs_info" in origin:
        revision = origin["vcs_info"].get("requested_revision")
        return f"{DISTRIBUTION}[{extra}] @ {origin['vcs_info']['vcs']}+{url}{f'@{revision}' if revision else ''}"
    if "dir_info" in origin:
        folder = Path(unquote(urlsplit(url).path))
        return f".[{extra}]" if folder == Path.cwd() else f"{folder}[{extra}]"
    return f"{DISTRIBUTION}[{extra}] @ {url}" if url else f"{DISTRIBUTION}[{extra}]"


def _origin() -> dict[str, dict[str, str]]:
    # This import takes 10 ms and is needed only for error messages.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution(DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:
        return {}
    return json.loads(text) if text else {}
