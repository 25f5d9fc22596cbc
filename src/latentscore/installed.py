"""What this copy runs on: how it was installed, the command that adds an extra to it, and its share of the machine."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "latentscore-data"


def install(extra: str) -> str:
    """Return the command that adds an extra to this installation.

    It names the folder or the repository that the package was installed from (PEP 610), and uses pipx's pip for an
    installation by pipx.
    """
    pip = f"pipx runpip {DISTRIBUTION}" if (Path(sys.prefix) / "pipx_metadata.json").exists() else "pip"
    return f"{pip} install {shlex.quote(_requirement(extra))}"


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
