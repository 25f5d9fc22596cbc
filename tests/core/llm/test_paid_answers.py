"""Answers that were paid for are used: wherever they stand, whatever the model takes, however the server refuses."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel

from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.loop import RowFailure
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.llm.cache import AnswerCache
from latentscore_data.core.llm.client import ModelClient
from latentscore_data.core.llm.parameters import Parameters
from latentscore_data.core.llm.prices import Price
from latentscore_data.core.llm.routes import Route, load_litellm
from latentscore_data.core.llm.types import Question
from servers import ChatServer, completion

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("transport")]

MODELS = ["openai/test", "hosted_vllm/test", "openrouter/test", "lm_studio/test", "litellm_proxy/test"]


class Word(BaseModel):
    word: str


GOOD = json.dumps({"word": "rain"})
QUESTION = Question("Answer with a word.", "say rain", temperature=0.5, max_tokens=50, seed=3)


def times_said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    """Records with these words; one that reached two handlers counts once."""
    return len({id(record) for record in caplog.records if words in record.getMessage()})


def ask(
    server: ChatServer,
    questions: Sequence[Question] = (QUESTION,),
    *,
    model: str = "hosted_vllm/test",
    price: Price | None = None,
    cache: Path | None = None,
    **changes: Any,
) -> tuple[list[Any], ModelClient]:
    """The answers, or the exceptions in their place."""
    settings = LLMSettings(**{"api_base": server.url, "retry_cap_seconds": 0.05, "timeout_seconds": 10.0, **changes})

    async def run() -> tuple[list[Any], ModelClient]:
        llm = ModelClient(model, settings, price=price, cache=AnswerCache(cache) if cache else None, stage="test")
        try:
            found = await asyncio.gather(*(llm.ask(q, Word) for q in questions), return_exceptions=True)
        finally:
            await llm.aclose()
        return found, llm

    return asyncio.run(run())


def say(**message: Any) -> Any:
    """A server's reply with this message."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        made = completion("", body)
        made["choices"][0]["message"] = {"role": "assistant", "content": None, **message}
        return made

    return reply


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": "answer", "arguments": arguments}}


