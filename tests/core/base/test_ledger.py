"""The account book of a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentscore_data.core.base import ledger as ledger_module
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.ledger import Ledger, Usage, totals


def test_it_adds_up_over_runs_by_stage_and_model(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        book = Ledger(path)
        book.record("vibes", "a", 10, 20, 0.25)
        book.record("configs", "b", 1, 2, None)
        book.add_cached("configs", "b", 5, 0.5)
        book.close()
    found = totals(path)
    assert found["vibes", "a"] == Usage(calls=2, tokens_in=20, tokens_out=40, cost_usd=0.5)
    assert found["configs", "b"] == Usage(calls=2, cached=10, tokens_in=2, tokens_out=4, saved_usd=1.0, unpriced=2)


def test_what_cost_money_is_written_at_once(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "ledger.jsonl")
    book.record("vibes", "a", 10, 20, 0.25)
    assert totals(book.path)["vibes", "a"].cost_usd == 0.25


def test_a_run_without_calls_leaves_no_file(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "ledger.jsonl")
    book.add_cached("vibes", "a", 0, 0.0)
    book.close()
    assert not book.path.exists()
    assert totals(book.path) == {}


def test_a_long_book_is_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "COMPACT_LINES", 10)
    book = Ledger(tmp_path / "ledger.jsonl")
    for _ in range(30):
        book.record("vibes", "a", 1, 1, 0.5)
    book.close()
    assert len(book.path.read_text().splitlines()) == 1
    assert totals(book.path)["vibes", "a"] == Usage(calls=30, tokens_in=30, tokens_out=30, cost_usd=15.0)


def test_a_torn_line_loses_itself_only(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "ledger.jsonl")
    book.record("vibes", "a", 1, 1, 0.5)
    book.record("vibes", "a", 1, 1, 0.5)
    book.close()
    book.path.write_bytes(book.path.read_bytes()[:-10])
    book = Ledger(book.path)
    book.record("vibes", "a", 1, 1, 0.5)
    book.close()
    assert totals(book.path)["vibes", "a"].calls == 2


def test_what_another_process_sums_up_meanwhile_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "COMPACT_LINES", 5)
    path = tmp_path / "ledger.jsonl"
    long_run = Ledger(path)
    for _ in range(6):
        long_run.record("configs", "m", 1, 1, 1.0)
    typed = Ledger(path)  # lsdata configs "a vibe": no lock of the workspace, and at its end the book is summed up
    typed.record("configs", "m", 1, 1, 1.0)
    typed.close()
    assert len(path.read_text().splitlines()) == 1
    for _ in range(3):
        long_run.record("configs", "m", 1, 1, 1.0)
    long_run.close()
    assert totals(path)["configs", "m"].cost_usd == 10.0


@pytest.mark.parametrize("value", ['"x"', "[]", "{}", "null"])
def test_a_line_of_other_types_is_named(tmp_path: Path, value: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(f'{{"stage": "vibes", "calls": 1}}\n{{"stage": "vibes", "tokens_out": {value}}}\n')
    with pytest.raises(InputError, match=r"ledger\.jsonl:2: tokens_out is not a number"):
        totals(path)
