"""Parquet files with columns that Python has no values for: only what a text needs is read."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from latentscore_data.core.base.errors import InputError  # noqa: E402
from latentscore_data.core.base.jsonl import dump_line  # noqa: E402
from latentscore_data.core.texts.corpus import find_source, sample_local  # noqa: E402

ROWS = 3
FAR = 2**62
BAD_UTF8 = b"caf\xe9"


def bad_text() -> Any:
    """A column of strings, of which the second is Latin-1."""
    values = [b"one", BAD_UTF8, b"three"]
    offsets = pa.array([0, 3, 7, 12], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), ROWS, [None, offsets, pa.py_buffer(b"".join(values))])


STRANGE: dict[str, Any] = {
    "far dates": pa.array([2**30, 0, -(2**30)], pa.date32()),
    "far dates in ms": pa.array([FAR // 86_400_000 * 86_400_000] * ROWS, pa.date64()),
    "far timestamps": pa.array([2**50, 0, -(2**50)], pa.timestamp("s")),
    "far timestamps of a zone": pa.array([FAR, 0, -FAR], pa.timestamp("us", tz="Europe/Berlin")),
    "nanoseconds": pa.array([1, 2, 3], pa.timestamp("ns")),
    "an unknown zone": pa.array([1, 2, 3], pa.timestamp("s", tz="Nowhere/Land")),
    "long durations": pa.array([FAR, 0, -FAR], pa.duration("s")),
    "times": pa.array([1, 2, 3], pa.time64("ns")),
    "bad UTF-8": bad_text(),
    "bytes": pa.array([BAD_UTF8] * ROWS, pa.binary()),
    "decimals": pa.array([decimal.Decimal("1.5")] * ROWS),
    "large numbers": pa.array([2**64 - 1] * ROWS, pa.uint64()),
    "not numbers": pa.array([float("nan"), float("inf"), 0.0]),
    "lists of far dates": pa.array([[2**30]] * ROWS, pa.list_(pa.date32())),
    "a map": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
    "nulls": pa.nulls(ROWS),
    "a struct": pa.array([{"when": 2**30, "of": "x"}] * ROWS, pa.struct([("when", pa.date32()), ("of", pa.string())])),
    "a dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
}


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"text": pa.array(["rain", "snow", "fog"]), **columns}), path)
    return path


def read(path: Path, text_field: str | None = None) -> list[Any]:
    texts = sample_local(find_source(str(path)), 10, 1, text_field).texts
    for text in texts:
        dump_line(text)
    return texts


@pytest.mark.parametrize("name", ["other", "metadata", "created", "id", "dataset", "a.b"])
@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_column_beside_the_text_costs_nothing(tmp_path: Path, strange: str, name: str) -> None:
    texts = read(write(tmp_path / "texts.parquet", **{name: STRANGE[strange]}))
    assert [text.text for text in texts] == ["rain", "snow", "fog"]


@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_column_as_the_text_is_refused_with_its_place(tmp_path: Path, strange: str) -> None:
    path = write(tmp_path / "texts.parquet", other=STRANGE[strange])
    if strange in ("a dictionary", "nulls"):
        read(path, "other")
        return
    with pytest.raises(InputError, match=r"texts\.parquet.* field other is"):
        read(path, "other")


def test_plain_columns_become_metadata_as_before(tmp_path: Path) -> None:
    when = pa.array([0, 1, 2], pa.timestamp("s"))
    path = write(tmp_path / "t.parquet", id=pa.array(["a", "b", "c"]), stars=pa.array([1, 2, 3]), created=when)
    (first, *_) = read(path)
    assert (first.id_in_dataset, first.metadata, first.created) == ("a", {"id": "a", "stars": 1}, "1970-01-01 00:00:00")


def test_a_file_without_a_text_names_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"when": STRANGE["far dates"], "n": [1, 2, 3]}), tmp_path / "t.parquet")
    for field in (None, "words"):
        with pytest.raises(InputError, match=r"t\.parquet: no column .*\(there are: when, n\)"):
            read(tmp_path / "t.parquet", field)


@pytest.mark.parametrize("keep", [0, 3, 12, 200, -1, -8, -50])
def test_a_cut_file_is_refused_with_its_name(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "t.parquet", other=STRANGE["a dictionary"])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"t\.parquet is not a parquet file"):
        read(path)
