"""The workshop behind LatentScore: texts, vibes, configs, scores, training, benchmark, export."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentscore_data.python import Workspace

__version__ = "0.2.0"
__all__ = ["Workspace", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Workspace":
        return import_module("latentscore_data.python").Workspace
    raise AttributeError(f"module 'latentscore_data' has no attribute {name!r}")
