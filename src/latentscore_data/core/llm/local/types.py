"""The interface of local engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from latentscore.decoding import Prompt as Prompt
from latentscore.decoding import Written as Written


class Engine(Protocol):
    """Answers prompts in batches, in the calling thread."""

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        """One answer per prompt, in order; the prompts of a call share grammar and ``max_tokens``."""
        ...
