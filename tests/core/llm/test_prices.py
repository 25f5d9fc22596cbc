"""Where a price comes from, in which order, and what an answer costs by it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from latentscore_data.core.base.errors import InputError, MissingError, StoppedError
from latentscore_data.core.base.settings import LLMSettings, PriceSettings, load_settings, resolve_settings
from latentscore_data.core.llm.openrouter_prices import fetch_list, newest_list
from latentscore_data.core.llm.prices import Price, answer_cost, costs_nothing, price_of
from latentscore_data.core.llm.routes import load_litellm
from price_lists import FLASH, ModelList

ELSEWHERE = "https://gpu.example.org/v1"


def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **server: Any) -> tuple[LLMSettings, ModelList]:
    """Settings of a workspace into which the list of a loopback server was fetched."""
    settings = load_settings(paths={"root": tmp_path})
    with ModelList(**server) as listing:
        monkeypatch.setenv("OPENROUTER_API_BASE", f"{listing.url}/api/v1")
        monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-not-for-this")
        fetch_list(settings.paths.price_lists)
    return settings.llm, listing


def declared(name: str, **prices: float) -> LLMSettings:
    return LLMSettings(prices={name: PriceSettings(**{"input": 1.0, "output": 4.0, **prices})}, api_base=ELSEWHERE)


def test_a_price_in_the_settings_comes_before_every_list_and_before_loopback(tmp_path: Path) -> None:
    file = tmp_path / "latentscore.toml"
    file.write_text(
        '[llm.prices."openai/*"]\ninput = 9\noutput = 9\n[llm.prices."openai/gpt-4o-mini"]\ninput=1\noutput=2\n'
    )
    settings = load_settings(file).llm
    price = price_of("openai/gpt-4o-mini", settings)
    assert price is not None
    assert (price.of(1e6, 0), price.of(0, 1e6)) == (pytest.approx(1.0), pytest.approx(2.0))
    assert price.basis == 'your price, llm.prices."openai/gpt-4o-mini"'
    broad = price_of("openai/other", settings)
    assert broad is not None
    assert broad.of(1e6, 0) == pytest.approx(9.0), "a pattern matches what has no entry of its own"
    here = settings.model_copy(update={"api_base": "http://127.0.0.1:1/v1"})
    assert not costs_nothing("openai/gpt-4o-mini", here), "a declared price holds on this machine, too"
    assert costs_nothing("hosted_vllm/x", here)


def test_a_server_elsewhere_can_be_declared_free_or_priced() -> None:
    assert price_of("hosted_vllm/own", LLMSettings(api_base=ELSEWHERE)) is None
    assert costs_nothing("hosted_vllm/own", declared("hosted_vllm/*", input=0, output=0))
    price = price_of("hosted_vllm/own", declared("hosted_vllm/*"))
    assert price is not None
    assert not price.free


def test_the_origin_of_a_price_is_found_although_its_name_has_dots(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f'[llm.prices."{FLASH}"]\ninput = 0.3\noutput = 2.5\n')
    origins = resolve_settings(file).origins
    assert origins[f"llm.prices.{FLASH}.input"] == str(file)
    file.write_text(f'[llm.prices."{FLASH}"]\ninput = -1\noutput = 2.5\n')
    with pytest.raises(InputError, match=re.escape(str(file))):
        load_settings(file)


def test_the_fetched_list_names_prices_with_its_date_and_no_key_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, listing = fetched(tmp_path, monkeypatch)
    price = price_of(FLASH, settings)
    assert price is not None
    assert price.of(1e6, 1e6) == pytest.approx(3.5)
    assert re.fullmatch(r"OpenRouter's model list, 20\d\d-\d\d-\d\d", price.source)
    heard = price_of("openrouter/maker/heard", settings)
    assert heard is not None
    assert heard.of(0, 0, 1e6, 1e6) == pytest.approx(5.1)
    assert price_of("openrouter/openrouter/auto", settings) is None, "a price that varies is unknown"
    assert not any("sk-or" in value for headers in listing.headers for value in headers.values())


@pytest.mark.long
@pytest.mark.parametrize(
    "server", [{"status": 500}, {"answer": {"data": []}}, {"answer": ["x"]}, {"answer": {"data": [{"id": 1}]}}]
)
def test_a_list_that_cannot_be_had_leaves_the_older_one(
    server: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = fetched(tmp_path, monkeypatch)
    with pytest.raises(MissingError):
        fetched(tmp_path, monkeypatch, **server)
    assert price_of(FLASH, settings) is not None


def test_a_damaged_list_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "openrouter-2026-01-01.json").write_text('{"date": "2026-01-01", "usd_per_token": {"a": {"x": 1}}}')
    with pytest.raises(InputError, match=r"openrouter-2026-01-01\.json"):
        newest_list(tmp_path)
    assert newest_list(tmp_path / "none") is None


def test_without_a_list_a_vendors_model_has_the_vendors_price() -> None:
    price, direct = price_of(FLASH, LLMSettings()), price_of("gemini/gemini-2.5-flash", LLMSettings())
    assert price is not None
    assert direct is not None
    assert price.of(1, 1) == direct.of(1, 1)
    assert "gemini/gemini-2.5-flash, which OpenRouter passes on" in price.source
    assert price_of("openrouter/anthropic/claude-haiku-4.5", LLMSettings()) is not None
    assert price_of(f"{FLASH}:free", LLMSettings()) is None, "a variant has a price of its own"
    assert price_of("openrouter/nobody/knows", LLMSettings()) is None


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", FLASH, "anthropic/claude-haiku-4-5"])
def test_a_batch_costs_half(model: str) -> None:
    direct, batch = price_of(model, LLMSettings()), price_of(model, LLMSettings(), batch=True)
    assert direct is not None
    assert batch is not None
    assert batch.of(3e6, 1e6) == pytest.approx(direct.of(3e6, 1e6) / 2)
    assert "batch price" in batch.source


def test_what_an_answer_costs_by_settings_report_litellm_and_list_in_that_order() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
    listed = Price(1e-6, 2e-6, "a list")
    own = Price(1e-6, 2e-6, "mine", per_cached_token_in=0.5e-6, declared=True)
    assert answer_cost(own, {**usage, "cost": 9.0}) == pytest.approx(600e-6 + 200e-6 + 200e-6)
    assert answer_cost(listed, {**usage, "cost": 9.0}, 5.0) == 9.0
    assert answer_cost(None, {**usage, "cost": 9.0}) == 9.0, "a reported cost needs no price"
    assert answer_cost(listed, usage, 5.0) == 5.0
    assert answer_cost(listed, usage) == pytest.approx(1200e-6)
    assert answer_cost(None, usage) is None
    for strange in (-1, "9", True, float("nan"), None):
        assert answer_cost(None, {**usage, "cost": strange}) is None


def test_an_unknown_price_with_a_cap_shows_three_ways_to_name_one() -> None:
    from latentscore_data.core.llm.plan import Plan
    from latentscore_data.core.stages.spending import check_spending

    plan = Plan("hosted_vllm/own", calls=1, cost_usd=None)
    settings = LLMSettings(api_base=ELSEWHERE, max_cost=1.0)
    with pytest.raises(StoppedError) as refused:
        check_spending(plan, settings)
    for way in ('[llm.prices."hosted_vllm/own"]', "LSDATA_LLM__PRICES", "doctor --fetch prices"):
        assert way in refused.value.remedy
    given = re.search(r"LSDATA_LLM__PRICES='(.*)'", refused.value.remedy)
    assert given is not None
    assert json.loads(given[1]).keys() == {"hosted_vllm/own"}


@pytest.mark.parametrize(
    "model", ["groq/llama-3.3-70b-versatile", "cohere/command-r-plus", "together_ai/meta-llama/Llama-2-7b"]
)
def test_tokens_are_estimated_without_asking_a_hub_for_a_tokenizer(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    litellm = load_litellm()
    asked: list[str] = []
    monkeypatch.setattr(litellm.utils, "_load_huggingface_tokenizer", lambda kind, backend: asked.append(kind))
    assert 3 <= litellm.token_counter(model=model, text="slow rain on a tin roof") <= 12
    assert asked == []
