"""What a server's refusal means, read from its status, codes and headers before its words."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from latentscore_data.core.llm.retry import classify
from latentscore_data.core.llm.server_errors import read_server_error, retry_after_seconds, seconds_in

GEMINI = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: "
        + "generate_content_free_tier_requests, limit: 10\n" * 8
        + "Please retry in 1.4s.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.4s"},
        ],
    }
}
VERTEX = {
    "error": {
        "code": 429,
        "message": "Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute_per_project. "
        "Please submit a quota increase request.",
        "status": "RESOURCE_EXHAUSTED",
    }
}


class Refused(Exception):
    """An error as LiteLLM raises it, with the server's response at the end of the chain."""

    def __init__(
        self, status: int, body: Any, headers: dict[str, str] | None = None, mapped: int | None = None
    ) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        super().__init__(f"litellm.SomeError: SomeException - {text}")
        self.status_code = mapped or status
        self.response = httpx.Response(mapped or status)
        cause = Exception("from the server")
        cause.response = httpx.Response(status, headers={"server": "x", **(headers or {})}, text=text)  # type: ignore[attr-defined]
        self.__context__ = cause


def error(message: str = "no", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


WAITS = [
    (429, GEMINI, {}, 1.4),
    (429, [GEMINI], {}, 1.4),
    (429, {"error": {**GEMINI["error"], "details": []}}, {}, 1.4),
    (429, VERTEX, {}, None),
    (429, error("You exceeded your current quota"), {"Retry-After": "7"}, 7.0),
    (429, error("Quota exceeded, please check your billing. Please retry in 2m3.5s."), {}, 123.5),
    (429, error("Rate limit reached for x on tokens per min. Please try again in 20ms.", type="tokens"), {}, 0.02),
    (429, error("... exceeded token rate limit. Please retry after 6 seconds.", code="429"), {}, 6.0),
    (429, error("Rate limit: see plan and billing", type="rate_limit_error"), {}, None),
    (429, error("Add 10 credits to unlock 1000 requests per day", code=429), {}, None),
    (429, error("slow down"), {}, None),
    (429, "plain words", {}, None),
    (400, error("Too many requests", code="rate_limit_exceeded"), {}, None),
    (403, error("secondary limit"), {"retry-after": "3"}, 3.0),
    (
        429,
        {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": json.dumps(GEMINI)}}},
        {},
        1.4,
    ),
    (503, {"error": "Model x is currently loading", "estimated_time": 20.5}, {}, 20.5),
]


@pytest.mark.parametrize(("status", "body", "headers", "seconds"), WAITS)
def test_a_limit_is_waited_out(status: int, body: Any, headers: dict[str, str], seconds: float | None) -> None:
    found = classify(Refused(status, body, headers))
    assert (found.kind, found.retry_after) == ("transient", seconds)
    assert found.crowded or status == 503


SPENT = [
    (429, error("You exceeded your current quota", type="insufficient_quota")),
    (429, error("x", code="insufficient_quota")),
    (429, error("You exceeded your current quota, please check your plan and billing details")),
    (429, error("suspended, check your balance", type="exceeded_current_quota_error")),
    (429, error("Your prepayment credits are depleted.", status="RESOURCE_EXHAUSTED")),
    (400, error("Your credit balance is too low to access the API.", type="invalid_request_error")),
    (400, error("x", code="billing_hard_limit_reached")),
    (400, error("Access denied", code="Arrearage")),
    (403, error("Insufficient balance")),
    (402, error("pay")),
]


@pytest.mark.parametrize(("status", "body"), SPENT)
def test_a_spent_balance_ends_the_run(status: int, body: Any) -> None:
    found = classify(Refused(status, body))
    assert (found.kind, found.spent) == ("auth", True)


@pytest.mark.parametrize(
    ("fields", "spent"),
    [
        ({"code": "insufficient_quota"}, False),
        ({"code": "insufficient_quota", "type": "requests"}, False),
        ({"code": "insufficient_quota", "type": "rate_limit_error"}, False),
        ({"code": "insufficient_quota", "type": "insufficient_quota"}, True),
        ({"type": "insufficient_quota"}, True),
        ({"code": "insufficient_balance", "type": "requests"}, True),
        ({"code": "insufficient_quota", "type": "billing_error"}, True),
    ],
)
def test_a_quota_code_with_a_time_to_come_again_is_judged_by_its_type(fields: dict[str, str], spent: bool) -> None:
    found = classify(Refused(429, error("You exceeded your current quota", **fields), {"Retry-After": "2"}))
    assert (found.kind, found.spent) == ("auth" if spent else "transient", spent)
    assert spent or found.retry_after == 2.0
    assert classify(Refused(429, error("x", **fields))).spent, "without a time it is a spent balance"


def test_the_status_is_the_servers_own() -> None:
    """LiteLLM makes a 429 of a bad request whose words are "rate limit"."""
    found = classify(Refused(400, error("the schema says rate limit", type="invalid_request_error"), mapped=429))
    assert (found.kind, found.status) == ("bad request", 400)
    assert classify(Refused(400, "too many requests", mapped=429)).kind == "transient"


@pytest.mark.parametrize("code", ["json_validate_failed", "tool_use_failed", "output_parse_failed"])
def test_a_draw_that_is_no_json_is_an_answer(code: str) -> None:
    found = classify(Refused(400, error("Failed to generate JSON.", code=code, failed_generation='{"a": ')))
    assert (found.kind, found.draw, found.unstructured) == ("answer", '{"a": ', False)
    assert classify(Refused(400, error("x", code=code))).kind == "answer"


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (error("Unsupported value", param="temperature", code="unsupported_value"), "temperature"),
        (error("`temperature` is deprecated for this model.", type="invalid_request_error"), "temperature"),
        (error("temperature and top_p cannot both be specified for this model."), "top_p"),
        (error("Unknown parameter: 'seed'."), "seed"),
        (error("seed: Extra inputs are not permitted"), "seed"),
        (error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), "max_tokens"),
        (error("max_tokens is too large, 4096 is not supported"), None),
        (error("temperature must be between 0 and 1", param="temperature", code="decimal_above_max"), None),
        (error("a text about temperature"), None),
        (error("x" * 600 + " temperature is not supported"), None),
    ],
)
def test_a_refused_parameter_is_named(body: Any, refused: str | None) -> None:
    found = classify(Refused(400, body))
    assert (found.kind, found.refused, found.unstructured) == ("bad request", refused, False)


