"""The object that fits the type is found in whatever a model puts around it."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from factories import make_payload
from latentscore import MusicConfigPromptPayload
from latentscore.json_search import inside, search
from latentscore_data.core.llm.structured import BadAnswer, Shape


class Small(BaseModel):
    model_config = ConfigDict(extra="forbid")

    word: str = Field(min_length=1, max_length=5)
    numbers: list[int] = Field(min_length=1)


class Loose(BaseModel):
    word: str = ""


SHAPE = Shape(Small)
RAIN = Small(word="rain", numbers=[1, 2])
GOOD = RAIN.model_dump_json()
OTHER = Small(word="snow", numbers=[3]).model_dump_json()

TAGS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<Thinking type='deep'>", "</Thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("<scratchpad>", "</scratchpad>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
]
"""Vendors' marks around a thought."""


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"I thought of {{sounds}} first. {GOOD}", id="braces before"),
        pytest.param(f"{GOOD} Here {{sounds}} and {{more}} stand for rain. }}", id="braces after"),
        pytest.param(f"{{{{word}}}} is a placeholder: {GOOD}", id="double braces before"),
        pytest.param(f"{GOOD}\n{GOOD}", id="said twice"),
        pytest.param(f"{GOOD}{GOOD}", id="said twice without a break"),
        pytest.param(GOOD + "}", id="one brace too many"),
        pytest.param(f"{{{GOOD}}}", id="braces doubled"),
        pytest.param("{" + GOOD, id="one brace too many at the start"),
        pytest.param(f'```json\n{GOOD}\n```\nFor example:\n```json\n{{"word": "x"}}\n```', id="a second fence"),
        pytest.param(
            f"```json\n{GOOD}\n```\nFor example, snow would be:\n```json\n{OTHER}\n```", id="a fitting example"
        ),
        pytest.param(f"For example {OTHER}. My answer is {GOOD}", id="an example first"),
        pytest.param(f"Draft: {OTHER}\nBetter: {GOOD}", id="a draft first"),
        pytest.param(json.dumps(GOOD), id="in a string"),
        pytest.param(json.dumps(json.dumps(GOOD)), id="in a string in a string"),
        pytest.param(GOOD.replace('"', '\\"'), id="escaped without quotes"),
        pytest.param(f"The answer: {json.dumps(GOOD)}.", id="in a string in prose"),
        pytest.param(json.dumps({"answer": json.loads(GOOD)}), id="in an object"),
        pytest.param(json.dumps({"name": "answer", "arguments": GOOD}), id="in a call"),
        pytest.param(
            f"<tool_call>{json.dumps({'name': 'answer', 'arguments': json.loads(GOOD)})}</tool_call>", id="call"
        ),
        pytest.param(json.dumps([json.loads(GOOD)]), id="in a list"),
        pytest.param("\ufeff" + GOOD, id="a byte-order mark"),
        pytest.param(f"~~~\n{GOOD}\n~~~", id="another fence"),
        pytest.param(f"```json\n{GOOD}", id="a fence that is not closed"),
        pytest.param('{"word": "ra\nin", "numbers": [1, 2]}'.replace("\n", ""), id="plain"),
    ],
)
def test_the_object_that_fits_is_found(text: str) -> None:
    assert SHAPE.read(text, "stop") == RAIN


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag[0].strip())
@pytest.mark.parametrize(
    "thought",
    ["hmm", f"maybe {OTHER}?", "an {open} one, and { too", '{"word": "sn', f"{OTHER} {OTHER} or so", '"'],
)
def test_a_thought_is_not_the_answer(tag: tuple[str, str], thought: str) -> None:
    opened, closed = tag
    assert SHAPE.read(f"{opened}{thought}{closed}{GOOD}", "stop") == RAIN
    assert SHAPE.read(f"{opened}{thought}{closed}\n```json\n{GOOD}\n```\n", "stop") == RAIN


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag[0].strip())
def test_an_answer_in_a_thought_that_is_never_closed_is_found(tag: tuple[str, str]) -> None:
    assert SHAPE.read(f"{tag[0]} I could say {OTHER}, but then: {GOOD}", "stop") == RAIN
    assert SHAPE.read(f"{tag[0]}{GOOD}{tag[1]}", "stop") == RAIN


@pytest.mark.parametrize("before", ["{}", '{"a": 1}', '{"a": ', "{word}", "{"])
def test_braces_outside_of_an_open_thought_do_not_hide_the_answer(before: str) -> None:
    assert SHAPE.read(f"{before} <think> {GOOD}", "stop") == RAIN


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag[0].strip())
@pytest.mark.parametrize("answer", ['{"word": "rai', '{"word": "much too long", "numbers": [1]}', '{"word": "rain"}'])
def test_a_draft_is_not_taken_for_an_answer_that_does_not_fit(tag: tuple[str, str], answer: str) -> None:
    with pytest.raises(BadAnswer):
        SHAPE.read(f"{tag[0]}{OTHER}{tag[1]}{answer}", "stop")


