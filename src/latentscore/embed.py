"""Texts as unit vectors: MiniLM where its weights are there, hashed words and letters everywhere."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from latentscore.errors import LatentScoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class EmbedderError(LatentScoreError):
    """An embedder that does not exist, or whose library or weights are not there."""


class Embedder(Protocol):
    """Turns texts into unit vectors, so that a dot product is a cosine."""

    fingerprint: str
    """Changes when the same text would get another vector."""
    dim: int
    default_dedupe_threshold: float
    """The cosine from which two texts count as saying the same."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 of shape (len(texts), dim); every row has length 1, also for an empty text."""
        ...


_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class HashingEmbedder:
    """Words, neighbouring words and letter groups, hashed into a fixed number of signed places.

    Needs no weights and gives the same vector on every machine. It sees shared words and spellings, not meaning: two
    wordings of one idea without a common word are strangers to it.
    """

    dim = 512
    fingerprint = "builtin/hashing:1:512"
    # Two texts reach this only when nearly all of their words agree, a typo or a comma apart.
    default_dedupe_threshold = 0.95

    _WORD_WEIGHT = 1.0
    _PAIR_WEIGHT = 0.5
    _LETTERS_WEIGHT = 0.35

    def __init__(self) -> None:
        self._words: dict[str, tuple[NDArray[np.intp], NDArray[np.float32]]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not len(texts):
            return np.zeros((0, self.dim), dtype=np.float32)
        places: list[NDArray[np.intp]] = []
        weights: list[NDArray[np.float32]] = []
        for row, text in enumerate(texts):
            words = _WORD.findall(text.lower())
            for word_places, word_weights in map(self._features, words):
                places.append(word_places + row * self.dim)
                weights.append(word_weights)
            pairs = [self._place(f"{first} {second}") for first, second in pairwise(words)]
            places.append(np.array([place + row * self.dim for place, _ in pairs], dtype=np.intp))
            weights.append(np.array([sign * self._PAIR_WEIGHT for _, sign in pairs], dtype=np.float32))
        sums = np.bincount(np.concatenate(places), np.concatenate(weights), minlength=len(texts) * self.dim)
        vectors = sums.reshape(len(texts), self.dim).astype(np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        # A text without a word (or whose places cancel out) points nowhere; give all such texts one direction.
        vectors[norms[:, 0] == 0, 0] = 1.0
        norms[norms == 0] = 1.0
        return vectors / norms

    def _features(self, word: str) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        known = self._words.get(word)
        if known is None:
            framed = f"^{word}$"
            groups = [framed[i : i + n] for n in (3, 4) for i in range(len(framed) - n + 1)]
            share = self._LETTERS_WEIGHT / max(1.0, len(groups) ** 0.5)
            weight = self._WORD_WEIGHT if len(word) > 3 else 0.5 * self._WORD_WEIGHT
            features = [(*self._place(f"w:{word}"), weight)] + [(*self._place(f"g:{g}"), share) for g in groups]
            places = np.array([place for place, _, _ in features], dtype=np.intp)
            weights = np.array([sign * weight for _, sign, weight in features], dtype=np.float32)
            known = self._words[word] = (places, weights)
        return known

    def _place(self, feature: str) -> tuple[int, float]:
        code = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
        return (code >> 1) % self.dim, 1.0 if code & 1 else -1.0


class MiniLMEmbedder:
    """A sentence-transformers model, on the CPU, from a folder or from the hub's local cache; never downloads.

    Raises :class:`EmbedderError` when the library or the weights are not there.
    """

    default_dedupe_threshold = 0.95

    def __init__(self, path_or_id: str | Path = MINILM, batch_size: int = 64) -> None:
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as transformers_logging
        except ImportError:
            raise EmbedderError(
                f"embedding with {path_or_id} needs sentence-transformers: pip install 'latentscore-data[ml]'"
            ) from None
        transformers_logging.disable_progress_bar()
        try:
            self._model = SentenceTransformer(
                str(path_or_id), device="cpu", local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # cut weights and configs raise many kinds, a bare Exception among them
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise EmbedderError(
                f"the weights of {path_or_id} are not here, or damaged (lsdata doctor --fetch minilm): {reason}"
            ) from None
        self._batch_size = batch_size
        self.dim = int(self._model.get_embedding_dimension() or 0)
        self.fingerprint = f"{path_or_id}:{_weights_hash(self._model)}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        # The tokenizer refuses half a surrogate pair, which a model's JSON may well hold.
        readable = [text.encode("utf-8", "replace").decode() for text in texts]
        vectors = self._model.encode(
            readable, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dim)


def _weights_hash(model: object) -> str:
    """A short hash of the loaded weights: a folder's name does not say what is in it."""
    import torch

    state = model.state_dict()  # type: ignore[attr-defined]
    code = 0
    for name in sorted(state):
        tensor = state[name].detach().to(torch.float32).contiguous()
        code = zlib.crc32(name.encode(), code)
        code = zlib.crc32(tensor.reshape(-1)[:4096].numpy().tobytes(), code)
    return f"{code:08x}"


EMBEDDERS: dict[str, Callable[[], Embedder]] = {
    "hashing": HashingEmbedder,
    "builtin/hashing": HashingEmbedder,
    "minilm": MiniLMEmbedder,
}


def make_embedder(name: str) -> Embedder:
    """``hashing``, ``minilm``, a folder with a sentence-transformers model, or a hub id that was fetched before."""
    make = EMBEDDERS.get(name)
    return make() if make else MiniLMEmbedder(name)
