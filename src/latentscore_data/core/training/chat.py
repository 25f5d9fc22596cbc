"""How a row becomes messages: the same words in training, in the benchmark and in exported chat files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from latentscore_data.core.base.settings import ConfigsSettings
from latentscore_data.core.llm.prompts import config_question

Message = dict[str, str]

_PAYLOAD_ORDER = ("thinking", "title", "config", "palettes")


def prompt_messages(vibe: str) -> list[Message]:
    """What a model is asked: the task as the system message, the vibe as the user's."""
    question = config_question(vibe, ConfigsSettings())
    return [{"role": "system", "content": question.system}, {"role": "user", "content": str(question.user)}]


def answer_text(payload: Mapping[str, Any]) -> str:
    """A payload as the one JSON object that a model is to write, in the schema's order and without blanks."""
    ordered = {name: payload[name] for name in _PAYLOAD_ORDER if name in payload}
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def completion_messages(payload: Mapping[str, Any]) -> list[Message]:
    return [{"role": "assistant", "content": answer_text(payload)}]


def template_options(tokenizer_template: str | None) -> dict[str, Any]:
    """Options of the chat template: thinking models are told not to think aloud, because only JSON is wanted."""
    return {"enable_thinking": False} if "enable_thinking" in (tokenizer_template or "") else {}
