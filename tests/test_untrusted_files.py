"""Untrusted names, cards, pages, maps and links, in process: they stay data, and no path leads out of the folder."""

from __future__ import annotations

import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import SRC, here
from export_workspace import fill
from factories import make_config, make_payload, make_scored, make_text
from latentscore import InvalidConfigError, MapError, load_map, parse_config, parse_payload
from latentscore.embed import WordVectorEmbedder
from latentscore_data.core.base.errors import OutputError
from latentscore_data.core.base.jsonl import Appender, read_rows, replace_rows
from latentscore_data.core.base.rows import ScoredRow, SourceText
from latentscore_data.core.base.workspace import Workspace

NAMES = (
    "../../x",
    "/etc/passwd",
    "..",
    ".",
    "",
    "x" * 5000,
    "a\x00b",
    "a/b\\c",
    "-rf",
    "\u202egnp.exe",
    "a\nb",
    "CON:",
)
MARKUP = """</script><script>window.hacked=1</script><img src=x onerror="hack()">"' onmouseover='hack()"""
DEEP = "[" * 200_000


def run(*args: str, code: int = 0) -> str:
    return here(*args, code=code).output


# --- the terminal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["[/red]", "[link=http://evil]here[/link]", "[bold", ":skull:"])
def test_a_setting_with_brackets_is_shown_as_it_is(root: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LSDATA_LLM__MODEL", value)
    monkeypatch.setenv("COLUMNS", "400")
    assert value in run("doctor", "--settings", "--root", str(root))


def test_what_is_logged_has_no_control_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    from latentscore_data import cli

    cli._log_to_stderr(verbose=False)
    logging.getLogger("latentscore_data.test").warning(
        "%s: dropped an incomplete last line", "\x1b]0;owned\x07\x1b[2Jtexts\u202e"
    )
    assert capsys.readouterr().err == "lsdata: texts: dropped an incomplete last line\n"


def test_what_is_said_and_summed_up_has_no_control_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    from latentscore_data.core.base.display import print_summary, say
    from latentscore_data.core.base.summary import Summary

    evil = "\x1b]0;owned\x07\x1b[2Jaster\u202e"
    say(f"bench: {evil}\nand more")
    print_summary(Summary("bench", details={evil: f"won {evil}"}, next_step=f"lsdata bench {evil}"))
    shown = capsys.readouterr()
    assert shown.err == "bench: aster\nand more\n"
    assert "won aster" in shown.out
    assert "next: lsdata bench aster" in shown.out
    assert not {"\x1b", "\x07", "\u202e"} & set(shown.out)


def test_the_traceback_of_a_bug_has_no_control_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from latentscore_data.cli import with_errors_shown

    said: list[str] = []
    monkeypatch.setattr("builtins.print", lambda *parts, **_: said.append("".join(map(str, parts))))

    def broken() -> None:
        raise ZeroDivisionError("\x1b[2J\x1b]52;c;ZXZpbA==\x07 of a corpus")

    with pytest.raises(typer.Exit) as ended:
        with_errors_shown(broken, "status")
    assert ended.value.exit_code == 70
    assert "of a corpus" in "".join(said)
    assert "\x1b" not in "".join(said)


# --- file names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_of_any_name_is_one_file_in_its_folder(root: Path, name: str) -> None:
    path = Workspace(root).texts(name)
    assert path.parent == root / ".outputs"
    replace_rows(path, [make_text(dataset=name)])
    assert [row.dataset for row in read_rows(path, SourceText)] == [name]


@pytest.mark.parametrize("label", NAMES)
def test_the_answers_of_a_source_of_any_label_stay_in_their_run(tmp_path: Path, label: str) -> None:
    from latentscore_data.core.bench.run import RunFiles

    path = RunFiles(tmp_path / "run").answers(label)
    assert path.parent == tmp_path / "run/answers"
    replace_rows(path, [{"a": 1}])


@pytest.mark.parametrize("vibe", NAMES)
def test_the_sound_of_a_vibe_of_any_text_lies_in_its_folder(tmp_path: Path, vibe: str) -> None:
    from latentscore import Audio
    from latentscore_data.core.configs.adhoc import _write

    path = _write(Audio(np.zeros((480, 2), np.float32), 48_000), tmp_path / "audio", vibe, vibe)
    assert list((tmp_path / "audio").iterdir()) == [path]
    assert path.parent.resolve() == (tmp_path / "audio").resolve()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", "a\x00b", "x" * 200])
def test_a_benchmark_cannot_be_named_out_of_its_folder(name: str) -> None:
    from pydantic import ValidationError

    from latentscore_data.core.base.settings import BenchSettings

    with pytest.raises(ValidationError):
        BenchSettings(name=name)


# --- HTML ------------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_workspace_report_shows_hostile_text_as_text(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSDATA_SCORING__SECONDS", "1")
    workspace = fill(root, license=MARKUP, author=MARKUP, title=MARKUP)
    for path in workspace.scored_files():
        path.unlink()
    payload = make_payload("<script>alert(1)</script>", thinking=MARKUP)
    row = make_scored(
        1, dataset=MARKUP, id_in_dataset=MARKUP, split="GRPO", vibe_original=MARKUP, config_payload=payload
    )
    replace_rows(workspace.scored("GRPO"), [row])
    run("export", "report", "--root", str(root))
    page = (workspace.export_dir / "report/index.html").read_text(encoding="utf-8")
    seen = Tags()
    seen.feed(page)
    assert {"script", "iframe"} & seen.tags == set()
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert MARKUP in seen.text
    assert "<script>alert(1)</script>" in seen.text
    assert "default-src 'none'" in page


# --- cards -----------------------------------------------------------------------------------------------------------


def header_of(card: str) -> dict[str, Any]:
    """The YAML header as a reader finds it: from the first line of dashes to the next one."""
    lines = card.split("\n")
    assert lines[0] == "---"
    return yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))


