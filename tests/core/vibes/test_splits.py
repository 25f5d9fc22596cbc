"""Splits: stable when texts are added, never empty without need, sources never parted; the leakage report."""

from __future__ import annotations

import numpy as np
import pytest

from factories import unit_rows
from latentscore.seeds import unit_hash
from latentscore_data.core.base.rows import SPLITS
from latentscore_data.core.base.settings import SplitsSettings
from latentscore_data.core.vibes.splits import draw_splits, leakage, mean_vectors


def names(count: int, first: int = 0) -> list[str]:
    return [f"books:chapter-{i}" for i in range(first, first + count)]


def draw(units, settings=None, filled=None, seed=0):
    return draw_splits(units, unit_rows(len(units), 8, seed), settings or SplitsSettings(), filled)


def test_shares_are_met_and_every_unit_has_one_split():
    result = draw(names(2000))
    share = {split: sum(s == split for s in result.splits.values()) / 2000 for split in SPLITS}
    assert list(result.splits) == names(2000)
    assert share["TEST"] == pytest.approx(0.15, abs=0.03)
    assert share["SFT-Val"] == pytest.approx(0.05, abs=0.02)
    assert share["GRPO"] == pytest.approx(0.25, abs=0.001)
    assert result.filled == {}


@pytest.mark.parametrize("before", [1, 2, 3, 4, 7, 40, 300])
def test_adding_texts_moves_no_test_or_validation_source(before):
    first = draw(names(before))
    second = draw(names(before) + names(500, first=before), filled=first.filled)
    for unit, split in first.splits.items():
        if split in ("TEST", "SFT-Val"):
            assert second.splits[unit] == split


def test_the_draw_does_not_depend_on_the_order_for_test_and_validation():
    units = names(200)
    forward, backward = draw(units), draw(units[::-1])
    for unit in units:
        assert (forward.splits[unit] == "TEST") == (backward.splits[unit] == "TEST")
        assert (forward.splits[unit] == "SFT-Val") == (backward.splits[unit] == "SFT-Val")


def test_another_seed_is_another_draw():
    units = names(200)
    assert draw(units).splits != draw(units, SplitsSettings(seed=1)).splits


@pytest.mark.parametrize("count", [2, 3, 4, 6, 16])
def test_small_corpora_leave_no_split_empty_that_could_be_filled(count):
    for seed in range(60):
        splits = draw(names(count), SplitsSettings(seed=seed)).splits
        by_hash = sum(unit_hash(seed, unit, "split") < 0.20 for unit in splits)
        present = set(splits.values())
        assert "SFT-Train" in present
        assert "TEST" in present or count - by_hash < 2
        if count - by_hash >= 4:
            assert present == set(SPLITS), (seed, splits)


def test_a_single_source_is_for_testing_and_a_share_of_zero_stays_empty():
    assert set(draw(names(1)).splits.values()) == {"TEST"}
    result = draw(names(50), SplitsSettings(test=0.0, val=0.0, grpo=0.0))
    assert set(result.splits.values()) == {"SFT-Train"}
    assert draw([]).splits == {}


def test_sources_that_come_one_after_the_other_leave_one_for_training():
    for number in range(60):
        units, filled, before = [f"{number}-{i}" for i in range(4)], None, {}
        for count in range(1, 5):
            drawn = draw(units[:count], filled=filled)
            assert count == 1 or "SFT-Train" in drawn.splits.values()
            held = {unit: split for unit, split in before.items() if split in ("TEST", "SFT-Val") and count > 2}
            assert held.items() <= drawn.splits.items()
            filled, before = drawn.filled, drawn.splits


def test_grpo_takes_the_most_different_sources():
    rng = np.random.default_rng(0)
    # Forty nearly equal sources and ten that lie apart from them and from each other.
    same = np.ones((40, 32)) + 0.01 * rng.standard_normal((40, 32))
    apart = np.eye(32)[:10] * -5
    vectors = np.concatenate([same, apart]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    result = draw_splits(names(50), vectors, SplitsSettings(test=0.0, val=0.0, grpo=0.2))
    grpo = {unit for unit, split in result.splits.items() if split == "GRPO"}
    assert len(grpo & set(names(10, first=40))) >= 9


def test_mean_vectors_are_unit_means_of_each_group():
    vectors = unit_rows(10, 4, 0)
    means = mean_vectors(vectors, np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 2]), 3)
    expected = vectors[2:5].mean(axis=0)
    assert means[1] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    assert np.linalg.norm(means, axis=1) == pytest.approx(1.0, abs=1e-6)


def test_leakage_finds_the_twin_and_the_shared_source():
    vectors = unit_rows(6, 8, 4)
    vectors[5] = vectors[0]
    splits = np.array(["TEST", "TEST", "SFT-Train", "GRPO", "SFT-Val", "SFT-Train"])
    report = leakage(vectors, splits, np.array([0, 1, 2, 1, 0, 3]), 0.95, 0)
    assert (report.test_rows, report.measured) == (2, 2)
    assert report.highest == pytest.approx(1.0, abs=1e-4)
    assert report.share_above_threshold == 0.5
    # Row 1 shares source 1 with a GRPO row; row 0 shares its source only with validation.
    assert report.share_same_source == 0.5


def test_leakage_without_test_rows_says_nothing():
    report = leakage(unit_rows(2, 4, 0), np.array(["SFT-Train", "GRPO"]), np.array([0, 1]), 0.9, 0)
    assert report.mean_nearest is None
    assert report.test_rows == 0
