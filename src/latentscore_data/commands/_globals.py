"""The global options, which are accepted before and after the command's name."""

from __future__ import annotations

from pathlib import Path


class Globals:
    """Values of the global options in this process."""

    config: Path | None = None
    root: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
