"""``configs --on modal`` and ``bench --on modal`` as programs, against a control plane on the loopback."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench_fakes import make_rows
from conftest import Lsdata, here, needs
from factories import make_payload, make_vibe
from forked import begin, kill, wait_until
from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.ledger import totals
from latentscore_data.core.base.rows import ConfigRow
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute import entrypoints
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clips import without_tags
from rounds_fakes import ONE_THREAD, small_rounds

if TYPE_CHECKING:
    from modal_loopback import LoopbackModal

pytestmark = needs("modal")

QUICK = ("--scorer", "acoustic", "--seconds", "1", "--workers", "1")
SHARDS = {"LSDATA_TRAIN__MODAL__SHARD_ROWS": "3", "LSDATA_BENCH__MAX_NEW_TOKENS": "64"}
CLOCKS = ("generate_seconds", "render_seconds", "score_seconds", "cost_usd")
"""What differs from run to run wherever it was measured, and the price of a second."""


def write_rows(root: Path) -> None:
    """Three TEST rows with two candidates each; the second of the last one cannot be played."""
    rows = [
        row.model_copy(
            update={
                "config_candidates": [
                    make_payload(f"One {i}", tempo="slow", brightness=("dark", "medium", "bright")[i]),
                    make_payload(f"Two {i}", tempo="fast") if i < 2 else None,
                ],
                "candidate_scores": {"acoustic": [0.2, 0.1]},
            }
        )
        for i, row in enumerate(make_rows(3, 1))
    ]
    rows = [row.model_copy(update={"config_payload": row.config_candidates[0]}) for row in rows]
    replace_rows(root / ".processed" / "TEST.jsonl", [row.model_dump(mode="json") for row in rows])


def results(folder: Path) -> list[dict[str, Any]]:
    lines = [line for _, line in read_lines(folder / "results.jsonl")]
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]


def cached(root: Path) -> dict[str, Any]:
    with ScoreCache(Workspace(root).score_cache) as cache:
        return cache.dump()


def sounds(modal: LoopbackModal) -> list[int]:
    return [len(json.loads(text)["sounds"]) for name, (text,) in modal.sent if name == "score_shard"]


@pytest.mark.ml
@pytest.mark.long
def test_a_benchmark_on_modal_is_the_benchmark_here(
    modal: LoopbackModal, lsdata: Lsdata, tmp_path: Path, one_thread: None
) -> None:
    named = ("dataset:config_payload", "baseline:random", "local:tiny-random=tiny")
    sources = [f"--source={name}" for name in named]
    folders: dict[str, Path] = {}
    for place in ("here", "modal"):
        root = tmp_path / place
        write_rows(root)
        command = ("bench", "--root", str(root), *sources, *QUICK, "--on", place, "--name", "run", "--json")
        out = lsdata(*command, "--yes", env={**SHARDS, "OMP_NUM_THREADS": "1"}, timeout=250)
        # A random model cannot answer in 64 tokens: those rows are failures, here and there.
        assert out.returncode in (0, 1), out.stderr
        folders[place] = root / ".benchmarks" / "run"
        if place == "modal":
            assert "3 answers of tiny in up to 1 containers" in out.stderr
            assert "18 sounds in up to 6 containers" in out.stderr
            assert out.stderr.count("at most $") == 2
            said = out.json()
            assert said["details"]["scorer"] == "acoustic"
            # What the GPU took is booked, answer by answer, and it is in the bill of the run and on its page.
            (((stage, model), usage),) = totals(Workspace(root).ledger).items()
            assert (stage, model, usage.calls) == ("bench", "local:tiny-random", 3)
            assert 0 < said["cost_usd"] == pytest.approx(usage.cost_usd)
    assert results(folders["modal"]) == results(folders["here"])
    # The containers do not know the titles, which are in the tags.
    here, there = (
        {path.name: without_tags(path.read_bytes()) for path in (folders[place] / "audio").iterdir()}
        for place in ("here", "modal")
    )
    assert there == here
    assert cached(tmp_path / "modal") == cached(tmp_path / "here")
    tables = [json.loads((folder / "summary.json").read_text()) for folder in folders.values()]
    assert tables[0]["ceiling"] == tables[1]["ceiling"]
    assert [source["scores"] for source in tables[0]["sources"]] == [
        source["scores"] for source in tables[1]["sources"]
    ]
    assert [name for name, _ in modal.sent].count("generate_shard") == 1
    # Six sounds of the answers and the one that only other candidates have: none is asked for twice.
    assert sum(sounds(modal)) == 7


@pytest.mark.long
def test_a_killed_benchmark_asks_modal_only_for_what_is_missing(
    modal: LoopbackModal, lsdata: Lsdata, root: Path
) -> None:
    write_rows(root)
    command = ("bench", "--root", str(root), "--source", "dataset:first_valid", "--source", "baseline:random", *QUICK)
    command += ("--on", "modal", "--name", "run", "--yes")
    first, blocked = threading.Event(), threading.Event()

    def score(text: str) -> str:
        if first.is_set():
            blocked.wait(60)
        first.set()
        return entrypoints.score_shard(text)

    modal.bodies["score_shard"] = score
    running = begin(*command, env={**os.environ, **SHARDS})
    kept = root / ".benchmarks" / "run" / "results.jsonl"
    wait_until(lambda: kept.exists() and kept.read_text().count("\n") == 3, running)
    kill(running)
    assert kept.read_text().count("\n") == 3, "the shard that had arrived is kept"
    blocked.set()
    modal.sent.clear()
    lsdata(*command, env=SHARDS, timeout=200, code=0)
    assert len(results(kept.parent)) == 6
    assert sounds(modal)[0] == 3
    assert all(line["scores"] and (kept.parent / line["audio_file"]).exists() for line in results(kept.parent))


@pytest.mark.long
def test_configs_on_modal_are_the_configs_here(modal: LoopbackModal, lsdata: Lsdata, tmp_path: Path) -> None:
    written: dict[str, Any] = {}
    for place in ("here", "modal"):
        root = tmp_path / place
        workspace = Workspace(root)
        replace_rows(workspace.vibes("SFT-Train"), [make_vibe(n, vibe=f"a dark slow night {n}") for n in range(3)])
        command = ("configs", "--root", str(root), "--n", "2", *QUICK, "--on", place, "--json")
        out = lsdata(*command, "--yes", env=SHARDS, timeout=200, code=0)
        if place == "modal":
            assert "Modal: 6 sounds in up to 2 containers" in out.stderr
        written[place] = [line for _, line in read_lines(workspace.scored("SFT-Train"))]
        assert {name: len(row.config_candidates) for name, row in _rows(workspace)} == dict.fromkeys(
            [row["row_id"] for row in written[place]], 2
        )
    assert written["modal"] == written["here"]
    assert cached(tmp_path / "modal") == cached(tmp_path / "here")


def _rows(workspace: Workspace) -> list[tuple[str, ConfigRow]]:
    lines = (ConfigRow.model_validate(line) for _, line in read_lines(workspace.candidates))
    return [(row.row_id, row) for row in lines]


@pytest.mark.ml
@pytest.mark.long
def test_training_on_modal_from_start_to_fetch(modal: LoopbackModal, lsdata: Lsdata, workspace: Workspace) -> None:
    def train(*arguments: str) -> Any:
        out = lsdata("train", *arguments, "--root", str(workspace.root), "--json", timeout=200, code=0)
        return out.json(), out.stderr

    modal.held.clear()
    quick = ("--base-model", "tiny-random", "--max-steps", "1", "--limit", "4", "--gpu", "T4")
    started, said = train("sft", *quick, "--on", "modal", "--detach", "--yes")
    run = started["details"]["run"]
    assert "1 run on T4: at most $" in said
    assert started["next_step"] == f"lsdata train attach {run}"
    (line,), _ = train("status")
    assert (line["run"], line["where"], line["state"]) == (run, "modal", "running")

    modal.held.set()
    attached, said = train("attach", run)
    assert "step 1/1" in said, "the log of the container"
    assert attached["details"]["steps"] == 1
    folder = RunFolder(workspace.train_dir / run)
    folder.verify()
    assert (folder.final / "model.safetensors").exists()

    train("fetch", run, "--delete-remote")
    assert not (modal.volume("latentscore-data-outputs") / run).exists()
    again, _ = train("sft", *quick, "--on", "modal", "--yes")
    assert (again["done"], again["skipped"]) == (0, 1)
    assert len(modal.sent) == 1


@pytest.mark.ml
@pytest.mark.long
def test_rounds_on_modal_answer_score_and_train_there(modal: LoopbackModal, lsdata: Lsdata, root: Path) -> None:
    out = lsdata(*small_rounds(root, "modal"), "--yes", env=ONE_THREAD, timeout=250, code=0)
    assert "6 answers of tiny and of the rounds in up to 1 containers" in out.stderr
    assert "SFT-Val answers are scored here: ear.py:score is code on this machine" in out.stderr
    # Round 0 is judged; round 1 answers what is learned, is trained, and is judged.
    assert [name for name, _ in modal.sent] == ["write_shard", "write_shard", "score_shard", "train", "write_shard"]
    rounds = json.loads((root / ".improve" / "r" / "rounds.json").read_text())["rounds"]
    assert [(line["model"], line["answered"]) for line in rounds] == [("tiny", 1.0), ("r-round-1", 1.0)]
    assert (modal.volume("latentscore-data-outputs") / "tiny" / "final").is_dir(), "a model of this machine was sent"


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "env", "code", "message"),
    [
        (("bench",), {}, 4, "add --yes"),
        (("bench",), {"LSDATA_TRAIN__MODAL__MAX_COST": "0.1"}, 4, "more than the $0.10 that train.modal.max_cost"),
        (("bench", "--scorer", "judge:openai/gpt-audio"), {}, 2, "needs your key"),
        (("bench",), {"MODAL_TOKEN_ID": ""}, 3, "modal setup"),
        (("configs", "--scorer", "mine.py:fn"), {}, 2, "mine.py:fn is code on this machine"),
        (("configs",), {}, 4, "add --yes"),
        (("configs", "rain"), {}, 2, "leave --on modal out"),
    ],
)
def test_what_cannot_go_or_was_not_agreed_to_never_starts(
    modal: LoopbackModal, lsdata: Lsdata, root: Path, arguments: tuple[str, ...],
    env: dict[str, str], code: int, message: str,
) -> None:  # fmt: skip
    write_rows(root)
    replace_rows(Workspace(root).vibes("SFT-Train"), [make_vibe(1)])
    scorer = () if "--scorer" in arguments else ("--scorer", "acoustic")
    out = lsdata(*arguments, *scorer, "--on", "modal", "--root", str(root), env=env, code=code)
    assert message in out.stderr
    assert "Traceback" not in out.stderr
    dry = here(*arguments, *scorer, "--on", "modal", "--root", str(root), "--dry-run", env=env)
    # It asks no question, so it is not refused for want of an answer.
    assert (dry.returncode, message in dry.stderr) == ((0, False) if message == "add --yes" else (code, True))
    assert modal.sent == []
    assert not Workspace(root).candidates.exists()


@pytest.mark.ml
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_training_run_that_could_exceed_the_cap_on_the_run_never_starts(
    modal: LoopbackModal, workspace: Workspace, more: tuple[str, ...]
) -> None:
    command = ("train", "sft", "--base-model", "tiny-random", "--limit", "4", "--on", "modal", "--max-cost", "0.5")
    out = here(*command, "--root", str(workspace.root), *more, code=4)
    assert "$0.50 of --max-cost 0.5 are left" in out.stderr
    assert modal.sent == []


@pytest.mark.long
def test_a_dry_run_says_what_would_be_done_there(modal: LoopbackModal, lsdata: Lsdata, root: Path) -> None:
    write_rows(root)
    command = ("bench", "--root", str(root), "--source", "local:gemma3-270m=g", "--scorer", "judge:openai/gpt-audio")
    out = lsdata(*command, "--on", "modal", "--dry-run", env={"OPENAI_API_KEY": "none"}, code=0)
    assert "3 answers of g in up to 1 containers" in out.stderr
    assert "scored here: judge:openai/gpt-audio needs your key" in out.stderr
    assert modal.sent == []
    there = lsdata(*command, "--on", "modal", "--dry-run", "--json").json()["remote"]
    assert [(remote_estimate["what"], remote_estimate["items"]) for remote_estimate in there] == [("answers of g", 3)]
