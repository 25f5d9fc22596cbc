"""Retrieval maps from scored rows, which :func:`latentscore.load_map` opens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from latentscore.errors import MapError
from latentscore.vibe_map import (
    EMBEDDING_FIELDS,
    JSONL_FILE,
    MAP_FORMAT,
    ROWS_FILE,
    TENSORS_FILE,
    UNIT_TOLERANCE,
    load_map,
)
from latentscore_data.core.base.errors import InputError, VerificationError
from latentscore_data.core.base.jsonl import Line, writing
from latentscore_data.core.base.names import json_bytes
from latentscore_data.core.base.payloads import in_labels
from latentscore_data.core.base.rows import ScoredRow, batched
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.export.dataset import Rows
from latentscore_data.core.export.tables import Lines, Table, write_table
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clap_index import ClapIndex
from latentscore_data.core.vibes.dedupe import EmbedderChoice, choose_embedder, load_embedder

BATCH = 512
LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY

Vectors = Callable[[Sequence[ScoredRow]], "NDArray[np.float32]"]
"""Rows -> their embeddings: float32, shape (rows, dim), unit length."""


@dataclass(frozen=True)
class MapFacts:
    """The numbers of a written map."""

    rows: int
    dim: int
    without_config: int
    """Rows that were left out, because they hold no valid config."""


@dataclass(frozen=True)
class EmbeddingSource:
    """The source of a map's embeddings."""

    fingerprint: str
    vectors: Vectors
    embed_text: Callable[[str], NDArray[np.float32]] | None
    """Embeds a query as unit vector, shape (dim,); None if a vibe does not find its own row (a map of sounds)."""
    why: str
    """One line for the user: the embedder, and why it was chosen."""


def embedding_source(kind: str, settings: Settings) -> EmbeddingSource:
    """Return the embedder of a "text" or "audio" map. Raises :class:`MissingError` without its library or weights."""
    if kind == "audio":
        index = _clap_index(settings)
        return EmbeddingSource(
            index.fingerprint,
            lambda rows: index.sounds([row.config_payload or {} for row in rows]),
            None,
            f"embedding the winners' sound with {settings.scoring.clap_model}; winners scored with it are not rendered again",
        )
    chosen = chosen_embedder(settings)
    embedder = load_embedder(chosen, "--embedder (export.embedder)")
    return EmbeddingSource(
        embedder.fingerprint,
        lambda rows: embedder.embed([row.vibe_original for row in rows]),
        lambda text: embedder.embed([text])[0],
        f"embedding vibes with {chosen.name} ({chosen.why})",
    )


def chosen_embedder(settings: Settings) -> EmbedderChoice:
    """Return the embedder of text maps, by default the one that finds near-duplicates."""
    return choose_embedder(
        settings.dedupe.model_copy(update={"model": settings.export.embedder or settings.dedupe.model})
    )


class ClapText:
    """CLAP's text encoder, for queries to a map of sounds: ``lookup(map, vibe, embedder=ClapText(load_settings()))``.

    Raises :class:`MissingError` if CLAP cannot run.
    """

    default_dedupe_threshold = 0.95

    def __init__(self, settings: Settings) -> None:
        self.index = _clap_index(settings)
        self.fingerprint = self.index.fingerprint
        self.dim = 0
        """The length of the vectors; 0 before the first call of :meth:`embed`, which loads the model."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors, float32, shape (texts, dim)."""
        vectors = self.index.texts(texts)
        self.dim = vectors.shape[1]
        return vectors


def _clap_index(settings: Settings) -> ClapIndex:
    return ClapIndex(settings.scoring, ScoreCache(Workspace(settings.paths.root).score_cache))


def write_map(folder: Path, rows: Iterable[ScoredRow], kind: str, vectors: Vectors, fingerprint: str) -> MapFacts:
    """Write a map into ``folder``: ``map.jsonl`` with the published field names, and a form that loads fast.

    That form is ``rows.jsonl`` (rows without embeddings) and ``map.safetensors`` (``embedding``: float32, shape (rows,
    dim); ``row_ends``: int64, the byte at which each line of ``rows.jsonl`` ends). Raises :class:`InputError` if no row
    has a config, and :class:`VerificationError` for embeddings of another shape or length.
    """
    from safetensors.numpy import save_file

    seen = 0
    parts: list[NDArray[np.float32]] = []
    sizes: list[int] = []

    def with_config() -> Iterator[ScoredRow]:
        nonlocal seen
        for row in rows:
            seen += 1
            if _has_config(row):
                yield row

    with (folder / JSONL_FILE).open("wb") as whole, (folder / ROWS_FILE).open("wb") as lines:
        for batch in batched(with_config(), BATCH):
            embedded = np.ascontiguousarray(vectors(batch), dtype=np.float32)
            _check_unit(embedded, batch)
            parts.append(embedded)
            with writing(folder):
                for row, vector in zip(batch, embedded, strict=True):
                    values = map_row(row)
                    whole.write(
                        json_bytes({**values, EMBEDDING_FIELDS[kind]: vector, "embedding_model": fingerprint}, LINE)
                    )
                    sizes.append(lines.write(json_bytes(values, LINE)))
    if not parts:
        raise InputError("no row has a config, so there is nothing to look up", "run lsdata configs first")
    embeddings = np.concatenate(parts)
    with writing(folder):
        save_file(
            {"embedding": embeddings, "row_ends": np.cumsum(sizes, dtype=np.int64)},
            folder / TENSORS_FILE,
            # A single entry, because the library writes several in random order, and equal maps must have equal bytes.
            metadata={"map": json.dumps({"format": MAP_FORMAT, "kind": kind, "embedder": fingerprint})},
        )
    return MapFacts(rows=len(embeddings), dim=embeddings.shape[1], without_config=seen - len(embeddings))


