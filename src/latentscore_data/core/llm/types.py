"""Questions, answers, and the protocol of model clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from latentscore.json_search import JsonObject
from latentscore_data.core.base.loop import Client

T = TypeVar("T", bound=BaseModel)

Messages = list[JsonObject]
"""A conversation in OpenAI's format: one object with ``role`` and ``content`` for each message."""

Sampling = dict[str, float]
"""Sampling parameters by name (temperature, top_p, max_tokens, seed)."""


@dataclass(frozen=True)
class Question:
    """A request to a model. ``user`` is text or a list of content parts (text, audio).

    ``sample_idx`` is the candidate's number: the same question with another number is another sample.
    """

    system: str
    user: str | list[JsonObject]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    sample_idx: int = 0

    @property
    def messages(self) -> Messages:
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters that are set."""
        names = ("temperature", "top_p", "max_tokens", "seed")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A model's answer as an object, with tokens, time and cost. ``cost_usd`` is ``None`` if the price is unknown."""

    value: T
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0
    seconds: float = 0.0
    finish_reason: str = "stop"
    cached: bool = False
    model: str = ""


class LLM(Client, Protocol):
    """The protocol of model clients."""

    model: str

    async def ask(self, question: Question, answer_type: type[T]) -> Answer[T]:
        """Return the answer as an ``answer_type``.

        Raises :class:`~latentscore_data.core.base.loop.RowFailure` if this question has no answer,
        :class:`~latentscore_data.core.base.loop.NotAttempted` if the run is stopping, and
        :class:`~latentscore_data.core.base.errors.LsdataError` if the run cannot continue (an invalid key, the budget).
        """
        ...