@pytest.mark.parametrize(
    "text", ["a\n---\nlicense: mit\n---\nb", "a: b\n- c: [d, {e", "!!python/object:os.system x", "'\"`"]
)
def test_a_card_keeps_hostile_values_in_their_one_place(root: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LSDATA_EXPORT__PARQUET", "never")
    monkeypatch.setenv("LSDATA_EXPORT__NAME", text)
    workspace = fill(root, license=text, author=text, title=text)
    run("export", "dataset", "--root", str(root))
    card = (workspace.export_dir / "dataset/README.md").read_text(encoding="utf-8")
    header = header_of(card)
    assert header["pretty_name"] == text
    assert header["license"] == "other"
    assert re.fullmatch(r"[\w.-]+", header["license_name"])
    assert set(header) == {
        "pretty_name", "license", "license_name", "license_link", "task_categories", "tags", "size_categories",
        "configs", "dataset_info",
    }  # fmt: skip


# --- SQLite ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["'; DROP TABLE answers; --", '"a" OR 1=1', "a\x00b", "\u202e\U0001f600"])
def test_text_goes_through_the_caches_as_it_is(tmp_path: Path, text: str) -> None:
    from latentscore_data.core.llm.cache import AnswerCache, Stored
    from latentscore_data.core.scoring.cache import ScoreCache
    from latentscore_data.core.scoring.types import Score

    answers = AnswerCache(tmp_path / "llm.sqlite")
    stored = Stored(text, text, text, 1, 2, 0.5, 1.0)
    answers.put([(text, stored)])
    answers.put_negative(text, text, stored)
    found = answers.get(text)
    assert found is not None
    assert (found.answer, found.model) == (text, text)
    assert answers.get("another") is None
    scores = ScoreCache(tmp_path / "scores.sqlite")
    scores.keep_score(text, text, text, Score(0.25, {text: 1.0}))
    assert scores.score(text, text, text) == Score(0.25, {text: 1.0})
    assert scores.score(text, text, "another") is None


def test_caches_and_the_account_book_are_for_their_owner_alone(tmp_path: Path) -> None:
    from latentscore_data.core.base import ledger
    from latentscore_data.core.llm.cache import AnswerCache, Stored
    from latentscore_data.core.scoring.cache import ScoreCache
    from latentscore_data.core.scoring.types import Score

    answers = AnswerCache(tmp_path / "llm.sqlite")
    answers.put([("a", Stored("a", "m", "stop", 1, 1, None, 1.0))])
    scores = ScoreCache(tmp_path / "scores.sqlite")
    scores.keep_score("a", "b", "c", Score(0.5, {}))
    book = ledger.Ledger(tmp_path / "ledger.jsonl")
    book.record("vibes", "a/model", 1, 1, 0.1)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert {"llm.sqlite", "llm.sqlite-wal", "scores.sqlite", "scores.sqlite-wal", "ledger.jsonl"} <= set(modes)
    assert set(modes.values()) == {0o600}, modes


def test_a_long_account_book_is_still_for_its_owner_alone_when_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentscore_data.core.base import ledger

    monkeypatch.setattr(ledger, "COMPACT_LINES", 1)
    book = ledger.Ledger(tmp_path / "ledger.jsonl")
    for _ in range(3):
        book.record("vibes", "a/model", 1, 1, 0.1)
    book.close()
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "ledger.jsonl").stat().st_mode & 0o777 == 0o600


