"""How a row becomes messages: the same words in training, in the benchmark and in exported chat files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentscore.forms import JSON, AnswerForm
from latentscore.prompt import template_options as template_options
from latentscore.prompt import vibe_message

Message = dict[str, str]


def prompt_messages(vibe: str, system: str | None = None, form: AnswerForm = JSON) -> list[Message]:
    """What a model is asked: the task as the system message (by default that of the form), the vibe as the user's."""
    return [
        {"role": "system", "content": form.system() if system is None else system},
        {"role": "user", "content": vibe_message(vibe)},
    ]


def completion_messages(payload: Mapping[str, Any], form: AnswerForm = JSON) -> list[Message]:
    """The answer that a model learns, in the form in which it is to write."""
    return [{"role": "assistant", "content": form.write(payload)}]
