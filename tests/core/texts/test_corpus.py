"""Texts from files: every format, what is named when one is bad, and a sample that does not depend on the order."""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import needs
from factories import make_text
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import DownloadSettings
from latentscore_data.core.texts.corpus import (
    TEXT_MAX_CHARS,
    Reader,
    draw_sample,
    find_source,
    find_sources,
    in_words,
    local_files,
    sample_local,
)
from latentscore_data.core.texts.formats import UTF8, find_encoding, read_table
from latentscore_data.core.texts.kinds import fingerprint


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
        (b'{"text": "a"}\n{"words": "b"}\n', r"x\.jsonl:2: no column text \(there are: words\)"),
        (b'{"text": 3}\n', r"x\.jsonl:1: no column with text"),
        (b'{"text": "a"}\n{"text": "b', r"x\.jsonl:2: the last line is incomplete"),
        (b'{"text": "\xff"}\n', r"x\.jsonl:1: not UTF-8 at byte"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(path)


@needs("pyarrow")
def test_a_bad_file_is_named(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes(b"ab\xffc")
    with pytest.raises(InputError, match=r"x\.txt:1: not UTF-8 at byte 2"):
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
    for wrong in ("", "./nowhere", "books.jsonl", "just-a-word", "a/b/c"):
        with pytest.raises(InputError):
            find_source(wrong)
    (tmp_path / "other" / "books").mkdir(parents=True)
    with pytest.raises(InputError, match="two data sets have the name books"):
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
    now = DownloadSettings(sample_size=10)
    before = fingerprint(source, now)
    assert fingerprint(source, now) == before
    assert fingerprint(source, DownloadSettings(sample_size=10, seed=1)) != before
    (tmp_path / "a.txt").write_text("snow", encoding="utf-8")
    assert fingerprint(source, now) != before
    assert "uniform" in sample_local(source, 10, 0, None).how


def test_the_column_of_the_text_is_one_for_a_file(tmp_path: Path) -> None:
    """A null text is an empty text, whatever other column of the row could be taken for one."""
    rows = [{"text": None, "content": "not this"}, {"text": "rain", "content": "nor this"}, {"text": None}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sample = sample_local(find_source(str(path)), 10, 1, None)
    assert ([text.text for text in sample.texts], sample.empty) == (["rain"], 2)
    path.write_text('{"text": "rain"}\n{"content": "snow"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: no column text \(there are: content\)"):
        sample_local(find_source(str(path)), 10, 1, None)
    path.write_text('{"text": ["a list"], "content": "snow"}\n{"content": null}\n')
    assert [text.text for text in sample_local(find_source(str(path)), 10, 1, None).texts] == ["snow"]


# --- tables, encodings, and what is not read -------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".CSV"])
@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_is_read_as_it_was_written(tmp_path: Path, ending: str, delimiter: str, mark: str):
    delimiter = "\t" if ending == ".tsv" else delimiter
    texts = ['rain, "slow"; on | tin', "two\nlines\r\nand a\ttab", " caf\xe9 \u2028 ", ""]
    path = tmp_path / f"t{ending}"
    with path.open("w", encoding=mark, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([["id", "text", "stars"], *([f"n{i}", text, i] for i, text in enumerate(texts))])
    sample = sample_local(find_source(str(path)), 10, 1, None)
    assert [(text.id_in_dataset, text.text) for text in sample.texts] == [(f"n{i}", t) for i, t in enumerate(texts[:3])]
    assert sample.texts[1].metadata == {"id": "n1", "stars": "1"}
    assert sample.empty == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=5)), max_size=6))
def test_whatever_stands_in_the_cells_comes_back(rows: list[tuple[str, str]]):
    rows = [(text.encode("utf-8", "replace").decode(), note) for text, note in rows]
    rows = [(text, note.encode("utf-8", "replace").decode()) for text, note in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "note"), *rows])
        assert [(row["text"], row["note"]) for _, row in read_table(path, "utf-8")] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,n\nrain, and snow,1\n", r"t\.csv:2: 3 cells in a table of 2 columns"),
        ('text\n"rain\n\nsnow\n', r"t\.csv:4: not a table"),
        ('text\n"rain" falls\n', r"t\.csv:2: not a table"),
        ("a,b\n1,2\n", r"t\.csv: no column with text \(there are: a, b\)"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, content: str, message: str):
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        sample_local(find_source(str(path)), 10, 1, None)


