"""Near-duplicates and farthest points, each compared with the plain loop that defines it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import unit_rows
from latentscore_data.core.base.display import SlowStep
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.vibes import dedupe
from latentscore_data.core.vibes.dedupe import (
    EmbedderChoice,
    embed_stream,
    farthest_points,
    first_of_each,
    load_embedder,
    near_duplicates,
    nearest_similarity,
)


@pytest.mark.ml
def test_a_model_that_is_not_there_is_not_answered_with_the_fetching_of_another() -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(MissingError, match="foo is neither") as caught:
        load_embedder(EmbedderChoice("foo", "named"))
    assert "--fetch minilm" not in str(caught.value)


def plain_greedy(vectors: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in range(len(vectors)):
        if all(float(vectors[i] @ vectors[j]) < threshold for j in kept):
            kept.append(i)
    return kept


def plain_farthest(vectors: np.ndarray, count: int) -> list[int]:
    chosen = [int(np.argmin(vectors @ vectors.mean(axis=0)))]
    while len(chosen) < min(count, len(vectors)):
        nearest = (vectors @ vectors[chosen].T).max(axis=1)
        nearest[chosen] = np.inf
        chosen.append(int(np.argmin(nearest)))
    return chosen


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 120), st.integers(0, 10_000), st.sampled_from([0, 3, 10]), st.floats(0.3, 0.99))
def test_the_same_rows_stay_as_in_the_plain_loop(count, seed, clusters, threshold):
    vectors = unit_rows(count, 16, seed, clusters)
    # Away from the threshold, so that the last bit of a matrix product decides nothing.
    near = np.abs(vectors @ vectors.T - threshold).min() if count else 1.0
    if near > 1e-5:
        assert np.flatnonzero(first_of_each(vectors, threshold)).tolist() == plain_greedy(vectors, threshold)


def test_blocks_and_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch):
    vectors = unit_rows(700, 16, 5, clusters=60)
    whole = first_of_each(vectors, 0.9)
    monkeypatch.setattr(dedupe, "BLOCK_ROWS", 37)
    monkeypatch.setattr(dedupe, "CHUNK_ROWS", 11)
    assert np.array_equal(first_of_each(vectors, 0.9), whole)
    assert np.flatnonzero(whole).tolist() == plain_greedy(vectors, 0.9)
    assert 0 < whole.sum() < 700


@pytest.mark.parametrize(
    ("count", "clusters", "wanted"), [(1, 0, 1), (50, 0, 50), (400, 0, 100), (400, 7, 120), (9, 0, 40)]
)
def test_farthest_points_are_those_of_the_plain_loop(count, clusters, wanted, monkeypatch):
    vectors = unit_rows(count, 24, 3, clusters)
    expected = plain_farthest(vectors, wanted)
    assert farthest_points(vectors, wanted) == expected
    monkeypatch.setattr(dedupe, "CANDIDATES", 5)
    assert farthest_points(vectors, wanted) == expected


def test_what_takes_minutes_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    farthest_points(unit_rows(400, 24, 3), 100)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(dedupe, "CANDIDATES", 5)
    monkeypatch.setattr(SlowStep, "EVERY_SECONDS", -1.0)
    farthest_points(unit_rows(400, 24, 3), 100)
    assert "of 400: 1 of 100 rows" in capsys.readouterr().err


def test_nearest_similarity_is_the_best_of_all_pairs():
    rows, others = unit_rows(30, 8, 1), unit_rows(50, 8, 2)
    assert nearest_similarity(rows, others) == pytest.approx((rows @ others.T).max(axis=1), abs=1e-6)
    assert (nearest_similarity(rows, others[:0]) == -1).all()


def test_texts_are_embedded_in_batches_in_their_order():
    class Counting:
        fingerprint, dim, default_dedupe_threshold = "counting", 2, 0.9

        def __init__(self):
            self.sizes: list[int] = []

        def embed(self, texts):
            self.sizes.append(len(texts))
            return np.array([[float(text), 0.0] for text in texts], dtype=np.float32)

    embedder = Counting()
    vectors = embed_stream((str(i) for i in range(1100)), embedder)
    assert vectors[:, 0].tolist() == list(range(1100))
    assert max(embedder.sizes) == dedupe.EMBED_ROWS
    assert embed_stream([], embedder).shape == (0, 2)


def test_above_the_limit_an_index_finds_nearly_all_and_says_how_many() -> None:
    pytest.importorskip("faiss")
    vectors = unit_rows(4000, 32, 3, clusters=1500)
    exact = near_duplicates(vectors, 0.9, exact_up_to=4000)
    found = near_duplicates(vectors, 0.9, exact_up_to=3999)
    assert (exact.method, exact.recall) == ("exact", 1.0)
    assert found.method.startswith("faiss IVFFlat, 100 cells")
    assert 0 < int((~exact.stays).sum()) < 4000
    assert (found.stays == exact.stays).mean() >= 0.99
    assert found.sampled > 100
    assert found.recall >= 0.99
    assert np.array_equal(near_duplicates(vectors, 0.9, exact_up_to=0).stays, found.stays), (
        "the same rows, the same result"
    )


def test_the_recall_counts_what_the_index_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(dedupe, "PROBED", 1)
    vectors = unit_rows(4000, 32, 3, clusters=1500)
    exact = near_duplicates(vectors, 0.75, exact_up_to=4000)
    found = near_duplicates(vectors, 0.75, exact_up_to=0)
    missed = int((~exact.stays).sum() - (~found.stays).sum())
    assert missed > 0
    assert found.recall == pytest.approx(1 - missed / int((~exact.stays).sum()), abs=0.03)


def test_a_missing_index_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedupe, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="needs the dedupe extra") as caught:
        near_duplicates(unit_rows(20, 16, 0), 0.9, exact_up_to=10)
    assert "dedupe.exact_up_to" in str(caught.value.remedy)


def test_many_rows_are_chosen_from_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit_rows(1000, 24, 3, clusters=40)
    together = farthest_points(vectors, 100)
    monkeypatch.setattr(dedupe, "CHOSEN_TOGETHER", 300)
    parts = farthest_points(vectors, 101)
    assert len(set(parts)) == 101
    assert sorted(sum(1 for at in parts if at % 4 == part) for part in range(4)) == [25, 25, 25, 26]

    def spread(chosen: list[int]) -> float:
        return float(nearest_similarity(vectors, vectors[chosen]).mean())

    plain = list(range(100))
    assert spread(parts) - spread(plain) > 0.7 * (spread(together) - spread(plain))
