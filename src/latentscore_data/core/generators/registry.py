"""The generator protocol, the table of kinds, and the way from ``kind:name=label`` to a generator.

A generator answers vibes with payloads. The benchmark renders and scores what it answers; it never sees the scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.generators.local import LocalKind
from latentscore_data.core.generators.lookup import SoundLookupKind, TextLookupKind
from latentscore_data.core.generators.models import HostedKind
from latentscore_data.core.generators.simple import (
    DatasetKind,
    KeywordsKind,
    MostCommonKind,
    RandomKind,
)
from latentscore_data.core.generators.types import (
    AnyGenerator,
    GeneratorDeps,
    SourceKind,
    SourceName,
)

SOURCES: dict[str, SourceKind] = {
    "dataset": DatasetKind(),
    "litellm": HostedKind(),
    "local": LocalKind(),
    "baseline:random": RandomKind(),
    "baseline:keywords": KeywordsKind(),
    "baseline:most-common": MostCommonKind(),
    "baseline:lookup": TextLookupKind(),
    "baseline:clap-lookup": SoundLookupKind(),
}
"""Kinds of sources by what stands before the first colon of ``KIND:NAME[=LABEL]``; a baseline is a kind of its own."""

KINDS = tuple(dict.fromkeys(name.partition(":")[0] for name in SOURCES))
BASELINES = tuple(name.partition(":")[2] for name in SOURCES if name.startswith("baseline:"))


def kind_of(source: SourceName) -> SourceKind:
    """The kind of a source that :func:`parse_source` has read."""
    return SOURCES.get(source.kind) or SOURCES[f"{source.kind}:{source.name}"]


def parse_source(text: str) -> SourceName:
    """``kind:name=label`` taken apart; without a label the source is called ``kind:name``.

    Raises :class:`InputError` for an unknown kind or baseline, or an empty name.
    """
    named, _, label = text.rpartition("=")
    # A path may hold an equals sign, but a label holds no slash.
    if not named or not label or "/" in label:
        named, label = text, text
    kind, _, name = named.partition(":")
    if kind not in KINDS or not name:
        raise InputError(
            f"unknown source {text}",
            "sources are written KIND:NAME[=LABEL], such as dataset:config_payload, baseline:random, "
            f"litellm:provider/model=big or local:path/to/adapter; kinds are {', '.join(KINDS)}",
        )
    if kind == "baseline" and name not in BASELINES:
        raise InputError(f"unknown baseline {name}", f"baselines are {', '.join(BASELINES)}")
    return SourceName(kind, name, label)


def parse_sources(texts: Sequence[str]) -> list[SourceName]:
    """All sources of a run. Raises :class:`InputError` when there is none or two have one label."""
    sources = [parse_source(text) for text in texts]
    if not sources:
        raise InputError("no source is named", "pass --source KIND:NAME[=LABEL] at least once")
    seen: set[str] = set()
    for source in sources:
        if source.label in seen:
            raise InputError(
                f"the label {source.label} is used more than once", "give one of them another: KIND:NAME=LABEL"
            )
        seen.add(source.label)
    return sources


def make_generator(source: str | SourceName, deps: GeneratorDeps) -> AnyGenerator:
    """The generator of a source.

    Raises :class:`InputError` for one that is none, :class:`MissingError` where rows, weights, an extra or a key is missing.
    """
    name = parse_source(source) if isinstance(source, str) else source
    return kind_of(name).make(name, deps)
