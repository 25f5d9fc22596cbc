"""The paired comparison of a scorer's scores: its interval has the coverage that it claims."""

from __future__ import annotations

import numpy as np
import pytest

from latentscore_data.core.scoring.paired import compared


@pytest.mark.parametrize("documents", [8, 20])
def test_the_interval_contains_the_true_difference_as_often_as_it_says(documents: int) -> None:
    draw, hits = np.random.default_rng(4), 0
    names = [f"d{number}" for number in range(documents) for _ in range(5)]
    for _ in range(500):
        differences = np.repeat(draw.normal(size=documents), 5) + draw.normal(scale=0.5, size=documents * 5)
        found = compared("clap", [(name, 0.5, 0.5 + value) for name, value in zip(names, differences, strict=True)])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.0 <= found.high
    assert 0.92 <= hits / 500 <= 0.98


def test_with_few_documents_the_mean_decides() -> None:
    found = compared("clap", [(f"d{number}", 0.5, 0.6) for number in range(7)])
    assert found is not None
    assert (found.low, found.high, found.better) == (None, None, True)
