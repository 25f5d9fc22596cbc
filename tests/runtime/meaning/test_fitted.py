"""The package holds what is computed from the tables of meaning, and a changed table is computed anew."""

from __future__ import annotations

import numpy as np
import pytest

from latentscore.meaning import reading, starter
from latentscore.meaning.fitted import fitted
from latentscore.meaning.reading import fit_axes, reading_fingerprint, word_values
from latentscore.meaning.starter import pair_vectors, pairs_fingerprint


def test_the_arrays_in_the_package_are_those_of_the_present_tables():
    axes, pairs = fitted("axes", reading_fingerprint()), fitted("pairs", pairs_fingerprint())
    assert axes is not None, "a table of meaning has changed: run make docs"
    assert pairs is not None, "the starter set has changed: run make docs"
    np.testing.assert_allclose(axes, fit_axes(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(pairs, pair_vectors(), rtol=0, atol=1e-6)


def test_arrays_of_other_tables_are_not_used(monkeypatch: pytest.MonkeyPatch):
    before = word_values("grief")
    monkeypatch.setattr(reading, "RIDGE", 30.0)
    assert fitted("axes", reading_fingerprint()) is None
    assert fitted("pairs", starter.pairs_fingerprint()) is None
    reading._scale.cache_clear()
    word_values.cache_clear()
    try:
        assert word_values("grief") != before
    finally:
        monkeypatch.undo()
        reading._scale.cache_clear()
        word_values.cache_clear()
    assert word_values("grief") == before
