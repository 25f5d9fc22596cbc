"""Arrays that follow from the tables and the word vectors, in the package so that no process has to compute them.

``make docs`` writes the file. An array is used only if its fingerprint is that of the present tables, so a changed
table takes effect at once. Until the file is written again, each process computes the arrays, which takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FITTED_FILE = Path(__file__).parents[1] / "data" / "meaning.npz"


def fitted(name: str, fingerprint: str) -> NDArray[Any] | None:
    """Return an array of the package; None if it was made with another fingerprint."""
    return _arrays().get(f"{name}:{fingerprint}")


def write_fitted(arrays: Mapping[tuple[str, str], NDArray[Any]]) -> None:
    """Write arrays by their names and fingerprints."""
    named = {f"{name}:{fingerprint}": array for (name, fingerprint), array in arrays.items()}
    np.savez_compressed(FITTED_FILE, allow_pickle=False, **named)


@cache
def _arrays() -> Mapping[str, NDArray[Any]]:
    if not FITTED_FILE.exists():
        return {}
    with np.load(FITTED_FILE, allow_pickle=False) as file:
        return dict(file)
