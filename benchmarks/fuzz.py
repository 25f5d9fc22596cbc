"""Coverage-guided fuzzing of everything that reads what others wrote. Not part of the tests.

    pip install atheris && python benchmarks/fuzz.py [TARGET] -max_total_time=60

Targets: jsonl, answer, settings, payload. A crash is an exception that is not the one the reader promises.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["latentscore", "latentscore_data"]):
    from latentscore.config import MusicConfigPromptPayload, parse_payload
    from latentscore.errors import InvalidConfigError
    from latentscore_data.core.base.errors import LsdataError
    from latentscore_data.core.base.jsonl import read_rows
    from latentscore_data.core.base.rows import VibeRow
    from latentscore_data.core.base.settings import load_settings
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


TARGETS = {target.__name__: target for target in (jsonl, answer, settings, payload)}

if __name__ == "__main__":
    name = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in TARGETS else "answer"
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
