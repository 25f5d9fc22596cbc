"""An excerpt of a piece: the notes of the whole at the same frames, about as loud."""

from __future__ import annotations

import numpy as np
import pytest

from latentscore import InvalidConfigError, integrated_lufs, random_config, render
from latentscore.synth.excerpt import render_excerpt

RATE = 24_000


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_sounds_like_the_whole_at_its_place(seed: int):
    config = random_config(np.random.default_rng(seed))
    whole = render(config, 40, seed, RATE).samples[16 * RATE : 22 * RATE]
    found = render_excerpt(config, 40, 16, 6, seed, RATE).samples
    assert found.shape == whole.shape
    likeness = float((found * whole).sum() / np.sqrt((found**2).sum() * (whole**2).sum()))
    assert likeness > 0.8
    assert integrated_lufs(found, RATE) == pytest.approx(integrated_lufs(whole, RATE), abs=2.5)
    later = render(config, 40, seed, RATE).samples[19 * RATE : 25 * RATE]
    assert abs(float((found * later).sum() / np.sqrt((found**2).sum() * (later**2).sum()))) < likeness / 2


def test_it_starts_at_the_beginning_and_ends_with_the_piece():
    config = random_config(np.random.default_rng(3))
    assert render_excerpt(config, 20, 0, 4, 0, RATE).seconds == 4
    assert render_excerpt(config, 20, 18, 8, 0, RATE).seconds == 2
    assert render_excerpt(config, 20, 25, 8, 0, RATE).seconds == 0
    with pytest.raises(InvalidConfigError, match="seconds"):
        render_excerpt(config, 0.1, 0, 1, 0, RATE)
