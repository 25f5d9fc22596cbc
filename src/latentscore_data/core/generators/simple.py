"""Generators without a model: a column of a data set, random configs, keywords, and the most common config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from time import perf_counter

from latentscore import FIELDS, InvalidConfigError, parse_payload, random_config
from latentscore.config import COLORS_PER_PALETTE, PALETTE_COUNT
from latentscore.json_search import JsonObject
from latentscore.labels import PALETTE_WEIGHTS, Label
from latentscore.seeds import digest, rng_for
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.payloads import Payload
from latentscore_data.core.base.rows import ScoredRow, VibeRow, model_candidates, selection_scorers
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
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
from latentscore_data.core.llm import builtin

WINNERS = "config_payload"
FIRST_VALID = "first_valid"
"""``dataset:first_valid``: the first valid candidate of a row, which is the model's answer with N = 1."""

SEARCHED, STARTED = "search", "model"
"""``dataset:search``: the candidate that a search found; ``dataset:model``: the best candidate that it started from."""


def payload_in(row: VibeRow, column: str) -> Payload | None:
    """Return the payload of a row in a column (or :data:`FIRST_VALID`, :data:`SEARCHED`, :data:`STARTED`), or None."""
    candidates: list[Payload | None] = getattr(row, "config_candidates", None) or []
    if column == FIRST_VALID:
        return next((candidate for candidate in candidates if candidate), None)
    if column in (SEARCHED, STARTED):
        search: JsonObject | None = getattr(row, "search", None)
        return candidates[search["found_index" if column == SEARCHED else "start_index"]] if search else None
    return getattr(row, column, None)


class DatasetGenerator:
    """``dataset:COLUMN``: the payloads of the rows. Raises :class:`InputError` if no row has one."""

    batch_size = 256

    def __init__(self, label: str, column: str, rows: Sequence[VibeRow]) -> None:
        self.label = label
        self._column = column
        held = [payload_in(row, column) for row in rows]
        if rows and not any(held):
            raise InputError(
                f"no row has a payload in {column}",
                "run lsdata configs for this split first" if column == "config_payload" else "check the column's name",
            )
        self.fingerprint = digest("dataset", column, *map(digest, held))

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        for row in rows:
            payload = payload_in(row, self._column)
            yield checked(payload) if payload else Generated(failure=f"the row has no {self._column}")


class RandomGenerator:
    """``baseline:random``: every label is drawn with equal probability, whatever the vibe."""

    batch_size = 64

    def __init__(self, label: str, seed: int) -> None:
        self.label = label
        self._seed = seed
        self.fingerprint = digest("random", seed)

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        for row in rows:
            started = perf_counter()
            rng = rng_for(self._seed, row.row_id, "baseline:random")
            palettes = [
                {
                    "colors": [
                        {"hex": f"#{int(rng.integers(1 << 24)):06X}", "weight": str(rng.choice(PALETTE_WEIGHTS))}
                        for _ in range(COLORS_PER_PALETTE)
                    ]
                }
                for _ in range(PALETTE_COUNT)
            ]
            payload = {
                "thinking": "Every label is drawn with equal chance.",
                "title": "Chance",
                "config": random_config(rng).model_dump(),
                "palettes": palettes,
            }
            yield checked(payload, started)


class KeywordsGenerator:
    """``baseline:keywords``: the answers of ``builtin/keywords`` at temperature 0."""

    batch_size = 64

    def __init__(self, label: str, seed: int) -> None:
        self.label = label
        self._seed = seed
        self.fingerprint = digest("keywords", seed, builtin.fingerprint())

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        for row in rows:
            started = perf_counter()
            payload = builtin.payload_for(row.vibe_original, temperature=0.0, seed=self._seed, sample_idx=0)
            yield checked(payload.model_dump(mode="json"), started)


class MostCommonGenerator:
    """``baseline:most-common``: one config for every vibe, with each field's most common label of the training rows."""

    batch_size = 256

    def __init__(self, label: str, training_rows: Sequence[ScoredRow]) -> None:
        self.label = label
        payloads = [row.config_payload for row in with_payloads(training_rows, label) if row.config_payload]
        self._payload = most_common_payload(payloads)
        self.fingerprint = digest("most-common", self._payload)

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        for _ in rows:
            yield checked(self._payload)


def most_common_payload(payloads: Sequence[Payload]) -> Payload:
    """Return each field's most common label (on a tie the first in the order of labels), with registers in order.

    Title and palettes are those of the payload that has most of these labels.
    """
    config: dict[str, Label] = {}
    for name, spec in FIELDS.items():
        counts = Counter(payload["config"][name] for payload in payloads)
        config[name] = max(spec.labels, key=lambda label, counts=counts: counts[label])
    config["register_max_oct"] = max(int(config["register_min_oct"]), int(config["register_max_oct"]))
    nearest = max(payloads, key=lambda p: sum(p["config"][name] == label for name, label in config.items()))
    return {**nearest, "thinking": "The most common choice in every field.", "config": config}


def checked(payload: Payload, started: float | None = None) -> Generated:
    """Return the validated payload or the failure. ``started`` is the :func:`perf_counter` before it was made."""
    seconds = None if started is None else perf_counter() - started
    try:
        valid = parse_payload(payload)
    except InvalidConfigError as error:
        return Generated(failure=f"not a valid payload: {error}"[:300], seconds=seconds)
    return Generated(payload=valid.model_dump(mode="json"), seconds=seconds)


class DatasetKind(SourceKind):
    """``dataset:COLUMN``."""

    holds_rows_only = True

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        return DatasetGenerator(source.label, source.name, deps.rows)

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        made_by = _made_by(known.rows)
        if source.name == WINNERS:
            return SourceNote(_note(f"best of {most_candidates(known.rows)}", made_by), selection_scorers(known.rows))
        if source.name == FIRST_VALID:
            return SourceNote(_note("the first valid answer, before any choice", made_by))
        if source.name in (SEARCHED, STARTED):
            guides = {str(search["guide"]) for row in known.rows if (search := getattr(row, "search", None))}
            what = "found by search" if source.name == SEARCHED else "best of the model's candidates"
            return SourceNote(_note(what, made_by), tuple(sorted(guides)))
        return SourceNote(made_by)


def _note(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _made_by(rows: Sequence[VibeRow]) -> str:
    models = Counter(str(model) for row in rows if (model := getattr(row, "config_model", None)))
    names = ", ".join(name for name, _ in models.most_common(3))
    return f"configs by {names}" if models else ""


def most_candidates(rows: Sequence[VibeRow]) -> int:
    """Return the largest number of candidates of a row that its model wrote."""
    return max((len(model_candidates(row)) for row in rows), default=0)


class RandomKind(SourceKind):
    """``baseline:random``."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        return RandomGenerator(source.label, deps.bench.seed)


class KeywordsKind(SourceKind):
    """``baseline:keywords``."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        return KeywordsGenerator(source.label, deps.bench.seed)

    def depends(self, source: SourceName, settings: Settings, workspace: Workspace) -> Depends:
        return Depends(versions={"builtin": builtin.fingerprint()})

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        return SourceNote("reads the words of the vibe")


class MostCommonKind(SourceKind):
    """``baseline:most-common``."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        return MostCommonGenerator(source.label, deps.training_rows())

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        return SourceNote(f"one config for everything, from {len(known.training)} training rows")