def test_a_short_row_and_a_column_of_nulls_hold_empty_texts(tmp_path: Path):
    (tmp_path / "t.csv").write_text("id,text,text\n1\n\n2,rain,other\n")
    sample = sample_local(find_source(str(tmp_path / "t.csv")), 10, 1, None)
    assert ([text.text for text in sample.texts], sample.empty) == (["rain"], 1)
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": pyarrow.nulls(3), "note": ["a", "b", "c"]}), tmp_path / "t.parquet")
    sample = sample_local(find_source(str(tmp_path / "t.parquet")), 10, 1, None)
    assert (sample.texts, sample.empty) == ([], 3)


def test_a_folder_lists_what_is_not_read_and_reads_the_rest(tmp_path: Path):
    (tmp_path / "poem.txt").write_text("rain")
    (tmp_path / "table.csv").write_text("words,n\nsnow,1\n")
    (tmp_path / "notes").write_text("no extension")
    (tmp_path / "picture.PNG").write_bytes(b"\x89PNG")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "old.txt").write_bytes("un caf\xe9".encode("latin-1"))
    (tmp_path / "quoted.md").write_bytes("good\nsaid \u201cyes\u201d".encode("cp1252"))
    (tmp_path / ".hidden").write_text("not listed")
    sample = sample_local(find_source(str(tmp_path)), 10, 1, None)
    assert [text.text for text in sample.texts] == ["rain"]
    reasons = {one.file: one.reason for one in sample.unread}
    assert sorted(reasons) == ["gone.txt", "notes", "old.txt", "picture.PNG", "quoted.md", "table.csv"]
    assert "--encoding latin-1" in reasons["old.txt"]
    assert "line 1: not UTF-8 at byte 6" in reasons["old.txt"]
    assert "--encoding cp1252" in reasons["quoted.md"]
    assert "line 2: not UTF-8 at byte 5" in reasons["quoted.md"]
    assert "no column with text (there are: words, n): name it with --text-field" in reasons["table.csv"]
    assert "and 1 more" in in_words(sample.unread)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "koi8-r", "shift_jis", "utf-16-le"])
def test_files_of_another_encoding_are_read_with_the_option_beside_utf8(tmp_path: Path, encoding: str):
    text = {"koi8-r": "\u0434\u043e\u0436\u0434\u044c", "shift_jis": "\u96e8\u3068\u96ea"}.get(
        encoding, "d\xe9j\xe0 vu"
    )
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(text.encode(encoding))
    (tmp_path / "c.csv").write_bytes(f"text\n{text}\n".encode(encoding))
    (tmp_path / "d.jsonl").write_bytes((json.dumps({"text": text}, ensure_ascii=False) + "\n").encode(encoding))
    sample = sample_local(find_source(str(tmp_path)), 10, 1, None, encoding)
    assert ([one.text for one in sample.texts], sample.unread) == ([text] * 4, [])


def test_a_file_alone_and_a_folder_of_nothing_else_are_refused_with_the_option(tmp_path: Path):
    path = tmp_path / "old.txt"
    path.write_bytes(b"x" * (1 << 20) + b"\nun caf\xe9")
    for name in (path, tmp_path):
        with pytest.raises(InputError) as caught:
            sample_local(find_source(str(name)), 10, 1, None)
        assert "--encoding latin-1" in str(caught.value)
        assert "2: not UTF-8 at byte 6" in caught.value.message
    with pytest.raises(InputError, match="neither UTF-8 nor ascii"):
        sample_local(find_source(str(path)), 10, 1, None, "ascii")


def test_a_character_between_two_blocks_is_no_misfit(tmp_path: Path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"x" * ((1 << 20) - 1) + "\xe9".encode() + b"\n" * 10)
    assert find_encoding(path) == UTF8
