"""Answers, the protocols of generators, and what generators may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from latentscore.embed import Embedder
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.payloads import Payload, in_labels
from latentscore_data.core.base.rows import ScoredRow, VibeRow
from latentscore_data.core.base.settings import BenchSettings, ConfigsSettings, PromptsSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.llm.types import LLM
from latentscore_data.core.scoring.clap_index import ClapIndex
from latentscore_data.core.scoring.executor import Executor, RemoteJobEstimate


@dataclass(frozen=True)
class Generated:
    """One answer. ``payload`` is None when there is no valid one, and ``failure`` says why in a line that can be counted.

    ``raw_valid`` says whether the model's free answer was valid, for models that are held to the schema while decoding.
    ``seconds`` is this answer's share of its batch; None where time means nothing (looking into a file).
    """

    payload: Payload | None = None
    failure: str | None = None
    raw_valid: bool | None = None
    seconds: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None


class Generator(Protocol):
    """Answers vibes.

    ``fingerprint`` changes whenever an answer could change. ``batch_size`` is how many rows it likes at once.
    """

    label: str
    fingerprint: str
    batch_size: int

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        """One :class:`Generated` per row, in order."""
        ...


@runtime_checkable
class AskingGenerator(Protocol):
    """A generator that waits for a network: asked row by row, many at once."""

    label: str
    fingerprint: str
    batch_size: int
    llm: LLM

    async def ask(self, row: VibeRow) -> Generated:
        """The answer to one row. Raises :class:`~latentscore_data.core.base.loop.RowFailure` where it may be tried again."""
        ...


AnyGenerator = Generator | AskingGenerator


@runtime_checkable
class PaidGenerator(Protocol):
    """A generator whose answers cost money that no model client counts."""

    usage: Usage


@dataclass(frozen=True)
class SourceName:
    """``kind:name=label`` taken apart."""

    kind: str
    name: str
    label: str


@dataclass(frozen=True)
class GeneratorDeps:
    """What generators may draw on beyond the row they answer. The callables do the expensive part only when called."""

    bench: BenchSettings
    configs: ConfigsSettings
    embedder: Callable[[], Embedder]
    sounds: Callable[[], ClapIndex]
    connect: Callable[[str], LLM]
    training_rows: Callable[[], list[ScoredRow]]
    """Rows of SFT-Train that have a config."""
    prompts: PromptsSettings = field(default_factory=PromptsSettings)
    """What models are told before a vibe."""
    executor: Executor | None = None
    """Where local models answer; None for this machine."""
    runs: Path = Path()
    """The folder of the training runs, whose names are model names, too."""
    max_concurrency: int = 16
    """Most questions in flight to a hosted model."""
    base_for: Callable[[str], str | None] = lambda model: None
    """Where a model runs, if not at its provider's."""
    rows: Sequence[VibeRow] = ()
    """The rows that will be asked, for generators that look up what they hold."""
    book: Callable[[str, Sequence[Generated]], None] = lambda model, answers: None
    """Books what hired machines have answered for a model: into the ledger, and towards the cap on the run."""
    say: Callable[[str], None] = lambda message: None
    """Told what happens on the way to an answer."""


@dataclass(frozen=True)
class Depends:
    """What decides the answers of a source, by name: it is stale when one of them changes."""

    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownRows:
    """What a source may be described from: the rows that are compared, the training rows, the folder of the runs, and the prompts."""

    rows: Sequence[VibeRow]
    training: Sequence[ScoredRow]
    runs: Path
    prompts: PromptsSettings = field(default_factory=PromptsSettings)


@dataclass(frozen=True)
class SourceNote:
    """What is worth knowing of a source, and the scorers that had a say in its answers: their praise is worth less."""

    text: str = ""
    chosen_by: tuple[str, ...] = ()


class SourceKind:
    """A kind of source: how its generator is made, what it depends on, what it costs, and what is known of it.

    Whoever adds a generator writes one in the generator's own file and one line in ``registry.SOURCES``.
    """

    holds_rows_only = False
    """True for a source that shows what the rows hold: in a suite they hold nothing."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        """Return the generator. Raises :class:`InputError` or :class:`MissingError` where rows, weights or a key is missing."""
        raise NotImplementedError

    def check(self, source: SourceName, settings: Settings) -> None:
        """Raise what would keep it from answering and can be known without loading anything."""

    def depends(self, source: SourceName, settings: Settings, workspace: Workspace) -> Depends:
        """What decides its answers. Nothing is loaded and nothing need exist."""
        return Depends()

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        """What is known of it before anything is scored."""
        return SourceNote()

    def plan(
        self, source: SourceName, rows: Sequence[VibeRow], settings: Settings, workspace: Workspace
    ) -> Plan | None:
        """What it would ask and cost; None for a source that calls no paid model."""
        return None

    def estimate(
        self, source: SourceName, rows: int, settings: Settings, executor: Executor
    ) -> list[RemoteJobEstimate]:
        """What its answers take on the executor; empty for a source that answers here in any case."""
        return []


def with_payloads(rows: Sequence[ScoredRow], label: str) -> list[ScoredRow]:
    """The training rows that hold a valid config. Raises :class:`MissingError` when there is nothing to learn from."""
    held = [row for row in rows if row.config_payload and in_labels(row.config_payload.get("config") or {})]
    if not held:
        raise MissingError(
            f"{label} has no rows to use: SFT-Train contains no configs",
            "run lsdata configs --split SFT-Train first, or leave this source out",
        )
    return held
