"""The client of the offline model ``builtin/keywords``.

It needs no network, key or weights and supports English only. :mod:`latentscore.meaning.offline` answers vibes.
"""

from __future__ import annotations

import re
from typing import TypeVar, cast

from pydantic import BaseModel

from latentscore.config import MusicConfigPromptPayload
from latentscore.meaning.offline import OFFLINE_MODEL, fingerprint, payload_for
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.llm.types import Answer, Question
from latentscore_data.core.vibes.excerpts import vibes_for
from latentscore_data.core.vibes.schema import TextScenes, TextVibes

__all__ = ["MODEL", "BuiltinLLM", "fingerprint", "payload_for", "version_of", "vibes_for"]

MODEL = OFFLINE_MODEL

DEFAULT_TEMPERATURE = 0.9
T = TypeVar("T", bound=BaseModel)


def version_of(model: str) -> str:
    """Return the model's name; for the offline model with the version of its rules."""
    return fingerprint() if model == MODEL else model


class BuiltinLLM:
    """Answers vibes with configs and texts with vibes."""

    def __init__(self, model: str = MODEL) -> None:
        if model != MODEL:
            raise InputError(f"there is no offline model {model}", f"use {MODEL}")
        self.model = model
        self.usage = Usage()

    async def ask(self, question: Question, answer_type: type[T]) -> Answer[T]:
        """Return a ``MusicConfigPromptPayload`` or a ``TextVibes``. Raises :class:`InputError` for other types."""
        text = _text_of(question)
        if issubclass(answer_type, MusicConfigPromptPayload):
            temperature = DEFAULT_TEMPERATURE if question.temperature is None else question.temperature
            value: BaseModel = payload_for(
                text, temperature=temperature, seed=question.seed or 0, sample_idx=question.sample_idx
            )
        elif issubclass(answer_type, TextVibes | TextScenes):
            value = vibes_for(text, characters=answer_type is TextVibes)
        else:
            raise InputError(
                f"{self.model} cannot answer with a {answer_type.__name__}", "name a model with --model provider/model"
            )
        self.usage.calls += 1
        return Answer(cast(T, value), model=self.model)

    def drain(self) -> None:
        """Do nothing: there are no calls in flight."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


_WRAPPING = re.compile(r"</?(?:vibe|text)>")


def _text_of(question: Question) -> str:
    """Return the data of a question without its delimiters."""
    parts = question.user if isinstance(question.user, list) else [{"type": "text", "text": question.user}]
    text = "\n".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    return _WRAPPING.sub("", text).strip()
