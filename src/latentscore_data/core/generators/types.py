"""Generated answers, the protocols of generators, their dependencies, and the base class of kinds of sources."""

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
    """One answer. ``payload`` is None if there is no valid one; ``failure`` is then the reason.

    ``raw_valid`` is True if the model's answer without constrained decoding was valid; None for other generators.
    ``seconds`` is this answer's share of its batch's time; None if nothing is generated. ``cost_usd`` is in US dollars.
    """

    payload: Payload | None = None
    failure: str | None = None
    raw_valid: bool | None = None
    seconds: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None


class Generator(Protocol):
    """Answers vibes with payloads.

    ``fingerprint`` changes if an answer may change. ``batch_size`` is the number of rows per call of :meth:`generate`.
    """

    label: str
    fingerprint: str
    batch_size: int

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        """Yield one :class:`Generated` per row, in order."""
        ...


@runtime_checkable
class AskingGenerator(Protocol):
    """A generator that waits for the network. It answers single rows, up to ``batch_size`` concurrently."""

    label: str
    fingerprint: str
    batch_size: int
    llm: LLM

    async def ask(self, row: VibeRow) -> Generated:
        """Return the answer to one row. Raises :class:`RowFailure` for a failure that is not recorded as an answer."""
        ...


AnyGenerator = Generator | AskingGenerator


@runtime_checkable
class PaidGenerator(Protocol):
    """A generator that counts the cost of its answers itself, because no model client does."""

    usage: Usage


@dataclass(frozen=True)
class SourceName:
    """The parts of ``kind:name=label``."""

    kind: str
    name: str
    label: str


@dataclass(frozen=True)
class GeneratorDeps:
    """The dependencies of generators. Expensive ones are callables and made only if needed."""

    bench: BenchSettings
    configs: ConfigsSettings
    embedder: Callable[[], Embedder]
    sounds: Callable[[], ClapIndex]
    connect: Callable[[str], LLM]
    training_rows: Callable[[], list[ScoredRow]]
    """The rows of SFT-Train that have a config."""
    prompts: PromptsSettings = field(default_factory=PromptsSettings)
    """The system message and the examples before a vibe."""
    executor: Executor | None = None
    """Runs local models; None for this machine."""
    runs: Path = Path()
    """The folder of the training runs. A run id is also a name of a local model."""
    max_concurrency: int = 16
    """Maximum number of concurrent questions to a hosted model."""
    base_for: Callable[[str], str | None] = lambda model: None
    """Returns the base URL of a model's server; None for its provider's default."""
    rows: Sequence[VibeRow] = ()
    """The rows to be answered, for ``dataset:COLUMN``."""
    book: Callable[[str, Sequence[Generated]], None] = lambda model, answers: None
    """Adds the cost of a remote executor's answers for a model to the ledger and to the run's spend."""


@dataclass(frozen=True)
class Depends:
    """The values that determine a source's answers, by name. If one changes, the answers are stale."""

    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownRows:
    """The inputs of a source's description: the compared rows, the training rows, the runs' folder, the prompts."""

    rows: Sequence[VibeRow]
    training: Sequence[ScoredRow]
    runs: Path
    prompts: PromptsSettings = field(default_factory=PromptsSettings)


@dataclass(frozen=True)
class SourceNote:
    """A source's description, and the scorers that chose its answers or training rows: their scores are biased."""

    text: str = ""
    chosen_by: tuple[str, ...] = ()


class SourceKind:
    """A kind of source: makes its generator, and returns its dependencies, its cost and its description.

    A new generator needs a subclass in its own file and one line in ``registry.SOURCES``.
    """

    holds_rows_only = False
    """True for a source that returns payloads of the rows. A suite's rows have none."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        """Return the generator. Raises :class:`InputError` or :class:`MissingError` if it cannot be made."""
        raise NotImplementedError

    def check(self, source: SourceName, settings: Settings) -> None:
        """Raise an error of the source that can be found without loading anything."""

    def depends(self, source: SourceName, settings: Settings, workspace: Workspace) -> Depends:
        """Return what determines its answers. Loads nothing, and works if the model or the rows do not exist yet."""
        return Depends()

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        """Return its description for the report."""
        return SourceNote()

    def plan(
        self, source: SourceName, rows: Sequence[VibeRow], settings: Settings, workspace: Workspace
    ) -> Plan | None:
        """Return its calls and their cost; None for a source that calls no paid model."""
        return None

    def estimate(
        self, source: SourceName, rows: int, settings: Settings, executor: Executor
    ) -> list[RemoteJobEstimate]:
        """Return its jobs on the executor; empty for a source that always runs on this machine."""
        return []


def with_payloads(rows: Sequence[ScoredRow], label: str) -> list[ScoredRow]:
    """Return the rows that hold a valid config. Raises :class:`MissingError` if there are none."""
    held = [row for row in rows if row.config_payload and in_labels(row.config_payload.get("config") or {})]
    if not held:
        raise MissingError(
            f"{label} has no rows to use: SFT-Train contains no configs",
            "run lsdata configs --split SFT-Train first, or leave this source out",
        )
    return held
