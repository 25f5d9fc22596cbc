"""Coverage-guided fuzzing of all readers of untrusted input. Not part of the tests.

    pip install atheris && python benchmarks/fuzz.py [TARGET] -max_total_time=60

Targets: jsonl, answer, answers, refusals, addresses, settings, payload, and of damaged files answer_cache, score_cache,
compiled_loops, checkpoint, parquet, adapter, run_record, manifest. A crash is an exception that is not the one the reader
promises, or a valid answer that is not found.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import atheris
from pydantic import create_model

with atheris.instrument_imports(include=["latentscore", "latentscore_data"]):
    from fuzz_files import DAMAGED_FILES

    from latentscore.config import MusicConfigPromptPayload, parse_payload
    from latentscore.errors import InvalidConfigError
    from latentscore_data.core.base.errors import LsdataError
    from latentscore_data.core.base.jsonl import read_rows
    from latentscore_data.core.base.proxies import check_address, is_loopback
    from latentscore_data.core.base.rows import VibeRow
    from latentscore_data.core.base.settings import load_settings
    from latentscore_data.core.llm.replies import flatten_message, read_message
    from latentscore_data.core.llm.retry import classify
    from latentscore_data.core.llm.structured import BadAnswer, Shape

FOLDER = Path(tempfile.mkdtemp(prefix="lsdata-fuzz-"))
SHAPE = Shape(MusicConfigPromptPayload)


def jsonl(data: bytes) -> None:
    path = FOLDER / "rows.jsonl"
    path.write_bytes(data)
    for torn in ("refuse", "drop"):
        try:
            list(read_rows(path, VibeRow, torn))  # pyright: ignore[reportArgumentType]
        except LsdataError as error:
            assert "\n" not in error.message


def answer(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    reason = provider.PickValueInList(["stop", "length", "tool_calls"])
    try:
        SHAPE.read(provider.ConsumeUnicode(sys.maxsize), reason)
    except BadAnswer:
        pass


MARKS = [
    *("<think>", "</think>", "[THINK]", "[/THINK]", "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    *("```json\n", "```", "{", "}", "{}", "[", "]", "\\", ":", ",", "For example ", "{'a': 1}", "\n"),
]
WORD = Shape(create_model("Word", word=(str, ...), numbers=(list[int], ...)))
GOOD = '{"word": "rain", "numbers": [1, 2]}'


def answers(data: bytes) -> None:
    """A message of any form is read; an answer among marks and prose without quotes is found."""
    provider = atheris.FuzzedDataProvider(data)
    try:
        raw = json.loads(provider.ConsumeUnicodeNoSurrogates(provider.ConsumeIntInRange(0, 200)))
    except (ValueError, RecursionError):
        raw = None
    if isinstance(raw, dict):
        flatten_message(raw)
        said = read_message(SimpleNamespace(**{name: value for name, value in raw.items() if name.isidentifier()}))
        try:
            WORD.read(said.text, "stop", said.thoughts, said.calls)
        except BadAnswer:
            pass
    around = ["", ""]
    for side in range(2):
        for _ in range(provider.ConsumeIntInRange(0, 8)):
            around[side] += provider.PickValueInList(MARKS)
            around[side] += provider.ConsumeUnicodeNoSurrogates(provider.ConsumeIntInRange(0, 20)).replace('"', "")
    found = WORD.read(f"{around[0]} {GOOD} {around[1]}", "stop")
    assert found.model_dump_json() == WORD.answer_type.model_validate_json(GOOD).model_dump_json()


def refusals(data: bytes) -> None:
    """Whatever a server sends with an error, the error has a kind."""
    provider = atheris.FuzzedDataProvider(data)
    status = provider.PickValueInList([400, 403, 413, 422, 429, 500, 503])
    headers = {"server": "x", "retry-after": provider.ConsumeString(12).encode("ascii", "ignore").decode()}
    error = RuntimeError(provider.ConsumeUnicodeNoSurrogates(30))
    cause = RuntimeError("from the server")
    cause.response = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        status_code=status, headers=headers, text=provider.ConsumeUnicodeNoSurrogates(sys.maxsize)
    )
    error.__context__ = cause
    found = classify(error)
    assert found.retry_after is None or found.retry_after >= 0
    assert "\n" not in found.message


def addresses(data: bytes) -> None:
    text = atheris.FuzzedDataProvider(data).ConsumeUnicodeNoSurrogates(sys.maxsize)
    for address in (text, f"http://{text}"):
        is_loopback(address)
        try:
            check_address(address)
        except ValueError as error:
            assert not isinstance(error, UnicodeError)


def settings(data: bytes) -> None:
    path = FOLDER / "latentscore.toml"
    path.write_bytes(data)
    try:
        load_settings(path)
    except LsdataError as error:
        assert "\n" not in error.message


def payload(data: bytes) -> None:
    try:
        parse_payload(data)
    except InvalidConfigError as error:
        assert error.field


OWN = (jsonl, answer, answers, refusals, addresses, settings, payload)
TARGETS = {target.__name__: target for target in (*OWN, *DAMAGED_FILES)}

if __name__ == "__main__":
    name = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in TARGETS else "answer"
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
