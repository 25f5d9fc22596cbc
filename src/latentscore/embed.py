"""Text embeddings as unit vectors: the package's word vectors, or MiniLM if its weights are installed."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from latentscore.errors import LatentScoreError
from latentscore.installed import install

if TYPE_CHECKING:
    from numpy.typing import NDArray

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

BUILTIN_WORDS = "builtin/words"
"""The name of :class:`WordVectorEmbedder` in fingerprints and records; in settings it is ``words``."""

WORD_VECTORS_FILE = Path(__file__).parent / "data" / "word_vectors.npz"
"""The package's word vectors; ``word_vectors.md`` in the same folder describes origin and licence."""


class EmbedderError(LatentScoreError):
    """An embedder that does not exist, or whose library or weights are missing."""


class Embedder(Protocol):
    """Embeds texts as unit vectors, so that a dot product is a cosine."""

    fingerprint: str
    """Identifies the vectors: it changes if the same text would get another vector."""
    dim: int
    default_dedupe_threshold: float
    """The cosine from which two texts count as near-duplicates."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 of shape (len(texts), dim); every row has length 1, also for an empty text."""
        ...


# --- word vectors ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WordVectors:
    """Vectors of the tokens of a WordPiece vocabulary: ``codes`` int8 (tokens, dim) times ``scales`` float32 (tokens)."""

    index: Mapping[str, int]
    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    digest: str
    """The first 12 hex digits of the file's SHA-256."""


def read_word_vectors(path: Path) -> WordVectors:
    """Read a file made by ``make word-vectors``. Raises :class:`EmbedderError` for any other file."""
    try:
        data = path.read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            tokens = arrays["tokens"].tobytes().decode().split("\n")
            codes, scales = arrays["codes"], arrays["scales"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise EmbedderError(f"{path} is not a file of word vectors ({error}); install latentscore again") from None
    if codes.dtype != np.int8 or codes.shape != (len(tokens), codes.shape[-1]) or scales.shape != (len(tokens),):
        raise EmbedderError(
            f"{path} is not a file of word vectors (its arrays do not match); install latentscore again"
        )
    index = {token: at for at, token in enumerate(tokens)}
    return WordVectors(index, codes, scales, hashlib.sha256(data).hexdigest()[:12])


EMBED_ROWS = 2048
"""Number of texts whose token vectors are in memory at once."""

_WORD_CACHE = 1 << 16
"""Number of words whose tokens an embedder caches."""


class WordVectorEmbedder:
    """Embeds a text as the normalized sum of its tokens' vectors, independent of their order.

    Needs only the package's weights and gives the same vector on every machine. The vectors are fitted so that cosines
    approximate MiniLM's. Words that are not in the vocabulary are split into pieces that are. Raises
    :class:`EmbedderError` if ``path`` is not a file of word vectors.
    """

    default_dedupe_threshold = 0.98
    """Higher than the cosines of typing errors and of wordings of one scene, lower than those of a changed comma or
    article; from benchmarks/dedupe_threshold.py."""

    def __init__(self, path: Path = WORD_VECTORS_FILE) -> None:
        table = _package_word_vectors() if path == WORD_VECTORS_FILE else read_word_vectors(path)
        self.dim = table.codes.shape[1]
        self.fingerprint = f"{BUILTIN_WORDS}:{table.digest}:{self.dim}"
        self.token_vectors = table.codes * table.scales[:, None]
        """float32 of shape (tokens, dim); longer vectors have more weight in a text. Tokens are ordered by frequency, after
        the marks."""
        self._tokenizer = WordPiece(table.index)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        blocks = [self._embed(texts[at : at + EMBED_ROWS]) for at in range(0, len(texts), EMBED_ROWS)]
        return np.concatenate(blocks) if blocks else np.zeros((0, self.dim), dtype=np.float32)

    def sum_of(self, text: str) -> NDArray[np.float32]:
        """Return the sum of a text's token vectors, shape (dim,), without normalization."""
        return self.token_vectors[self._tokenizer.tokens(text)].sum(axis=0, dtype=np.float32)

    def pieces(self, word: str) -> int:
        """Return the number of tokens of a word: 1 if it is in the vocabulary, 0 if no piece of it is."""
        return len(self._tokenizer.tokens(word))

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        sums = np.zeros((len(texts), self.dim), dtype=np.float32)
        tokens = [self._tokenizer.tokens(text) for text in texts]
        filled = [row for row, found in enumerate(tokens) if found]
        if filled:
            counts = [len(tokens[row]) for row in filled]
            flat = np.fromiter((token for row in filled for token in tokens[row]), np.intp, sum(counts))
            sums[filled] = np.add.reduceat(self.token_vectors[flat], np.cumsum([0, *counts[:-1]]))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A text without a known token has no direction; all such texts get the same vector.
        sums[lengths[:, 0] == 0, 0] = 1.0
        lengths[lengths == 0] = 1.0
        return sums / lengths


@cache
def _package_word_vectors() -> WordVectors:
    return read_word_vectors(WORD_VECTORS_FILE)


_LONGEST_WORD = 100
"""Maximum length of a word in letters; longer ones are ignored, as in BERT's tokenizer."""

_PLAIN = re.compile(r"[a-z0-9]+|[^a-z0-9 ]")


class WordPiece:
    """BERT's uncased tokenizer: lower case, no accents, punctuation separated, then the longest pieces in the
    vocabulary.

    Pieces that are not in the vocabulary are omitted.
    """

    def __init__(self, index: Mapping[str, int]) -> None:
        self.index = index
        self._known: dict[str, tuple[int, ...]] = {}

    def tokens(self, text: str) -> list[int]:
        return [token for word in _words(text) for token in self._word(word)]

    def _word(self, word: str) -> tuple[int, ...]:
        known = self._known.get(word)
        if known is None:
            if len(self._known) >= _WORD_CACHE:
                self._known.clear()
            known = self._known[word] = self._pieces(word)
        return known

    def _pieces(self, word: str) -> tuple[int, ...]:
        if len(word) > _LONGEST_WORD:
            return ()
        found: list[int] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            end = next((e for e in range(len(word), start, -1) if mark + word[start:e] in self.index), None)
            if end is None:
                return ()
            found.append(self.index[mark + word[start:end]])
            start = end
        return tuple(found)


def _words(text: str) -> list[str]:
    if text.isascii() and text.isprintable():
        return _PLAIN.findall(text.lower())
    letters: list[str] = []
    for letter in unicodedata.normalize("NFD", text):
        category = unicodedata.category(letter)
        if letter in "\t\n\r" or category[0] == "Z":
            letters.append(" ")
        elif category == "Mn" or category in ("Cc", "Cf", "Cs", "Co") or letter == "\ufffd":
            continue
        elif category[0] == "P" or (letter.isascii() and not letter.isalnum()) or _is_ideograph(letter):
            letters.append(f" {letter} ")
        else:
            letters.append(letter.lower())
    return "".join(letters).split()


def _is_ideograph(letter: str) -> bool:
    code = ord(letter)
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x2CEAF
        or 0x2F800 <= code <= 0x2FA1F
    )


