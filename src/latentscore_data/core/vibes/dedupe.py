"""Vibes as vectors: the choice of an embedder, near-duplicates, and farthest-point sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from latentscore.embed import BUILTIN_WORDS, MINILM, Embedder, EmbedderError, WordVectorEmbedder, make_embedder
from latentscore.seeds import rng_for
from latentscore_data.core.base.display import SlowStep
from latentscore_data.core.base.errors import MissingError, install, require
from latentscore_data.core.base.rows import batched
from latentscore_data.core.base.settings import DedupeSettings
from latentscore_data.core.base.weights import fetched_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_ROWS = 1024
"""Rows that are compared with CHUNK_ROWS others at once, which limits the additional memory to 32 MiB."""
CHUNK_ROWS = 8192
EMBED_ROWS = 512
"""Texts per batch, on all executors: the last bits of a vector can depend on the other texts of its batch."""

EmbedBatches = Callable[[Iterable[list[str]]], Iterable["NDArray[np.float32]"]]
"""Embeds batches of EMBED_ROWS texts: yields one array of unit vectors, shape (texts, dim), for each batch in order."""


# --- which embedder --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EmbedderChoice:
    """The embedder that ``dedupe.model`` selects, and why."""

    name: str
    why: str

    @property
    def version(self) -> str:
        """The name; for the package's word vectors with the hash of their file."""
        return WordVectorEmbedder().fingerprint if self.name in ("words", BUILTIN_WORDS) else self.name


def choose_embedder(settings: DedupeSettings) -> EmbedderChoice:
    """Return the embedder of the settings. ``auto`` selects MiniLM if it is installed and fetched, else word vectors.

    Nothing is loaded or downloaded.
    """
    if settings.model != "auto":
        return EmbedderChoice(settings.model, "as set")
    missing = minilm_missing()
    if missing is None:
        return EmbedderChoice("minilm", "installed and fetched")
    return EmbedderChoice("words", f"{missing.message} ({missing.remedy})")


def minilm_missing() -> MissingError | None:
    """Return the reason why MiniLM cannot run here; None if it can."""
    try:
        require("sentence_transformers", "ml", "MiniLM")
    except MissingError as missing:
        return missing
    if fetched_file(MINILM, "modules.json") is None:
        return MissingError("MiniLM is not fetched", "lsdata doctor --fetch minilm")
    return None


def load_embedder(choice: EmbedderChoice, named_by: str = "dedupe.model (--dedupe-model of vibes)") -> Embedder:
    """Load the embedder. Raises :class:`MissingError` if its library or weights are missing; ``named_by`` is the
    setting that the remedy names."""
    try:
        return make_embedder(choice.name)
    except EmbedderError as error:
        if choice.name not in ("minilm", MINILM) and find_spec("sentence_transformers") is not None:
            raise MissingError(
                f"{choice.name} is neither a folder with a sentence-transformers model nor a fetched hub model",
                f"name a folder, minilm or words with {named_by}",
            ) from None
        raise MissingError(str(error), f"install and fetch it, or name words with {named_by}") from None


def threshold_of(settings: DedupeSettings, embedder: Embedder) -> float:
    """Return the cosine at or above which a vibe is a near-duplicate."""
    return settings.threshold if settings.threshold is not None else embedder.default_dedupe_threshold


def embed_stream(
    texts: Iterable[str], embedder: Embedder, step: SlowStep | None = None, by: EmbedBatches | None = None
) -> NDArray[np.float32]:
    """Return unit vectors, shape (n, dim). The texts are not kept. ``by`` embeds instead of this process."""
    vectors = np.empty((EMBED_ROWS, embedder.dim), np.float32)
    count = 0
    batches = batched(texts, EMBED_ROWS)
    for some in by(batches) if by is not None else map(embedder.embed, batches):
        if count + len(some) > len(vectors):
            # Resized in place if the allocator can: a copy would double the memory.
            vectors.resize((2 * len(vectors), embedder.dim), refcheck=False)
        vectors[count : count + len(some)] = some
        count += len(some)
        if step is not None:
            step.at(count)
    vectors.resize((count, embedder.dim), refcheck=False)
    return vectors


