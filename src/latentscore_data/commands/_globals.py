"""The options that work before and after the command's name."""

from __future__ import annotations

from pathlib import Path


class Globals:
    """Their values in this process, set by the command line."""

    config: Path | None = None
    root: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
