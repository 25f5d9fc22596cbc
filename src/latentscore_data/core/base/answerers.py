"""The kinds of models, identified by the prefix of the model's name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswererKind:
    """A kind of model. ``here`` is true if it runs in this process, without server, key and price."""

    name: str
    prefix: str
    here: bool
    said: str = ""
    """Text after the model's name in the first line of a run."""


BUILTIN = AnswererKind("builtin", "builtin/", True, " (offline, free, English only)")
VERBATIM = "builtin/verbatim"
"""The offline model that takes each text as one vibe, as it stands."""

LOCAL = AnswererKind("local", "local:", True, " (on this machine)")
HOSTED = AnswererKind("hosted", "", False)
"""A provider's model, or one served at an address: any other name."""

KINDS = (BUILTIN, LOCAL, HOSTED)


def kind_of(model: str) -> AnswererKind:
    """The kind of a model's name."""
    return next(kind for kind in KINDS if model.startswith(kind.prefix))
