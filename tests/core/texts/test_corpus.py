"""Texts from files: every format, what is named when one is bad, and a sample that does not depend on the order."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import make_text
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.texts.corpus import (
    TEXT_MAX_CHARS,
    Reader,
    draw_sample,
    find_source,
    find_sources,
    local_files,
    sample_local,
    source_fingerprint,
)


def read(path: Path, text_field: str | None = None):
    return list(Reader(path.name, text_field).read(path, local_files(path)))


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_folder_of_every_format_is_read_with_a_name_for_each_text(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_bytes(b"\xef\xbb\xbfrain\r\nfalls")
    (tmp_path / "b.md").write_text("# snow", encoding="utf-8")
    write_jsonl(tmp_path / "c.jsonl", {"text": "wind", "id": 7, "author": "x"}, {"text": "hail"})
    with gzip.open(tmp_path / "d.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"content": "fog"}) + "\n")
    parquet.write_table(pyarrow.table({"body": ["sun", "moon"]}), tmp_path / "e.parquet")
    (tmp_path / ".hidden.txt").write_text("no", encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    texts = {text.id_in_dataset: text.text for text in read(tmp_path)}
    assert texts == {
        "b.md": "# snow",
        "7": "wind",
        "c.jsonl#2": "hail",
        "d.jsonl.gz#1": "fog",
        "deep/a.txt": "rain\r\nfalls",
        "e.parquet#1": "sun",
        "e.parquet#2": "moon",
    }


def test_rows_in_our_own_format_keep_their_names_and_metadata(tmp_path: Path):
    row = make_text(4).model_dump()
    (text,) = read(write_jsonl(tmp_path / "x.jsonl", row))
    assert text.model_dump() == row


def test_equal_ids_get_names_of_their_own_and_empty_texts_are_counted(tmp_path: Path):
    path = write_jsonl(tmp_path / "x.jsonl", {"id": 1, "text": "a"}, {"id": 1, "text": "b"}, {"id": 2, "text": "  "})
    reader = Reader("x")
    assert [text.id_in_dataset for text in reader.read(path, [path])] == ["1", "1~2"]
    assert reader.empty == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"words": "b"}\n', r"x\.jsonl:2: no column with the text \(there are: words\)"),
        (b'{"text": 3}\n', r"x\.jsonl:1: no column with the text"),
        (b'{"text": "a"}\n{"text": "b', r"x\.jsonl:2: the last line is torn"),
        (b'{"text": "\xff"}\n', r"x\.jsonl:1: not UTF-8 at byte"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(path)


def test_a_bad_file_is_named(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes(b"ab\xffc")
    with pytest.raises(InputError, match=r"x\.txt: not UTF-8 at byte 2"):
        read(tmp_path / "x.txt")
    (tmp_path / "y.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:40])
    with pytest.raises(InputError, match="cannot be read to its end"):
        read(tmp_path / "y.jsonl.gz")
    (tmp_path / "z.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"z\.parquet is not a parquet file"):
        read(tmp_path / "z.parquet")


def test_the_text_column_can_be_named(tmp_path: Path):
    path = write_jsonl(tmp_path / "x.jsonl", {"text": "short", "long_text": "the long one"})
    assert [text.text for text in read(path, "long_text")] == ["the long one"]
    with pytest.raises(InputError, match=r"no column nothing \(there are: text, long_text\)"):
        read(path, "nothing")


def test_an_endless_text_is_cut_and_says_so(tmp_path: Path):
    (tmp_path / "x.txt").write_text("word " * 300_000, encoding="utf-8")
    (text,) = read(tmp_path / "x.txt")
    assert len(text.text) == TEXT_MAX_CHARS
    assert text.metadata["cut_at_chars"] == TEXT_MAX_CHARS


def test_names_mean_what_they_say(tmp_path: Path):
    (tmp_path / "books").mkdir()
    assert find_source("builtin").kind == "builtin"
    assert find_source(str(tmp_path / "books")).kind == "local"
    hub = find_source("owner/name:config")
    assert (hub.kind, hub.repo, hub.config) == ("hub", "owner/name", "config")
    for wrong in ("./nowhere", "books.jsonl", "just-a-word", "a/b/c"):
        with pytest.raises(InputError):
            find_source(wrong)
    (tmp_path / "other" / "books").mkdir(parents=True)
    with pytest.raises(InputError, match="two data sets are called books"):
        find_sources([str(tmp_path / "books"), str(tmp_path / "other" / "books")])


@settings(deadline=None, max_examples=40)
@given(st.permutations(list(range(30))), st.integers(1, 40), st.integers(0, 5))
def test_a_sample_does_not_depend_on_the_order_and_grows_around_the_smaller_one(order, size, seed):
    texts = [make_text(i, text=f"text {i}") for i in range(30)]
    one, seen = draw_sample(texts, size, seed)
    other, _ = draw_sample([texts[i] for i in order], size, seed)
    assert seen == 30
    assert {t.id_in_dataset for t in one} == {t.id_in_dataset for t in other}
    assert len(one) == min(size, 30)
    assert [texts.index(t) for t in one] == sorted(texts.index(t) for t in one)
    smaller, _ = draw_sample(texts, max(size - 1, 1), seed)
    assert {t.id_in_dataset for t in smaller} <= {t.id_in_dataset for t in one}


def test_every_text_is_as_likely_as_any_other():
    texts = [make_text(i) for i in range(20)]
    counts = dict.fromkeys((t.id_in_dataset for t in texts), 0)
    for seed in range(400):
        for text in draw_sample(texts, 5, seed)[0]:
            counts[text.id_in_dataset] += 1
    assert min(counts.values()) > 60
    assert max(counts.values()) < 140


def test_the_fingerprint_follows_what_decides_the_sample(tmp_path: Path):
    (tmp_path / "a.txt").write_text("rain", encoding="utf-8")
    source = find_source(str(tmp_path))
    before = source_fingerprint(source, 10, 0, None)
    assert source_fingerprint(source, 10, 0, None) == before
    assert source_fingerprint(source, 10, 1, None) != before
    (tmp_path / "a.txt").write_text("snow", encoding="utf-8")
    assert source_fingerprint(source, 10, 0, None) != before
    assert "uniform" in sample_local(source, 10, 0, None).how
