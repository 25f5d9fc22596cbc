"""Nearest-neighbour baselines: the config of the training row whose vibe, or whose sound, is nearest.

A model that was fine-tuned on the training rows should have higher scores than these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore import starter_pairs
from latentscore.embed import Embedder
from latentscore.seeds import digest
from latentscore_data.core.base.rows import ScoredRow, VibeRow, selection_scorers
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.generators.simple import checked
from latentscore_data.core.generators.types import (
    AnyGenerator,
    Depends,
    Generated,
    GeneratorDeps,
    KnownRows,
    SourceKind,
    SourceName,
    SourceNote,
    with_payloads,
)
from latentscore_data.core.scoring.clap_index import ClapIndex
from latentscore_data.core.vibes.dedupe import choose_embedder

Vectors = NDArray[np.float32]


class _Lookup:
    """The config of the training row that is nearest to the vibe by cosine; never of the row itself.

    Subclasses set ``_embed`` (texts to unit vectors, shape (texts, dim)) and ``_vectors`` (shape (training rows, dim)).
    """

    batch_size = 256

    def __init__(self, kind: str, label: str, training_rows: Sequence[ScoredRow], space: str) -> None:
        self.label = label
        self._rows = with_payloads(training_rows, label)
        held: list[Any] = [(row.row_id, row.vibe_original, row.config_payload) for row in self._rows]
        self.fingerprint = digest(kind, space, *map(digest, held))
        self._embed: Callable[[list[str]], Vectors]
        self._vectors: Vectors

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        started = perf_counter()
        similarity = self._embed([row.vibe_original for row in rows]) @ self._vectors.T
        ids = np.array([row.row_id for row in self._rows])
        share = (perf_counter() - started) / max(1, len(rows))
        for row, similarities in zip(rows, similarity, strict=True):
            before = perf_counter()
            others = np.where(ids == row.row_id, -np.inf, similarities)
            best = int(np.argmax(others))
            payload = self._rows[best].config_payload
            if payload is None or not np.isfinite(others[best]):
                yield Generated(failure="there is no other row to look up")
                continue
            yield checked(payload, before - share)


class TextLookup(_Lookup):
    """``baseline:lookup``: the config of the training row with the nearest vibe, by text embedding."""

    def __init__(self, label: str, training_rows: Sequence[ScoredRow], embedder: Embedder) -> None:
        super().__init__("lookup", label, training_rows, embedder.fingerprint)
        self._embed = embedder.embed
        self._vectors = embedder.embed([row.vibe_original for row in self._rows])


class SoundLookup(_Lookup):
    """``baseline:clap-lookup``: the config of the training row whose sound is nearest to the vibe, by CLAP."""

    def __init__(self, label: str, training_rows: Sequence[ScoredRow], index: ClapIndex) -> None:
        super().__init__("clap-lookup", label, training_rows, index.fingerprint)
        self._embed = index.texts
        self._vectors = index.sounds([row.config_payload for row in self._rows if row.config_payload])


@cache
def starter_rows() -> list[ScoredRow]:
    """Return the starter set as rows, for a look-up without training rows."""
    return [
        ScoredRow(
            row_id=f"starter:{number}",
            dataset="starter",
            id_in_dataset=str(number),
            vibe_original=pair["vibe"],
            config_payload={name: value for name, value in pair.items() if name != "vibe"},
        )
        for number, pair in enumerate(starter_pairs())
    ]


class TextLookupKind(SourceKind):
    """``baseline:lookup``."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        return TextLookup(source.label, deps.training_rows() or starter_rows(), deps.embedder())

    def depends(self, source: SourceName, settings: Settings, workspace: Workspace) -> Depends:
        return Depends({"dedupe.model": choose_embedder(settings.dedupe).version})

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        if not known.training:
            return SourceNote(f"the nearest of the {len(starter_rows())} pairs of the starter set: no training rows")
        return SourceNote(f"the nearest of {len(known.training)} training rows", selection_scorers(known.training))


class SoundLookupKind(SourceKind):
    """``baseline:clap-lookup``."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        return SoundLookup(source.label, deps.training_rows(), deps.sounds())

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        return SourceNote(f"the nearest of {len(known.training)} training rows", selection_scorers(known.training))
