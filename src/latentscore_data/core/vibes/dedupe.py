"""Vibes as vectors: which say the same, and which are the most different."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from latentscore.embed import BUILTIN_WORDS, MINILM, Embedder, EmbedderError, WordVectorEmbedder, make_embedder
from latentscore_data.core.base.display import say
from latentscore_data.core.base.errors import MissingError, require
from latentscore_data.core.base.settings import DedupeSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_ROWS = 1024
"""Rows compared at once; with CHUNK_ROWS it bounds the memory beyond the vectors themselves (32 MiB)."""
CHUNK_ROWS = 8192
EMBED_ROWS = 512

SAY_EVERY_SECONDS = 10.0


# --- which embedder --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EmbedderChoice:
    """What ``dedupe.model`` comes to, and why."""

    name: str
    why: str

    @property
    def version(self) -> str:
        """The name; for the package's own vectors with the hash of their file."""
        return WordVectorEmbedder().fingerprint if self.name in ("words", BUILTIN_WORDS) else self.name


def choose_embedder(settings: DedupeSettings) -> EmbedderChoice:
    """``auto`` takes MiniLM where it is installed and fetched, else word vectors. Nothing is loaded or downloaded."""
    if settings.model != "auto":
        return EmbedderChoice(settings.model, "named in the settings")
    missing = minilm_missing()
    if missing is None:
        return EmbedderChoice("minilm", "installed and fetched")
    return EmbedderChoice("words", f"{missing.message} ({missing.remedy})")


def minilm_missing() -> MissingError | None:
    """Why MiniLM cannot run here; None when it can."""
    from huggingface_hub import try_to_load_from_cache

    try:
        require("sentence_transformers", "ml", "MiniLM")
    except MissingError as missing:
        return missing
    if not isinstance(try_to_load_from_cache(MINILM, "modules.json"), str):
        return MissingError("MiniLM is not fetched", "lsdata doctor --fetch minilm")
    return None


def load_embedder(choice: EmbedderChoice) -> Embedder:
    """The embedder. Raises :class:`MissingError` where its library or weights are not there."""
    try:
        return make_embedder(choice.name)
    except EmbedderError as error:
        if choice.name not in ("minilm", MINILM) and find_spec("sentence_transformers") is not None:
            raise MissingError(
                f"{choice.name} is neither a folder with a sentence-transformers model nor a hub model that was fetched before",
                "name a folder, minilm or words with --dedupe-model",
            ) from None
        raise MissingError(str(error), "install and fetch it, or set dedupe.model = 'words'") from None


def threshold_of(settings: DedupeSettings, embedder: Embedder) -> float:
    """The cosine from which a vibe is dropped."""
    return settings.threshold if settings.threshold is not None else embedder.default_dedupe_threshold


def embed_stream(texts: Iterable[str], embedder: Embedder) -> NDArray[np.float32]:
    """Unit vectors, shape (n, dim), of texts that are read once and not kept."""
    blocks: list[NDArray[np.float32]] = []
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == EMBED_ROWS:
            blocks.append(embedder.embed(batch))
            batch = []
    if batch:
        blocks.append(embedder.embed(batch))
    return np.concatenate(blocks) if blocks else np.zeros((0, embedder.dim), np.float32)


# --- near-duplicates -------------------------------------------------------------------------------------------------


def first_of_each(vectors: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Which rows stay when, in order, each row at least ``threshold`` close to one that stays is dropped.

    Exact: the same rows as comparing one by one. Rows are compared in blocks, so that a matrix product does the work and
    the memory beyond the vectors is bounded.
    """
    count, dim = vectors.shape
    stays = np.zeros(count, dtype=bool)
    kept = np.empty((count, dim), dtype=np.float32)
    kept_count = 0
    for start in range(0, count, BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        fresh = np.ones(len(block), dtype=bool)
        for at in range(0, kept_count, CHUNK_ROWS):
            closest = (block @ kept[at : min(at + CHUNK_ROWS, kept_count)].T).max(axis=1)
            fresh &= closest < threshold
        alive = np.flatnonzero(fresh)
        close = block[alive] @ block[alive].T >= threshold
        _drop_followers(close, fresh, alive)
        new = block[fresh]
        kept[kept_count : kept_count + len(new)] = new
        kept_count += len(new)
        stays[start : start + len(block)] = fresh
    return stays


def _drop_followers(close: NDArray[np.bool_], fresh: NDArray[np.bool_], alive: NDArray[np.intp]) -> None:
    """Inside a block, in order: a row that stays drops the later ones close to it."""
    later = np.triu(close, k=1)
    for i in np.flatnonzero(later.any(axis=1)):
        if fresh[alive[i]]:
            fresh[alive[later[i]]] = False


# --- the most different ----------------------------------------------------------------------------------------------

CANDIDATES = 256


def farthest_points(vectors: NDArray[np.float32], count: int) -> list[int]:
    """``count`` rows, each the least similar to those before it (farthest-point sampling by cosine), in that order.

    The first is the one least similar to the mean of all. Exact: many are chosen between two passes over all rows,
    because a row's similarity to the chosen ones only grows, so a candidate that beats every other row's old value
    beats its new one. Minutes for 100,000 rows, so it says how far it is.
    """
    total = len(vectors)
    count = min(count, total)
    if count <= 0:
        return []
    first = int(np.argmin(vectors @ vectors.mean(axis=0)))
    chosen = [first]
    nearest = vectors @ vectors[first]
    nearest[first] = np.inf
    said = time.monotonic()
    while len(chosen) < count:
        if time.monotonic() - said > SAY_EVERY_SECONDS:
            said = time.monotonic()
            say(f"choosing the most different of {total:,}: {len(chosen):,} of {count:,}")
        size = min(CANDIDATES, total - len(chosen))
        ranked = np.argpartition(nearest, size)[: size + 1] if size < total else np.arange(total)
        ranked = ranked[np.lexsort((ranked, nearest[ranked]))]
        candidates = ranked[:size]
        bound = float(nearest[ranked[size]]) if len(ranked) > size else np.inf
        new = _choose_among(vectors[candidates], nearest[candidates], bound, count - len(chosen))
        picked = candidates[new]
        chosen += [int(i) for i in picked]
        np.maximum(nearest, (vectors @ vectors[picked].T).max(axis=1), out=nearest)
        nearest[picked] = np.inf
    return chosen


def _choose_among(
    vectors: NDArray[np.float32], nearest: NDArray[np.float32], bound: float, most: int
) -> NDArray[np.intp]:
    """Farthest points among candidates, as long as none outside can be farther."""
    pairs = vectors @ vectors.T
    nearest = nearest.copy()
    chosen: list[int] = []
    while len(chosen) < most:
        at = int(np.argmin(nearest))
        if not np.isfinite(nearest[at]) or (chosen and nearest[at] >= bound):
            break
        chosen.append(at)
        np.maximum(nearest, pairs[at], out=nearest)
        nearest[at] = np.inf
    return np.array(chosen, dtype=np.intp)


def nearest_similarity(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each row the cosine of the closest other; -1 where there are no others."""
    best = np.full(len(rows), -1.0, dtype=np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        for at in range(0, len(others), CHUNK_ROWS):
            close = (rows[start : start + BLOCK_ROWS] @ others[at : at + CHUNK_ROWS].T).max(axis=1)
            np.maximum(best[start : start + BLOCK_ROWS], close, out=best[start : start + BLOCK_ROWS])
    return best
