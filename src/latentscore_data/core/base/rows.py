"""The row types from text to score. Stages add fields and rename none.

Field names are those of the data sets published in this format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar, cast
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from typing_extensions import TypedDict

from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.jsonl import Line
from latentscore_data.core.base.payloads import UNTITLED, Payload, convert_payload

ROW_FORMAT_VERSION = 1

Split = Literal["SFT-Train", "SFT-Val", "GRPO", "TEST"]
SPLITS: tuple[Split, ...] = ("SFT-Train", "SFT-Val", "GRPO", "TEST")

PUBLISHED_SPLITS: dict[str, str] = {"SFT-Train": "train", "SFT-Val": "validation", "GRPO": "grpo", "TEST": "test"}
"""The names of the splits in exported data sets."""

_SPLIT_SPELLINGS = {
    **{split.replace("-", "_"): split for split in SPLITS},
    **{published: split for split, published in PUBLISHED_SPLITS.items()},
}

Level = Literal["xl", "lg", "m", "sm", "xs"]
LEVELS: tuple[Level, ...] = ("xl", "lg", "m", "sm", "xs")


RowT = TypeVar("RowT")
Item = TypeVar("Item")


class _Row(BaseModel):
    # Unknown columns of other files are kept.
    model_config = ConfigDict(extra="allow")

    @field_validator("dataset", "id_in_dataset", mode="before", check_fields=False)
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        """Data sets number their texts; an id is text here."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        row = dict(cast(Line, data))
        cls._convert(row)
        return row

    @classmethod
    def _convert(cls, row: Line) -> None:
        """Bring the values of a row that another program may have written into the form of this type."""


class SourceText(_Row):
    """A sampled text."""

    dataset: str
    id_in_dataset: str
    text: str
    metadata: JsonObject = Field(default_factory=dict)
    created: str | None = None


def source_id(dataset: str, id_in_dataset: str) -> str:
    """The source document's id: splits and intervals are drawn by it. ``:`` inside a part is escaped."""
    return f"{escape(dataset)}:{escape(id_in_dataset)}"


def escape(part: str) -> str:
    """Return a part of a row id with everything except letters, digits and ``-_. /`` percent-encoded, so that ``:`` is
    unambiguous."""
    return quote(part, safe="-_./ ")


_NEVER_NULL = frozenset(
    {
        "row_id", "dataset", "id_in_dataset", "vibe_index", "text_page", "vibe_scope", "vibe_level", "tags_original",
        "config_candidates", "validation_scores", "candidate_scores", "scores_external", "converted", "candidate_origins",
    }
)  # fmt: skip
"""Fields whose null, in rows from elsewhere, means that they were not given."""


class VibeRow(_Row):
    """One wording of one mood in one text."""

    row_id: str
    dataset: str
    id_in_dataset: str
    vibe_index: int = 0
    text_page: int | list[int] = 0
    vibe_scope: str = "scene"
    character_name: str | None = None
    vibe_level: str = "m"
    vibe_original: str
    tags_original: list[str] = Field(default_factory=list)
    vibe_model: str | None = None
    split: Split | None = None
    vibe_noisy: str | None = None
    tags_noisy: list[str] | None = None

    @classmethod
    def _convert(cls, row: Line) -> None:
        """Rows without a ``row_id`` get one from their content; null values in them mean "not given"."""
        for name in [name for name, value in row.items() if value is None and name in _NEVER_NULL]:
            del row[name]
        if isinstance(split := row.get("split"), str):
            # Published data sets spell SFT-Train as SFT_Train or train; an empty text stands for "no split".
            row["split"] = _SPLIT_SPELLINGS.get(split, split) or None
        if not row.get("vibe_original"):
            return
        row.setdefault("dataset", "unknown")
        row.setdefault("id_in_dataset", digest(row["vibe_original"])[:16])
        if row.get("row_id"):
            return
        row["id_in_dataset"] = str(row["id_in_dataset"])
        content = digest(*(row.get(name) for name in ("vibe_scope", "character_name", "vibe_original")))[:12]
        row["row_id"] = (
            f"{source_id(str(row['dataset']), row['id_in_dataset'])}:{row.get('vibe_index', 0)}:"
            f"{row.get('vibe_scope', 'scene')}:{content}:{row.get('vibe_level', 'm')}"
        )

    @property
    def source_id(self) -> str:
        return source_id(self.dataset, self.id_in_dataset)

    @property
    def vibe_for_training(self) -> str:
        """The wording a model is trained on: noisy where the row was drawn for noise."""
        return self.vibe_noisy if self.vibe_noisy is not None else self.vibe_original