def test_a_mark_inside_the_answer_is_part_of_it() -> None:
    text = '{"word": "[THINK]<think>", "title": "</think>"}'
    assert search(f"Here: {text}").said[0].value == json.loads(text)
    assert not search(f"Here: {text}").thoughts


def test_a_type_whose_fields_all_have_defaults_is_not_found_in_any_object() -> None:
    assert Shape(Loose).read('Well {"answer": {"word": "rain"}, "other": {}}', "stop") == Loose(word="rain")
    with pytest.raises(BadAnswer):
        Shape(Loose).read('Well {"other": {"a": 1}}', "stop")


def test_thoughts_and_calls_are_read_where_nothing_was_said() -> None:
    assert SHAPE.read(None, "stop", thoughts=[f"so {GOOD}"]) == RAIN
    assert SHAPE.read("", "tool_calls", calls=[GOOD], thoughts=[OTHER]) == RAIN
    assert SHAPE.read("I call the tool.", "tool_calls", calls=[GOOD]) == RAIN
    with pytest.raises(BadAnswer, match="numbers"):
        SHAPE.read('{"word": "rain"}', "stop", thoughts=[GOOD])
    with pytest.raises(BadAnswer, match="empty"):
        SHAPE.read(None, "stop", thoughts=[" "])


def test_line_breaks_and_half_characters_in_strings_are_accepted() -> None:
    assert SHAPE.read('{"word": "a\nb", "numbers": [1]}', "stop").word == "a\nb"
    assert SHAPE.read('{"word": "a\\ud83d", "numbers": [1]}', "stop").word == "a?"


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_json_is_not_an_answer(constant: str) -> None:
    with pytest.raises(BadAnswer):
        SHAPE.read(f'{{"word": "rain", "numbers": [{constant}]}}', "stop")


PROSE = st.text(st.sampled_from(" abc{}[]<>`\"'\\\n:,/|"), max_size=40)
FENCES = st.sampled_from(["{}", "```json\n{}\n```", "```\n{}```", "{}\n\n", "> {}", "**{}**"])


@given(
    before=PROSE,
    after=PROSE,
    fence=FENCES,
    word=st.text(min_size=1, max_size=5),
    numbers=st.lists(st.integers(-9, 9), min_size=1),
)
@example(before='{"', after="", fence="{}", word="rain", numbers=[1])
def test_the_object_is_found_in_any_prose(before: str, after: str, fence: str, word: str, numbers: list[int]) -> None:
    # A quote that is open before the object makes it part of a string: no reader can tell.
    before = before.replace('"', "'")
    value = json.dumps({"word": word, "numbers": numbers})
    text = f"{before} {fence.replace('{}', value)} {after}"
    assert SHAPE.read(text, "stop").model_dump() == {
        "word": word.encode("utf-8", "replace").decode(),
        "numbers": numbers,
    }


@given(
    st.recursive(
        st.just(make_payload()),
        lambda inner: st.one_of(
            st.builds(lambda v: json.dumps(v), inner),
            st.builds(lambda v: {"result": v}, inner),
            st.builds(lambda v: [{"note": "x"}, v], inner),
        ),
        max_leaves=4,
    )
)
def test_a_payload_is_found_however_it_is_wrapped(wrapped: Any) -> None:
    read = Shape(MusicConfigPromptPayload).read(json.dumps(wrapped), "stop")
    assert read.model_dump(mode="json") == MusicConfigPromptPayload.model_validate(make_payload()).model_dump(
        mode="json"
    )


PIECES = [
    "{",
    "}",
    '{"',
    '"}',
    '{"word":',
    '"',
    "\\",
    "[",
    "]",
    "<think>",
    "</think>",
    "<",
    "```",
    GOOD,
    '{"a":[',
    ",1",
    " ",
]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_any_pieces_are_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadAnswer):
        SHAPE.read(text, "stop")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "mark", [*PIECES, '{"a":{"b":', '{"a":[0,', '{"a": "', "<|channel|>", "</think>{}", '"{\\"', "{\n"]
)
def test_an_answer_that_repeats_itself_is_read_at_once(mark: str) -> None:
    started = time.process_time()
    for text in (mark * (200_000 // len(mark)), "{" + mark * (200_000 // len(mark)), '{"a":[' * 900 + "0," * 100_000):
        with contextlib.suppress(BadAnswer):
            SHAPE.read(text, "stop")
    assert time.process_time() - started < 5


def test_what_lies_inside_is_looked_through_to_an_end() -> None:
    deep: Any = {"word": "rain"}
    for _ in range(500):
        deep = {"a": deep}
    assert list(inside(deep))[-1] == {"word": "rain"}
    assert sum(1 for _ in inside([{"a": {}}] * 100_000)) < 5000
