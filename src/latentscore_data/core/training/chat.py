"""How a row becomes messages: the same words in training, in the benchmark and in exported chat files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from latentscore.prompt import PAYLOAD_ORDER, config_system, vibe_message
from latentscore.prompt import template_options as template_options

Message = dict[str, str]


def prompt_messages(vibe: str, system: str | None = None) -> list[Message]:
    """What a model is asked: the task as the system message (by default the package's), the vibe as the user's."""
    return [
        {"role": "system", "content": config_system() if system is None else system},
        {"role": "user", "content": vibe_message(vibe)},
    ]


def answer_text(payload: Mapping[str, Any]) -> str:
    """A payload as the one JSON object that a model is to write, in the schema's order and without blanks."""
    ordered = {name: payload[name] for name in PAYLOAD_ORDER if name in payload}
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def completion_messages(payload: Mapping[str, Any]) -> list[Message]:
    return [{"role": "assistant", "content": answer_text(payload)}]
