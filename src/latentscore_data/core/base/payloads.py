"""Convert payloads of other programs to this project's format: configs with a label in every field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from latentscore import FIELDS, InvalidConfigError, MusicConfigPrompt, convert_config
from latentscore.config import FIELDS_LEFT_OUT
from latentscore.json_search import JsonObject

Payload = JsonObject
"""A model's answer as JSON: its title, its config and its palettes."""

UNTITLED: Mapping[str, Any] = {"thinking": "", "title": "Untitled", "palettes": []}
"""The other fields of the payload for a config without one."""

NUMBERS_LABELED = "numbers between two labels: set to the nearest label"
"""A note beside those of :func:`latentscore.convert_config`."""


def convert_payload(payload: Any, layers: Any = None) -> tuple[Any, tuple[str, ...]]:
    """Return the payload with a config of labels, and notes about the changes.

    ``payload`` is a payload, a config, or the JSON text of either. ``layers`` are styles for layers that the config
    does not name. An ambiguous value is returned unchanged, without a note.
    """
    held = mapping_in(payload)
    if held is None:
        return payload, ()
    rest = held if "config" in held else UNTITLED
    config = mapping_in(held.get("config", held))
    if config is None:
        return payload, ()
    if in_labels(config):
        return {**rest, "config": dict(config)}, ()
    if isinstance(layers, Mapping) and FIELDS.keys() >= layers.keys():
        config = {**cast("Mapping[str, Any]", layers), **config}
    try:
        read, notes = convert_config(config)
    except InvalidConfigError:
        return payload, ()
    if isinstance(read, MusicConfigPrompt):
        return {**rest, "config": read.model_dump()}, notes
    labels = read.to_prompt()
    if labels.to_config() != read and FIELDS_LEFT_OUT not in notes:
        notes = (*notes, NUMBERS_LABELED)
    return {**rest, "config": labels.model_dump()}, notes


def in_labels(config: Mapping[str, Any]) -> bool:
    """Whether a config holds a label in each field and its registers in order; without parsing it."""
    return (
        config.keys() == FIELDS.keys()
        and all(value in FIELDS[name].labels for name, value in config.items())
        and config["register_min_oct"] <= config["register_max_oct"]
    )


def mapping_in(value: Any) -> Mapping[str, Any] | None:
    """The value, or what its JSON text holds, where that is a mapping."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None
