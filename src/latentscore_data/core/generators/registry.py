"""The generator protocol, the table of kinds, and the way from ``kind:name=label`` to a generator.

A generator answers vibes with payloads. The benchmark renders and scores what it answers; it never sees the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.rows import ScoredRow, VibeRow

if TYPE_CHECKING:
    from latentscore.embed import Embedder
    from latentscore_data.core.base.settings import BenchSettings, ConfigsSettings, ModalSettings
    from latentscore_data.core.llm.client import LLM


@dataclass(frozen=True)
class Generated:
    """One answer. ``payload`` is None when there is no valid one, and ``failure`` says why in a line that can be counted.

    ``raw_valid`` says whether the model's free answer was valid, for models that are held to the schema while decoding.
    ``seconds`` is this answer's share of its batch; None where time means nothing (looking into a file).
    """

    payload: dict[str, Any] | None = None
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


@dataclass(frozen=True)
class SourceName:
    """``kind:name=label`` taken apart."""

    kind: str
    name: str
    label: str


class SoundIndex(Protocol):
    """CLAP as ``clap-lookup`` needs it: texts and sounds in one space."""

    fingerprint: str

    def texts(self, vibes: Sequence[str]) -> Any:
        """Unit vectors of texts, shape (texts, dim)."""
        ...

    def sounds(self, payloads: Sequence[Mapping[str, Any]]) -> Any:
        """Unit vectors of the rendered payloads, shape (payloads, dim)."""
        ...


@dataclass(frozen=True)
class GeneratorDeps:
    """What generators may draw on beyond the row they answer. The callables do the expensive part only when called."""

    bench: BenchSettings
    configs: ConfigsSettings
    embedder: Callable[[], Embedder]
    sounds: Callable[[], SoundIndex]
    connect: Callable[[str], LLM]
    training_rows: Callable[[], list[ScoredRow]]
    """Rows of SFT-Train that have a config."""
    modal: ModalSettings | None = None
    """Where local models run on Modal; None for this machine."""
    runs: Path = Path()
    """The folder of the training runs, whose names are model names, too."""
    max_concurrency: int = 16
    """Most questions in flight to a hosted model."""
    base_for: Callable[[str], str | None] = lambda model: None
    """Where a model runs, if not at its provider's."""
    rows: Sequence[VibeRow] = ()
    """The rows that will be asked, for generators that look up what they hold."""
    say: Callable[[str], None] = lambda message: None
    """Told what happens on the way to an answer."""


def _dataset(source: SourceName, needs: GeneratorDeps) -> Generator:
    from latentscore_data.core.generators.simple import DatasetGenerator

    return DatasetGenerator(source.label, source.name, needs.rows)


BASELINES = ("random", "keywords", "most-common", "lookup", "clap-lookup")


def _baseline(source: SourceName, needs: GeneratorDeps) -> Generator:
    from latentscore_data.core.generators import lookup, simple

    match source.name:
        case "random":
            return simple.RandomGenerator(source.label, needs.bench.seed)
        case "keywords":
            return simple.KeywordsGenerator(source.label, needs.bench.seed)
        case "most-common":
            return simple.MostCommonGenerator(source.label, needs.training_rows())
        case "clap-lookup":
            return lookup.SoundLookup(source.label, needs.training_rows(), needs.sounds())
        case "lookup":
            return lookup.TextLookup(source.label, needs.training_rows(), needs.embedder())
        case _:
            raise _unknown_baseline(source.name)


def _unknown_baseline(name: str) -> InputError:
    return InputError(f"unknown baseline {name}", f"baselines are {', '.join(BASELINES)}")


def _litellm(source: SourceName, needs: GeneratorDeps) -> AskingGenerator:
    from latentscore_data.core.generators.models import LLMGenerator

    return LLMGenerator(
        source.label,
        needs.connect(source.name),
        needs.configs,
        needs.max_concurrency,
        needs.base_for(source.name),
    )


def _local(source: SourceName, needs: GeneratorDeps) -> Generator:
    if needs.modal is not None:
        from latentscore_data.core.generators.remote import RemoteGenerator

        return RemoteGenerator(source.label, source.name, needs.bench, needs.modal, needs.runs, needs.say)
    from latentscore_data.core.generators.local import LocalGenerator

    return LocalGenerator(
        source.label,
        source.name,
        batch_size=needs.bench.batch_size,
        max_new_tokens=needs.bench.max_new_tokens,
        runs=needs.runs,
    )


GENERATORS: dict[str, Callable[[SourceName, GeneratorDeps], AnyGenerator]] = {
    "dataset": _dataset,
    "baseline": _baseline,
    "litellm": _litellm,
    "local": _local,
}
"""Kinds of sources: what stands before the first colon of ``KIND:NAME[=LABEL]``."""


def parse_source(text: str) -> SourceName:
    """``kind:name=label`` taken apart; without a label the source is called ``kind:name``.

    Raises :class:`InputError` for an unknown kind or baseline, or an empty name.
    """
    named, _, label = text.rpartition("=")
    # A path may hold an equals sign, but a label holds no slash.
    if not named or not label or "/" in label:
        named, label = text, text
    kind, _, name = named.partition(":")
    if kind not in GENERATORS or not name:
        raise InputError(
            f"unknown source {text}",
            "sources are written KIND:NAME[=LABEL], such as dataset:config_payload, baseline:random, "
            f"litellm:provider/model=big or local:path/to/adapter; kinds are {', '.join(GENERATORS)}",
        )
    if kind == "baseline" and name not in BASELINES:
        raise _unknown_baseline(name)
    return SourceName(kind, name, label)


def parse_sources(texts: Sequence[str]) -> list[SourceName]:
    """All sources of a run. Raises :class:`InputError` when there is none or two have one label."""
    sources = [parse_source(text) for text in texts]
    if not sources:
        raise InputError("no source is named", "pass --source KIND:NAME[=LABEL] at least once")
    seen: set[str] = set()
    for source in sources:
        if source.label in seen:
            raise InputError(f"the label {source.label} is used twice", "give one of them another: KIND:NAME=LABEL")
        seen.add(source.label)
    return sources


def make_generator(source: str | SourceName, needs: GeneratorDeps) -> AnyGenerator:
    """The generator of a source.

    Raises :class:`InputError` for one that is none, :class:`MissingError` where rows, weights, an extra or a key is missing.
    """
    name = parse_source(source) if isinstance(source, str) else source
    return GENERATORS[name.kind](name, needs)


def with_payloads(rows: Sequence[ScoredRow], label: str) -> list[ScoredRow]:
    """The training rows that hold a config. Raises :class:`MissingError` when there is nothing to learn from."""
    held = [row for row in rows if row.config_payload]
    if not held:
        raise MissingError(
            f"{label} has nothing to look at: SFT-Train holds no configs",
            "run lsdata configs --split SFT-Train first, or leave this source out",
        )
    return held
