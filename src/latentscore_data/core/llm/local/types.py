"""What a local engine is given and gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from latentscore.forms import JSON, Grammar


@dataclass(frozen=True)
class Prompt:
    """One conversation to answer. ``grammar`` None lets the model write freely; a temperature of 0 takes the likeliest."""

    messages: Sequence[dict[str, Any]]
    max_tokens: int
    grammar: Grammar | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    openings: Sequence[str] = JSON.openings
    """What an answer begins with, one of them: a free one that begins otherwise need not be written to its end."""


@dataclass(frozen=True)
class Written:
    """An answer. ``cut`` is true where it ended at ``max_tokens``."""

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool
    cost_usd: float = 0.0
    """What a hired machine took for it."""


class Engine(Protocol):
    """Answers prompts in batches, in the thread that calls it."""

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        """One answer per prompt, in order; the prompts of a call share grammar and ``max_tokens``."""
        ...