def vibe_row_id(source: str, vibe_index: int, scope: str, descriptor: str, level: str) -> str:
    """``dataset:id_in_dataset:vibe_index:scope:descriptor:level``; ``source`` is already escaped.

    ``descriptor`` is the position of the ladder in its list, with the character's position before it ("1.0").
    """
    return f"{source}:{vibe_index}:{scope}:{descriptor}:{level}"


class ConfigRow(VibeRow):
    """A vibe with its N answers; ``None`` for an invalid answer."""

    config_model: str | None = None
    config_candidates: list[Payload | None] = Field(default_factory=lambda: [])
    validation_scores: dict[str, list[float]] = Field(default_factory=dict)
    config_error: str | None = None
    input_fingerprint: str | None = None
    converted: list[str] = Field(default_factory=lambda: [])
    """Notes about changes that were needed in the answers, or in the configs of a row from another tool, each once."""

    @classmethod
    def _convert(cls, row: Line) -> None:
        """Configs that other programs wrote become configs in labels."""
        super()._convert(row)
        candidates = row.get("config_candidates")
        if isinstance(candidates, list):
            read = [convert_payload(candidate) for candidate in cast("list[Any]", candidates)]
            row["config_candidates"] = [payload for payload, _ in read]
            _note(row, [note for _, notes in read for note in notes])