# --- MiniLM ----------------------------------------------------------------------------------------------------------


class MiniLMEmbedder:
    """A sentence-transformers model, on the CPU, from a folder or from the hub's local cache; never downloads.

    Raises :class:`EmbedderError` if the library or the weights are missing.
    """

    default_dedupe_threshold = 0.95

    def __init__(self, path_or_id: str | Path = MINILM, batch_size: int = 64) -> None:
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as transformers_logging
        except ImportError:
            raise EmbedderError(f"embedding with {path_or_id} needs sentence-transformers: {install('ml')}") from None
        transformers_logging.disable_progress_bar()
        try:
            self._model = SentenceTransformer(
                str(path_or_id), device="cpu", local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # damaged weights and configs raise many exception types, including Exception
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise EmbedderError(
                f"the weights of {path_or_id} are missing or damaged (lsdata doctor --fetch minilm): {reason}"
            ) from None
        self._batch_size = batch_size
        self.dim = int(self._model.get_embedding_dimension() or 0)
        self.fingerprint = f"{path_or_id}:{_weights_hash(self._model)}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        # The tokenizer refuses lone surrogates, which can occur in a model's JSON.
        readable = [text.encode("utf-8", "replace").decode() for text in texts]
        vectors = self._model.encode(
            readable, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dim)


def _weights_hash(model: object) -> str:
    """Return a short hash of the loaded weights, because a folder's name does not identify its content."""
    import torch

    state = model.state_dict()  # type: ignore[attr-defined]
    code = 0
    for name in sorted(state):
        tensor = state[name].detach().to(torch.float32).contiguous()
        code = zlib.crc32(name.encode(), code)
        code = zlib.crc32(tensor.reshape(-1)[:4096].numpy().tobytes(), code)
    return f"{code:08x}"


REMOVED = "hashing"
"""The offline embedder of version 0.1."""
EMBEDDERS: dict[str, Callable[[], Embedder]] = {
    "words": WordVectorEmbedder,
    BUILTIN_WORDS: WordVectorEmbedder,
    "minilm": MiniLMEmbedder,
}


def make_embedder(name: str) -> Embedder:
    """Return the embedder named ``words``, ``minilm``, a folder with a sentence-transformers model, or a cached hub id.

    Raises :class:`EmbedderError` if its library or weights are missing, and for an embedder of version 0.1.
    """
    if name == REMOVED or name.startswith(f"builtin/{REMOVED}:"):
        raise EmbedderError(f"{REMOVED} was removed in version 0.2; use words, and export maps again")
    make = EMBEDDERS.get(name)
    return make() if make else MiniLMEmbedder(name)
