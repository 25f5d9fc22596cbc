"""The generator protocol, the table of kinds, and the way from ``kind:name=label`` to a generator.

A generator answers vibes with payloads. The benchmark renders and scores what it answers; it never sees the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.generators import lookup, simple
from latentscore_data.core.generators.local import LocalGenerator
from latentscore_data.core.generators.models import LLMGenerator
from latentscore_data.core.generators.remote import RemoteGenerator
from latentscore_data.core.generators.simple import DatasetGenerator
from latentscore_data.core.generators.types import AnyGenerator, AskingGenerator, Generator, GeneratorDeps, SourceName


def _dataset(source: SourceName, needs: GeneratorDeps) -> Generator:
    return DatasetGenerator(source.label, source.name, needs.rows)


BASELINES = ("random", "keywords", "most-common", "lookup", "clap-lookup")


def _baseline(source: SourceName, needs: GeneratorDeps) -> Generator:
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
    return LLMGenerator(
        source.label,
        needs.connect(source.name),
        needs.configs,
        needs.max_concurrency,
        needs.base_for(source.name),
    )


def _local(source: SourceName, needs: GeneratorDeps) -> Generator:
    if needs.modal is not None:
        return RemoteGenerator(source.label, source.name, needs.bench, needs.modal, needs.runs, needs.say)

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