@pytest.mark.parametrize(
    ("body", "unstructured"),
    [
        (error("Invalid parameter", param="response_format"), True),
        (error("x" * 400 + " json_schema is not supported"), True),
        (error("your prompt says grammar", param="messages[0].content"), False),
        (error("too long: grammar", code="context_length_exceeded"), False),
        (error("schema of violence", code="content_filter"), False),
    ],
)
def test_a_refused_shape_is_known_by_its_parameter_before_its_words(body: Any, unstructured: bool) -> None:
    assert classify(Refused(400, body)).unstructured is unstructured


def test_a_key_is_taken_out_before_the_message_is_cut() -> None:
    key = "sk-0123456789abcdef"
    found = classify(Refused(400, error("x" * 290 + " " + key)), secret=SecretStr(key))
    assert "sk-0" not in found.message


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("1.4s", 1.4),
        ("250ms", 0.25),
        ("1h2m3s", 3723.0),
        ("7m12.5s", 432.5),
        ("6 seconds", 6.0),
        ("2 days", 172800.0),
        ("soon", None),
        ("", None),
        ("5 apples", None),
    ],
)
def test_durations(duration: str, seconds: float | None) -> None:
    assert seconds_in(duration) == (None if seconds is None else pytest.approx(seconds))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "type", "param", "details", "metadata", "raw", "retryDelay", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from([400, 401, 403, 404, 418, 422, 429, 500, 503, 529]),
    JSON.map(lambda value: json.dumps(value)) | st.text(),
    st.dictionaries(
        st.sampled_from(["Retry-After", "retry-after-ms", "Date"]),
        st.sampled_from(["1", "nan", "inf", "-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 400]),
    ),
)
def test_whatever_a_server_sends_is_one_of_the_kinds(status: int, text: str, headers: dict[str, str]) -> None:
    found = classify(Refused(status, text, headers))
    assert found.kind in ("auth", "bad request", "transient", "answer")
    assert found.retry_after is None or found.retry_after >= 0
    assert "\n" not in found.message


def test_headers_have_any_case_and_nonsense_is_nothing() -> None:
    assert retry_after_seconds({"RETRY-AFTER": "2"}) == 2
    assert retry_after_seconds({"retry-after": "nan"}) is None
    assert retry_after_seconds({"retry-after": "inf"}) == float("inf")


MODELS = [
    "openai/x",
    "hosted_vllm/x",
    "openrouter/x",
    "gemini/gemini-2.5-flash",
    "groq/x",
    "anthropic/claude-sonnet-4-5",
]


@pytest.mark.parametrize("model", MODELS)
def test_litellms_errors_lead_to_the_servers_response(model: str) -> None:
    """The chain of exceptions is LiteLLM's affair: this fails when it changes."""
    from aiohttp import web

    async def run() -> BaseException:
        async def refuse(request: web.Request) -> web.Response:
            body = error("rate limit of the schema", code="odd_code", param="odd")
            return web.json_response(body, status=400, headers={"Retry-After": "1.5"})

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", refuse)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        import litellm

        try:
            await litellm.acompletion(
                model=model,
                messages=[{"role": "user", "content": "x"}],
                api_base=f"http://127.0.0.1:{runner.addresses[0][1]}/v1",
                api_key="k",
                max_retries=0,
                timeout=5,
            )
        except Exception as raised:
            return raised
        finally:
            await runner.cleanup()
        raise AssertionError("the server refuses everything")

    found = read_server_error(asyncio.run(run()))
    assert (found.status, found.names, found.param, found.retry_after) == (400, {"odd_code"}, "odd", 1.5)
    assert found.message == "rate limit of the schema"
