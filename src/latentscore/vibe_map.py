"""Maps: vibes with embeddings and configs, and the look-up of the one nearest to a text.

A map is a folder with ``map.safetensors`` (the memory-mapped embeddings) and ``rows.jsonl`` (one config per line,
parsed when it is requested), or one JSONL file in the published field names, which can be read without other libraries.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore.config import MusicConfig, MusicConfigPrompt, Palette, convert_config
from latentscore.embed import BUILTIN_WORDS, Embedder, WordVectorEmbedder, make_embedder
from latentscore.errors import LatentScoreError, MapError
from latentscore.files import user_path, why_no_file

Vectors = NDArray[np.float32]

MAP_FORMAT = "latentscore-map/1"
TENSORS_FILE = "map.safetensors"
ROWS_FILE = "rows.jsonl"
JSONL_FILE = "map.jsonl"

EMBEDDING_FIELDS: Mapping[str, str] = {"text": "embedding", "audio": "clap_audio_embedding"}
"""The published name of the embedding in a row, by kind of map."""

UNIT_TOLERANCE = 1e-3
"""Maximum deviation of an embedding's length from 1; float16 rounding causes about this much."""


STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / "starter"

MAX_LINE_BYTES = 8 * 1024 * 1024
"""Maximum length of a row; a longer line is not a row of a map and is not read."""


@dataclass(frozen=True)
class Match:
    """A row of a map and its ``similarity`` to the text, a cosine in [-1, 1]."""

    similarity: float
    index: int
    row: Mapping[str, Any]

    @property
    def vibe(self) -> str:
        return text_in(self.row, "vibe_original")

    @property
    def title(self) -> str:
        return text_in(self.row, "title")

    @property
    def config(self) -> MusicConfig | MusicConfigPrompt:
        """The row's config, converted by :func:`latentscore.convert_config`. Raises :class:`latentscore.InvalidConfigError`."""
        return convert_config(self.row["config"])[0]

    @property
    def palettes(self) -> list[Palette]:
        return [Palette.model_validate(palette) for palette in self.row.get("palettes") or []]


def text_in(row: Mapping[str, Any], name: str) -> str:
    """Return the text in a field of a row of unknown origin; empty if it is missing or not text."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


class VibeMap:
    """Unit embeddings, float32 of shape (rows, dim), and their rows."""

    def __init__(
        self, path: Path, kind: str, embeddings: Vectors, rows: Sequence[Mapping[str, Any]], maker: str | None
    ):
        self.path = path
        self.kind = kind
        self.embeddings = embeddings
        self.rows = rows
        self.embedder_fingerprint = maker
        """The fingerprint of the embedder; ``None`` if the file does not name it."""
        self._embedder: Embedder | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(self, vector: Vectors, k: int = 1) -> list[Match]:
        """Return the ``k`` rows with the largest cosine to ``vector``, shape (dim,), best first; ties keep the map's
        order.

        Raises :class:`MapError` for a vector of another dimension, an empty or non-finite vector, and ``k`` below 1.
        """
        if k < 1:
            raise MapError(f"k is {k}; it must be 1 or more")
        if vector.shape != (self.embeddings.shape[1],):
            raise MapError(
                f"{self.path}: the map has {self.embeddings.shape[1]} dimensions, the vector {vector.shape[-1]}; "
                "embed the text with the map's embedder"
            )
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0:
            raise MapError("the text's embedding is empty or not finite; the text needs at least one word")
        # One pass over memory, which a single thread fills; BLAS would wait for its threads, fifty times as long on a busy
        # machine.
        cosines = np.einsum("ij,j->i", self.embeddings, vector / np.float32(length))
        if not np.isfinite(cosines).all():
            raise MapError(f"{self.path}: an embedding is not finite; export the map again")
        k = min(k, len(self))
        best = np.argsort(-cosines, kind="stable")[:k] if k > 1 else [int(np.argmax(cosines))]
        return [Match(float(cosines[i]), int(i), self.rows[int(i)]) for i in best]

    def embed(self, vibe: str, embedder: Embedder | None = None) -> Vectors:
        """Return the embedding of a text, shape (dim,). Raises :class:`MapError` unless the map was made with this embedder."""
        embedder = embedder or self._own_embedder
        maker = self.embedder_fingerprint
        if maker is not None and embedder.fingerprint != maker:
            raise MapError(
                f"{self.path} was made with the embedder {maker}, not {embedder.fingerprint}; "
                "pass that embedder, or export the map again with this one"
            )
        return embedder.embed([vibe])[0]

    @cached_property
    def _own_embedder(self) -> Embedder:
        maker = self.embedder_fingerprint
        if maker is None:
            raise MapError(f"{self.path} does not name its embedder; pass embedder=")
        if self.kind == "audio":
            raise MapError(
                f"{self.path} contains audio embeddings, made with {maker}; pass embedder= with its text encoder"
            )
        return _embedder_named(self.path, maker)


def _embedder_named(path: Path, fingerprint: str) -> Embedder:
    """Return the embedder of a fingerprint, ``<name, id or folder>:<weights>`` or ``builtin/words:<weights>:<dim>``."""
    builtin = fingerprint.startswith(f"{BUILTIN_WORDS}:")
    try:
        return make_embedder(BUILTIN_WORDS if builtin else fingerprint.rpartition(":")[0])
    except LatentScoreError as error:
        raise MapError(f"{path} was made with the embedder {fingerprint}: {error}") from None


def lookup(vibe_map: VibeMap | str | Path, vibe: str, *, embedder: Embedder | None = None) -> Match:
    """Return the row of the map that is nearest to a vibe.

    ``embedder`` is needed only if the map does not name its embedder, or to reuse a loaded one; it must be the map's
    embedder. Raises :class:`MapError`.
    """
    if not isinstance(vibe_map, VibeMap):
        vibe_map = load_map(vibe_map)
    return vibe_map.nearest(vibe_map.embed(vibe, embedder))[0]


def starter_pairs() -> tuple[Mapping[str, Any], ...]:
    """Return the pairs of the starter set, a ``vibe`` and its payload, in the order of the files."""
    return tuple(json.loads(line) for line in starter_lines())


@cache
def starter_lines() -> tuple[str, ...]:
    """Return the lines of the starter set's files."""
    names = sorted(file.name for file in STARTER_FOLDER.iterdir() if file.suffix == ".jsonl")
    return tuple(line for name in names for line in (STARTER_FOLDER / name).read_text(encoding="utf-8").splitlines())