# --- near-duplicates -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NearDuplicates:
    """The rows that stay, the method, and its recall."""

    stays: NDArray[np.bool_]
    method: str
    recall: float = 1.0
    """Share of the near-duplicates in a sample that were dropped; 1.0 for the exact method."""
    sampled: int = 0
    """Number of near-duplicates in that sample."""


class _AllKept:
    """The rows that stay so far, for exact comparison with all of them."""

    def __init__(self, count: int, dim: int) -> None:
        self._rows = np.empty((count, dim), dtype=np.float32)
        self._count = 0

    def closest(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine of each row to the closest row that stays, shape (rows,); -1 without one."""
        return nearest_similarity(block, self._rows[: self._count])

    def add(self, rows: NDArray[np.float32]) -> None:
        self._rows[self._count : self._count + len(rows)] = rows
        self._count += len(rows)


PROBED = 16
"""Cells of the index that are searched for each row. On random rows, the hardest case, 8 have a recall of 99.95 %."""
MOST_CELLS = 2048
TRAINED_ON = 40
"""Rows per cell that the cells are fitted on; below this number faiss prints a warning."""


class _IndexedKept:
    """The rows that stay so far, in an inverted file (``faiss.IndexIVFFlat``). Cosines are exact, but a row in a cell
    that is not searched is missed, and :meth:`closest` returns a smaller cosine.

    Reasons for faiss-cpu, measured on 2 cores with 384 dimensions: one abi3 wheel for each platform (19 MB, 66 MB
    installed), MIT, 20 s for 100,000 rows, and equal results with any number of threads. usearch (Apache-2.0, 57 MB
    installed with numkong) took 32 s for 20,000 rows at a lower recall, because its graph is built row by row, and
    depends on the order of threads. hnswlib has no wheels.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        require_index()
        import faiss

        count, dim = vectors.shape
        self.cells = max(1, min(MOST_CELLS, round(4 * count**0.5), count // TRAINED_ON))
        sample = rng_for(0, "dedupe cells").choice(count, min(count, TRAINED_ON * self.cells), replace=False)
        self._index: Any = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, self.cells, faiss.METRIC_INNER_PRODUCT)
        self._index.nprobe = PROBED
        self._index.cp.niter = 6
        self._index.train(vectors[np.sort(sample)])

    def closest(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._index.ntotal:
            return np.full(len(block), -1.0, dtype=np.float32)
        return self._index.search(block, 1)[0][:, 0]

    def add(self, rows: NDArray[np.float32]) -> None:
        self._index.add(rows)


def require_index() -> None:
    """Raise :class:`MissingError` if the library of the index is not installed."""
    if find_spec("faiss") is None:
        raise MissingError(
            "near-duplicates among this many rows are found with an index, which needs the dedupe extra",
            f"{install('dedupe')}; or raise dedupe.exact_up_to to compare every pair, which takes an hour for a million rows",
        )


def near_duplicates(vectors: NDArray[np.float32], threshold: float, exact_up_to: int) -> NearDuplicates:
    """Return the rows of ``vectors`` (unit rows, shape (n, dim)) that stay, so that no two are near-duplicates.

    Up to ``exact_up_to`` rows, all pairs are compared. Above, an index misses some near-duplicates; its recall is
    measured on a sample. The result is deterministic. Raises :class:`MissingError` if the index is needed and not
    installed.
    """
    if len(vectors) <= exact_up_to:
        return NearDuplicates(first_of_each(vectors, threshold), "exact")
    index = _IndexedKept(vectors)
    stays = first_of_each(vectors, threshold, index)
    method = f"faiss IVFFlat, {index.cells} cells, {min(PROBED, index.cells)} searched"
    del index
    return NearDuplicates(stays, method, *_recall(vectors, stays, threshold))


RECALL_ROWS = 2000


def _recall(vectors: NDArray[np.float32], stays: NDArray[np.bool_], threshold: float) -> tuple[float, int]:
    """Return the share of the near-duplicates in a sample that were dropped, and the number of near-duplicates.

    A row that stays is a missed near-duplicate if its cosine to an earlier row that stays is at least ``threshold``.
    """
    rows = np.sort(rng_for(0, "dedupe recall").choice(len(vectors), min(RECALL_ROWS, len(vectors)), replace=False))
    dropped = int((~stays[rows]).sum())
    missed = np.zeros(len(rows), dtype=bool)
    for start in range(0, int(rows[-1]), CHUNK_ROWS):
        chunk = np.flatnonzero(stays[start : start + CHUNK_ROWS]) + start
        close = vectors[rows] @ vectors[chunk].T >= threshold
        missed |= (close & (chunk[None, :] < rows[:, None])).any(axis=1)
    missed &= stays[rows]
    found = dropped + int(missed.sum())
    return (round(dropped / found, 4) if found else 1.0), found


def first_of_each(
    vectors: NDArray[np.float32], threshold: float, kept: _AllKept | _IndexedKept | None = None
) -> NDArray[np.bool_]:
    """Return a mask of the rows that stay, shape (n,): in order, a row is dropped if its cosine to an earlier row that
    stays is at least ``threshold``.

    Without ``kept`` the result is exact. Rows are compared in blocks, which bounds the additional memory.
    """
    count, dim = vectors.shape
    kept = kept or _AllKept(count, dim)
    stays = np.zeros(count, dtype=bool)
    step = SlowStep("vibes: near-duplicates", count)
    for start in range(0, count, BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        fresh = kept.closest(block) < threshold
        alive = np.flatnonzero(fresh)
        close = block[alive] @ block[alive].T >= threshold
        _drop_followers(close, fresh, alive)
        kept.add(block[fresh])
        stays[start : start + len(block)] = fresh
        step.at(start)
    return stays


def _drop_followers(close: NDArray[np.bool_], fresh: NDArray[np.bool_], alive: NDArray[np.intp]) -> None:
    """Drop rows within a block: in order, a row that stays drops the later rows close to it. Changes ``fresh``."""
    later = np.triu(close, k=1)
    for i in np.flatnonzero(later.any(axis=1)):
        if fresh[alive[i]]:
            fresh[alive[later[i]]] = False


# --- farthest-point sampling -----------------------------------------------------------------------------------------

CANDIDATES = 256
CHOSEN_TOGETHER = 25_000
"""Largest part in which farthest points are searched: the time grows with the square of this number."""


def farthest_points(vectors: NDArray[np.float32], count: int) -> list[int]:
    """Return the indices of ``count`` rows with low similarity to each other (farthest-point sampling by cosine).

    Each row is the least similar to the earlier ones. More than ``CHOSEN_TOGETHER`` rows are divided into parts of at
    most that size, and each part contributes an equal share.
    """
    parts = -(-len(vectors) // CHOSEN_TOGETHER)
    step = SlowStep(f"vibes: the most diverse of {len(vectors):,}", count)
    chosen: list[int] = []
    for part in range(parts):
        mine = np.arange(part, len(vectors), parts)
        wanted = count * (part + 1) // parts - count * part // parts
        chosen += mine[_farthest_of(vectors[mine], vectors[chosen], wanted, step)].tolist()
    return chosen


def _farthest_of(vectors: NDArray[np.float32], before: NDArray[np.float32], count: int, step: SlowStep) -> list[int]:
    """Return the farthest points of one part, given the points ``before`` of earlier parts.

    Without earlier points, the first is the row least similar to the mean. The result is exact, although several points
    are chosen in one pass over all rows: a row's similarity to the chosen points can only increase, so a candidate with
    a lower value than the old value of every other row is also lower than their new values.
    """
    total = len(vectors)
    count = min(count, total)
    if count <= 0:
        return []
    nearest = nearest_similarity(vectors, before)
    chosen: list[int] = []
    if not len(before):
        first = int(np.argmin(vectors @ vectors.mean(axis=0)))
        chosen = [first]
        nearest = vectors @ vectors[first]
        nearest[first] = np.inf
    while len(chosen) < count:
        step.at(len(before) + len(chosen))
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
    """Return up to ``most`` farthest candidates, until a row outside (with at least ``bound``) may be farther."""
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
    """Return the cosine of each row to the closest of the others, shape (rows,); -1 without others."""
    best = np.full(len(rows), -1.0, dtype=np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        for at in range(0, len(others), CHUNK_ROWS):
            close = (rows[start : start + BLOCK_ROWS] @ others[at : at + CHUNK_ROWS].T).max(axis=1)
            np.maximum(best[start : start + BLOCK_ROWS], close, out=best[start : start + BLOCK_ROWS])
    return best
