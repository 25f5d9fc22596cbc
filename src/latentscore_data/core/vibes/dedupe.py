"""Vibes as vectors: which say the same, and which are the most different."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from latentscore.embed import BUILTIN_WORDS, MINILM, Embedder, EmbedderError, WordVectorEmbedder, make_embedder
from latentscore.seeds import rng_for
from latentscore_data.core.base.display import SlowStep
from latentscore_data.core.base.errors import MissingError, install, require
from latentscore_data.core.base.settings import DedupeSettings
from latentscore_data.core.base.weights import fetched_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_ROWS = 1024
"""Rows compared at once; with CHUNK_ROWS it bounds the memory beyond the vectors themselves (32 MiB)."""
CHUNK_ROWS = 8192
EMBED_ROWS = 512
"""Texts that are embedded at once, everywhere: a text's vector may differ in its last bits with those beside it."""

EmbedBatches = Callable[[Iterable[list[str]]], Iterable["NDArray[np.float32]"]]
"""Embeds batches of EMBED_ROWS texts; unit vectors, one array per batch and in their order."""


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
        return EmbedderChoice(settings.model, "as set")
    missing = minilm_missing()
    if missing is None:
        return EmbedderChoice("minilm", "installed and fetched")
    return EmbedderChoice("words", f"{missing.message} ({missing.remedy})")


def minilm_missing() -> MissingError | None:
    """Why MiniLM cannot run here; None when it can."""
    try:
        require("sentence_transformers", "ml", "MiniLM")
    except MissingError as missing:
        return missing
    if fetched_file(MINILM, "modules.json") is None:
        return MissingError("MiniLM is not fetched", "lsdata doctor --fetch minilm")
    return None


def load_embedder(choice: EmbedderChoice, named_by: str = "dedupe.model (--dedupe-model of vibes)") -> Embedder:
    """The embedder. Raises :class:`MissingError` where its library or weights are not there; ``named_by`` is what names
    another one."""
    try:
        return make_embedder(choice.name)
    except EmbedderError as error:
        if choice.name not in ("minilm", MINILM) and find_spec("sentence_transformers") is not None:
            raise MissingError(
                f"{choice.name} is neither a folder with a sentence-transformers model nor a hub model that was fetched before",
                f"name a folder, minilm or words with {named_by}",
            ) from None
        raise MissingError(str(error), f"install and fetch it, or name words with {named_by}") from None


def threshold_of(settings: DedupeSettings, embedder: Embedder) -> float:
    """The cosine from which a vibe is dropped."""
    return settings.threshold if settings.threshold is not None else embedder.default_dedupe_threshold


Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items; the last one may be shorter."""
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch


def embed_stream(
    texts: Iterable[str], embedder: Embedder, step: SlowStep | None = None, by: EmbedBatches | None = None
) -> NDArray[np.float32]:
    """Unit vectors, shape (n, dim), of texts that are read once and not kept. ``by`` embeds instead of this process."""
    vectors = np.empty((EMBED_ROWS, embedder.dim), np.float32)
    count = 0
    batches = batched(texts, EMBED_ROWS)
    for some in by(batches) if by is not None else map(embedder.embed, batches):
        if count + len(some) > len(vectors):
            # Grown in place, where the system can: a copy would double the memory.
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
    """Which rows stay, how that was found, and how many of the true near-duplicates were found."""

    stays: NDArray[np.bool_]
    method: str
    recall: float = 1.0
    """Share of the near-duplicates in a sample of the rows that were dropped; 1.0 where the method is exact."""
    sampled: int = 0
    """Near-duplicates in that sample."""


class _AllKept:
    """The rows that stay so far; compares with every one of them."""

    def __init__(self, count: int, dim: int) -> None:
        self._rows = np.empty((count, dim), dtype=np.float32)
        self._count = 0

    def closest(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """The cosine of each row to the closest one that stays; an index may miss it and give a smaller one."""
        return nearest_similarity(block, self._rows[: self._count])

    def add(self, rows: NDArray[np.float32]) -> None:
        self._rows[self._count : self._count + len(rows)] = rows
        self._count += len(rows)


PROBED = 16
"""Cells of the index that are searched for each row. On random rows, the hardest case, 8 find 99.95 % of the copies."""
MOST_CELLS = 2048
TRAINED_ON = 40
"""Rows per cell that the cells are fitted on; fewer make faiss warn."""


class _IndexedKept:
    """Compares with the rows in the nearest cells of an inverted file (``faiss.IndexIVFFlat``), with true cosines.

    Why faiss-cpu, tried on 2 cores with 384 dimensions: one abi3 wheel for each platform (19 MB, 66 MB installed), MIT, 20 s
    for 100,000 rows, and the same cells and answers with any number of threads. usearch (Apache-2.0, 57 MB installed with
    numkong) took 32 s for 20,000 rows at a lower recall, because its graph is built row by row, and depends on the order
    of threads unless it has one. hnswlib has no wheels.
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
    """Raise :class:`MissingError` where the library of the index is not installed."""
    if find_spec("faiss") is None:
        raise MissingError(
            "near-duplicates among this many rows are found with an index, which needs the dedupe extra",
            f"{install('dedupe')}; or raise dedupe.exact_up_to to compare every pair, which takes an hour for a million rows",
        )


def near_duplicates(vectors: NDArray[np.float32], threshold: float, exact_up_to: int) -> NearDuplicates:
    """Which rows stay; exactly up to that many rows, else with an index whose recall is measured on a sample.

    ``vectors``: unit rows, shape (n, dim). With an index no row is dropped that is not a near-duplicate, but some are
    missed. The same rows always give the same result. Raises :class:`MissingError` where the index is not installed.
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
    """(share of the near-duplicates in a sample that were dropped, their number).

    A row that stays was missed when an earlier one that stays is at least ``threshold`` close.
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
    """Which rows stay when, in order, each row at least ``threshold`` close to one that stays is dropped.

    Exact without ``kept``: the same rows as comparing one by one. Rows are compared in blocks, so that a matrix product
    does the work and the memory beyond the vectors is bounded.
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
    """Inside a block, in order: a row that stays drops the later ones close to it."""
    later = np.triu(close, k=1)
    for i in np.flatnonzero(later.any(axis=1)):
        if fresh[alive[i]]:
            fresh[alive[later[i]]] = False


# --- the most different ----------------------------------------------------------------------------------------------

CANDIDATES = 256
CHOSEN_TOGETHER = 25_000
"""Rows among which the most different are looked for: the time grows with the square of this number, not of all rows."""


def farthest_points(vectors: NDArray[np.float32], count: int) -> list[int]:
    """``count`` rows that are the least similar to each other (farthest-point sampling by cosine).

    Up to ``CHOSEN_TOGETHER`` rows each is the least similar to those before it. More rows are dealt out to parts of at most
    that size, row by row, and each part gives its share: those least similar to what was chosen so far.
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
    """The farthest points of one part, with those of earlier parts ``before`` them.

    Where there are none, the first is the row least similar to the mean of all. Exact: many are chosen between two passes over all rows,
    because a row's similarity to the chosen ones only grows, so a candidate that beats every other row's old value
    beats its new one.
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