# --- maps and payloads -----------------------------------------------------------------------------------------------


def write_tensors(folder: Path, about: Any, ends: list[int], lines: bytes, embedding: list[list[float]]) -> Path:
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    tensors = {"embedding": np.array(embedding, np.float32), "row_ends": np.array(ends, np.int64)}
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(tensors, folder / "map.safetensors", metadata={"map": text})
    (folder / "rows.jsonl").write_bytes(lines)
    return folder


ABOUT = {"format": "latentscore-map/1", "kind": "text", "embedder": WordVectorEmbedder().fingerprint}
ROW = json.dumps({"vibe_original": "rain", "config": make_config()}).encode() + b"\n"


@pytest.mark.parametrize("about", [{}, [], {"format": ABOUT["format"]}, {**ABOUT, "kind": 7}, DEEP, "\x00"])
def test_a_map_that_describes_itself_wrongly_is_refused(tmp_path: Path, about: Any) -> None:
    with pytest.raises(MapError):
        load_map(write_tensors(tmp_path / "map", about, [len(ROW)], ROW, [[1.0, 0.0]]))


@pytest.mark.parametrize(
    ("ends", "lines"),
    [
        ([len(ROW) + 1], ROW),
        ([2**62], ROW),
        ([-5], ROW),
        ([0], b""),
        ([len(ROW), 3], ROW),
        ([2**63 - 1, -(2**63) + 9, len(ROW)], ROW),
        ([3, len(ROW)], ROW),
        ([7], b"[1, 2]\n"),
        ([3], b'{}\n'),
        ([len(DEEP)], DEEP.encode()),
    ],
)  # fmt: skip
def test_rows_that_lie_elsewhere_or_are_no_rows_are_refused(tmp_path: Path, ends: list[int], lines: bytes) -> None:
    folder = write_tensors(tmp_path / "map", ABOUT, ends, lines, [[1.0, 0.0]] * len(ends))
    with pytest.raises(MapError):
        load_map(folder).nearest(np.array([1, 0], np.float32), k=len(ends))


def test_embeddings_that_are_no_numbers_never_win(tmp_path: Path) -> None:
    folder = write_tensors(tmp_path / "map", ABOUT, [len(ROW), 2 * len(ROW)], 2 * ROW, [[1.0, 0.0], [np.nan, 0.0]])
    with pytest.raises(MapError, match="not finite"):
        load_map(folder).nearest(np.array([1, 0], np.float32))


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.safetensors"
    for size in (2**63, 2**40, 100, 2):
        path.write_bytes(struct.pack("<Q", size) + b"{}")
        with pytest.raises(MapError):
            load_map(path)


