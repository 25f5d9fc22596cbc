"""lsdata bench as a program: a real run on a few rows, a kill and the same command again, and its one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench_fakes import make_rows
from conftest import Lsdata, here
from factories import make_payload
from forked import begin, kill, wait_until
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.manifest import StageFiles, stale_reasons, write_manifest
from latentscore_data.core.base.rows import BenchRow
from latentscore_data.core.base.settings import Settings, load_settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages import bench

VIBES = ("slow dark rain in a vast hall", "a bright busy market", "calm sea at noon", "iron and fury")


def write_rows(root: Path, documents: int = 4) -> None:
    """TEST rows with two candidates of different sound, chosen by acoustic, and the same as SFT-Train."""
    rows = []
    for i, row in enumerate(make_rows(documents, 1)):
        candidates = [
            make_payload(f"One {i}", tempo="slow"),
            make_payload(f"Two {i}", tempo="fast", brightness="bright"),
        ]
        changes = {
            "vibe_original": f"{VIBES[i % 4]}, number {i}",
            "config_candidates": candidates,
            "config_payload": candidates[1],
            "candidate_scores": {"acoustic": [0.1, 0.2]},
        }
        rows.append(row.model_copy(update=changes))
    replace_rows(root / ".processed" / "TEST.jsonl", [row.model_dump(mode="json") for row in rows])
    known = [row.model_copy(update={"row_id": f"{row.row_id}:train", "split": "SFT-Train"}) for row in rows]
    replace_rows(root / ".processed" / "SFT-Train.jsonl", [row.model_dump(mode="json") for row in known])


QUICK = ("--scorer", "acoustic", "--seconds", "1", "--workers", "1")


@pytest.mark.long
def test_the_default_comparison_writes_a_table_and_a_page(lsdata: Lsdata, root: Path):
    write_rows(root)
    (root.parent / "latentscore.toml").write_text('[dedupe]\nmodel = "words"\n')
    command = ("bench", "--root", str(root), "--config", str(root.parent / "latentscore.toml"), *QUICK, "--json")
    messages = lsdata(*command, "--human-pack", timeout=280, code=0).json()
    assert messages["done"] == 16
    report = Path(messages["outputs"][0])
    table = json.loads((report.parent / "summary.json").read_text())
    sources = {source["label"]: source for source in table["sources"]}
    assert set(sources) == {
        "dataset:config_payload", "dataset:config_payload (N = 1)", "baseline:random", "baseline:lookup",
    }  # fmt: skip
    assert sources["dataset:config_payload"]["chosen_by"] == ["acoustic"]
    assert sources["dataset:config_payload (N = 1)"]["chosen_by"] == []
    assert table["baseline"] == "baseline:random"
    assert "only 4 source documents" in table["few_documents"]
    assert (
        table["ceiling"]["acoustic"]["mean"] >= sources["dataset:config_payload"]["scores"]["acoustic"]["mean"] - 1e-9
    )
    rows = [BenchRow.model_validate_json(line) for line in (report.parent / "results.jsonl").open()]
    assert len(rows) == 16
    assert all((report.parent / str(row.audio_file)).exists() for row in rows)
    # Look-up knows the very vibe, in another row: the same config, so the same sound and the same score.
    by = {(row.source, row.id_in_dataset): row for row in rows}
    for number in range(1, 5):
        chapter = f"chapter-{number:03d}"
        assert by["baseline:lookup", chapter].scores == by["dataset:config_payload", chapter].scores
    assert (report.parent / "human" / "index.html").exists()
    manifest = json.loads((report.parent / "manifest.json").read_text())
    assert manifest["stage"] == "bench"

    assert lsdata(*command, timeout=280).json()["skipped"] == 16
    assert (report.parent / "summary.json").read_text().count("mean") == json.dumps(table).count("mean")


@pytest.mark.long
def test_the_run_of_the_settings_is_fresh_afterwards_also_under_a_name_of_its_own(root: Path):
    write_rows(root, 2)
    workspace = Workspace(root)
    given: dict[str, Any] = {"paths": {"root": root}, "scoring": {"scorers": ["acoustic"], "seconds": 1, "workers": 1}}
    given["bench"] = {"name": "mine", "sources": ["baseline:random", "baseline:keywords"], "resamples": 200}
    settings = load_settings(None, **given)
    bench.run_bench(settings)
    assert stale_reasons(bench.stage_files(settings, workspace)[0], root) == []
    (workspace.bench_dir / "manifest.json").unlink()
    bench.run_bench(settings, of_the_chain=False)
    assert stale_reasons(bench.stage_files(settings, workspace)[0], root) == ["not completed yet"]


@pytest.mark.parametrize(
    ("source", "change", "reason"),
    [
        ("litellm:hosted_vllm/m=m", {"configs": {"temperature": 0.1}}, "setting configs.temperature"),
        ("litellm:hosted_vllm/m=m", {"configs": {"seed": 7}}, "setting configs.seed"),
        ("litellm:hosted_vllm/m=m", {"llm": {"api_base": "http://127.0.0.1:1/v1"}}, "setting api_base of m"),
        ("litellm:builtin/keywords", {"llm": {"api_base": "http://127.0.0.1:1/v1"}}, None),
        ("baseline:lookup", {"dedupe": {"model": "minilm"}}, "setting dedupe.model"),
        ("baseline:random", {"dedupe": {"model": "minilm"}, "configs": {"temperature": 0.1}}, None),
        ("rubbish", {}, None),
    ],
)
def test_what_decides_an_answer_makes_the_stage_stale(
    root: Path, source: str, change: dict[str, Any], reason: str | None
):
    given = {"paths": {"root": root}, "bench": {"sources": [source]}, "dedupe": {"model": "words"}}
    stage = stage_of(load_settings(None, **given))
    write_manifest(stage, root, [], Summary("bench"))
    assert stale_reasons(stage, root) == []
    found = stale_reasons(stage_of(load_settings(None, **{**given, **change})), root)
    assert [why.partition(" changed")[0] for why in found] == ([reason] if reason else [])


def test_a_model_that_was_trained_again_and_a_scorer_that_was_edited_make_the_stage_stale(root: Path):
    weights = Workspace(root).train_dir / "final-model" / "final" / "model.safetensors"
    scorer = root.parent / "mine.py"
    for path in (weights, scorer):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    scoring = {"scorers": [f"{scorer}:mine"]}
    settings = load_settings(None, paths={"root": root}, scoring=scoring, bench={"sources": ["local:final-model=m"]})
    write_manifest(stage_of(settings), root, [], Summary("bench"))
    assert stale_reasons(stage_of(settings), root) == []
    weights.write_bytes(b"22")
    assert stale_reasons(stage_of(settings), root) == ["source m changed"]
    scorer.write_bytes(b"2")
    assert len(stale_reasons(stage_of(settings), root)) == 2


@pytest.mark.long
def test_a_scorer_that_the_settings_name_runs_when_somebody_says_so(root: Path):
    write_rows(root, 2)
    scorer, config = root.parent / "my\x1b[31mear.py", root.parent / "latentscore.toml"
    scorer.write_text("def loud(vibe, config, audio):\n    return 0.5\n")
    config.write_text(f"[scoring]\nscorers = [{json.dumps(str(scorer) + ':loud')}]\nseconds = 1.0\nworkers = 1\n")
    command = ("bench", "--root", str(root), "--config", str(config), "--source", "baseline:random")
    assert "--trust-settings" in here(*command, code=2).stderr
    out = here(*command, "--trust-settings", code=0)
    assert "scored by" in out.stderr
    assert "\x1b" not in out.stderr


def stage_of(settings: Settings) -> StageFiles:
    return bench.stage_files(settings, Workspace(settings.paths.root))[0]


@pytest.mark.long
def test_a_killed_run_goes_on_where_it_stopped(lsdata: Lsdata, root: Path):
    write_rows(root, documents=8)
    command = ["bench", "--root", str(root), *QUICK, "--source", "baseline:random", "--source", "baseline:keywords"]
    process = begin(*command, "--name", "killed")
    results = root / ".benchmarks" / "killed" / "results.jsonl"
    assert wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") >= 3, process, 200)
    kill(process)
    before = results.read_bytes()
    kept = before[: before.rfind(b"\n") + 1].splitlines()
    messages = lsdata(*command, "--name", "killed", "--json", timeout=280, code=0).json()
    assert messages["skipped"] == len(kept)
    assert messages["skipped"] + messages["done"] == 16
    lsdata(*command, "--name", "whole", "--json", timeout=280, code=0)
    scores = [
        [(r.row_id, r.source, r.scores) for r in map(BenchRow.model_validate_json, path.open())]
        for path in (results, root / ".benchmarks" / "whole" / "results.jsonl")
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--source", "baseline:nothing"), 2, "unknown baseline nothing"),
        (("--source", "rubbish"), 2, "unknown source rubbish"),
        (("--source", "baseline:random=a", "--source", "baseline:keywords=a"), 2, "the label a is used more than once"),
        (("--source", "baseline:random", "--baseline", "b"), 2, "there is no source b"),
        (("--split", "SFT-Val"), 3, "there are no SFT-Val rows"),
        (("--split", "SFT-Val", "--split", "TEST"), 2, "--split has 2 values: SFT-Val, TEST"),
        (("--suite", "controllability", "--source", "dataset:config_payload"), 2, "contains no configs"),
        (("--on", "mars"), 2, "unknown place 'mars'"),
    ],
)
def test_wrong_usage_is_one_line_and_a_remedy(root: Path, arguments: tuple[str, ...], code: int, message: str):
    write_rows(root)
    out = here("bench", "--root", str(root), *QUICK, *arguments, code=code)
    assert message in out.stderr
    assert len(out.stderr.strip().splitlines()) == 2


def test_a_dry_run_is_one_json_document(root: Path):
    write_rows(root)
    for hosted in ((), ("openai/gpt-4o-mini",), ("openai/gpt-4o-mini", "openai/gpt-4o")):
        sources = [word for name in hosted for word in ("--source", f"litellm:{name}")]
        out = here(
            "bench", "--root", str(root), "--source", "baseline:random", *sources, *QUICK, "--dry-run", "--json",
            env={"OPENAI_API_KEY": "none"}, code=0
        )  # fmt: skip
        messages = out.json()
        assert messages["dry_run"]
        assert [plan["model"] for plan in messages["plans"]] == list(hosted)


def test_the_keyword_baseline_gets_four_of_five_asked_fields_right_on_the_half_that_was_kept_aside():
    from latentscore_data.core.bench.suites import suite_rows
    from latentscore_data.core.bench.summary import field_hits
    from latentscore_data.core.generators.simple import KeywordsGenerator

    rows = suite_rows("controllability")
    hits: dict[str, list[bool]] = {"open": [], "held-out": []}
    for row, answer in zip(rows, KeywordsGenerator("k", 0).generate(rows), strict=True):
        result = BenchRow(
            row_id=row.row_id, source="k", vibe_original=row.vibe_original, valid=True, config_payload=answer.payload,
            expect=row.expect,  # type: ignore[call-arg, attr-defined]
        )  # fmt: skip
        hits[row.half] += field_hits(result).values()  # type: ignore[attr-defined]
    assert len(hits["open"]) >= 80
    assert len(hits["held-out"]) >= 80
    assert sum(hits["held-out"]) / len(hits["held-out"]) >= 0.8


def test_every_suite_can_be_read_and_asks_for_what_exists():
    from latentscore import FIELDS
    from latentscore_data.core.bench.suites import SUITES, suite_rows

    for suite in SUITES:
        rows = suite_rows(suite)
        assert len({row.row_id for row in rows}) == len(rows) >= 20
        for row in rows:
            for name, values in (getattr(row, "expect", None) or {}).items():
                assert set(values) <= set(FIELDS[name].labels), (row.row_id, name)
