"""Damaged, foreign, locked and full SQLite files, through the two caches that live in them."""

from __future__ import annotations

import functools
import logging
import math
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from conftest import here
from factories import make_text
from latentscore_data.core.base import database
from latentscore_data.core.base.errors import OutputError
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.cache import AnswerCache, Stored
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.types import Score
from training_runs import write_rows

PAGE = 4096
COUNT = 400


def key(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def answer(number: int) -> Stored:
    return Stored(f'{{"a": "{"rain " * 40}{number}"}}', "m", "stop", 1, 2, 0.25, 0.5, "then", "1", "Word")


def fill_answers(path: Path) -> None:
    cache = AnswerCache(path)
    cache.put([(key(number), answer(number)) for number in range(COUNT)])
    cache.close()


def read_answers(path: Path) -> int:
    """How many answers are there; SQLite has no checksums, so a letter may have changed, but each can be used."""
    cache = AnswerCache(path)
    try:
        found = [(number, cache.get(key(number))) for number in range(COUNT)]
        cache.facts()
        cache.mean_tokens_out("m", "Word")
        cache.put([(key(COUNT), answer(COUNT))])
    finally:
        cache.close()
    for _, stored in found:
        assert stored is None or isinstance(stored.answer, str)
    return sum(stored is not None for _, stored in found)


def vector(number: int) -> np.ndarray:
    return np.full(64, number, dtype=np.float32)


def score(number: int) -> Score:
    return Score(number / 7, {"fit": number / 3})


def fill_scores(path: Path) -> None:
    with ScoreCache(path) as cache:
        for number in range(COUNT):
            cache.keep_vector("clap", key(number), vector(number))
            cache.keep_score("clap", key(number), "rain", score(number))


def read_scores(path: Path) -> int:
    with ScoreCache(path) as cache:
        scores = [cache.score("clap", key(number), "rain") for number in range(COUNT)]
        vectors = [cache.vector("clap", key(number)) for number in range(COUNT)]
        cache.keep_vector("clap", key(COUNT), vector(COUNT))
    assert all(found is None or math.isfinite(sum(found.to_dict().values())) for found in scores)
    assert all(found is None or np.isfinite(found).all() for found in vectors)
    return sum(found is not None for found in scores)


def test_vectors_of_another_size_than_most_of_their_kind_count_as_missing(tmp_path: Path) -> None:
    fill_scores(tmp_path / "scores.sqlite")
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        for number, size in enumerate((0, 1, 63, 65)):
            cache.keep_vector("clap", key(number), np.ones(size, dtype=np.float32))
        assert [cache.vector("clap", key(number)) is None for number in range(5)] == [True] * 4 + [False]
        cache.keep_vector("weights", "one", np.ones(6, dtype=np.float32))
        assert [cache.vector("weights", "one", size) is None for size in (None, 6, 7)] == [False, False, True]


CACHES: dict[str, tuple[Callable[[Path], None], Callable[[Path], int]]] = {
    "llm.sqlite": (fill_answers, read_answers),
    "scores.sqlite": (fill_scores, read_scores),
}


@functools.cache
def filled(name: str) -> bytes:
    """A cache of that name with an entry for each number below COUNT."""
    with tempfile.TemporaryDirectory() as folder:
        CACHES[name][0](Path(folder) / name)
        return (Path(folder) / name).read_bytes()


@pytest.fixture(params=CACHES)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_bytes(filled(request.param))
    return path


def read(path: Path) -> int:
    return CACHES[path.name][1](path)


def aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}.damaged-*.sqlite"))


