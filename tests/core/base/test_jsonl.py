from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.base.jsonl import MAX_LINE_BYTES, Appender, read_lines, read_rows, replace_rows
from latentscore_data.core.base.rows import SourceText, VibeRow


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_bom_crlf_and_blank_lines_are_accepted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a":1}\r\n\r\n{"a":2}\r\n')
    assert [value["a"] for _, value in read_lines(path)] == [1, 2]


def test_an_empty_file_is_zero_rows(tmp_path: Path) -> None:
    assert list(read_lines(write(tmp_path / "a.jsonl", b""))) == []


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        (b'{"a":1}\n{"a":\n{"a":3}\n', ":2:", "not valid JSON"),
        (b'{"a":1}\n{"a":2', ":2:", "incomplete"),
        (b'{"a":1}\n{"a":"\xff"}\n', ":2:", "not UTF-8"),
        (b"[1]\n", ":1:", "JSON object"),
        (b'{"a":"' + b"x" * MAX_LINE_BYTES + b'"}\n', ":1:", "longer than"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, data: bytes, where: str, what: str) -> None:
    path = write(tmp_path / "bad.jsonl", data)
    with pytest.raises(InputError, match=what) as caught:
        list(read_lines(path))
    assert str(path) in caught.value.message
    assert where in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.remedy


def test_a_missing_field_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", b'{"dataset":"d","id_in_dataset":"1","text":"x"}\n{"dataset":"d","text":"x"}\n')
    with pytest.raises(InputError, match=r"t\.jsonl:2: field id_in_dataset"):
        list(read_rows(path, SourceText))


def test_a_torn_last_line_is_dropped_where_we_append(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"a":1}\n{"a":')
    assert [value for _, value in read_lines(path, torn="drop")] == [{"a": 1}]
    with Appender(path) as out:
        out.append({"a": 2})
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n'


def test_a_disk_slower_than_its_turn_is_not_synced_after_every_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = []

    def slow(fd: int) -> None:
        syncs.append(fd)
        time.sleep(0.06)

    monkeypatch.setattr(os, "fsync", slow)
    with Appender(tmp_path / "rows.jsonl", sync_seconds=0.05) as out:
        for n in range(20):
            out.append({"n": n})
    assert len(syncs) < 10


def test_appending_says_where_the_line_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with Appender(path) as out:
        places = [out.append({"vibe": word}) for word in ("rain", "schöner Regen", "snow")]
    data = path.read_bytes()
    assert [json.loads(data[at : at + length])["vibe"] for at, length in places] == ["rain", "schöner Regen", "snow"]


@given(
    st.lists(st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53) | st.none()), max_size=8),
    st.integers(0, 400),
)
@example([{"a": 1}, {"b": 2}], 15)  # before the end of the second line
def test_a_crash_at_any_byte_loses_only_the_torn_line(tmp_path_factory, rows, cut) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    with Appender(path) as out:
        for row in rows:
            out.append(row)
    lines = path.read_bytes().split(b"\n")
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    # A line that lacks nothing but its end is whole.
    whole = data.count(b"\n") + (data.rpartition(b"\n")[2] in lines[data.count(b"\n") : -1][:1])
    with Appender(path) as out:
        out.append({"last": True})
    assert [value for _, value in read_lines(path)] == [*rows[:whole], {"last": True}]


def test_a_failing_replace_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    replace_rows(path, [{"a": 1}])

    def breaks():
        yield {"a": 2}
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        replace_rows(path, breaks())
    assert path.read_bytes() == b'{"a":1}\n'
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_full_disk_is_one_clear_error_and_whole_lines(tmp_path: Path) -> None:
    """A file-size limit makes the kernel refuse writes in the middle of a line, as a full disk does."""
    path = tmp_path / "a.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with Appender(path) as out:
            out.append({"a": "x" * 60})
            with pytest.raises(OutputError, match="cannot be written"):
                out.append({"a": "y" * 60})
        with pytest.raises(OutputError, match="cannot be written"):
            replace_rows(tmp_path / "whole.jsonl", [{"a": "z" * 200}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [value for _, value in read_lines(path)] == [{"a": "x" * 60}]
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_rows_from_elsewhere_get_an_id_from_their_content(tmp_path: Path) -> None:
    path = write(
        tmp_path / "v.jsonl", b'{"dataset":"a:b","id_in_dataset":"1","vibe_original":"x","vibe_level":"xs","extra":7}\n'
    )
    (row,) = read_rows(path, VibeRow)
    assert row.row_id.startswith("a%3Ab:1:")
    assert row.model_dump()["extra"] == 7
    (again,) = read_rows(path, VibeRow)
    assert again.row_id == row.row_id