@cache
def starter_map() -> VibeMap:
    """Return the starter set as a map, embedded with the package's word vectors."""
    rows = [{"vibe_original": pair["vibe"], **pair} for pair in starter_pairs()]
    embedder = WordVectorEmbedder()
    vectors = embedder.embed([row["vibe_original"] for row in rows])
    return VibeMap(Path(STARTER), "text", vectors, rows, embedder.fingerprint)


def load_map(path: str | Path) -> VibeMap:
    """Open a map: its folder, its ``.safetensors`` file, or a ``.jsonl`` file in the published field names.

    "starter" is the package's map (use "./starter" for a folder of that name).

    Of a safetensors file, only the header is read: embeddings are memory-mapped, and rows are read when they are
    requested. Raises :class:`MapError` for a file that is missing, damaged or not a map.
    """
    if path == STARTER:
        return starter_map()
    if not isinstance(path, str | Path):
        raise MapError(f'a map is a folder, a file or "starter", not {type(path).__name__}')
    path = user_path(path)
    if path.is_dir():
        found = [path / name for name in (TENSORS_FILE, JSONL_FILE) if (path / name).is_file()]
        if not found:
            raise MapError(
                f"{path} contains no map ({TENSORS_FILE} or {JSONL_FILE}); write one with: lsdata export map"
            )
        path = found[0]
    if not path.is_file():
        raise MapError(f"{path} {why_no_file(path)}; write a map with: lsdata export map")
    loaded = _load_jsonl(path) if path.suffix == ".jsonl" else _load_tensors(path)
    if not len(loaded):
        raise MapError(f"{path} is an empty map")
    return loaded


class _Rows(Sequence[Mapping[str, Any]]):
    """The lines of ``rows.jsonl``, memory-mapped and parsed when they are requested."""

    def __init__(self, path: Path, ends: NDArray[np.int64]) -> None:
        self._path = path
        self._ends = ends
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size != (int(ends[-1]) if len(ends) else 0):
                raise MapError(f"{path} does not belong to its {TENSORS_FILE}; export the map again")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start, end = int(self._ends[index - 1]) if index else 0, int(self._ends[index])
        if end - start > MAX_LINE_BYTES:
            raise MapError(f"{self._path}:{index + 1}: {_too_long()}")
        try:
            row = json.loads(self._bytes[start:end])
        except (ValueError, RecursionError) as error:
            raise MapError(f"{self._path}:{index + 1}: not valid JSON ({error}); export the map again") from None
        if not isinstance(row, dict) or not {"vibe_original", "config"} <= row.keys():
            raise MapError(f"{self._path}:{index + 1}: not a row of a map; export the map again")
        return row


