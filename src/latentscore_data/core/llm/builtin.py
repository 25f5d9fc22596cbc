"""The client of the offline models: ``builtin/keywords`` answers from the words of a text, ``builtin/verbatim`` takes a text as a vibe.

They need no network, key or weights; ``builtin/keywords`` supports English only. :mod:`latentscore.meaning.offline` answers vibes.
"""

from __future__ import annotations

import re
from typing import Any, cast

from pydantic import BaseModel

from latentscore.config import MusicConfigPromptPayload
from latentscore.meaning.offline import OFFLINE_MODEL, fingerprint, payload_for
from latentscore_data.core.base.answerers import VERBATIM
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.loop import RowFailure
from latentscore_data.core.llm.types import LLM, Answer, Question, T
from latentscore_data.core.vibes.excerpts import vibes_for
from latentscore_data.core.vibes.schema import STRING_MAX_CHARS, Ladder, SceneVibe, TextScenes, TextVibes, Vibe

MODEL = OFFLINE_MODEL

DEFAULT_TEMPERATURE = 0.9


def version_of(model: str) -> str:
    """Return the model's name; for the offline model with the version of its rules."""
    return fingerprint() if model == MODEL else model


class BuiltinLLM(LLM):
    """Answers vibes with configs and texts with vibes."""

    def __init__(self, model: str = MODEL) -> None:
        if model not in (MODEL, VERBATIM):
            raise InputError(
                f"there is no offline model {model}", f"use {MODEL}, or {VERBATIM} for texts that are vibes already"
            )
        self.model = model
        self.usage = Usage()

    async def ask(self, question: Question, answer_type: type[T]) -> Answer[T]:
        """Return a ``MusicConfigPromptPayload`` or a ``TextVibes``. Raises :class:`InputError` for other types."""
        text = _text_of(question)
        if self.model == VERBATIM:
            value: BaseModel = _as_it_stands(text, answer_type)
        elif issubclass(answer_type, MusicConfigPromptPayload):
            temperature = DEFAULT_TEMPERATURE if question.temperature is None else question.temperature
            value = payload_for(text, temperature=temperature, seed=question.seed or 0, sample_idx=question.sample_idx)
        elif issubclass(answer_type, TextVibes | TextScenes):
            value = vibes_for(text, characters=answer_type is TextVibes)
        else:
            raise InputError(
                f"{self.model} cannot answer with a {answer_type.__name__}", "name a model with --model provider/model"
            )
        self.usage.calls += 1
        return Answer(cast(T, value), model=self.model)


def _as_it_stands(text: str, answer_type: type[BaseModel]) -> BaseModel:
    """A text as the only vibe of its answer, the same in all lengths: :func:`extraction.rows_of` makes one row of it."""
    if not issubclass(answer_type, TextVibes | TextScenes):
        raise InputError(f"{VERBATIM} takes texts as vibes, for lsdata vibes alone", f"use {MODEL} or another model")
    text = text.removeprefix("(Page 0)").strip()
    if not text or len(text) > STRING_MAX_CHARS:
        raise RowFailure("bad request", f"{len(text):,} characters are no vibe: from 1 to {STRING_MAX_CHARS:,} are")
    ladder = Ladder(xl=text, lg=text, m=text, sm=text, xs=text)
    parts: dict[str, Any] = {"vibe_index": 0, "text_page": 0, "characters": [], "scene_vibes": [ladder], "tags": []}
    return TextVibes(vibes=[Vibe(**parts)]) if answer_type is TextVibes else TextScenes(vibes=[SceneVibe(**parts)])


_WRAPPING = re.compile(r"</?(?:vibe|text)>")


def _text_of(question: Question) -> str:
    """Return the data of a question without its delimiters."""
    parts = question.user if isinstance(question.user, list) else [{"type": "text", "text": question.user}]
    text = "\n".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    return _WRAPPING.sub("", text).strip()