def zero_page(data: bytes, page: int) -> bytes:
    return data[: page * PAGE] + bytes(PAGE) + data[(page + 1) * PAGE :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "zeroed pages": lambda data: zero_page(zero_page(data, len(data) // PAGE // 2), len(data) // PAGE // 2 + 1),
    "cut": lambda data: data[: len(data) // 2],
    "schema": lambda data: data[:100] + bytes(PAGE - 100) + data[PAGE:],
    "header": lambda data: bytes(100) + data[100:],
    "header only": lambda data: data[:100],
    "sixteen bytes": lambda data: data[:16],
    "another file": lambda data: b"this is no database, however long it may be\n" * 50,
    "page size": lambda data: data[:16] + b"\x00\x07" + data[18:],
    "all ones behind the header": lambda data: data[:100] + b"\xff" * (len(data) - 100),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_said_once(cache: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = cache.read_bytes()
    broken = DAMAGES[damage](whole)
    cache.write_bytes(broken)
    with caplog.at_level(logging.WARNING):
        read(cache)
        read(cache)
    (moved,) = aside(cache)
    assert moved.read_bytes()[200:] == broken[200:]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert str(cache) in said[0]
    assert moved.name in said[0]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_overwritten_costs_at_most_what_it_touched(tmp_path: Path, seed: int) -> None:
    """Random bytes at random places, or a cut: what comes back can be used; at worst there is one clear error, once."""
    rng = random.Random(seed)
    path = tmp_path / ("llm.sqlite" if seed % 2 else "scores.sqlite")
    data = bytearray(filled(path.name))
    for _ in range(rng.choice((1, 3, 20))):
        at, length = rng.randrange(len(data)), rng.choice((1, 8, 300, PAGE))
        piece = rng.choice((bytes(length), rng.randbytes(length)))[: len(data) - at]
        data[at : at + len(piece)] = piece
    path.write_bytes(data[: len(data) - rng.choice((0, 0, 0, 1, 100))])
    first_error = None
    try:
        read(path)
    except OutputError as error:
        first_error = error.message
        read(path)
    assert first_error is None or str(path) in first_error


def test_answers_that_were_paid_for_are_saved_from_a_damaged_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "llm.sqlite"
    fill_answers(path)
    data = path.read_bytes()
    path.write_bytes(zero_page(data, len(data) // PAGE - 3))
    kept = read_answers(path)
    assert COUNT * 0.8 < kept < COUNT
    assert f"{kept} of its answers were kept" in caplog.text


def test_side_files_of_a_damaged_file_do_not_reach_the_new_one(cache: Path) -> None:
    cache.write_bytes(b"this is no database" * 500)
    for ending in ("-wal", "-shm"):
        cache.with_name(cache.name + ending).write_bytes(b"left behind" * 900)
    assert read(cache) == 0
    assert not [path for path in cache.parent.iterdir() if "left behind" in path.read_bytes().decode("latin-1")
                and path.name.startswith(cache.name)]  # fmt: skip


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
def test_damaged_side_files_cost_nothing_that_was_written_back(cache: Path, ending: str) -> None:
    for content in (b"", b"x", bytes(40_000), b"no log at all" * 4000):
        cache.with_name(cache.name + ending).write_bytes(content)
        assert read(cache) == COUNT
    assert aside(cache) == []


def test_a_database_of_another_program_is_set_aside(cache: Path) -> None:
    cache.unlink()
    with sqlite3.connect(cache) as db:
        for table in ("answers", "negatives", "scores", "vectors"):
            db.execute(f"CREATE TABLE {table} (id INTEGER, note TEXT)")
    db.close()
    assert read(cache) == 0
    assert len(aside(cache)) == 1


def test_damage_that_is_met_while_reading_is_checked_for_by_the_next_opening(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CHECKED_BYTES", 0)
    data = cache.read_bytes()
    cache.write_bytes(data[: PAGE * 8] + b"\xff" * (len(data) - PAGE * 8))
    with pytest.raises(OutputError, match="is damaged") as error:
        read(cache)
    assert "run the same command again" in error.value.remedy
    assert aside(cache) == []
    read(cache)
    assert len(aside(cache)) == 1
    assert not cache.with_name(f"{cache.name}.suspect").exists()


def test_a_locked_file_is_in_use_and_not_damaged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with sqlite3.connect(cache, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputError, match="locked") as error:
            read(cache)
        other.execute("ROLLBACK")
    other.close()
    assert "another process" in error.value.remedy
    assert read(cache) == COUNT
    assert aside(cache) == []


def test_a_full_file_asks_for_space(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = database.connect

    def small(path: Path) -> sqlite3.Connection:
        db = real(path)
        db.execute("PRAGMA max_page_count = 1")
        return db

    monkeypatch.setattr(database, "connect", small)
    with pytest.raises(OutputError, match="full") as error:
        CACHES[cache.name][0](cache.with_name(f"new-{cache.name}"))
    assert "disk space" in error.value.remedy


def test_a_folder_in_the_place_of_the_file_is_one_clear_error(cache: Path) -> None:
    cache.unlink()
    cache.mkdir()
    with pytest.raises(OutputError, match="cannot be used"):
        read(cache)
    os.rmdir(cache)


def test_commands_go_on_with_a_damaged_cache(root: Path) -> None:
    """What only looks (doctor) and what plans (a dry run of a paid model) both open the answer cache."""
    path = Workspace(root).llm_cache
    write_rows(Workspace(root))
    replace_rows(Workspace(root).texts("moby-dick"), [make_text()])
    for command in (("doctor",), ("vibes", "--model", "openai/gpt-5-mini", "--dry-run")):
        fill_answers(path)
        path.write_bytes(DAMAGES["zeroed pages"](path.read_bytes()))
        out = here(*command, "--root", str(root), env={"OPENAI_API_KEY": "sk-none"}, code=0)
        assert "was moved to" in out.stderr
