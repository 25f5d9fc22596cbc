"""The table of kinds of sources, and the construction of a generator from ``kind:name=label``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.generators.local import LocalKind
from latentscore_data.core.generators.lookup import SoundLookupKind, TextLookupKind
from latentscore_data.core.generators.models import HostedKind
from latentscore_data.core.generators.simple import DatasetKind, KeywordsKind, MostCommonKind, RandomKind
from latentscore_data.core.generators.types import AnyGenerator, GeneratorDeps, SourceKind, SourceName

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
"""Kinds of sources by the KIND of ``KIND:NAME[=LABEL]``; each baseline is a kind by KIND:NAME."""

KINDS = tuple(dict.fromkeys(name.partition(":")[0] for name in SOURCES))
BASELINES = tuple(name.partition(":")[2] for name in SOURCES if name.startswith("baseline:"))


def kind_of(source: SourceName) -> SourceKind:
    """Return the kind of a source that :func:`parse_source` has parsed."""
    return SOURCES.get(source.kind) or SOURCES[f"{source.kind}:{source.name}"]


def parse_source(text: str) -> SourceName:
    """Parse ``kind:name=label``; the default label is ``kind:name``.

    Raises :class:`InputError` for an unknown kind or baseline, or an empty name.
    """
    named, _, label = text.rpartition("=")
    # A path may contain an equals sign, a label contains no slash.
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
    """Parse all sources of a run. Raises :class:`InputError` if there is none, or if two have the same label."""
    sources = [parse_source(text) for text in texts]
    if not sources:
        raise InputError("no source is named", "pass --source KIND:NAME[=LABEL] at least once")
    label, count = Counter(source.label for source in sources).most_common(1)[0]
    if count > 1:
        raise InputError(f"the label {label} is used more than once", "give one of them another: KIND:NAME=LABEL")
    return sources


def make_generator(source: str | SourceName, deps: GeneratorDeps) -> AnyGenerator:
    """Return the generator of a source.

    Raises :class:`InputError` for an invalid source, :class:`MissingError` for missing rows, weights, extras or keys.
    """
    name = parse_source(source) if isinstance(source, str) else source
    return kind_of(name).make(name, deps)
