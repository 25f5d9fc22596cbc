"""Each statistic against an answer known from elsewhere: scipy, a closed form, a printed table or a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentscore_data.core.bench import stats


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def own_documents(n: int) -> list[str]:
    return [f"d{i}" for i in range(n)]


def test_with_one_row_per_document_the_interval_is_the_ordinary_bootstrap():
    from scipy import stats as scipy_stats

    values = rng(1).normal(size=200)
    found = stats.estimate(values, own_documents(200), rng(2), resamples=20_000)
    known = scipy_stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=rng(3))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(known.confidence_interval.low, abs=0.012)
    assert found.high == pytest.approx(known.confidence_interval.high, abs=0.012)


def test_copies_of_a_row_add_no_certainty():
    values = rng(1).normal(size=40)
    once = stats.estimate(values, own_documents(40), rng(2))
    five_times = stats.estimate(np.repeat(values, 5), np.repeat(own_documents(40), 5).tolist(), rng(2))
    assert (five_times.low, five_times.high) == pytest.approx((once.low, once.high))
    as_if_independent = stats.estimate(np.repeat(values, 5), own_documents(200), rng(2))
    assert as_if_independent.high - as_if_independent.low < 0.6 * (once.high - once.low)


@pytest.mark.parametrize("documents", [8, 20])
def test_the_interval_holds_the_true_mean_as_often_as_it_says(documents: int):
    draw = rng(4)
    names = np.repeat(own_documents(documents), 5).tolist()
    hits = 0
    for _ in range(500):
        values = np.repeat(draw.normal(size=documents), 5) + draw.normal(scale=0.5, size=documents * 5)
        found = stats.estimate(values, names, draw, resamples=500)
        hits += found.low <= 0.0 <= found.high
    assert 0.92 <= hits / 500 <= 0.98


def test_below_eight_documents_there_are_only_means_and_the_reason():
    found = stats.paired_difference(np.arange(7.0), np.zeros(7), own_documents(7), rng())
    assert (found.mean, found.low, found.high, found.p) == (3.0, None, None, None)
    assert "only 7 source documents" in found.reason
    assert stats.detectable_difference(np.arange(7.0), own_documents(7)) is None
    eight = stats.paired_difference(np.arange(8.0), np.zeros(8), own_documents(8), rng())
    assert eight.p is not None
    assert eight.reason == ""


def test_the_exact_permutation_test_agrees_with_scipy():
    from scipy import stats as scipy_stats

    differences = rng(5).normal(0.4, size=11)
    known = scipy_stats.permutation_test(
        (differences, np.zeros(11)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert stats.sign_flip_p(differences, own_documents(11), rng()) == pytest.approx(known.pvalue)


def test_the_sampled_permutation_test_agrees_with_the_exact_one(monkeypatch: pytest.MonkeyPatch):
    differences = rng(6).normal(0.5, size=12)
    exact = stats.sign_flip_p(differences, own_documents(12), rng())
    monkeypatch.setattr(stats, "EXACT_UP_TO_DOCUMENTS", 0)
    assert stats.sign_flip_p(differences, own_documents(12), rng(), flips=40_000) == pytest.approx(exact, abs=0.006)


def test_signs_are_flipped_by_document_not_by_row():
    # All eight documents agree: only 2 of the 256 sign patterns are as extreme, however many rows each has.
    differences = np.repeat(np.arange(1.0, 9.0), 10)
    assert stats.sign_flip_p(differences, np.repeat(own_documents(8), 10).tolist(), rng()) == 2 / 256


def test_under_the_null_small_p_values_are_as_rare_as_they_should_be():
    draw = rng(7)
    names = np.repeat(own_documents(20), 5).tolist()
    p_values = [
        stats.sign_flip_p(np.repeat(draw.normal(size=20), 5) + draw.normal(size=100), names, draw, flips=400)
        for _ in range(600)
    ]
    assert 0.03 <= np.mean(np.array(p_values) < 0.05) <= 0.075


def test_holm_on_a_worked_example():
    # p = .01 .04 .03 .005: sorted .005*4, .01*3, .03*2, then .04*1 is raised to .06.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.4, None, 0.7]) == [pytest.approx(0.8), None, pytest.approx(0.8)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_makes_a_claim_easier(p_values: list[float]):
    adjusted = [p for p in stats.holm(p_values) if p is not None]
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    assert [a for _, a in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


@pytest.mark.parametrize(("n", "effect"), [(10, 0.9960), (34, 0.4953), (199, 0.1996)])
def test_the_detectable_difference_agrees_with_published_power_tables(n: int, effect: float):
    """Paired t test, two-sided 5 %, power 80 %: 10 pairs find d = 1.0, 34 find 0.5, 199 find 0.2 (Cohen 1988)."""
    drawn = rng(8).normal(size=n)
    values = (drawn - drawn.mean()) / drawn.std(ddof=1)
    assert stats.detectable_difference(values, own_documents(n)) == pytest.approx(effect, abs=0.004)


@pytest.mark.parametrize(
    ("n", "comparisons", "shift"), [(8, 1, 3.26976), (8, 6, 4.66559), (12, 3, 3.73404), (30, 6, 3.70440)]
)
def test_the_detectable_difference_is_that_of_the_corrected_test(n: int, comparisons: int, shift: float):
    """In standard errors, by statsmodels: TTestPower().solve_power(nobs=n, alpha=0.05 / comparisons, power=0.8) * n**0.5."""
    values = rng(8).normal(size=n)
    error = stats.cluster_standard_error(values, own_documents(n))
    found = stats.detectable_difference(values, own_documents(n), comparisons)
    assert found == pytest.approx(shift * error, rel=1e-4)


def test_no_difference_is_detectable_where_no_p_value_can_be_small_enough():
    # The smallest p-value of 8 documents is 2 / 256; seven comparisons multiply it to 0.055.
    assert stats.holm([2 / 256, *[1.0] * 6])[0] > 0.05
    assert stats.detectable_difference(np.arange(8.0), own_documents(8), 7) is None
    assert stats.detectable_difference(np.arange(9.0), own_documents(9), 7) is not None


def test_the_cluster_standard_error_is_the_ordinary_one_for_single_rows():
    values = rng(9).normal(size=50)
    assert stats.cluster_standard_error(values, own_documents(50)) == pytest.approx(values.std(ddof=1) / math.sqrt(50))


@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.integers(0, 2**32 - 1))
def test_shuffled_partners_come_from_other_documents(codes: list[int], seed: int):
    documents = [f"d{code}" for code in codes]
    partners = stats.shuffled_partners(documents, rng(seed))
    if len(set(codes)) == 1:
        assert partners is None
        return
    assert all(documents[i] != documents[partner] for i, partner in enumerate(partners))
    if max(codes.count(code) for code in set(codes)) * 2 <= len(codes):
        assert sorted(partners) == list(range(len(codes)))


def test_the_floor_of_a_scorer_that_hears_the_vibe_is_the_mean_of_the_others():
    # Score 1 for the right document's vibe and 0 for any other: shuffled, nothing is left.
    documents = np.repeat(own_documents(10), 3).tolist()
    partners = stats.shuffled_partners(documents, rng())
    assert np.mean([documents[i] == documents[j] for i, j in enumerate(partners)]) == 0.0


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        stats.estimate([0.1, float("nan")], ["a", "b"], rng())
