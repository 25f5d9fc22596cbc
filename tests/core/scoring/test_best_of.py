from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories import make_payload, make_vibe
from latentscore.config import REGISTERS_SWAPPED
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.jsonl import read_lines, read_rows, replace_rows
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.manifest import read_manifest, stale_reasons
from latentscore_data.core.base.rows import SPLITS, ConfigRow, ScoredRow
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.configs.candidate_generation import VibeRows, prune_orphans
from latentscore_data.core.scoring import best_of, renderer
from latentscore_data.core.scoring.best_of import choose, run_scoring
from latentscore_data.core.scoring.renderer import LocalRenderer, make_worker
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.scoring.types import Score, Scorer, Unscored
from latentscore_data.core.stages.base import RunContext
from latentscore_data.core.stages.configs import run_configs
from scoring_fakes import LoudnessScorer, OddScorer, PeakEmbedder, render_by_echo, render_by_root

QUIET, MIDDLE, LOUD = (make_payload(echo=echo) for echo in ("none", "medium", "infinite"))


@pytest.fixture(autouse=True)
def _fake_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "make_worker", make_fake_worker)


def make_fake_worker(render: Any) -> Any:
    return make_worker(render or render_by_root)


def make_mended_worker(render: Any) -> Any:
    return make_worker(render_by_echo)


@pytest.fixture
def workspace(root: Path) -> Workspace:
    return Workspace(root)


def settings(**changes: Any) -> Settings:
    scoring = {"seconds": 0.5, "workers": 1, "scorers": ["acoustic"], **changes.pop("scoring", {})}
    return Settings(scoring=scoring, **changes)


def row(number: int, *candidates: dict | None, split: str = "SFT-Train", **changes: Any) -> dict[str, Any]:
    vibe = make_vibe(number, split=split, **changes)
    return {**vibe.model_dump(mode="json"), "config_candidates": list(candidates), "config_model": "fake/model"}


def score(
    workspace: Workspace,
    *scorers: Scorer,
    rows: list[dict] | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    **changes: Any,
) -> Summary:
    if rows is not None:
        replace_rows(workspace.candidates, rows)
    return run_scoring(
        settings(**changes),
        workspace,
        scorers=scorers or [LoudnessScorer()],
        retry_failed=retry_failed,
        overwrite=overwrite,
    )


def scored(workspace: Workspace, split: str = "SFT-Train") -> list[ScoredRow]:
    return list(read_rows(workspace.scored(split), ScoredRow))


def test_the_best_candidate_wins_and_every_score_is_kept(workspace: Workspace) -> None:
    summary = score(workspace, rows=[row(1, QUIET, LOUD, MIDDLE), row(2, MIDDLE, None, split="TEST")])
    (first,) = scored(workspace)
    assert first.best_index == 1
    assert first.config_payload == LOUD
    assert first.candidate_scores["loudness"] == [pytest.approx(x, abs=0.01) for x in (0.1, 0.575, 0.35)]
    assert first.scores_external["loudness"]["final_score"] == pytest.approx(0.575, abs=0.01)
    assert first.scores_external["loudness"]["fingerprint"] == "loudness-1"
    (second,) = scored(workspace, "TEST")
    assert (second.best_index, second.candidate_scores["loudness"][1]) == (0, None)
    assert (summary.done, summary.short, summary.exit_code) == (2, 0, 0)
    manifest = read_manifest(workspace.configs_dir / "score.manifest.json")
    assert manifest is not None
    assert manifest["details"]["renders"] == 3, "the middle payload belongs to both rows and is rendered once"


def test_the_first_scorer_decides_and_choosing_again_costs_nothing(workspace: Workspace) -> None:
    rows = [row(1, QUIET, LOUD), row(2, LOUD, MIDDLE)]
    score(workspace, LoudnessScorer(), LoudnessScorer("softness", -1.0), rows=rows)
    assert [r.best_index for r in scored(workspace)] == [1, 0]
    loudness, softness = LoudnessScorer(), LoudnessScorer("softness", -1.0)
    summary = score(workspace, softness, loudness)
    assert [r.best_index for r in scored(workspace)] == [0, 1]
    assert summary.details["renders"] == 0
    assert loudness.vibes == softness.vibes == []


def test_the_same_command_again_does_nothing(workspace: Workspace) -> None:
    score(workspace, rows=[row(1, QUIET, LOUD), row(2, MIDDLE)])
    before = workspace.scored("SFT-Train").read_bytes()
    summary = score(workspace)
    assert (summary.done, summary.skipped) == (0, 2)
    assert workspace.scored("SFT-Train").read_bytes() == before