class _Spent(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    renders: int
    scores: dict[str, float]


class _External(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    final_score: float


class SearchColumn(TypedDict):
    """The result of a search for a row: the indices of its start and its winner among the candidates, and their scores."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    guide: str
    judge: str | None
    surrogate_r2: float | None
    start_index: Annotated[int, Field(ge=0)]
    found_index: Annotated[int, Field(ge=0)]
    start_kept: float | None
    found_kept: float | None
    curve: list[_Spent]
    external: dict[str, dict[str, _External]]


class ScoredRow(ConfigRow):
    """A vibe with its winner and all scores."""

    candidate_scores: dict[str, list[float | None]] = Field(default_factory=dict)
    scores_external: JsonObject = Field(default_factory=dict)
    best_index: Annotated[int, Field(ge=0)] | None = None
    config_payload: Payload | None = None
    candidate_origins: list[str] = Field(default_factory=lambda: [])
    """The origin of each candidate, ``model``, ``map`` or ``search``; empty without a search."""
    search: SearchColumn | None = None
    """What a search found for this row (``core/search/rows.py``)."""

    @property
    def winner_scores(self) -> dict[str, float]:
        """The winner's score by each scorer that gave it one; empty without a winner."""
        best, given = self.best_index, self.candidate_scores.items()
        of_best = {name: scores[best] for name, scores in given if best is not None and best < len(scores)}
        return {name: score for name, score in of_best.items() if score is not None}

    @property
    def winner_score(self) -> float | None:
        """The winner's score by the first scorer; None without one."""
        return self.winner_scores.get(next(iter(self.candidate_scores), ""))

    @field_validator("candidate_origins")
    @classmethod
    def _one_of_each(cls, origins: list[str], info: ValidationInfo) -> list[str]:
        if origins and len(origins) != len(info.data.get("config_candidates", origins)):
            raise ValueError("there must be one of each candidate")
        return origins

    @field_validator("best_index", "search")
    @classmethod
    def _among_candidates(cls, value: Any, info: ValidationInfo) -> Any:
        """Rows in a run's folder hold the scores of their candidates, not the candidates."""
        count = len(info.data.get("config_candidates", ()))
        places = [value["start_index"], value["found_index"]] if info.field_name == "search" and value else [value]
        if count and not all(place is None or place < count for place in places):
            raise ValueError(f"there are {count} candidates")
        return value

    @classmethod
    def _convert(cls, row: Line) -> None:
        """A retrieval map's columns ``config``, ``title`` and ``palettes`` become the payload, in labels."""
        super()._convert(row)
        if row.get("config_payload") is None and row.get("config") is not None:
            own = {name: row.pop(name, None) or default for name, default in UNTITLED.items()}
            row["config_payload"] = {**own, "config": row.pop("config")}
        if row.get("config_payload") is not None:
            row["config_payload"], notes = convert_payload(row["config_payload"], row.get("layers"))
            _note(row, notes)


def _note(row: Line, notes: Sequence[str]) -> None:
    """Add these changes to those in ``converted``."""
    if notes:
        row["converted"] = list(dict.fromkeys([*(row.get("converted") or ()), *notes]))


class BenchRow(_Row):
    """One generator's answer to one row, with its scores, times and cost."""

    row_id: str
    source: str
    dataset: str = ""
    id_in_dataset: str = ""
    vibe_original: str
    vibe_level: str = "m"
    vibe_scope: str = "scene"
    valid: bool
    failure: str | None = None
    config_payload: Payload | None = None
    scores: dict[str, JsonObject] = Field(default_factory=dict)
    generate_seconds: float | None = None
    render_seconds: float | None = None
    score_seconds: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    audio_file: str | None = None

    @property
    def source_id(self) -> str:
        return source_id(self.dataset, self.id_in_dataset)


def text_of(row_id: str) -> str:
    """Return the source text at the beginning of a row id; for ids of other tools, the id itself."""
    return row_id.rsplit(":", 4)[0]


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items; the last one may be shorter. (``itertools.batched`` is new in Python 3.12.)"""
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch


def spread(rows: Iterable[RowT], limit: int | None, text: Callable[[RowT], str]) -> list[RowT]:
    """Return at most ``limit`` rows, in their order, drawn from the source texts in turn, because rows of one text are
    similar and the first rows of a file are not representative."""
    rows = list(rows)
    if limit is None or limit >= len(rows):
        return rows
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []
    for place, row in enumerate(rows):
        turns.append((seen[text(row)], place))
        seen[text(row)] += 1
    return [rows[place] for place in sorted(place for _, place in sorted(turns)[:limit])]


def share_out(limit: int | None, counts: Sequence[int]) -> list[int]:
    """How many of ``limit`` each part gets that holds ``counts``: in proportion, and one at least while the limit lasts.

    A larger limit takes nothing from any part (Adams' method), so that more is added to what was done with a smaller one.
    """
    if limit is None or limit >= sum(counts):
        return list(counts)
    shares = [0] * len(counts)
    for _ in range(limit):
        at = max(range(len(counts)), key=lambda i: (counts[i] > 0 and not shares[i], counts[i] / max(shares[i], 1), -i))
        shares[at] += 1
    return shares


def model_candidates(row: VibeRow) -> list[Payload | None]:
    """Return the candidates of the model, without those that a search added; empty for a row without candidates."""
    candidates: list[Payload | None] = getattr(row, "config_candidates", None) or []
    origins: list[str] = getattr(row, "candidate_origins", None) or ["model"] * len(candidates)
    return [candidate for candidate, origin in zip(candidates, origins, strict=True) if origin == "model"]


def selection_scorers(rows: Sequence[VibeRow]) -> tuple[str, ...]:
    """The scorers that chose the winners of these rows: the first one named when they were scored."""
    found: Counter[str] = Counter()
    for row in rows:
        scores: JsonObject = getattr(row, "candidate_scores", None) or {}
        # The rows in a run's folder hold the scores of their candidates, not the candidates.
        chosen_from: list[Any] = next(iter(scores.values()), cast("list[Any]", []))
        candidates: list[Any] = getattr(row, "config_candidates", None) or chosen_from
        if scores and sum(candidate is not None for candidate in candidates) > 1:
            found[next(iter(scores))] += 1
    return tuple(name for name, _ in found.most_common())