def _has_config(row: ScoredRow) -> bool:
    """Return True for a row with a winner in labels."""
    return row.config_payload is not None and in_labels(row.config_payload.get("config") or {})


def map_row(row: ScoredRow) -> Line:
    """Return a row of a map with the published field names, without its embedding."""
    payload = row.config_payload or {}
    return {
        "row_id": row.row_id,
        "vibe_original": row.vibe_original,
        "title": payload.get("title", ""),
        "config": payload["config"],
        "palettes": payload.get("palettes", []),
        "split": row.split,
        "dataset": row.dataset,
        "id_in_dataset": row.id_in_dataset,
    }


def write_map_table(folder: Path, splits: Mapping[str, Rows], source: EmbeddingSource, *, parquet: bool) -> list[Table]:
    """Write the configuration ``map`` of a data set: :func:`map_row` with the vibe's embedding. Return its table."""
    lines: dict[str, Lines] = {}
    for split, rows in splits.items():
        chosen = [row for row in rows() if _has_config(row)]
        if chosen:
            vectors = source.vectors(chosen)
            _check_unit(vectors, chosen)
            lines[split] = partial(_map_lines, [map_row(row) for row in chosen], vectors, source.fingerprint)
    field = EMBEDDING_FIELDS["text"]
    table = write_table(folder, "map", "map", lines, parquet=parquet, kinds={field: ["float32"]})
    return [table] if table.rows else []


def _map_lines(values: Sequence[Line], vectors: NDArray[np.float32], fingerprint: str) -> Iterator[Line]:
    for row, vector in zip(values, vectors, strict=True):
        yield {**row, EMBEDDING_FIELDS["text"]: vector.tolist(), "embedding_model": fingerprint}


def _check_unit(embedded: NDArray[np.float32], batch: Sequence[ScoredRow]) -> None:
    if embedded.ndim != 2 or len(embedded) != len(batch):
        raise VerificationError(
            f"the embedder gave the shape {embedded.shape} for {len(batch)} rows", "choose another export.embedder"
        )
    lengths = np.linalg.norm(embedded, axis=1)
    bad = np.flatnonzero(~(abs(lengths - 1) <= UNIT_TOLERANCE))
    if len(bad):
        raise VerificationError(
            f"the embedding of {batch[int(bad[0])].row_id} has the length {lengths[bad[0]]:.4f}, not 1",
            "choose another export.embedder",
        )


def verify_map(folder: Path, facts: MapFacts, embed: Callable[[str], NDArray[np.float32]] | None) -> None:
    """Load a map from both forms and compare them; with ``embed``, also look up some of its own vibes.

    Raises :class:`VerificationError` for a difference, or if a vibe does not return its own row.
    """
    try:
        fast, plain = load_map(folder / TENSORS_FILE), load_map(folder / JSONL_FILE)
        if not (len(fast) == len(plain) == facts.rows and np.array_equal(fast.embeddings, plain.embeddings)):
            raise MapError(f"{folder}: {TENSORS_FILE} and {JSONL_FILE} differ")
        for index in {0, facts.rows // 2, facts.rows - 1}:
            if fast.rows[index] != plain.rows[index]:
                raise MapError(f"{folder}: row {index} differs between {ROWS_FILE} and {JSONL_FILE}")
            if embed is not None:
                match = fast.nearest(embed(fast.rows[index]["vibe_original"]))[0]
                if match.similarity < 1 - UNIT_TOLERANCE:
                    raise MapError(
                        f"{folder}: looking up a vibe of the map does not return its row ({match.similarity:.4f})"
                    )
    except MapError as error:
        raise VerificationError(f"the map differs when it is read back ({error})", "export it again") from None