def test_only_what_changed_is_done_again(workspace: Workspace) -> None:
    score(workspace, rows=[row(1, QUIET, LOUD), row(2, MIDDLE)])
    summary = score(workspace, rows=[row(1, QUIET, LOUD, MIDDLE), row(2, MIDDLE)])
    assert (summary.done, summary.skipped) == (1, 1)
    assert summary.details["renders"] == 0
    summary = score(workspace, scoring={"seconds": 0.6})
    assert (summary.done, summary.details["renders"]) == (2, 3)


def test_noise_and_tags_of_a_finished_row_are_brought_up_to_date(workspace: Workspace) -> None:
    score(workspace, rows=[row(1, QUIET, LOUD)])
    summary = score(workspace, rows=[row(1, QUIET, LOUD, vibe_noisy="dmap soul")])
    assert summary.skipped == 1
    (first,) = scored(workspace)
    assert (first.vibe_noisy, first.best_index) == ("dmap soul", 1)


def test_the_winner_is_the_candidate_also_where_only_its_words_are_new(workspace: Workspace) -> None:
    score(workspace, rows=[row(1, QUIET, LOUD)])
    renamed = {**LOUD, "title": "Iron Sky"}
    summary = score(workspace, rows=[row(1, QUIET, renamed)])
    assert (summary.skipped, summary.details["renders"]) == (1, 0)
    (first,) = scored(workspace)
    assert first.config_payload == first.config_candidates[first.best_index] == renamed


def test_a_row_that_moved_or_went_leaves_its_old_split(workspace: Workspace) -> None:
    score(workspace, rows=[row(1, QUIET), row(2, LOUD), row(3, MIDDLE)])
    replace_rows(workspace.vibes("SFT-Train"), [make_vibe(1), make_vibe(3)])
    lines = [line for _, line in read_lines(workspace.candidates)]
    replace_rows(workspace.candidates, [{**line, "input_fingerprint": "answered here"} for line in lines])
    prune_orphans(workspace)
    score(workspace, rows=[row(1, QUIET, split="TEST"), row(3, MIDDLE)])
    assert [r.row_id for r in scored(workspace)] == [make_vibe(3).row_id]
    assert [r.row_id for r in scored(workspace, "TEST")] == [make_vibe(1).row_id]


def test_bad_candidates_have_reasons_and_the_run_goes_on(workspace: Workspace) -> None:
    bad = [make_payload(root=root) for root in "def"]
    summary = score(workspace, rows=[row(1, *bad, LOUD), row(2, QUIET)])
    first, second = scored(workspace)
    assert (first.best_index, second.best_index) == (3, 0)
    assert first.candidate_scores["loudness"][:3] == [None, None, None]
    reasons = first.model_dump()["candidate_failures"]["loudness"]
    assert reasons["0"] == "the audio is silent"
    assert reasons["1"] == "the audio is not finite"
    assert "no sound today" in reasons["2"]
    assert (summary.done, summary.short, summary.exit_code) == (2, 1, 1)
    assert summary.details["unscored"]["the audio is silent"] == 1


def test_a_row_without_any_score_fails_and_is_tried_again(workspace: Workspace) -> None:
    summary = score(
        workspace, rows=[row(1, make_payload(root="d"), make_payload(root="e")), row(2, LOUD), row(3, None)]
    )
    assert summary.failed == {"render": 1, "answer": 1}
    failures = [line for _, line in read_lines(workspace.failures("score"))]
    assert {(line["kind"], line["message"]) for line in failures} == {
        ("render", "no candidate could be scored (1 x the audio is silent; 1 x the audio is not finite)"),
        ("answer", "there is no candidate to score"),
    }
    again = score(workspace)
    assert again.failed == {"render": 1, "answer": 1}
    odd = OddScorer(**{"damp november soul": "loud"})
    assert score(workspace, odd, rows=[row(4, LOUD, QUIET)], configs={"limit": 1}).failed == {"score": 1}


def test_a_scorer_that_does_not_decide_may_fail(workspace: Workspace) -> None:
    odd = OddScorer(**{"damp november soul": Score(float("inf"))})
    summary = score(workspace, LoudnessScorer(), odd, rows=[row(1, QUIET, LOUD)])
    (first,) = scored(workspace)
    assert first.best_index == 1
    assert first.candidate_scores["odd"] == [None, None]
    assert summary.short == 1


