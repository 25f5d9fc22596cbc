"""Rounds of improvement: who decides, when they stop, and that a killed command ends as one that was left alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import rounds_fakes
from conftest import here, needs
from factories import make_config
from forked import python
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.jsonl import read_rows
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.training.rounds import Round, verdict
from latentscore_data.core.training.run_health import label_entropy
from rounds_fakes import make_rounds, make_rows
from scoring_fakes import LoudnessScorer


@pytest.fixture
def rows(root: Path) -> Workspace:
    workspace = Workspace(root)
    make_rows(workspace)
    return workspace


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds_fakes.install(monkeypatch.setattr)


def table(root: Path) -> dict[str, Any]:
    return json.loads((root / ".improve" / "r" / "rounds.json").read_text())


@pytest.mark.long
@pytest.mark.usefixtures("fakes")
def test_each_round_learns_from_the_best_answers_and_the_judge_compares_the_models(rows: Workspace) -> None:
    summary = make_rounds(rows.root)
    found = table(rows.root)
    assert [line["model"] for line in found["rounds"]] == ["tiny-random", "r-round-1", "r-round-2"]
    means = [line["louder"] for line in found["rounds"]]
    assert means == sorted(means)
    assert means[0] < means[2]
    assert summary.details["best"] == found["best"] == "r-round-2"
    learned = list(read_rows(rows.train_dir / "r-round-1" / "data" / "train.jsonl", ScoredRow))
    assert {row.config_payload["config"]["echo"] for row in learned if row.config_payload} == {rounds_fakes.ECHOES[1]}
    assert (rows.improve_dir / "r" / "rounds.svg").read_text().count("<circle") == 9
    again = make_rounds(rows.root)
    assert (again.done, again.skipped, again.fresh) == (0, 3, True)
    assert table(rows.root) == found
    assert make_rounds(rows.root, rounds=3).done == 1, "more rounds go on from those that there are"


@needs("torch")
@pytest.mark.usefixtures("fakes")
def test_a_judge_that_fails_is_named_with_its_error(rows: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(*_: object) -> None:
        raise ValueError("no ears")

    monkeypatch.setattr(LoudnessScorer, "score", score)
    with pytest.raises(MissingError, match=r"louder could score .* no ears"):
        make_rounds(rows.root)


@needs("torch")
@pytest.mark.usefixtures("fakes")
def test_preference_rounds_go_on_from_the_model_before_with_best_against_worst(rows: Workspace) -> None:
    make_rounds(rows.root, method="dpo")
    specs = [json.loads((rows.train_dir / f"r-round-{n}" / "spec.json").read_text()) for n in (1, 2)]
    assert [(spec["kind"], spec["adapter"], spec["base_model"]) for spec in specs] == [
        ("dpo", None, "tiny-random"), ("dpo", "r-round-1", "tiny-random"),
    ]  # fmt: skip
    for row in read_rows(rows.train_dir / "r-round-2" / "data" / "train.jsonl", ScoredRow):
        better, worse = ((candidate or {})["config"]["echo"] for candidate in row.config_candidates)
        assert (better, worse) == rounds_fakes.ECHOES[2:0:-1]


@needs("torch")
@pytest.mark.usefixtures("fakes")
def test_the_rounds_end_where_the_judge_disagrees(rows: Workspace) -> None:
    summary = make_rounds(rows.root, judge="quiet")
    shown = here("status", "--root", str(rows.root)).stdout
    assert "improve r: round 1, best tiny-random (quiet -0.1); quiet is not better" in " ".join(shown.split())
    assert summary.details["best"] == "tiny-random"
    assert "quiet is not better in round 1 than in round 0" in summary.details["stopped"]
    assert len(summary.details["rounds"]) == 2


@needs("torch")
def test_the_rounds_end_where_answers_become_alike(rows: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds_fakes.install(monkeypatch.setattr, bores=True)
    summary = make_rounds(rows.root)
    assert summary.details["best"] == "tiny-random"
    assert "label entropy of round 1 is 0.00" in summary.details["stopped"]


@needs("torch")
@pytest.mark.usefixtures("fakes")
def test_no_judge_the_guide_as_judge_and_other_settings_are_refused_before_anything_is_asked(rows: Workspace) -> None:
    for judge in (None, "loud"):
        with pytest.raises(InputError, match="loud") as refused:
            make_rounds(rows.root, judge=judge)
        assert "louder, quiet" in refused.value.remedy
    assert not rows.improve_dir.exists()
    make_rounds(rows.root, rounds=1)
    with pytest.raises(InputError, match="started with other improve"):
        make_rounds(rows.root, rounds=1, n=4)


PHASES = (
    "answer 0 judged", "answer 0 learned", "train r-round-1", "save r-round-1", "answer 1 judged", "answer 1 learned",
    "train r-round-2",
)  # fmt: skip


def in_a_process(root: Path, *phase: str) -> str:
    """What was printed; the process is killed in the phase."""
    path = os.pathsep.join([str(Path(rounds_fakes.__file__).parent), os.environ["PYTHONPATH"]])
    code = -signal.SIGKILL if phase else 0
    return python(rounds_fakes.__file__, root, *phase, env={"PYTHONPATH": path}, code=code).stdout


@pytest.mark.long
def test_rounds_that_were_killed_in_every_phase_end_as_if_they_were_left_alone(root: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    for place in (root, whole):
        make_rows(Workspace(place))
    in_a_process(whole)
    for phase in PHASES:
        in_a_process(root, phase)
    assert "answer 0 learned" not in in_a_process(root), "what was answered is not asked again"
    assert table(root) == table(whole)
    for run in ("r-round-1", "r-round-2"):
        ours, theirs = (Workspace(place).train_dir / run / "data" / "train.jsonl" for place in (root, whole))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_model_gains_nothing_by_failing() -> None:
    documents = {str(number): str(number) for number in range(4)}
    before = Round(0, "a", {"ear": {"0": 0.1, "1": 0.5, "2": 0.5, "3": 0.5}}, documents, 0.8, 1.0)
    after = Round(1, "b", {"ear": {"1": 0.55, "2": 0.5, "3": 0.5}}, documents, 0.8, 0.75)
    assert verdict([before, after], "ear", 0.5).best is after, "the row it failed at had the lowest score"
    worse = Round(1, "b", {"ear": {"0": 0.1, "1": 0.55, "2": 0.5}}, documents, 0.8, 0.75)
    found = verdict([before, worse], "ear", 0.5)
    assert found.best is before
    assert "ear is not better" in found.stop


def test_label_entropy_is_0_for_equal_configs_and_grows_with_different_ones() -> None:
    same = [make_config()] * 4
    mixed = [make_config(root=root) for root in ("c", "d", "e", "f")]
    assert label_entropy(same) == 0.0
    assert label_entropy(mixed) == pytest.approx(1 / 34)
    one, other = make_config(), make_config(tempo="very_slow", brightness="very_dark")
    assert 0.0 < label_entropy([one, one, other]) < label_entropy([one, other]) <= 1.0


@pytest.mark.ml
def test_a_dry_run_shows_the_plan_and_writes_nothing(rows: Workspace) -> None:
    pytest.importorskip("xgrammar")
    Path("ear.py").write_text("def score(vibe, audio):\n    return 0.5\n")
    command = ("improve", "--base-model", "tiny-random", "--scorer", "acoustic", "--rounds", "2", "--n", "4")
    out = here(*command, "--judge", "ear.py:score", "--dry-run", "--json", "--root", str(rows.root), code=0)
    plan = out.json()
    assert (plan["guide"], plan["judge"], plan["start"]) == ("acoustic", "ear.py:score", "tiny-random")
    assert plan["answers"] == 2 * 3 * 4 + 3 * 3
    assert not rows.improve_dir.exists()
    assert "judge:MODEL" in here(*command, "--dry-run", "--root", str(rows.root), code=2).stderr


@pytest.mark.slow
@pytest.mark.ml
@pytest.mark.timeout(3000)
def test_a_whole_circle_ends_with_a_table_against_look_up(tmp_path: Path) -> None:
    tool = Path(__file__).parents[2] / "tools" / "circle.py"
    sizes = ("--sizes", "12", "3", "3", "4", "--steps", "40", "--rounds", "1", "--round-steps", "2", "--n", "2")
    out = python(tool, "--work", tmp_path, *sizes, timeout=2900)
    for source in ("written", "SFT", "last round", "baseline:lookup"):
        assert f"| {source} |" in out.stdout
    assert "| 1 |" in out.stdout
