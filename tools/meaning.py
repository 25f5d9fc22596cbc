"""Compute the arrays that follow from the tables of meaning, if a table, the starter set or the word vectors changed.

Part of ``make docs``. The file is kept if nothing changed, because the last digits of linear algebra depend on the machine.
"""

from __future__ import annotations

from latentscore.meaning.fitted import FITTED_FILE, fitted, write_fitted
from latentscore.meaning.reading import fit_axes, reading_fingerprint
from latentscore.meaning.starter import pair_vectors, pairs_fingerprint

if __name__ == "__main__":
    axes, pairs = ("axes", reading_fingerprint()), ("pairs", pairs_fingerprint())
    if fitted(*axes) is None or fitted(*pairs) is None:
        write_fitted({axes: fit_axes(), pairs: pair_vectors()})
        print(f"{FITTED_FILE}: {FITTED_FILE.stat().st_size:,} bytes")