def test_a_scorer_that_failed_is_asked_again_by_the_same_command(workspace: Workspace) -> None:
    rows = [row(1, QUIET, LOUD, vibe="sea"), row(2, LOUD, vibe="fog")]
    score(workspace, LoudnessScorer(), OddScorer(sea=[], fog=Score(0.5)), rows=rows)
    mended = OddScorer(sea=Score(0.25), fog=RuntimeError("it has answered before"))
    summary = score(workspace, LoudnessScorer(), mended)
    assert (summary.done, summary.skipped, summary.short) == (1, 1, 0)
    assert [r.candidate_scores["odd"] for r in scored(workspace)] == [[0.25, 0.25], [0.5]]


def test_a_row_that_came_short_of_a_killed_renderer_is_heard_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = make_payload(root="g")
    summary = score(workspace, rows=[row(1, QUIET, killed, LOUD), row(2, LOUD)])
    assert (summary.done, summary.short) == (2, 1)
    assert "ended with code 3" in str(scored(workspace)[0].model_dump()["candidate_failures"])
    monkeypatch.setattr(renderer, "make_worker", make_mended_worker)
    summary = score(workspace)
    assert (summary.done, summary.skipped, summary.short) == (1, 1, 0)
    (first, _) = scored(workspace)
    assert None not in first.candidate_scores["loudness"]
    assert "unfinished" not in first.model_dump()
    assert score(workspace).skipped == 2


def test_what_can_never_be_heard_is_not_tried_again_by_itself(workspace: Workspace) -> None:
    score(workspace, rows=[row(1, make_payload(root="d"), {"config": {}}, LOUD)])
    summary = score(workspace)
    assert (summary.done, summary.skipped, summary.short) == (0, 1, 1)
    refused = OddScorer(sea=Unscored("request", "the judge refuses this sound"))
    score(workspace, LoudnessScorer(), refused, rows=[row(1, LOUD, vibe="sea")])
    assert score(workspace, LoudnessScorer(), refused).skipped == 1
    assert score(workspace, refused, rows=[row(2, LOUD, vibe="sea")], configs={"limit": 1}).failed == {"bad request": 1}


def test_beginning_again_keeps_the_failures_of_every_split(workspace: Workspace) -> None:
    rows = [row(1, None), row(2, LOUD), row(3, LOUD, split="TEST"), row(4, None, split="TEST")]
    score(workspace, rows=rows)
    summary = score(workspace, overwrite=True)
    assert (summary.done, summary.failed) == (2, {"answer": 2})
    failures = [line["row_id"] for _, line in read_lines(workspace.failures("score"))]
    assert failures == [make_vibe(1).row_id, make_vibe(4).row_id]


def test_where_the_new_scorer_fails_the_old_one_s_choice_does_not_stay(workspace: Workspace) -> None:
    score(workspace, rows=[row(1, QUIET, LOUD, vibe="sea"), row(2, MIDDLE, vibe="fog"), row(3, LOUD, vibe="rain")])
    odd = OddScorer(sea=[], fog=Score(0.5))
    summary = score(workspace, odd, configs={"limit": 2})
    assert summary.failed == {"score": 1}
    assert [(r.vibe_original, list(r.candidate_scores)) for r in scored(workspace)] == [
        ("fog", ["odd"]),
        ("rain", ["loudness"]),
    ], "a row that was not asked for keeps what it has"