def test_a_map_whose_rows_are_a_link_to_another_file_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key = 1234567890\n")
    folder = write_tensors(tmp_path / "map", ABOUT, [len(ROW)], ROW, [[1.0, 0.0]])
    (folder / "rows.jsonl").unlink()
    (folder / "rows.jsonl").symlink_to(secret)
    with pytest.raises(MapError) as refused:
        load_map(folder)
    assert "1234" not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        "7",
        '{"embedding": {"a": 1}}',
        '{"embedding": [[1]]}',
        '{"embedding": ["x"]}',
        '{"embedding": [1], "embedding_model": 7, "vibe_original": "x", "config": {}}',
        '{"embedding": [1], "embedding_model": ["x"], "vibe_original": "x", "config": {}}',
        "\ud800",
    ],
)
def test_a_published_map_with_a_bad_line_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "map.jsonl"
    path.write_bytes(line.encode("utf-8", "surrogatepass") + b"\n")
    with pytest.raises(MapError):
        load_map(path)


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"a":' * 100_000,
        "7",
        "null",
        '{"config": 7}',
        '{"config": {"tempo": 1e999}}',
        "9" * 10_000,
        "\x00",
        '"\\ud800"',
    ],
)
def test_a_payload_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "payload.json"
    path.write_text(text)
    assert "bug" not in run("render", "--payload", str(path), "--out", str(tmp_path / "out.wav"), code=2)
    assert not (tmp_path / "out.wav").exists()


def test_a_payload_file_without_an_end_is_not_read_to_it(tmp_path: Path) -> None:
    said = run("render", "--payload", "/dev/zero", "--out", str(tmp_path / "out.wav"), code=2)
    assert "it is a device" in said


@pytest.mark.parametrize("title", ["", "\x00", "../../x", "\x1b[31m" + "x" * 100_000, "\ud800"])
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_title_decides_no_file_name_and_breaks_no_tag(tmp_path: Path, title: str, ending: str) -> None:
    path = tmp_path / "payload.json"
    path.write_text(json.dumps({"title": title, "config": make_config()}))
    out = tmp_path / "out"
    said = run("render", "--payload", str(path), "--out", str(out / f"x.{ending}"), "--seconds", "0.5")
    assert "\x1b" not in said
    assert [found.name for found in out.iterdir()] == [f"x.{ending}"]


@pytest.mark.parametrize(
    "value", [{"tempo": [[[]]]}, {"tempo": 10**400}, {"tempo": None}, {"root": "\x00"}, {"x" * 9999: 1}]
)
def test_a_config_of_wrong_types_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError):
        parse_config({**make_config(), **value})
    with pytest.raises(InvalidConfigError):
        parse_payload(make_payload(**value))


@pytest.mark.parametrize("text", [DEEP, '{"answers":' + DEEP])
def test_nested_answers_of_models_and_listeners_are_refused(tmp_path: Path, text: str) -> None:
    from latentscore_data.core.base.errors import InputError
    from latentscore_data.core.bench.human import read_answers
    from latentscore_data.core.generators.local import _read

    assert _read(text, cut=False, strict=True).failure == "the answer is not JSON"
    path = tmp_path / "answers.json"
    path.write_text(text)
    with pytest.raises(InputError, match="contains no answers"):
        read_answers(path)


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A folder as it might be unpacked: a text of its own, a link inside, and links that lead out."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key.txt").write_text("my private diary")
    folder = tmp_path / "fetched"
    folder.mkdir()
    (folder / "own.txt").write_text("a text of its own")
    (folder / "inside.txt").symlink_to("own.txt")
    (folder / "diary.txt").symlink_to(outside / "key.txt")
    (folder / "more").symlink_to(outside)
    (folder / "loop.txt").symlink_to("loop.txt")
    return folder


def test_links_out_of_a_folder_are_not_followed_and_that_is_said(root: Path, fetched: Path) -> None:
    said = run("download", "--dataset", str(fetched), "--root", str(root))
    assert "2 links lead out of the folder and were not followed" in said
    texts = {row.id_in_dataset: row.text for row in read_rows(root / ".outputs/fetched.jsonl", SourceText)}
    assert texts == {"own.txt": "a text of its own", "inside.txt": "a text of its own"}
    facts = json.loads((root / ".outputs/fetched.json").read_text())
    assert "not followed" in facts["how"]


