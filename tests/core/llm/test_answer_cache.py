"""What the cache keeps, for whom, and under which key."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latentscore_data.core.base.errors import OutputError
from latentscore_data.core.llm.cache import AnswerCache, Stored, cache_key

ENTRY = Stored('{"a": 1}', "m", "stop", 10, 20, 0.5, 1.5, litellm_version="1", answer_type="Word")


def key(**changes: Any) -> str:
    given: dict[str, Any] = {
        "model": "m",
        "api_base": None,
        "messages": [{"role": "user", "content": "rain"}],
        "schema": {"type": "object"},
        "sampling": {"temperature": 0.9},
        "sample_idx": 0,
    }
    return cache_key(**{**given, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"api_base": "http://127.0.0.1/v1"},
        {"messages": [{"role": "user", "content": "snow"}]},
        {"schema": {"type": "array"}},
        {"sampling": {"temperature": 0.8}},
        {"sampling": {"temperature": 0.9, "seed": 1}},
        {"sample_idx": 1},
    ],
)
def test_what_the_model_sees_changes_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_the_order_of_names_does_not_change_the_key() -> None:
    first = key(sampling={"temperature": 0.9, "seed": 1})
    assert first == key(sampling={"seed": 1, "temperature": 0.9})


def test_answers_come_back_and_negatives_are_never_served(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c" / "llm.sqlite")
    cache.put_negative("k", "malformed", ENTRY)
    assert cache.get("k") is None
    assert not cache.has("k")
    cache.put([("k", ENTRY), ("k2", ENTRY)])
    found = cache.get("k")
    assert found is not None
    assert (found.answer, found.finish_reason, found.tokens_out, found.cost_usd) == ('{"a": 1}', "stop", 20, 0.5)
    assert found.created.endswith("Z")
    assert cache.facts()["answers"] == 2
    assert cache.facts()["negatives"] == 1
    assert cache.mean_tokens_out("m", "Word") == 20
    assert cache.mean_tokens_out("m", "Sentence") is None, "answers of another kind have another length"
    assert cache.mean_tokens_out("nobody", "Word") is None
    cache.close()
    cache.close()


def test_hits_add_up_over_runs(tmp_path: Path) -> None:
    for _ in range(2):
        cache = AnswerCache(tmp_path / "llm.sqlite")
        cache.hits += 3
        cache.close()
    assert AnswerCache(tmp_path / "llm.sqlite").facts()["hits"] == 6


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = AnswerCache(tmp_path / "llm.sqlite")
        cache.put([("k", ENTRY)])
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert "llm.sqlite-wal" in modes
    assert set(modes.values()) == {0o600}, modes


def test_a_stored_answer_survives_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "llm.sqlite"
    code = (
        "import os, sys; from pathlib import Path; from latentscore_data.core.llm.cache import AnswerCache, Stored\n"
        "cache = AnswerCache(Path(sys.argv[1]))\n"
        "for i in range(50): cache.put([(str(i), Stored('{}', 'm', 'stop', 1, 1, None, 0.1))])\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    cache = AnswerCache(path)
    assert all(cache.has(str(i)) for i in range(50))


def test_a_file_of_before_answers_had_a_type_stays_good(tmp_path: Path) -> None:
    path = tmp_path / "llm.sqlite"
    cache = AnswerCache(path)
    cache.put([("k", ENTRY)])
    cache.put_negative("k2", "invalid", ENTRY)
    cache.close()
    with sqlite3.connect(path) as db:
        for table in ("answers", "negatives"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN answer_type")
    cache = AnswerCache(path)
    found = cache.get("k")
    assert found is not None
    assert (found.answer, found.answer_type) == (ENTRY.answer, "")
    cache.put([("k3", ENTRY)])
    assert cache.mean_tokens_out("m", "Word") == 20


def test_the_clock_says_nothing_about_what_an_answer_is_worth(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "llm.sqlite")
    for key, created in (("future", "2999-01-01T00:00:00Z"), ("past", "1970-01-01T00:00:00Z")):
        cache.put([(key, replace(ENTRY, created=created))])
        assert cache.has(key)
        assert cache.get(key) is not None


def test_an_answer_that_damage_has_changed_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "llm.sqlite"
    cache = AnswerCache(path)
    cache.put([(name, ENTRY) for name in ("bytes", "text for a number", "bad text", "whole")])
    with sqlite3.connect(path) as db:
        for name, change in (
            ("bytes", "answer = x'00ff'"),
            ("text for a number", "tokens_in = 'many'"),
            ("bad text", "answer = CAST(x'7bff7d' AS TEXT)"),
        ):
            db.execute(f"UPDATE answers SET {change} WHERE key = ?", (name,))
    found = {name: cache.get(name) is not None for name in ("bytes", "text for a number", "bad text")}
    assert not any(found.values()), found
    assert cache.get("whole") is not None


def test_nothing_is_pickled(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "llm.sqlite")
    cache.put([("k", ENTRY)])
    with sqlite3.connect(tmp_path / "llm.sqlite") as db:
        row = db.execute("SELECT * FROM answers").fetchone()
    assert all(value is None or isinstance(value, str | int | float) for value in row)


def test_answers_kept_together_are_there_together(tmp_path: Path) -> None:
    cache, other = AnswerCache(tmp_path / "c.sqlite"), AnswerCache(tmp_path / "c.sqlite")
    with cache.together():
        cache.put([("a", ENTRY), ("b", ENTRY)])
        cache.put_negative("c", "empty", ENTRY)
        assert not other.has("a")
    assert [other.has(name) for name in "abc"] == [True, True, False]
    assert other.facts()["negatives"] == 1


def test_a_transaction_that_the_disk_undoes_is_an_error(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    with pytest.raises(OutputError, match="cannot be used"), cache.together():
        cache.put([("a", ENTRY)])
        cache._db.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
    assert not cache.has("a")
    with cache.together():
        cache.put([("a", ENTRY)])
    assert cache.has("a")


def test_one_answer_that_cannot_be_kept_does_not_undo_the_others(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    spoiled: Any = replace(ENTRY, answer=None)
    with pytest.raises(OutputError):
        cache.put([("a", ENTRY), ("b", spoiled)])
    cache.put([("c", ENTRY), ("d", ENTRY)])
    assert [cache.has(name) for name in "abcd"] == [True, False, True, True]
