"""Tables on terminals of any width."""

from __future__ import annotations

import pytest
from rich.table import Table
from rich.text import Text

from factories import make_config
from latentscore_data.core.base.display import fields_in_lines, print_table

PATH = "data_work/.outputs/common-pile-project_gutenberg_filtered.jsonl"


@pytest.mark.parametrize("columns", [20, 50, 80, 200])
def test_a_table_breaks_no_word_and_no_path_at_any_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = Table("stage", "state", "why", "cost", box=None)
    table.add_row("vibes", Text("stale", style="yellow"), Text(f"input {PATH} changed; a reason that is long"), "$0.00")
    table.add_row("train", "fresh", "", "")
    print_table(table)
    out = capsys.readouterr().out
    for word in ("stage", "vibes", "stale", "$0.00", "changed;", "reason", "train", "fresh", PATH):
        assert word in out.split(), out
    assert all(len(line.rstrip()) <= columns for line in out.splitlines() if PATH not in line and columns > 30)


def test_rows_that_do_not_fit_are_lists_of_their_cells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    table = Table("round", "/home/me/a/long/judge.py:loud", "against round 0", "model", box=None)
    table.add_row("0", "0.0878", "", "sft-tiny-random-b1fa6e59")
    table.add_row("1", "0.0903", "0.0025", "three-round-1")
    print_table(table)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ["round", "0"],
        ["/home/me/a/long/judge.py:loud", "0.0878"],
        ["model", "sft-tiny-random-b1fa6e59"],
        [],
    ]
    assert ["against", "round", "0", "0.0025"] in lines


def test_a_field_and_its_value_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    config = make_config()
    lines = fields_in_lines(config, 4).splitlines()
    assert max(map(len, lines)) <= 36
    assert [pair for line in lines for pair in line.split("  ")] == [f"{k} {v}".lower() for k, v in config.items()]
