"""A workspace with values of wrong types: damaged rows are named or left out, without an internal error."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import here
from export_workspace import fill
from factories import make_payload, make_scored
from latentscore import LatentScoreError
from latentscore_data.core.base.errors import InputError, LsdataError
from latentscore_data.core.base.jsonl import read_object, replace_json, replace_rows
from latentscore_data.core.base.manifest import StageFiles, read_manifest, write_manifest
from latentscore_data.core.base.marks import Mark, read_preferences
from latentscore_data.core.base.names import json_bytes
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.batch_state import Batch, BatchState, open_batches
from latentscore_data.core.llm.openrouter_prices import newest_list
from latentscore_data.core.models.local_names import local_version
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.stages.configs import winners
from latentscore_data.studio.exchange import as_json
from latentscore_data.studio.places import Places
from latentscore_data.studio.playlists import Playlists
from latentscore_data.studio.preferences import by_source
from latentscore_data.studio.rows import SORTS, Rows, Wanted

VALUES = (
    "null", "[]", "{}", '"x"', '""', "-7", "true", '["x"]', '{"x": 1}', "[[[[1]]]]", "1" + 25 * "0", "1e308", "NaN",
    "-Infinity", '"\\ud800"', '"a\\u0000b"', 5000 * "9", '"' + 100_000 * "x" + '"', "",
)  # fmt: skip
"""JSON, and what some programs take for it, in the place of a value; the last is no JSON at all."""

MOST = 60
"""Places and values that are tried for each file: drawn, but the same ones each time."""

SEARCH = {
    "guide": "acoustic", "judge": None, "renders": 8, "surrogate_r2": None, "start_index": 0, "found_index": 1,
    "named": [], "start_kept": 1.0, "found_kept": None, "curve": [{"renders": 8, "scores": {"acoustic": 0.5}}],
    "external": {"0": {"acoustic": {"final_score": 0.4}}, "1": {"acoustic": {"final_score": 0.5}}},
}  # fmt: skip
ROUND = {"round": 0, "model": "first", "clap": 0.2, "acoustic": 0.3, "entropy": 0.6, "answered": 1.0, "learned": 0}


@pytest.fixture
def made(root: Path) -> Workspace:
    """Something of everything: rows, manifests, rounds, a run, a benchmark, marks, a playlist."""
    workspace = fill(root)
    row = make_scored(40, split="TEST", search=SEARCH, candidate_origins=["model", "search"], input_fingerprint="abc")
    replace_rows(workspace.scored("TEST"), [row, make_scored(41, split="TEST", input_fingerprint="def")])
    stage = StageFiles(
        "score", workspace.configs_dir / "score.manifest.json", [workspace.scored("TEST")], {"n": 2}, {"renderer": "6"}
    )
    summary = Summary("score", done=2, details={"scorers": ["acoustic"], "leakage": {"mean_nearest": 0.5}})
    write_manifest(stage, root, [workspace.scored("TEST")], summary)
    replace_json(
        root / ".improve/i/rounds.json",
        {"judge": "clap", "guide": "acoustic", "best": "first", "stopped": "", "rounds": [ROUND]},
    )
    run = workspace.train_dir / "first"
    replace_json(run / "spec.json", {"kind": "sft"})
    replace_json(run / "run.json", {"kind": "sft", "base_model": "tiny", "status": "finished"})
    replace_rows(run / "metrics.jsonl", [{"step": 1, "loss": 2.5}])
    bench = workspace.bench_dir / "b"
    bench.mkdir(parents=True)
    (bench / "report.html").write_text("<p>report</p>")
    source = {"label": "random", "scores": {"acoustic": {"mean": 0.1}}}
    replace_json(bench / "summary.json", {"headline": "acoustic", "title": "b", "sources": [source]})
    rows = Rows(workspace, Settings())
    rows.mark(row.row_id, Mark("bad", "too loud"))
    rows.prefer(row.row_id, 0, 1, tied=False)
    Playlists(root).save("evening", [{**make_payload(), "vibe": "rain", "seed": 1, "seconds": 60}])
    return workspace


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value can be put; the 34 fields of a config are alike, so one of them stands for all."""
    yield path
    if isinstance(value, dict):
        for name in value if "tempo" not in value else ("tempo",):
            yield from places_in(value[name], (*path, name))
    elif isinstance(value, list) and value:
        yield from places_in(value[0], (*path, 0))