def _load_tensors(path: Path) -> VibeMap:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = _about(file.metadata() or {})
            names = set(file.keys())
    except (SafetensorError, OSError) as error:
        raise MapError(f"{path} cannot be read as safetensors ({error}); export the map again") from None
    if about.get("format") != MAP_FORMAT or names != {"embedding", "row_ends"}:
        raise MapError(f"{path} is not a map of this version ({MAP_FORMAT}); export the map again")
    embeddings, ends = _mapped(path, "embedding", np.float32, 2), _mapped(path, "row_ends", np.int64, 1)
    if len(embeddings) != len(ends) or (np.diff(ends, prepend=0) <= 0).any():
        raise MapError(f"{path}: embeddings and rows do not match; export the map again")
    rows_path = path.with_name(ROWS_FILE)
    if not rows_path.is_file():
        raise MapError(f"{rows_path} is missing: a map is {TENSORS_FILE} and {ROWS_FILE} together; copy both")
    return VibeMap(path, about["kind"], embeddings, _Rows(rows_path, ends), about["embedder"])


def _about(metadata: dict[str, str]) -> dict[str, str]:
    """Return format, kind and embedder of a map; empty for a file that is not a map."""
    try:
        about = json.loads(metadata.get("map", "{}"))
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(about, dict) and all(isinstance(about.get(name), str) for name in ("format", "kind", "embedder"))
    return about if whole else {}


def _mapped(path: Path, name: str, dtype: type[np.generic], ndim: int) -> Any:
    """Memory-map a tensor of a safetensors file. The library has validated the header; its own loader always copies."""
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_size))[name]
    shape = tuple(entry["shape"])
    if entry["dtype"] != {np.float32: "F32", np.int64: "I64"}[dtype] or len(shape) != ndim:
        raise MapError(
            f"{path}: {name} has the type {entry['dtype']} and the shape {list(shape)}; export the map again"
        )
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", 8 + header_size + entry["data_offsets"][0], shape)


def _maker(named: object) -> str | None:
    """Return the embedder that a row names. Raises :class:`TypeError` if it is not text."""
    if named is not None and not isinstance(named, str):
        raise TypeError(f"embedding_model is {type(named).__name__}, not text")
    return named


def _too_long() -> str:
    return f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB; this is not a row of a map"


def _load_jsonl(path: Path) -> VibeMap:
    rows: list[Mapping[str, Any]] = []
    vectors: list[Vectors] = []
    kind, makers = "", set[str | None]()
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            if len(line) > MAX_LINE_BYTES:
                raise MapError(f"{path}:{number}: {_too_long()}")
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
                kind = kind or next(kind for kind, field in EMBEDDING_FIELDS.items() if field in row)
                vectors.append(np.asarray(row.pop(EMBEDDING_FIELDS[kind]), dtype=np.float32))
                makers.add(_maker(row.pop("embedding_model", None)))
                missing = {"vibe_original", "config"} - row.keys()
            except StopIteration:
                names = " or ".join(EMBEDDING_FIELDS.values())
                raise MapError(f"{path}:{number}: no embedding ({names}); this is not a map") from None
            except KeyError:
                raise MapError(f"{path}:{number}: no {EMBEDDING_FIELDS[kind]}, which the first row has") from None
            except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
                raise MapError(f"{path}:{number}: not a row of a map ({error})") from None
            if missing:
                raise MapError(f"{path}:{number}: the field {min(missing)} is missing")
            if vectors[-1].shape != vectors[0].shape or vectors[-1].ndim != 1:
                raise MapError(f"{path}:{number}: an embedding of {vectors[-1].shape}, not {vectors[0].shape}")
            rows.append(row)
    if len(makers) > 1:
        names = ", ".join(sorted(map(str, makers)))
        raise MapError(f"{path}: rows of different embedders ({names}) cannot be compared; export the map again")
    embeddings = np.stack(vectors) if vectors else np.empty((0, 0), np.float32)
    lengths = np.linalg.norm(embeddings, axis=1)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise MapError(f"{path}: an embedding is empty or not finite; export the map again")
    # Files of other tools may contain embeddings of any length; a cosine needs unit length.
    if (abs(lengths - 1) > UNIT_TOLERANCE).any():
        embeddings = embeddings / lengths[:, None]
    return VibeMap(path, kind, embeddings, rows, makers.pop() if makers else None)