def test_a_folder_of_nothing_but_links_out_holds_no_texts(root: Path, fetched: Path) -> None:
    (fetched / "own.txt").unlink()
    assert "only links that lead out of it" in run("download", "--dataset", str(fetched), "--root", str(root), code=2)


def test_a_folder_that_is_itself_a_link_is_read(root: Path, fetched: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(fetched)
    run("download", "--dataset", str(tmp_path / "link"), "--root", str(root))
    assert len(list(read_rows(root / ".outputs/link.jsonl", SourceText))) == 2


def link_to_mine(path: Path, tmp_path: Path, text: str) -> Path:
    """A file outside of the workspace, which ``path`` links to."""
    target = tmp_path / "mine.txt"
    target.write_text(text)
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    return target


def test_a_file_that_is_replaced_leaves_what_a_link_points_at(root: Path, tmp_path: Path) -> None:
    path = Workspace(root).scored("GRPO")
    target = link_to_mine(path, tmp_path, "mine")
    replace_rows(path, [make_scored()])
    assert target.read_text() == "mine"
    assert not path.is_symlink()
    assert len(list(read_rows(path, ScoredRow))) == 1


def test_nothing_is_appended_to_what_a_link_points_at(root: Path, tmp_path: Path) -> None:
    path = Workspace(root).failures("configs")
    target = link_to_mine(path, tmp_path, "mine\nand a last line without its end")
    with pytest.raises(OutputError, match="is a link"):
        Appender(path)
    assert target.read_text() == "mine\nand a last line without its end"


def test_sweeping_drafts_deletes_no_folder_behind_a_link(root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    (root / ".exports").mkdir(parents=True)
    (root / ".exports/.a.0badf00d.lsdata-draft").symlink_to(mine)
    with Workspace(root).lock("test"):
        pass
    assert (mine / "thesis.txt").read_text() == "x"


def test_an_export_with_a_link_out_of_it_is_not_published(tmp_path: Path) -> None:
    from latentscore_data.core.base.errors import InputError
    from latentscore_data.core.export.push import refuse_links_out

    (tmp_path / "key").write_text("secret")
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "README.md").write_text("x")
    (folder / "same.md").symlink_to("README.md")
    refuse_links_out(folder)
    (folder / "extra.txt").symlink_to(tmp_path / "key")
    with pytest.raises(InputError, match="leads out of the export"):
        refuse_links_out(folder)


# --- the source ------------------------------------------------------------------------------------------------------

DANGEROUS = re.compile(
    r"pickle\.(?:loads?|Unpickler)\b|allow_pickle=True|weights_only=False|yaml\.(?:unsafe_|full_)?load\(|(?<![\w.])(?:eval|exec)\("
    r"|shell=True|os\.(?:system|popen)\(|trust_remote_code=True|\.(?:extractall|unpack_archive)\(|joblib\.load|marshal\.loads"
    r"|torch\.load\((?![^\n]*weights_only=True)"
)

TRUSTED_BY_ITS_HASH = 'loaded = torch.load(path, map_location="cpu", weights_only=False)'
"""The one exception: a checkpoint whose SHA-256 the user has written into scoring.clap_sha256."""


def test_nothing_in_the_source_runs_what_it_reads() -> None:
    found = [
        f"{path.relative_to(SRC)}: {line.strip()}"
        for path in sorted(SRC.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if DANGEROUS.search(line)
    ]
    assert found == [f"latentscore_data/core/scoring/clap.py: {TRUSTED_BY_ITS_HASH}"]


@pytest.mark.ml
@pytest.mark.parametrize("trusted", [None, "0" * 64])
def test_a_checkpoint_that_would_run_code_is_refused_unless_its_hash_is_trusted(
    tmp_path: Path, trusted: str | None
) -> None:
    import pickle

    from latentscore_data.core.base.errors import InputError
    from latentscore_data.core.scoring.clap import read_checkpoint

    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "owned",)

    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Attack(), protocol=2))
    with pytest.raises(InputError, match="without running code"):
        read_checkpoint(tmp_path / "weights.pt", trusted)
    assert not (tmp_path / "owned").exists()