def damaged(path: Path) -> Iterator[str]:
    """Write the file again and again, each time with another value in another place of its first line."""
    whole = path.read_text(encoding="utf-8")
    first, rest = whole.split("\n", 1) if path.suffix == ".jsonl" else (whole, "")
    found = [(place, value) for place in places_in(json.loads(first)) for value in VALUES]
    for place, value in random.Random(path.name).sample(found, min(MOST, len(found))):
        held = json.loads(first)
        inner = held
        for part in place[:-1]:
            inner = inner[part]
        if place:
            inner[place[-1]] = "@@"
        text = json.dumps(held if place else "@@").replace('"@@"', value)
        path.write_text(f"{text}\n{rest}", encoding="utf-8")
        yield f"{'.'.join(map(str, place))}: {value[:40]}"


def tried(ask: Any) -> None:
    """Ask, and write the answer as the page gets it; errors that we know are answers too."""
    with contextlib.suppress(LsdataError, LatentScoreError):
        as_json(ask())


FILES = (
    ".processed/TEST.jsonl", ".marks/marks.jsonl", ".playlists/*.json", ".improve/i/rounds.json",
    ".modal_outputs/first/run.json", ".modal_outputs/first/metrics.jsonl", ".benchmarks/b/summary.json",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_the_studio_shows_what_it_can_of_any_workspace(made: Workspace, name: str) -> None:
    (path,) = made.root.glob(name)
    playlists = Playlists(made.root)
    for what in damaged(path):
        rows = Rows(made, Settings())
        try:
            tried(Places(made).listed)
            for sort in SORTS:
                tried(lambda sort=sort, rows=rows: rows.page(Wanted(sort=sort, least=-1, search="a"), 0))
            tried(lambda rows=rows: rows.row(rows.page(Wanted(split="TEST"), 0)["rows"][0]["id"]))
            tried(lambda: by_source(read_preferences(made.root)))
            tried(playlists.names)
            tried(lambda: playlists.load("evening"))
        except Exception as error:
            raise AssertionError(what) from error


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [".processed/score.manifest.json", ".processed/TEST.jsonl", ".improve/i/rounds.json", ".vibes/manifest.json"],
)
def test_status_tells_what_it_can_of_any_workspace(made: Workspace, name: str) -> None:
    for what in damaged(made.root / name):
        out = here("status", "--json", "--root", str(made.root))
        assert out.returncode in (0, 2), (what, out.stderr)
        assert "Traceback" not in out.stderr, what


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": {"a.jsonl": {"sha256": "x", "rows": ""}}}, {"outputs": {"a.jsonl": 7}}, {"typed": "x"},
        {"details": True}, {"failed": {"server": "x"}}, {"cost_usd": "much"}, {"done": "a"}, {"finished": []},
    ],
)  # fmt: skip
def test_a_manifest_of_other_types_counts_as_none(made: Workspace, change: dict[str, Any]) -> None:
    path = made.configs_dir / "score.manifest.json"
    before = read_manifest(path)
    assert before == read_object(path, "")
    replace_json(path, {**before, **change})
    assert read_manifest(path) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"search": {**SEARCH, "found_index": 7}}, "search"),
        ({"search": {**SEARCH, "start_index": -1}}, "search.start_index"),
        ({"search": {**SEARCH, "external": {"0": 7}}}, "search.external.0"),
        ({"search": {"guide": "acoustic"}}, "search.judge"),
        ({"best_index": 2}, "best_index"),
        ({"best_index": -1}, "best_index"),
        ({"candidate_origins": ["model"]}, "candidate_origins"),
    ],
)
def test_a_row_whose_columns_do_not_fit_its_candidates_is_refused_by_name(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    from latentscore_data.core.base.jsonl import read_rows

    path = tmp_path / "rows.jsonl"
    replace_rows(path, [{**make_scored(1).model_dump(mode="json"), **change}])
    with pytest.raises(InputError, match=f"rows.jsonl:1: field {named}"):
        list(read_rows(path, ScoredRow))


def test_a_scored_line_without_its_scores_costs_that_line(made: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    whole = winners(Settings(), made)["winner_scores"]
    path = made.scored("TEST")
    first, *others = [json.loads(line) for line in path.read_text().splitlines()]
    replace_rows(path, [{**first, "candidate_scores": {}}, *others])
    assert len(winners(Settings(), made)["winner_scores"]) == len(whole) - 1
    assert "TEST.jsonl:1: not a scored row" in caplog.text


def test_whole_numbers_beyond_64_bits_can_be_shown() -> None:
    assert json.loads(json_bytes({"a": 10**25, "b": -(10**25), "c": 10**400, "d": 2**63})) == {
        "a": 1e25, "b": -1e25, "c": None, "d": 2**63,
    }  # fmt: skip


def test_a_copied_run_keeps_its_answers_and_one_that_was_trained_again_does_not(root: Path) -> None:
    run = RunFolder(root / ".modal_outputs/first")
    run.final.mkdir(parents=True)
    weights = run.final / "model.safetensors"
    weights.write_bytes(b"weights")
    run.mark_done()
    version = local_version("local:first", root / ".modal_outputs")
    weights.touch()
    assert local_version("local:first", root / ".modal_outputs") == version
    weights.write_bytes(b"other weights")
    assert local_version("local:first", root / ".modal_outputs") != version
    run.mark_done()
    assert local_version("local:first", root / ".modal_outputs") != version
    replace_json(run.done_mark, {"files": [7]})
    assert local_version("local:first", root / ".modal_outputs").startswith("local:first@")


@pytest.mark.parametrize("value", ['"cheap"', "null", "-1", "[1]", "{}", "NaN"])
def test_a_price_that_is_none_is_refused_before_anything_is_spent(tmp_path: Path, value: str) -> None:
    path = tmp_path / "openrouter-2026-11-01.json"
    path.write_text(f'{{"date": "2026-11-01", "usd_per_token": {{"a/b": {{"prompt": {value}, "completion": 1}}}}}}')
    with pytest.raises(InputError, match="price list"):
        newest_list(tmp_path)


@pytest.mark.parametrize("column", ["created", "questions", "worst_usd"])
def test_a_record_of_batches_with_text_for_numbers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    path = tmp_path / "batches.sqlite"
    state = BatchState(path)
    state.add(
        Batch("tag", "configs", "openai/x", None, "open", 3, 1.0, submitted=2.0, remote_id="1", worst_usd=0.5), []
    )
    state.close()
    assert [batch.tag for batch in open_batches(path)] == ["tag"]
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "access", lambda *_: False)
        assert [batch.tag for batch in open_batches(path)] == ["tag"], "also where the folder cannot be written"
        assert [file.name for file in tmp_path.iterdir()] == ["batches.sqlite"]
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE batches SET {column} = 'much'")
        db.commit()
    with pytest.raises(InputError, match="batch tag"):
        open_batches(path)


@pytest.mark.parametrize("name", ["spec", "versions", "metrics"])
def test_a_record_of_a_run_of_other_types_is_named(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path / "first")
    replace_json(run.record_file, {name: 7})
    with pytest.raises(InputError, match=f"{name} is not a table"):
        run.record()
