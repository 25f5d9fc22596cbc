"""Prices of models with their sources, and the cost of a call."""

from __future__ import annotations

import fnmatch
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from latentscore.json_search import JsonObject
from latentscore_data.core.base.answerers import kind_of
from latentscore_data.core.base.errors import StoppedError
from latentscore_data.core.base.proxies import is_loopback
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.llm.openrouter_prices import newest_list
from latentscore_data.core.llm.replies import field_of, whole
from latentscore_data.core.llm.routes import load_litellm

log = logging.getLogger(__name__)

MILLION = 1_000_000
BATCH_SHARE = 0.5
"""Price of a provider's batch API relative to direct calls, if a price list has no batch price."""

_OLLAMA = ("ollama/", "ollama_chat/")


@dataclass(frozen=True)
class Price:
    """US dollars per token. ``basis`` names the source and ``date`` its date, if known.

    Some models have separate prices for audio and for cached prompt tokens.
    """

    per_token_in: float
    per_token_out: float
    basis: str
    per_audio_token_in: float | None = None
    per_cached_token_in: float | None = None
    date: str = ""
    declared: bool = False
    """True for a price from the settings, which also determines the cost of answers."""

    def of(self, tokens_in: float, tokens_out: float, audio_tokens_in: float = 0, cached_tokens_in: float = 0) -> float:
        """Return the cost in US dollars; audio and cached tokens are not included in ``tokens_in``."""
        per_audio = self.per_token_in if self.per_audio_token_in is None else self.per_audio_token_in
        per_cached = self.per_token_in if self.per_cached_token_in is None else self.per_cached_token_in
        prompt = tokens_in * self.per_token_in + audio_tokens_in * per_audio + cached_tokens_in * per_cached
        return prompt + tokens_out * self.per_token_out

    @property
    def free(self) -> bool:
        return not (self.per_token_in or self.per_token_out or self.per_audio_token_in)

    @property
    def source(self) -> str:
        """The source with its date, for a plan."""
        return f"{self.basis}, {self.date}" if self.date else self.basis

    def in_words(self) -> str:
        """Both prices per million tokens, with their source."""
        if self.free:
            return f"free ({self.source})"
        per_in, per_out = (MILLION * price for price in (self.per_token_in, self.per_token_out))
        return f"${per_in:.4g} in, ${per_out:.4g} out per million tokens ({self.source})"


def costs_nothing(model: str, settings: LLMSettings) -> bool:
    """Return True if calls are known to be free without a price list."""
    declared = _declared(model, settings)
    if declared is not None:
        return declared.free
    return kind_of(model).here or is_loopback(settings.api_base)


def price_of(model: str, settings: LLMSettings, *, batch: bool = False) -> Price | None:
    """Return the price of a model, or None if no source has it; with ``batch``, that of the provider's batch API.

    Sources in order: the settings, servers that are known to be free, LiteLLM's table, OpenRouter's fetched model list, and
    for OpenRouter's models the price of the model's vendor in LiteLLM's table, which OpenRouter passes on.
    """
    price = _declared(model, settings) or _free(model, settings)
    if price is None:
        return _listed(model, settings, batch)
    return _at_batch_share(price) if batch else price


def unknown_price(model: str, cap: float) -> StoppedError:
    """Return the error for a cap with an unknown price, with the ways to declare one."""
    named = f'"{model}"'
    return StoppedError(
        f"the price of {model} is unknown, so --max-cost {cap:g} cannot be enforced",
        "declare the price in US dollars per million tokens (0 for a free server) in one of three ways:\n"
        f"  in latentscore.toml:  [llm.prices.{named}] with input = 0.30 and output = 2.50 (patterns such as provider/* match)\n"
        f'  in the environment:   LSDATA_LLM__PRICES=\'{{{named}: {{"input": 0.30, "output": 2.50}}}}\'\n'
        "  from OpenRouter:      lsdata doctor --fetch prices (its public list; for openrouter/... models)\n"
        "or leave the cap out and pass --yes",
    )


def answer_cost(price: Price | None, usage: Any, worked_out: float | None = None) -> float | None:
    """US dollars for one answer with this usage object; None when the price is unknown.

    Sources in order: a price from the settings, the cost that the provider reports with the answer, ``worked_out``
    (LiteLLM's figure, which includes reasoning and cached tokens), the tokens at the listed price.
    """
    tokens_in, tokens_out = (whole(field_of(usage, name)) for name in ("prompt_tokens", "completion_tokens"))
    details = field_of(usage, "prompt_tokens_details")
    audio, cached = (min(whole(field_of(details, name)), tokens_in) for name in ("audio_tokens", "cached_tokens"))
    split = (max(0, tokens_in - audio - cached), tokens_out, audio, cached)
    if price is not None and price.declared:
        return price.of(*split)
    reported = reported_cost(usage)
    if reported is not None or price is None:
        return reported
    if price.free:
        return 0.0
    return float(worked_out) if worked_out else price.of(*split)


def reported_cost(usage: Any) -> float | None:
    """Return the cost that a provider reports with an answer (OpenRouter's ``usage.cost``, in US dollars)."""
    cost = field_of(usage, "cost")
    if isinstance(cost, int | float) and not isinstance(cost, bool) and math.isfinite(cost) and cost >= 0:
        return float(cost)
    return None


