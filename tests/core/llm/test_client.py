"""The real client, over its own session and through the real LiteLLM, against a loopback server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, OutputError, StoppedError
from latentscore_data.core.base.ledger import Ledger, totals
from latentscore_data.core.base.loop import NotAttempted, RowFailure
from latentscore_data.core.base.settings import LLMSettings, load_settings
from latentscore_data.core.llm.cache import AnswerCache
from latentscore_data.core.llm.client import ModelClient
from latentscore_data.core.llm.prices import Price, price_of
from latentscore_data.core.llm.routes import BASE_PROVIDERS, check_route
from latentscore_data.core.llm.types import Question
from servers import Bucket, ChatServer

pytestmark = pytest.mark.usefixtures("transport")

SECRET = "sk-loopback-0123456789abcdef"


class Word(BaseModel):
    word: str


def reply(body: dict[str, Any]) -> str:
    """Says the last word that it was asked."""
    return json.dumps({"word": str(body["messages"][1]["content"]).split()[-1]})


def question(text: str = "say rain", **changes: Any) -> Question:
    return Question(**{"system": "Answer with a word.", "user": text, "temperature": 0.5, "max_tokens": 50, **changes})


def settings(server: ChatServer, **changes: Any) -> LLMSettings:
    given = {"api_base": server.url, "retry_cap_seconds": 0.05, "timeout_seconds": 10.0, **changes}
    return LLMSettings(**given)


def ask(
    server: ChatServer,
    *questions: Question,
    cache: Path | None = None,
    model: str = "hosted_vllm/test",
    price: Price | None = None,
    per_call: int = 1,
    ledger: Ledger | None = None,
    **changes: Any,
) -> tuple[list[Any], ModelClient]:
    """The answers, or the exceptions in their place."""

    async def run() -> tuple[list[Any], ModelClient]:
        llm = ModelClient(
            model,
            settings(server, **changes),
            cache=AnswerCache(cache) if cache else None,
            price=price,
            per_call=per_call,
            ledger=ledger,
            stage="test",
        )
        try:
            answers = await asyncio.gather(*(llm.ask(q, Word) for q in questions), return_exceptions=True)
        finally:
            await llm.aclose()
        return answers, llm

    return asyncio.run(run())


def words(answers: Sequence[Any]) -> list[str]:
    return [answer.value.word for answer in answers]


def test_a_question_gets_its_object_with_what_it_took(tmp_path: Path) -> None:
    with ChatServer(reply) as server:
        (answer,), llm = ask(server, question(), cache=tmp_path / "c.sqlite")
        assert answer.value == Word(word="rain")
        assert (answer.cached, answer.finish_reason, answer.cost_usd, answer.model) == (False, "stop", 0.0, llm.model)
        assert answer.tokens_in > 0
        assert answer.tokens_out > 0
        assert answer.seconds > 0
        sent = server.received[0].body
        assert sent["response_format"]["type"] == "json_schema"
        assert sent["response_format"]["json_schema"]["schema"]["properties"] == {
            "word": {"title": "Word", "type": "string"}
        }
        assert (sent["temperature"], sent["max_tokens"]) == (0.5, 50)


def test_the_same_question_is_free_and_another_sample_is_not(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    with ChatServer(reply) as server:
        ask(server, question(), cache=cache)
        (again, other), llm = ask(server, question(), question(sample_idx=1), cache=cache)
        assert (again.cached, other.cached) == (True, False)
        assert (llm.usage.calls, llm.usage.cached) == (1, 1)
        assert len(server.received) == 2


def test_the_same_question_at_the_same_time_is_one_call() -> None:
    with ChatServer(reply, delay_seconds=0.05) as server:
        answers, _ = ask(server, *[question()] * 8)
        assert words(answers) == ["rain"] * 8
        assert len(server.received) == 1


def test_a_bad_key_costs_exactly_one_request_and_stops_the_run() -> None:
    with ChatServer(reply, keys={"right"}) as server:
        os.environ["WRONG_KEY"] = SECRET
        try:
            answers, _ = ask(server, *(question(f"say {n}") for n in range(20)), api_key_env="WRONG_KEY")
        finally:
            del os.environ["WRONG_KEY"]
        assert len(server.received) == 1
        assert all(isinstance(answer, MissingError) for answer in answers)
        assert answers[0].exit_code == 3
        assert "WRONG_KEY" in answers[0].remedy
        # The server's message repeats the key.
        assert SECRET not in str(answers[0])


@pytest.mark.parametrize("status", [401, 402, 403])
def test_auth_and_payment_stop_the_run(status: int) -> None:
    with ChatServer(reply, refuse=(status, {"error": {"message": "no", "type": "x"}})) as server:
        answers, _ = ask(server, question("a"), question("b"))
        assert len(server.received) == 1
        assert all(isinstance(answer, MissingError) for answer in answers)


def test_an_exhausted_quota_stops_the_run_although_it_is_a_429() -> None:
    error = {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota"}}
    with ChatServer(reply, refuse=(429, error)) as server:
        answers, _ = ask(server, question("a"), question("b"))
        assert len(server.received) == 1
        assert "add credit" in answers[0].remedy


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_bad_request_fails_its_row_without_retry(status: int) -> None:
    with ChatServer(reply, refuse=(status, {"error": {"message": "cannot do that", "type": "x"}})) as server:
        (answer,), _ = ask(server, question())
        assert isinstance(answer, RowFailure)
        assert answer.kind == "bad request"
        assert answer.status == status
        assert len(server.received) == 1


@pytest.mark.parametrize("model", ["hosted_vllm/test", "openai/test"])
@pytest.mark.parametrize("fault", ["500", "502", "503", "429", "408", "close"])
def test_transient_faults_are_tried_again(fault: str, model: str) -> None:
    with ChatServer(reply, script=[fault, fault]) as server:
        (answer,), _ = ask(server, question(), model=model)
        assert answer.value.word == "rain"
        assert len(server.received) == 3


def test_a_hanging_server_is_left_after_the_time_out() -> None:
    with ChatServer(reply, script=["hang"]) as server:
        (answer,), _ = ask(server, question(), timeout_seconds=0.3)
        assert answer.value.word == "rain"
        assert len(server.received) == 2


def test_a_server_that_never_recovers_fails_the_row_after_the_last_attempt() -> None:
    with ChatServer(reply, script=["500"] * 9) as server:
        (answer,), _ = ask(server, question(), max_attempts=3)
        assert isinstance(answer, RowFailure)
        assert (answer.kind, answer.status, answer.attempts) == ("transient", 500, 3)
        assert len(server.received) == 3


def test_a_server_that_is_not_there_is_transient() -> None:
    with ChatServer(reply) as server:
        pass
    (answer,), _ = ask(server, question(), max_attempts=2)
    assert isinstance(answer, RowFailure)
    assert answer.kind == "transient"


def test_retry_after_is_kept() -> None:
    with ChatServer(reply, bucket=Bucket(per_second=2, burst=1), retry_after="0.6") as server:
        ask(server, question("a"), question("b"), retry_cap_seconds=5.0)
        refused = next(r for r in server.received if r.status == 429)
        again = next(r for r in server.received if r.at > refused.at and r.user == refused.user)
        assert again.at - refused.at >= 0.6


@pytest.mark.parametrize("fault", ["malformed", "truncated", "empty", "wrong-schema"])
def test_a_bad_answer_is_asked_again_with_what_was_wrong_and_kept_as_a_negative(fault: str, tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    with ChatServer(reply, script=[fault]) as server:
        (answer,), _ = ask(server, question(), cache=cache)
        assert answer.value.word == "rain"
        first, second = (request.body["messages"] for request in server.received)
        assert second[: len(first)] == first
        assert len(second) > len(first)
        assert any(word in second[-1]["content"] for word in ("cannot be used", "cut off", "no answer"))
        # Tokens of both calls were paid for.
        assert answer.tokens_in > server.received[0].body["max_tokens"] // 4
        assert AnswerCache(cache).facts()["negatives"] == 1
        (again,), _ = ask(server, question(), cache=cache)
        assert again.cached
        assert len(server.received) == 2


def test_an_answer_is_asked_for_at_most_twice_more() -> None:
    with ChatServer(reply, script=["empty"] * 9) as server:
        (answer,), _ = ask(server, question())
        assert isinstance(answer, RowFailure)
        assert answer.kind == "answer"
        assert "empty" in answer.message
        assert len(server.received) == 3


def test_a_failed_answer_is_no_hit_the_next_time(tmp_path: Path) -> None:
    with ChatServer(reply, script=["empty"] * 3) as server:
        ask(server, question(), cache=tmp_path / "c.sqlite")
        (answer,), _ = ask(server, question(), cache=tmp_path / "c.sqlite")
        assert answer.value.word == "rain"
        assert not answer.cached


class Picky(ChatServer):
    """Refuses the ways of asking for a shape that it was told to."""

    def __init__(self, *refused: str) -> None:
        super().__init__(lambda body: f"<think>well</think>```json\n{reply(body)}\n```")
        self.refused = refused

    async def _respond(self, request: Any, body: dict[str, Any]) -> Any:
        from aiohttp import web

        kind = body.get("response_format", {}).get("type", "text")
        if kind in self.refused:
            return web.json_response(
                {"error": {"message": f"response_format {kind} is not supported", "type": "x"}}, status=400
            )
        return await super()._respond(request, body)


@pytest.mark.parametrize(
    ("refused", "asked_with"),
    [((), "json_schema"), (("json_schema",), "json_object"), (("json_schema", "json_object"), "text")],
)
def test_the_shape_is_asked_for_in_the_strictest_way_that_the_server_takes(
    refused: tuple[str, ...], asked_with: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "latentscore_data")
    logging.getLogger("latentscore_data").propagate = True
    with Picky(*refused) as server:
        answers, _ = ask(server, *(question(f"say {n}") for n in "abcd"))
        assert words(answers) == list("abcd")
        kinds = [r.body.get("response_format", {}).get("type", "text") for r in server.received]
        assert kinds[-4:] == [asked_with] * 4
        # Found out once, by the call that goes alone.
        assert len(kinds) == 4 + len(refused)
        if refused:
            assert '"word"' in server.received[-1].body["messages"][0]["content"], "the schema is said in words instead"
            assert "instead" in caplog.text


def test_a_server_that_refuses_every_shape_is_a_bad_request() -> None:
    with Picky("json_schema", "json_object", "text") as server:
        (answer,), _ = ask(server, question())
        assert isinstance(answer, RowFailure)
        assert answer.kind == "bad request"
        assert len(server.received) == 3


@pytest.mark.parametrize("provider", BASE_PROVIDERS)
def test_no_provider_key_goes_to_an_address_of_the_settings(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "OPENROUTER", "HOSTED_VLLM", "LM_STUDIO", "LLAMAFILE", "LITELLM_PROXY", "CUSTOM_OPENAI"):
        monkeypatch.setenv(f"{name}_API_KEY", SECRET)
    with ChatServer(reply) as server:
        (answer,), _ = ask(server, question(), model=f"{provider}/test")
        assert answer.value.word == "rain"
        assert all(SECRET not in json.dumps(r.headers) + json.dumps(r.body) for r in server.received)


def test_the_key_that_is_named_goes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_OWN", SECRET)
    with ChatServer(reply, keys={SECRET}) as server:
        (answer,), _ = ask(server, question(), api_key_env="MY_OWN")
        assert answer.value.word == "rain"


def test_a_key_that_is_named_must_be_there() -> None:
    with ChatServer(reply) as server:
        (answer,), _ = ask(server, question(), api_key_env="NOT_SET_ANYWHERE")
        assert isinstance(answer, MissingError)
        assert "NOT_SET_ANYWHERE" in str(answer)
        assert not server.received


@pytest.mark.parametrize("model", ["bedrock/claude", "vertex_ai/gemini", "azure/gpt"])
def test_providers_with_credentials_of_their_own_are_not_sent_elsewhere(model: str) -> None:
    with pytest.raises(InputError, match="credentials"):
        check_route(model, LLMSettings(api_base="http://127.0.0.1:1/v1"))


def test_a_bare_model_name_is_enough_for_a_server_of_ones_own() -> None:
    with ChatServer(reply) as server:
        (answer,), _ = ask(server, question(), model="some-org/some-model")
        assert answer.value.word == "rain"
        assert server.received[0].body["model"] == "some-org/some-model"


def test_missing_keys_and_unknown_names_are_found_without_a_call() -> None:
    with pytest.raises(MissingError, match="OPENAI_API_KEY"):
        check_route("openai/gpt-4o-mini", LLMSettings())
    with pytest.raises(InputError, match="provider"):
        check_route("no-such-provider-anywhere", LLMSettings())


def test_a_price_is_known_free_or_unknown_but_never_guessed() -> None:
    assert price_of("builtin/keywords", LLMSettings()) == Price(0.0, 0.0, "offline")
    known = price_of("openai/gpt-4o-mini", LLMSettings())
    assert known is not None
    assert known.per_token_in > 0
    assert known.per_token_out > known.per_token_in
    assert price_of("openai/a-model-that-nobody-knows", LLMSettings()) is None
    local = price_of("openai/gpt-4o-mini", LLMSettings(api_base="http://localhost:8000/v1"))
    assert local is not None
    assert local.free
    assert price_of("hosted_vllm/x", LLMSettings(api_base="https://example.org/v1")) is None
    assert price_of("hosted_vllm/x", LLMSettings(api_base="http://127.0.0.1.example.org/v1")) is None


def test_a_cap_with_an_unknown_price_is_refused_before_the_first_call() -> None:
    llm = ModelClient("hosted_vllm/x", LLMSettings(api_base="https://example.org/v1", max_cost=1.0))
    with pytest.raises(StoppedError, match="unknown"):
        asyncio.run(llm.ask(question(), Word))


def test_the_budget_stops_before_it_is_exceeded_and_keeps_what_was_paid(tmp_path: Path) -> None:
    price = Price(0.0, 0.001, "test")
    cache, ledger = tmp_path / "c.sqlite", tmp_path / "ledger.jsonl"
    with ChatServer(reply, delay_seconds=0.01) as server:
        # 50 tokens at most are 5 cents a call; a real answer takes a fraction of that.
        answers, llm = ask(
            server,
            *(question(f"say {n}") for n in range(60)),
            cache=cache,
            price=price,
            max_cost=0.1,
            ledger=Ledger(ledger),
        )
        good = [answer for answer in answers if not isinstance(answer, BaseException)]
        stopped = [answer for answer in answers if isinstance(answer, StoppedError)]
        assert stopped
        assert stopped[0].exit_code == 4
        assert len(good) + sum(isinstance(a, StoppedError | NotAttempted) for a in answers) == 60
        assert 0.02 < llm.usage.cost_usd <= 0.1
        assert totals(ledger)["test", llm.model].cost_usd == pytest.approx(llm.usage.cost_usd)
        assert AnswerCache(cache).facts()["answers"] == len(good) == len(server.received)


def test_a_drained_client_with_a_budget_lets_everybody_go() -> None:
    async def run(server: ChatServer) -> list[Any]:
        llm = ModelClient("hosted_vllm/test", settings(server, max_cost=0.06), price=Price(0.0, 0.001, "test"))
        await llm.ask(question("first"), Word)
        # One at its worst fits under the cap; the others wait for it with a slot in their hands.
        tasks = [asyncio.create_task(llm.ask(question(f"say {n}"), Word)) for n in range(4)]
        while not server.in_flight:
            await asyncio.sleep(0.005)
        llm.drain()
        try:
            return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        finally:
            await llm.aclose()

    with ChatServer(reply, delay_seconds=0.1) as server:
        answers = asyncio.run(run(server))
    assert sum(isinstance(answer, NotAttempted) for answer in answers) == 3
    assert len(server.received) == 2


def test_the_cost_of_what_the_cache_saved_is_told(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    price = Price(0.001, 0.001, "test")
    with ChatServer(reply) as server:
        (paid,), _ = ask(server, question(), cache=cache, price=price)
        _, llm = ask(server, question(), cache=cache, price=price)
        assert paid.cost_usd > 0
        assert llm.usage.saved_usd == pytest.approx(paid.cost_usd)
        assert llm.usage.cost_usd == 0


def test_a_drained_client_asks_nothing_new() -> None:
    async def run(server: ChatServer) -> list[Any]:
        llm = ModelClient("hosted_vllm/test", settings(server))
        first = asyncio.create_task(llm.ask(question("a"), Word))
        second = asyncio.create_task(llm.ask(question("b"), Word))
        while not server.in_flight:
            await asyncio.sleep(0.005)
        llm.drain()
        try:
            return await asyncio.gather(first, second, return_exceptions=True)
        finally:
            await llm.aclose()

    with ChatServer(reply, delay_seconds=0.2) as server:
        first, second = asyncio.run(run(server))
        assert first.value.word == "a"
        assert isinstance(second, NotAttempted)
        assert len(server.received) == 1


def batch_reply(body: dict[str, Any]) -> str:
    """Answers each keyed question; leaves out the one that asks for nothing, spoils the one that asks for noise."""
    text = body["messages"][1]["content"]
    if not text.startswith("[1]"):
        return reply(body)
    found = []
    for part in text.split("\n\n"):
        key, asked = part.split("\n", 1)
        word = asked.split()[-1]
        if word == "nothing":
            continue
        found.append({"key": key.strip("[]"), "answer": {"word": word} if word != "noise" else {"sound": word}})
    return json.dumps({"answers": found[::-1]})


def test_a_batch_is_one_call_and_its_answers_are_kept_as_if_asked_alone(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    asked = [question(f"say {word}") for word in ("rain", "snow", "hail")]
    with ChatServer(batch_reply) as server:
        answers, _ = ask(server, *asked, cache=cache, per_call=3)
        assert words(answers) == ["rain", "snow", "hail"]
        assert len(server.received) == 1
        assert server.received[0].body["max_tokens"] == 150
        alone, llm = ask(server, *asked, cache=cache)
        assert words(alone) == ["rain", "snow", "hail"]
        assert len(server.received) == 1
        assert llm.usage.cached == 3


def test_what_a_batch_does_not_answer_is_asked_alone() -> None:
    asked = [question(f"say {word}") for word in ("rain", "nothing", "noise", "hail")]
    with ChatServer(batch_reply) as server:
        answers, _ = ask(server, *asked, per_call=4)
        assert words(answers) == ["rain", "nothing", "noise", "hail"]
        assert len(server.received) == 3


@pytest.mark.parametrize("fault", ["malformed", "empty", "wrong-schema", "truncated"])
def test_a_failed_batch_is_asked_one_by_one(fault: str) -> None:
    with ChatServer(batch_reply, script=[fault]) as server:
        answers, _ = ask(server, question("say rain"), question("say snow"), per_call=2)
        assert words(answers) == ["rain", "snow"]
        assert len(server.received) == 3


def test_a_batch_that_is_not_full_does_not_wait_for_ever_and_candidates_never_meet_in_one() -> None:
    with ChatServer(batch_reply) as server:
        answers, _ = ask(server, *(question("say rain", sample_idx=n) for n in range(3)), per_call=8)
        assert words(answers) == ["rain"] * 3
        assert len(server.received) == 3


def test_a_disk_that_refuses_a_batch_is_told_to_everybody_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: AnswerCache, entries: Any) -> None:
        raise OutputError("the disk is full", "free some space")

    monkeypatch.setattr(AnswerCache, "put", full)
    with ChatServer(batch_reply) as server:
        answers, _ = ask(server, question("say rain"), question("say snow"), cache=tmp_path / "c.sqlite", per_call=2)
    assert [type(answer) for answer in answers] == [OutputError, OutputError]


def test_a_bad_key_stops_batches_too() -> None:
    with ChatServer(batch_reply, keys={"right"}) as server:
        answers, _ = ask(server, *(question(f"say {n}") for n in range(8)), per_call=2)
        assert len(server.received) == 1
        assert all(isinstance(answer, LsdataError) for answer in answers)


@pytest.mark.long
def test_a_slow_disk_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name in ((AnswerCache, "put"), (Ledger, "record")):
        write = getattr(kind, name)

        def slow(*given: Any, write: Any = write) -> None:
            time.sleep(0.4)
            write(*given)

        monkeypatch.setattr(kind, name, slow)

    def stagger(body: dict[str, Any]) -> str:
        """The answers come one after the other, so one is under way while another is written down."""
        time.sleep(0.05)
        return reply(body)

    with ChatServer(stagger, delay_seconds=0.1) as server:
        answers, llm = ask(
            server,
            *(question(f"say {n}") for n in range(3)),
            cache=tmp_path / "c.sqlite",
            ledger=Ledger(tmp_path / "ledger.jsonl"),
            timeout_seconds=0.7,
        )
        assert words(answers) == [str(n) for n in range(3)]
        assert len(server.received) == 3, "nothing was asked and paid for twice"
        assert llm.usage.calls == totals(tmp_path / "ledger.jsonl")["test", llm.model].calls == 3


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day, now = 86400.0, time.time
    jumps = itertools.cycle([0.0, -400 * day, 400 * day, 30.0, -30.0])
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    cache, asked = tmp_path / "c.sqlite", [question(f"say {n}") for n in range(12)]
    with ChatServer(reply, delay_seconds=0.02, script=["500", "429", None, "500"]) as server:
        started = time.monotonic()
        answers, llm = ask(
            server, *asked, cache=cache, ledger=Ledger(tmp_path / "ledger.jsonl"), max_qps=40, max_cost=1.0
        )
        assert words(answers) == [str(n) for n in range(12)]
        assert 14 / 40 < time.monotonic() - started < 30  # a jump that counts would be 30 s or a year
        assert llm.usage.calls == totals(tmp_path / "ledger.jsonl")["test", llm.model].calls == 12
        again, _ = ask(server, *asked, cache=cache)
        assert all(answer.cached for answer in again)


def test_two_runs_in_one_process_each_have_their_loop() -> None:
    with ChatServer(reply) as server:
        for model in ("hosted_vllm/test", "openai/test"):
            for _ in range(2):
                (answer,), _ = ask(server, question(), model=model)
                assert answer.value.word == "rain"


@pytest.mark.long
def test_the_pace_adapts_to_a_server_that_allows_few() -> None:
    numbers = itertools.count()
    with ChatServer(reply, delay_seconds=0.1, bucket=Bucket(per_second=60, burst=5), retry_after="0.2") as server:
        answers, _ = ask(
            server, *(question(f"say {next(numbers)}") for _ in range(120)), max_concurrency=64, retry_cap_seconds=2.0
        )
        assert words(answers) == [str(n) for n in range(120)]
        assert server.statuses[429] < 60


def test_the_prompt_is_marked_for_providers_that_bill_cached_prompts() -> None:
    seen: list[dict[str, Any]] = []

    async def run(server: ChatServer) -> None:
        llm = ModelClient("openrouter/anthropic/claude-sonnet-4", settings(server))
        await llm.ask(question(), Word)
        await llm.aclose()

    with ChatServer(reply) as server:
        asyncio.run(run(server))
        seen = server.received[0].body["messages"]
    assert "cache_control" in json.dumps(seen[0])
    assert "cache_control" not in json.dumps(seen[1])


class FullLedger(Ledger):
    """An account book on a disk that is full, while the cache still has room."""

    def record(self, *booked: Any) -> None:
        raise OutputError("ledger.jsonl cannot be written", "free some disk space")


def test_an_answer_is_kept_before_it_is_booked(tmp_path: Path) -> None:
    cache = tmp_path / "c.sqlite"
    asked = [question("say rain"), question("say snow")]
    with ChatServer(reply) as server:
        first, _ = ask(server, *asked, cache=cache, ledger=FullLedger(tmp_path / "ledger.jsonl"))
        assert all(isinstance(answer, OutputError) for answer in first)
        again, _ = ask(server, *asked, cache=cache)
        assert words(again) == ["rain", "snow"]
        assert len(server.received) == 2, "nothing is bought twice"


def test_what_was_paid_is_booked_although_the_cache_takes_nothing(tmp_path: Path) -> None:
    cache, ledger = tmp_path / "c.sqlite", tmp_path / "ledger.jsonl"
    AnswerCache(cache).close()

    def locked(body: dict[str, Any]) -> str:
        # Another process holds the file by the time at which the answer is to be written.
        if not holders:
            holders.append(sqlite3.connect(cache, isolation_level=None, check_same_thread=False))
            holders[0].execute("BEGIN IMMEDIATE")
        return reply(body)

    holders: list[sqlite3.Connection] = []
    with ChatServer(locked) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr("latentscore_data.core.base.database.BUSY_SECONDS", 0.1)
        price = Price(0.0, 0.001, "test")
        (failure,), llm = ask(server, question(), cache=cache, ledger=Ledger(ledger), price=price)
    holders[0].close()
    assert isinstance(failure, OutputError)
    assert totals(ledger)["test", llm.model].cost_usd == pytest.approx(llm.usage.cost_usd)
    assert llm.usage.cost_usd > 0


def test_the_cap_reserves_enough_for_other_scripts_and_for_sound() -> None:
    from latentscore_data.core.llm.client import rough_tokens

    def reserved(content: Any) -> tuple[int, int]:
        return rough_tokens([{"role": "user", "content": content}])

    assert reserved("rain on a tin roof " * 100) == (16 + 1900 // 3, 0)
    assert reserved("夜雨敲打着铁皮屋顶" * 100)[0] >= 900 * 1.5  # what OpenAI's older tokenizers make of it
    minute = "A" * (60 * 24_000 * 2 * 4 // 3)
    assert reserved([{"type": "input_audio", "input_audio": {"data": minute}}])[1] >= 60 * 32


def test_sound_has_a_price_of_its_own() -> None:
    price = price_of("openai/gpt-audio", LLMSettings())
    assert price is not None
    assert price.per_audio_token_in is not None
    assert price.of(0, 0, 1000) == pytest.approx(1000 * price.per_audio_token_in)
    assert price.of(0, 0, 1000) > 5 * price.of(1000, 0)
    assert Price(1e-6, 2e-6, "").of(10, 10, 10) == pytest.approx(4e-5), "as text where no price of sound is known"


def test_an_address_in_a_model_name_is_refused() -> None:
    with pytest.raises(InputError, match="api-base"):
        check_route("oobabooga/http://elsewhere.example/v1", LLMSettings())


@pytest.mark.parametrize("model", ["my-local-model", "openai/gpt-4o-mini"])
def test_a_key_named_for_an_own_server_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setenv("MY_KEY", "secret-of-mine")
    monkeypatch.setenv("LSDATA_LLM__API_BASE", "")
    settings = load_settings(llm={"model": model, "api_key_env": "MY_KEY"}).llm
    assert settings.api_base is None
    with pytest.raises(InputError, match="there is no api_base"):
        check_route(model, settings)
