"""From an answer's text to an object, and what is sent to ask for its shape."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from factories import make_payload
from latentscore import MusicConfigPromptPayload
from latentscore_data.core.llm.structured import BadAnswer, Shape


class Small(BaseModel):
    word: str = Field(min_length=1, max_length=5)
    numbers: list[int] = Field(min_length=1)


SHAPE = Shape(Small)
GOOD = '{"word": "rain", "numbers": [1, 2]}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here it is:\n```\n{GOOD}\n```\nEnjoy!",
        f"<think>{{hmm}} maybe {{}}</think>{GOOD}",
        f"the opening mark was cut off</think>\n{GOOD}",
        f"<THINK>a\nb</THINK>\n```json\n{GOOD}```",
        f"Sure! {GOOD} Is that fine?",
        f"A first try ```json\n{{}}\n``` and the real one ```json\n{GOOD}\n```",
    ],
)
def test_an_answer_is_found_in_the_chatter(text: str) -> None:
    assert SHAPE.read(text, "stop") == Small(word="rain", numbers=[1, 2])


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        (GOOD[:-5], "length", "truncated"),
        # A cut answer explains invalid JSON, so it is looked at first.
        (GOOD, "length", "truncated"),
        (GOOD, "content_filter", "filtered"),
        ("", "stop", "empty"),
        ("  \n", "stop", "empty"),
        (None, "stop", "empty"),
        ('{"word": "rain" "numbers": [1]}', "stop", "malformed"),
        ("no JSON at all", "stop", "malformed"),
        ('{"word": "far too long", "numbers": [1]}', "stop", "invalid"),
        ('{"word": "rain"}', "stop", "invalid"),
        ("[1, 2]", "stop", "invalid"),
    ],
)
def test_a_bad_answer_says_what_is_wrong_with_it(text: str | None, finish_reason: str, reason: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        SHAPE.read(text, finish_reason)
    assert caught.value.reason == reason


def test_the_fault_names_the_field() -> None:
    with pytest.raises(BadAnswer, match="numbers"):
        SHAPE.read('{"word": "rain", "numbers": "none"}', "stop")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadAnswer):
        SHAPE.read(text, "stop")


def test_hosted_providers_get_no_lengths_and_local_servers_do() -> None:
    hosted = json.dumps(Shape(MusicConfigPromptPayload, hosted=True).response_formats["schema"])
    local = json.dumps(Shape(MusicConfigPromptPayload, hosted=False).response_formats["schema"])
    assert "maxLength" in local
    assert "maxLength" not in hosted
    assert '"minItems": 5' in hosted
    assert '"enum": ["very_slow"' in hosted


def test_a_field_may_be_called_like_a_word_of_the_schema() -> None:
    class Odd(BaseModel):
        default: str
        maxLength: int

    sent = Shape(Odd).response_formats["schema"]
    assert sent is not None
    assert set(sent["json_schema"]["schema"]["properties"]) == {"default", "maxLength"}


def test_a_whole_payload_reads_back() -> None:
    payload = make_payload()
    read = Shape(MusicConfigPromptPayload).read(json.dumps(payload), "stop")
    assert read.config.model_dump() == payload["config"]
