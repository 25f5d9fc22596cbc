"""Who answers a model's name: the kinds, told apart by how the name begins."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswererKind:
    """A kind of model. ``here`` is true where the answers are made in this process: no server, no key, no price."""

    name: str
    prefix: str
    here: bool
    said: str = ""
    """What the first line of a run says beside the name."""


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
