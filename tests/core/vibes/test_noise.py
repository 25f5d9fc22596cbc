"""Typing noise: seeded per row, always visible in a noisy row, small."""

from __future__ import annotations

import difflib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import make_vibe
from latentscore_data.core.base.settings import NoiseSettings
from latentscore_data.core.vibes.noise import mistyped, noise_draw, with_noise


@settings(deadline=None)
@given(st.text(min_size=0, max_size=200), st.integers(0, 1000))
def test_a_mistyped_text_differs_where_it_has_letters_and_is_the_same_each_time(text, seed):
    noisy = mistyped(text, np.random.default_rng(seed))
    assert noisy == mistyped(text, np.random.default_rng(seed))
    assert (noisy != text) == any(letter.isalpha() for letter in text)


def test_slips_are_few():
    text = "Rain hangs over the harbour while a slow bell counts the hours of the night"
    for seed in range(50):
        noisy = mistyped(text, np.random.default_rng(seed))
        assert difflib.SequenceMatcher(None, text, noisy).ratio() > 0.85


def test_noise_depends_on_the_row_alone():
    settings_ = NoiseSettings(seed=4)
    row = make_vibe(3)
    assert with_noise(row, True, settings_) == with_noise(row, True, settings_)
    assert noise_draw(row.row_id, settings_) == noise_draw(row.row_id, settings_)
    others = [with_noise(make_vibe(i, vibe=row.vibe_original), True, settings_).vibe_noisy for i in range(20)]
    assert len(set(others)) > 5


def test_a_quiet_row_holds_copies_and_the_original_is_never_touched():
    row = make_vibe(1)
    quiet, noisy = with_noise(row, False, NoiseSettings()), with_noise(row, True, NoiseSettings())
    assert (quiet.vibe_noisy, quiet.tags_noisy) == (row.vibe_original, row.tags_original)
    assert noisy.vibe_noisy != row.vibe_original
    assert noisy.vibe_original == row.vibe_original


def test_the_share_of_noisy_rows_is_the_rate():
    draws = [noise_draw(f"row-{i}", NoiseSettings()) for i in range(4000)]
    assert 0.13 < sum(u < 0.15 for u in draws) / 4000 < 0.17