PLACES = {
    "reasoning_content": {"reasoning_content": GOOD},
    "reasoning beside an empty text": {"content": "", "reasoning": f"I say {GOOD}"},
    "both reasonings": {"reasoning_content": "hmm", "reasoning": GOOD},
    "thinking blocks": {"content": "", "thinking_blocks": [{"type": "thinking", "thinking": GOOD}]},
    "reasoning details": {"reasoning_details": [{"type": "reasoning.text", "text": GOOD}]},
    "a tool call": {"tool_calls": [call(GOOD)]},
    "a tool call with an object": {"tool_calls": [call({"word": "rain"})]},
    "the second tool call": {"content": "Let me see.", "tool_calls": [call("{}"), call(GOOD)]},
    "a function call": {"function_call": {"name": "answer", "arguments": GOOD}},
    "text parts": {"content": [{"type": "text", "text": GOOD}]},
    "text parts that continue": {
        "content": [{"type": "text", "text": '{"word":'}, {"type": "text", "text": '"rain"}'}]
    },
    "output text parts": {"content": [{"type": "output_text", "text": GOOD}]},
    "a thinking part": {
        "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"text": GOOD}]
    },
    "only a thinking part": {"content": [{"type": "thinking", "thinking": GOOD}]},
    "strings": {"content": [GOOD]},
    "an object": {"content": {"word": "rain"}},
    "a parsed object": {"parsed": {"word": "rain"}},
    "a thought that LiteLLM cuts off": {"content": f"<think>{GOOD}</think>"},
    "no role": {"role": None, "content": GOOD},
    "another role": {"role": "model", "content": GOOD},
    "reasoning in parts": {"reasoning_content": [{"type": "text", "text": GOOD}]},
    "a text beside reasoning in parts": {"content": GOOD, "reasoning": [{"type": "text", "text": "hm"}]},
    "a text beside odd thinking blocks": {"content": GOOD, "thinking_blocks": ["hm", None]},
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("place", PLACES)
def test_the_answer_is_found_wherever_it_stands(place: str, model: str) -> None:
    with ChatServer(say(**PLACES[place])) as server:
        (answer,), _ = ask(server, model=model)
        assert answer.value == Word(word="rain")
        assert len(server.received) == 1, "an answer that is there is not asked for again"


def test_a_message_without_a_role_is_read() -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        made = completion(GOOD, body)
        del made["choices"][0]["message"]["role"]
        return made

    with ChatServer(reply) as server:
        (answer,), _ = ask(server)
        assert answer.value == Word(word="rain")


def test_an_answer_that_does_not_fit_is_shown_to_the_model_and_kept_from_where_it_stood(tmp_path: Path) -> None:
    with ChatServer(say(reasoning_content='{"sound": 1}')) as server:
        (failure,), _ = ask(server, cache=tmp_path / "c.sqlite")
        assert isinstance(failure, RowFailure)
        assert failure.kind == "answer"
        assert '{"sound": 1}' in json.dumps(server.received[1].body["messages"]).replace('\\"', '"')
        assert AnswerCache(tmp_path / "c.sqlite").facts()["negatives"] == 3


class Refusing(ChatServer):
    """Answers, unless ``judge`` makes a refusal (status, body, headers) of the request's body."""

    def __init__(self, judge: Any, reply: Any = lambda body: GOOD) -> None:
        super().__init__(reply)
        self.judge = judge

    async def _respond(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        refusal = self.judge(body, len(self.received))
        if refusal is not None:
            status, error, headers = refusal
            return web.json_response({"error": error}, status=status, headers=headers)
        return await super()._respond(request, body)


def first(count: int, status: int, /, headers: dict[str, str] | None = None, **error: Any) -> Any:
    return lambda body, number: (status, error, headers or {}) if number <= count else None


@pytest.mark.parametrize("model", ["openai/test", "hosted_vllm/test"])
def test_a_quota_per_minute_is_waited_out(model: str) -> None:
    message = "You exceeded your current quota, please check your plan and billing details. " + "x" * 300
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.3s"}]
    judge = first(2, 429, message=message, code=429, status="RESOURCE_EXHAUSTED", details=details)
    with Refusing(judge) as server:
        (answer,), _ = ask(server, model=model, retry_cap_seconds=5.0)
        assert answer.value == Word(word="rain")
        times = [request.at for request in server.received]
        assert all(later - sooner >= 0.3 for sooner, later in itertools.pairwise(times))


@pytest.mark.parametrize("status", [400, 429])
def test_a_spent_balance_ends_the_run_and_says_what_to_do(status: int) -> None:
    judge = first(9, status, message="Your credit balance is too low to access the API.", type="invalid_request_error")
    with Refusing(judge) as server:
        answers, _ = ask(server, [QUESTION, Question("x", "y")])
        assert all(isinstance(answer, MissingError) for answer in answers)
        assert "add credit" in answers[0].remedy
        assert len(server.received) == 1


@pytest.mark.parametrize("model", ["openai/test", "hosted_vllm/test"])
def test_a_draw_that_the_server_refused_is_asked_again(model: str, tmp_path: Path) -> None:
    error = {"message": "Failed to generate JSON.", "type": "invalid_request_error", "code": "json_validate_failed"}
    price = Price(0.0, 1e-6, "test")
    with Refusing(first(1, 400, failed_generation='{"word": ', **error)) as server:
        (answer,), llm = ask(server, model=model, cache=tmp_path / "c.sqlite", price=price)
        assert answer.value == Word(word="rain")
        assert len(server.received) == 2
        assert "cannot be used" in server.received[1].user
        assert llm.usage.unpriced == 1, "what the refused draw has cost is not known"
    with Refusing(first(9, 400, failed_generation=f"Sure: {GOOD}", **error)) as server:
        (answer,), _ = ask(server, model=model)
        assert answer.value == Word(word="rain"), "the draw itself holds the answer"
    with Refusing(first(9, 400, **error)) as server:
        (failure,), _ = ask(server, model=model)
        assert (failure.kind, len(server.received)) == ("answer", 3)


@pytest.mark.parametrize("name", ["temperature", "seed"])
@pytest.mark.parametrize("model", ["openai/test", "hosted_vllm/test"])
def test_what_the_server_does_not_take_is_left_out_and_said_once(
    name: str, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "latentscore_data")
    logging.getLogger("latentscore_data").propagate = True
    error = {"message": f"Unsupported value: '{name}'", "param": name, "code": "unsupported_value"}
    with Refusing(lambda body, number: (400, error, {}) if name in body else None) as server:
        answers, _ = ask(server, [Question("x", f"say {n}", temperature=0.5, seed=1) for n in range(4)], model=model)
        assert all(answer.value == Word(word="rain") for answer in answers)
        assert [name in request.body for request in server.received] == [True, False, False, False, False]
    assert times_said(caplog, f"does not accept {name}") == 1
    assert "schema" not in caplog.text


def test_a_longest_answer_goes_under_the_name_that_the_server_knows() -> None:
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    error = {"message": message, "code": "unsupported_parameter", "param": "max_tokens"}
    with Refusing(lambda body, number: (400, error, {}) if "max_tokens" in body else None) as server:
        (answer,), _ = ask(server, model="openai/test")
        assert answer.value == Word(word="rain")
        assert server.received[-1].body["max_completion_tokens"] == 50


def test_a_parameter_that_is_refused_although_it_was_left_out_is_a_bad_request() -> None:
    error = {"message": "Unsupported value: 'temperature'", "param": "temperature", "code": "unsupported_value"}
    with Refusing(first(99, 400, **error)) as server:
        (failure,), _ = ask(server)
        assert (failure.kind, len(server.received)) == ("bad request", 2)


# -- what LiteLLM's table says

SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 400, "seed": 0}


@pytest.mark.parametrize("model", ["openai/o4-mini", "openai/gpt-5-mini"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_models_that_take_only_temperature_1_are_asked_with_what_they_take(
    model: str, temperature: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "latentscore_data")
    logging.getLogger("latentscore_data").propagate = True
    questions = [Question("x", f"say {n}", temperature=temperature, max_tokens=9) for n in range(3)]
    with ChatServer(lambda body: GOOD) as server:
        answers, _ = ask(server, questions, model=model)
        assert all(answer.value == Word(word="rain") for answer in answers)
        assert [request.body.get("temperature", 1.0) for request in server.received] == [1.0] * 3
        assert {request.body["response_format"]["type"] for request in server.received} == {"json_schema"}
    assert times_said(caplog, "does not accept temperature") == (temperature != 1.0)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "azure", "bedrock", "gemini", "groq", "mistral", "xai"])
def test_no_chat_model_of_litellms_list_is_sent_what_it_does_not_take(provider: str) -> None:
    litellm = load_litellm()
    table = litellm.model_cost.items()
    names = [name for name, entry in table if entry.get("mode") == "chat" and entry.get("litellm_provider") == provider]
    restricted = 0
    for name in names:
        full = name if name.startswith(f"{provider}/") else f"{provider}/{name}"
        bare = litellm.get_llm_provider(full)[0]
        sent = Parameters(full, Route(full)).taken(SAMPLING)
        assert "max_tokens" in sent
        litellm.utils.get_optional_params(bare, custom_llm_provider=provider, **sent)  # raises where one is not taken
        restricted += "temperature" not in sent
    assert names
    assert restricted or provider not in ("openai", "anthropic", "azure", "bedrock")


ODD: list[Any] = ["many", 7, [], [1], {}, {"a": "b"}, True, None, -1, 1e400, "\ud83d", {"function": "x"}, [None], ["x"]]
ODD_PLACES = [
    "usage",
    "prompt_tokens",
    "tool_calls",
    "function_call",
    "finish_reason",
    "arguments",
    "choices",
    "message",
]


@pytest.mark.parametrize("model", ["openai/test", "hosted_vllm/test"])
@pytest.mark.parametrize("place", ODD_PLACES)
def test_odd_types_in_an_answer_never_end_a_run(place: str, model: str) -> None:
    """The answer is used where it can be read; else its row alone fails."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        odd = ODD[int(body["messages"][-1]["content"])]
        made = completion(GOOD, body)
        choice = made["choices"][0]
        if place in ("usage", "choices"):
            made[place] = odd
        elif place == "prompt_tokens":
            made["usage"] = {"prompt_tokens": odd, "completion_tokens": odd, "total_tokens": odd}
        elif place in ("finish_reason", "message"):
            choice[place] = odd
        else:
            choice["message"] |= {"tool_calls": [call(odd)]} if place == "arguments" else {place: odd}
        return made

    questions = [Question("Answer with a word.", str(number), temperature=0.5) for number in range(len(ODD))]
    with ChatServer(reply) as server:
        answers, llm = ask(
            server, questions, model=model, price=Price(1e-6, 1e-6, "test"), max_attempts=1, max_cost=1.0
        )
    for odd, answer in zip(ODD, answers, strict=True):
        assert isinstance(answer, RowFailure) or answer.value == Word(word="rain"), (odd, answer)
    if place not in ("choices", "message"):
        assert not isinstance(answers[ODD.index(None)], RowFailure)
    assert llm.usage.tokens_in >= 0
    assert 0 <= llm.usage.cost_usd < 1