def cost_of_usage(model: str, usage: Mapping[str, Any]) -> float | None:
    """Return the cost of one answer in US dollars by LiteLLM's table, with separate prices for cached and reasoning tokens;
    None if unknown."""
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


@cache
def litellm_version() -> str:
    """The installed version, without importing it."""
    from importlib.metadata import version

    return version("litellm")


# -- the sources


def _declared(model: str, settings: LLMSettings) -> Price | None:
    """From ``[llm.prices]``: the model's own entry, else that of the longest pattern that matches."""
    matching = [name for name in settings.prices if name == model or fnmatch.fnmatchcase(model, name)]
    if not matching:
        return None
    name = max(matching, key=lambda name: (name == model, len(name)))
    given = settings.prices[name]
    audio, cached = (None if usd is None else usd / MILLION for usd in (given.audio_input, given.cached_input))
    basis = f'your price, llm.prices."{name}"'
    return Price(given.input / MILLION, given.output / MILLION, basis, audio, cached, declared=True)


def _free(model: str, settings: LLMSettings) -> Price | None:
    if kind_of(model).here:
        return Price(0.0, 0.0, "offline")
    if is_loopback(settings.api_base):
        return Price(0.0, 0.0, f"a server on this machine ({settings.api_base})")
    if model.startswith(_OLLAMA) and not settings.api_base:
        base = os.environ.get("OLLAMA_API_BASE")
        return Price(0.0, 0.0, "ollama on this machine") if base is None or is_loopback(base) else None
    return None


def _listed(model: str, settings: LLMSettings, batch: bool) -> Price | None:
    """From LiteLLM's table, OpenRouter's list, or the table's price of the vendor behind OpenRouter."""
    if model.startswith(_OLLAMA):
        return None
    litellm = load_litellm()
    price = _of_entry(_mapped(litellm, model), litellm, batch=batch)
    if price is not None or not model.startswith("openrouter/"):
        return price
    name = model.removeprefix("openrouter/")
    price = _from_openrouter(name, settings) or _of_vendor(name, litellm)
    return _at_batch_share(price) if price is not None and batch else price


def _of_entry(entry: JsonObject | None, litellm: Any, *, batch: bool = False) -> Price | None:
    """The price in one entry of LiteLLM's table."""
    if entry is None or entry.get("input_cost_per_token") is None or entry.get("output_cost_per_token") is None:
        return None
    audio, cached = entry.get("input_cost_per_audio_token"), entry.get("cache_read_input_token_cost")
    price = Price(
        float(entry["input_cost_per_token"]),
        float(entry["output_cost_per_token"]),
        f"litellm {litellm_version()} price list",
        None if audio is None else float(audio),
        None if cached is None else float(cached),
        f"installed {time.strftime('%Y-%m-%d', time.gmtime(Path(litellm.__file__).stat().st_mtime))}",
    )
    if not batch:
        return price
    share = _at_batch_share(price)
    batch_in, batch_out = entry.get("input_cost_per_token_batches"), entry.get("output_cost_per_token_batches")
    if batch_in is None or batch_out is None:
        return share
    basis = f"batch price, {price.basis}"
    return replace(share, per_token_in=float(batch_in), per_token_out=float(batch_out), basis=basis)


def _at_batch_share(price: Price) -> Price:
    if price.free:
        return price
    prices = {name: usd for name, usd in vars(price).items() if name.startswith("per_") and usd is not None}
    shares = {name: usd * BATCH_SHARE for name, usd in prices.items()}
    return replace(price, **shares, basis=f"batch price ({BATCH_SHARE:.0%}), {price.basis}")


def _mapped(litellm: Any, model: str) -> JsonObject | None:
    # The table is read directly: litellm's own look-up asks servers about some models.
    table: JsonObject = litellm.model_cost
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


def _from_openrouter(name: str, settings: LLMSettings) -> Price | None:
    fetched = newest_list(settings.price_lists)
    listed = fetched.models.get(name) if fetched is not None else None
    if fetched is None or listed is None:
        return None
    return Price(listed.prompt, listed.completion, "OpenRouter's model list", listed.audio, listed.cached, fetched.date)


_VENDORS = {
    "anthropic": "anthropic",
    "deepseek": "deepseek",
    "google": "gemini",
    "mistralai": "mistral",
    "openai": "openai",
    "x-ai": "xai",
}
"""Vendors whose models OpenRouter sells at the vendor's price, by the provider's name in LiteLLM's table."""


def _of_vendor(name: str, litellm: Any) -> Price | None:
    """The vendor's own price. Variants (``:free``, ``:online``, ...) have prices of their own and are left out."""
    vendor, _, bare = name.partition("/")
    provider = _VENDORS.get(vendor)
    if provider is None or ":" in bare:
        return None
    for spelled in dict.fromkeys((bare, bare.replace(".", "-"))):
        for key in (f"{provider}/{spelled}", spelled):
            entry = litellm.model_cost.get(key)
            if entry is None or entry.get("litellm_provider") != provider:
                continue
            if (price := _of_entry(entry, litellm)) is not None:
                return replace(price, basis=f"price of {key}, which OpenRouter passes on, {price.basis}")
    return None
