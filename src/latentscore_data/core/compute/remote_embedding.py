"""Embedding the rows of a large ``vibes`` run on a remote executor, in shards."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentscore.embed import BUILTIN_WORDS, Embedder
from latentscore_data.core.compute.entrypoints import weights_of
from latentscore_data.core.scoring.executor import Executor
from latentscore_data.core.vibes.dedupe import EMBED_ROWS, EmbedBatches

if TYPE_CHECKING:
    from numpy.typing import NDArray

EMBED_ELSEWHERE_FROM = 16 * EMBED_ROWS
"""Rows from which the start of remote workers pays off: MiniLM embeds 60 to 300 rows per second on two cores."""


def embeds_elsewhere(embedder: str, executor: Executor) -> bool:
    """Return whether the rows of a large run are embedded on the executor: with a model, on free workers.

    The package's word vectors are computed on this machine: 49,000 rows per second on one core, faster than sending them.
    """
    words = embedder in ("words", BUILTIN_WORDS)
    return executor.remote and not words and not executor.price_per_second(gpu=False)


def embed_on(
    executor: Executor | None,
    name: str,
    embedder: Embedder,
    say: Callable[[str], None],
    at_least: int = EMBED_ELSEWHERE_FROM,
) -> EmbedBatches | None:
    """Return a function that embeds ``at_least`` or more rows on the executor and fewer rows on this machine; None if all
    rows are embedded on this machine.

    A shard is a batch, so that the vectors are bit-identical. ``name`` is the embedder that the workers load. The function
    raises the errors of shards.
    """
    if executor is None or not embeds_elsewhere(name, executor):
        return None

    def embed(batches: Iterable[list[str]]) -> Iterator[NDArray[np.float32]]:
        waiting = iter(batches)
        first = list(islice(waiting, -(-at_least // EMBED_ROWS)))
        if sum(map(len, first)) < at_least:
            say(f"vibes: fewer than {at_least:,} rows are embedded here, not on {executor.name}")
            yield from map(embedder.embed, first)
            return
        say(f"vibes: embedding on {executor.name}")
        texts = chain.from_iterable(chain(first, waiting))
        path = Path(name).absolute()
        common = {"embedder": str(path) if path.is_dir() else name, "weights": weights_of(embedder)}
        for part in executor.map("embed_shard", "texts", texts, common, EMBED_ROWS):
            yield np.frombuffer(base64.b64decode(part["vectors"]), np.float32).reshape(-1, embedder.dim)

    return embed
