"""Generators that need no model: what a data set holds, chance, keywords, and the most common config."""

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

FIRST_VALID = "first_valid"
"""``dataset:first_valid``: the first valid candidate of a row, what its model answers at N = 1."""


SEARCHED, STARTED = "search", "model"
"""``dataset:search``: what a search found for a row; ``dataset:model``: the best of the candidates that it started from."""


def searched(row: VibeRow, which: str) -> Payload | None:
    """The candidate that a search found, or the one that it had to beat; None for a row that was not searched."""
    search: JsonObject | None = getattr(row, "search", None)
    candidates: list[Payload | None] = getattr(row, "config_candidates", None) or []
    return candidates[search["found_index" if which == SEARCHED else "start_index"]] if search else None


def first_valid(row: VibeRow) -> Payload | None:
    """The first candidate that is there, whatever its score."""
    candidates: list[Payload | None] = getattr(row, "config_candidates", None) or []
    return next((candidate for candidate in candidates if candidate), None)


class DatasetGenerator:
    """What the rows hold in a column, normally ``config_payload``. Raises :class:`InputError` when none holds anything."""

    batch_size = 256

    def __init__(self, label: str, column: str, rows: Sequence[VibeRow]) -> None:
        self.label = label
        self._column = column
        held = [self._held(row) for row in rows]
        if rows and not any(held):
            raise InputError(
                f"no row has a payload in {column}",
                "run lsdata configs for this split first" if column == "config_payload" else "check the column's name",
            )
        self.fingerprint = digest("dataset", column, *map(digest, held))

    def _held(self, row: VibeRow) -> Payload | None:
        if self._column == FIRST_VALID:
            return first_valid(row)
        return searched(row, self._column) if self._column in (SEARCHED, STARTED) else getattr(row, self._column, None)

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        for row in rows:
            payload = self._held(row)
            yield checked(payload) if payload else Generated(failure=f"the row has no {self._column}")


class RandomGenerator:
    """Every label equally likely: what a score is worth when nothing was understood."""

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
    """The engine of ``builtin/keywords``: the words of the vibe and nothing else, without its usual variation."""

    batch_size = 64

    def __init__(self, label: str, seed: int) -> None:
        self.label = label
        self._seed = seed
        self._payload_for = builtin.payload_for
        self.fingerprint = digest("keywords", seed, builtin.fingerprint())

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        for row in rows:
            started = perf_counter()
            payload = self._payload_for(row.vibe_original, temperature=0.0, seed=self._seed, sample_idx=0)
            yield checked(payload.model_dump(mode="json"), started)


class MostCommonGenerator:
    """The same config for every vibe: each field's most common label among the training rows.

    Title and palettes are those of the training row that comes nearest to it.
    """

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
    """Each field's most common label (the first in the label order where two are as common), registers in order."""
    config: dict[str, Label] = {}
    for name, spec in FIELDS.items():
        counts = Counter(payload["config"][name] for payload in payloads)
        config[name] = max(spec.labels, key=lambda label, counts=counts: counts[label])
    config["register_max_oct"] = max(int(config["register_min_oct"]), int(config["register_max_oct"]))

    def agreement(payload: Payload) -> int:
        return sum(payload["config"][name] == label for name, label in config.items())

    nearest = max(payloads, key=agreement)
    return {**nearest, "thinking": "The most common choice in every field.", "config": config}


def checked(payload: Payload, started: float | None = None) -> Generated:
    """A payload that went through the schema, or why it did not; ``started`` is when making it began."""
    seconds = None if started is None else perf_counter() - started
    try:
        valid = parse_payload(payload)
    except InvalidConfigError as error:
        return Generated(failure=f"not a valid payload: {error}"[:300], seconds=seconds)
    return Generated(payload=valid.model_dump(mode="json"), seconds=seconds)


WINNERS = "config_payload"


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
    """The largest number of candidates that a row has."""
    return max((len(model_candidates(row)) for row in rows), default=0)


class RandomKind(SourceKind):
    """``baseline:random``."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        return RandomGenerator(source.label, deps.bench.seed)


class KeywordsKind(SourceKind):
    """``baseline:keywords``."""

    note = "reads the words of the vibe"

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        return KeywordsGenerator(source.label, deps.bench.seed)

    def depends(self, source: SourceName, settings: Settings, workspace: Workspace) -> Depends:
        return Depends(versions={"builtin": builtin.fingerprint()})

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        return SourceNote(self.note)


class MostCommonKind(SourceKind):
    """``baseline:most-common``."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        return MostCommonGenerator(source.label, deps.training_rows())

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        return SourceNote(f"one config for everything, from {len(known.training)} training rows")
