"""The schema that a payload is decoded under."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from latentscore import FIELDS, MusicConfigPromptPayload
from latentscore.config import TITLE_MAX_WORDS

TITLE_PATTERN = r'^[^ "\\\x00-\x1f]{1,10}( [^ "\\\x00-\x1f]{1,9}){0,' + str(TITLE_MAX_WORDS - 1) + "}$"
"""One to six words and at most 60 characters: what the schema's lengths alone cannot say."""


@cache
def decoding_schema() -> dict[str, Any]:
    """The payload's JSON schema, tightened by what it leaves to the validators: the words of a title, and that the lowest
    octave is not above the highest (one form of the config for each lowest octave)."""
    schema = copy.deepcopy(MusicConfigPromptPayload.model_json_schema())
    schema["properties"]["title"] = {"type": "string", "pattern": TITLE_PATTERN}
    config = schema["$defs"]["MusicConfigPrompt"]
    octaves = FIELDS["register_min_oct"].labels
    forms: list[dict[str, Any]] = []
    for at, lowest in enumerate(octaves):
        form = copy.deepcopy(config)
        form["properties"]["register_min_oct"] = {"enum": [lowest]}
        form["properties"]["register_max_oct"] = {"enum": list(octaves[at:])}
        forms.append(form)
    schema["properties"]["config"] = {"anyOf": forms}
    del schema["$defs"]["MusicConfigPrompt"]
    return schema
