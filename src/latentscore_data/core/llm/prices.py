"""What a call costs: known, nothing, or unknown, and never a guess between."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentscore_data.core.base.answerers import kind_of
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.llm.routes import is_loopback, load_litellm

log = logging.getLogger(__name__)

_OLLAMA = ("ollama/", "ollama_chat/")


@dataclass(frozen=True)
class Price:
    """US dollars per token, and where the figure comes from. Sound has a price of its own with some models."""

    per_token_in: float
    per_token_out: float
    basis: str
    per_audio_token_in: float | None = None

    def of(self, tokens_in: float, tokens_out: float, audio_tokens_in: float = 0) -> float:
        """US dollars for so many tokens; those of sound are not among ``tokens_in``."""
        per_audio = self.per_token_in if self.per_audio_token_in is None else self.per_audio_token_in
        return tokens_in * self.per_token_in + audio_tokens_in * per_audio + tokens_out * self.per_token_out

    @property
    def free(self) -> bool:
        return not (self.per_token_in or self.per_token_out or self.per_audio_token_in)


def costs_nothing(model: str, settings: LLMSettings) -> bool:
    """True when calls are known to be free without looking at any price list."""
    return kind_of(model).here or is_loopback(settings.api_base)


def price_of(model: str, settings: LLMSettings) -> Price | None:
    """The price of a model, or None when nobody here knows it."""
    if kind_of(model).here:
        return Price(0.0, 0.0, "offline")
    if is_loopback(settings.api_base):
        return Price(0.0, 0.0, f"a server on this machine ({settings.api_base})")
    if model.startswith(_OLLAMA) and not settings.api_base:
        base = os.environ.get("OLLAMA_API_BASE")
        return Price(0.0, 0.0, "ollama on this machine") if base is None or is_loopback(base) else None

    entry = _mapped(load_litellm(), model)
    if entry is None:
        return None
    tokens_in, tokens_out = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if tokens_in is None or tokens_out is None:
        return None
    audio_in = entry.get("input_cost_per_audio_token")
    return Price(
        float(tokens_in),
        float(tokens_out),
        f"litellm {litellm_version()} price list",
        None if audio_in is None else float(audio_in),
    )


def _mapped(litellm: Any, model: str) -> dict[str, Any] | None:
    # The table is read directly: litellm's own look-up asks servers about some models.
    table: dict[str, Any] = litellm.model_cost
    if model in table:
        return table[model]
    try:
        bare, provider, _, _ = litellm.get_llm_provider(model)
    except Exception as error:
        log.debug("no provider known for %s: %s", model, type(error).__name__)
        return None
    for name in (f"{provider}/{bare}", bare):
        entry = table.get(name)
        if entry is not None and entry.get("litellm_provider", provider).startswith(provider):
            return entry
    return None


def cost_of_usage(model: str, usage: Mapping[str, Any]) -> float | None:
    """US dollars of one answer by LiteLLM's table, cached and reasoning tokens at their own prices; None where it knows none."""
    litellm = load_litellm()
    try:
        bare, provider, _, _ = litellm.get_llm_provider(model)
        parts = litellm.cost_per_token(
            model=bare, custom_llm_provider=provider, usage_object=litellm.Usage(**usage), call_type="completion"
        )
    except Exception as error:
        log.debug("no cost known for %s: %s", model, type(error).__name__)
        return None
    return sum(parts) or None


def litellm_version() -> str:
    """The installed version, without importing it."""
    from importlib.metadata import version

    return version("litellm")