@pytest.mark.parametrize("rows", [1, 12])
def test_the_work_is_what_it_must_be_and_no_more(workspace: Workspace, rows: int) -> None:
    """R rows with N valid candidates: exactly R*N renders and R*N listens; the winner is not scored twice."""
    echoes = ("none", "subtle", "medium", "heavy", "infinite")
    peak = PeakEmbedder()
    table = [
        row(
            r,
            *(
                make_payload(echo=echo, phrase_len_bars=(2, 4, 8)[r % 3], register_min_oct=1 + r // 3)
                for echo in echoes
            ),
        )
        for r in range(rows)
    ]
    summary = score(workspace, peak, rows=table)
    assert summary.done == rows
    assert summary.details["renders"] == rows * 5
    assert (peak.embedded, peak.compared) == (rows * 5, rows * 5)


def test_what_scorers_paid_is_in_the_summary(workspace: Workspace) -> None:
    paid, free = LoudnessScorer("paid"), LoudnessScorer("free")
    paid.usage = Usage(calls=3, tokens_in=30, cost_usd=0.25)  # type: ignore[attr-defined]
    summary = score(workspace, free, paid, rows=[row(1, QUIET, LOUD)])
    assert (summary.calls, summary.tokens_in, summary.cost_usd) == (3, 30, 0.25)
    manifest = read_manifest(workspace.configs_dir / "score.manifest.json")
    assert manifest is not None
    assert manifest["cost_usd"] == 0.25


def test_limit_and_splits_choose_the_rows(workspace: Workspace) -> None:
    rows = [row(1, LOUD, split="TEST"), row(2, QUIET), row(3, MIDDLE), row(4, MIDDLE, split="GRPO")]
    assert score(workspace, rows=rows, configs={"splits": ["GRPO", "TEST"]}).done == 2
    assert score(workspace, configs={"limit": 1}).done == 1
    assert len(scored(workspace)) == 1


def test_the_manifest_knows_when_scoring_is_stale(workspace: Workspace) -> None:
    run_scoring(settings(), workspace_with(workspace, [row(1, QUIET, LOUD)]))
    fresh = best_of.score_files(settings(), workspace)
    assert stale_reasons(fresh, workspace.root) == []
    longer = best_of.score_files(settings(scoring={"seconds": 3.0}), workspace)
    assert stale_reasons(longer, workspace.root) == ["setting seconds changed from 0.5 to 3.0"]
    workspace_with(workspace, [row(1, LOUD)])
    assert stale_reasons(best_of.score_files(settings(), workspace), workspace.root) == [
        "input .processed/candidates.jsonl changed"
    ]


def workspace_with(workspace: Workspace, rows: list[dict]) -> Workspace:
    replace_rows(workspace.candidates, rows)
    return workspace


def test_no_candidates_is_one_line_and_a_remedy(workspace: Workspace) -> None:
    with pytest.raises(MissingError, match="lsdata configs"):
        score(workspace)


PUT_THERE = {
    "dataset": "theirs", "id_in_dataset": 7, "vibe_original": "a far shore", "split": "",
    "config_candidates": [QUIET, None, LOUD], "candidate_scores": {"theirs": [0.9, None, 0.1]}, "best_index": 0,
    "config_payload": QUIET, "their_column": "stays",
}  # fmt: skip


def test_rows_that_somebody_put_there_are_scored_in_their_place(workspace: Workspace) -> None:
    bare = {"vibe_original": "one config", "config": {**QUIET["config"], "register_min_oct": 7, "register_max_oct": 3}}
    replace_rows(workspace.scored("TEST"), [PUT_THERE, PUT_THERE, bare, {"vibe_original": "no config at all"}])
    summary = score(workspace)
    assert (summary.done, summary.failed, summary.details["from_elsewhere"]) == (3, {}, 3)
    assert summary.details["converted"] == {REGISTERS_SWAPPED: 1}
    rows = scored(workspace, "TEST")
    assert len({r.row_id for r in rows}) == len(rows) == 4
    first = next(r for r in rows if r.dataset == "theirs")
    assert (first.best_index, first.config_payload, first.split) == (2, LOUD, "TEST")
    assert list(first.candidate_scores) == ["loudness", "theirs"], "the scorer that decides comes first"
    assert first.model_dump()["their_column"] == "stays"
    one = next(r for r in rows if r.vibe_original == "one config")
    assert one.config_payload is not None
    assert (one.config_payload["config"]["register_min_oct"], one.best_index) == (3, 0)

    before = workspace.scored("TEST").read_bytes()
    assert score(workspace).skipped == 3
    assert workspace.scored("TEST").read_bytes() == before
    assert score(workspace, LoudnessScorer("softness", -1.0)).done == 3, "another scorer chooses anew"
    assert next(r for r in scored(workspace, "TEST") if r.dataset == "theirs").best_index == 0
    assert score(workspace, overwrite=True).done == 3
    assert len(scored(workspace, "TEST")) == 4


@pytest.mark.parametrize("fingerprint", [None, "of another workspace"])
def test_what_the_stage_did_not_write_it_does_not_remove(workspace: Workspace, fingerprint: str | None) -> None:
    theirs = {**row(9, QUIET, split="TEST"), "input_fingerprint": fingerprint}
    taken = {**PUT_THERE, "row_id": make_vibe(1).row_id, "config_candidates": [make_payload(root="d")]}
    replace_rows(workspace.scored("TEST"), [theirs])
    replace_rows(workspace.scored("SFT-Train"), [taken])
    before = workspace.scored("TEST").read_bytes()
    replace_rows(workspace.vibes("SFT-Train"), [make_vibe(1), make_vibe(2)])
    replace_rows(workspace.candidates, [row(1, QUIET), row(2, LOUD)])
    prune_orphans(workspace)
    summary = score(workspace, configs={"splits": ["SFT-Train"]})
    assert workspace.scored("TEST").read_bytes() == before, "a file of another split"
    assert (summary.done, summary.failed) == (1, {"render": 1})
    kept = next(r for r in scored(workspace) if r.row_id == make_vibe(1).row_id)
    assert kept.config_payload == QUIET, "a row that cannot be scored stays as it was put there"
    score(workspace, overwrite=True)
    assert len(scored(workspace)) == 2
    assert len(scored(workspace, "TEST")) == 1


def test_choosing_for_a_vibe_keeps_the_sound_of_the_winner() -> None:
    with ScoringService(
        [LoudnessScorer()], settings().scoring, make_renderer=partial(LocalRenderer, render=render_by_root)
    ) as service:
        choice = choose(service, "a vibe", [QUIET, None, LOUD], want_audio=True)
    assert choice.best_index == 2
    winner = choice.scored_renders[2]
    assert winner is not None
    assert winner.audio is not None
    assert np.abs(winner.audio.samples).max() == pytest.approx(0.575, abs=0.01)
    assert choice.scored_renders[1] is None


def test_a_published_row_keeps_columns_that_are_not_ours(workspace: Workspace) -> None:
    score(workspace, rows=[{**row(1, LOUD), "their_column": 7}])
    (_, line) = next(read_lines(workspace.scored("SFT-Train")))
    assert line["their_column"] == 7
    assert ConfigRow.model_validate(line).row_id == make_vibe(1).row_id


@pytest.fixture
def whole_reads() -> Iterator[Counter[str]]:
    """How often each file was opened to be read, by folder and name."""
    counts: Counter[str] = Counter()

    def note(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and counting and given[1] == "r" and str(given[0]).endswith(".jsonl"):
            counts["/".join(Path(str(given[0])).parts[-2:])] += 1

    counting = True
    sys.addaudithook(note)
    yield counts
    counting = False  # an audit hook cannot be removed


@pytest.mark.long
def test_a_run_reads_each_file_once_however_many_splits_there_are(
    workspace: Workspace, whole_reads: Counter[str]
) -> None:
    now = settings(configs={"model": "builtin/keywords", "n": 2}, paths={"root": workspace.root})
    for number, split in enumerate(SPLITS):
        replace_rows(workspace.vibes(split), [make_vibe(10 * number + at, split=split) for at in range(3)])
    rows = VibeRows(workspace, now.configs)
    assert run_configs(now, workspace=workspace, rows=rows).done == 12
    longer = now.model_copy(update={"scoring": now.scoring.model_copy(update={"seconds": 0.7})})
    whole_reads.clear()
    again = run_configs(longer, workspace=workspace, rows=rows)
    assert (again.done, again.skipped) == (12, 0)
    # Hashed to see whether anything changed, indexed once, and opened once more for lines at known places.
    assert whole_reads[".processed/candidates.jsonl"] == 3
    for split in SPLITS:
        assert whole_reads[f".processed/{split}.jsonl"] <= 5


def test_a_run_with_nothing_to_do_says_so_without_looking_at_the_rows(workspace: Workspace) -> None:
    now = settings(configs={"model": "builtin/keywords", "n": 2}, paths={"root": workspace.root})
    replace_rows(workspace.vibes("TEST"), [make_vibe(1, split="TEST"), make_vibe(2, split="TEST")])
    rows = VibeRows(workspace, now.configs)
    first = run_configs(now, workspace=workspace, rows=rows)
    again = run_configs(now, workspace=workspace, rows=rows)
    assert (again.fresh, again.done, again.skipped, again.details["renders"]) == (True, 0, 2, 0)
    assert again.details["winner_scores"] == first.details["winner_scores"]
    assert not run_configs(now, RunContext(retry_failed=True), workspace=workspace, rows=rows).fresh
    replace_rows(workspace.vibes("GRPO"), [make_vibe(3, split="GRPO")])
    more = run_configs(now, workspace=workspace, rows=rows)
    assert (more.fresh, more.done, more.skipped) == (False, 1, 2)
