"""Searching for rows: origins, the judge, starting again. Sounds are tones whose loudness is the config's echo."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories import make_payload, make_vibe
from latentscore import Audio
from latentscore.embed import WordVectorEmbedder
from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.base.jsonl import read_rows, replace_rows
from latentscore_data.core.base.rows import ScoredRow, model_candidates
from latentscore_data.core.base.settings import BenchSettings, SearchSettings, Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.prepare import choose_sources
from latentscore_data.core.generators.simple import DatasetGenerator
from latentscore_data.core.scoring import renderer
from latentscore_data.core.scoring.best_of import run_scoring
from latentscore_data.core.scoring.renderer import make_worker
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.scoring.types import Outcome, Score, Scorer
from latentscore_data.core.search import surrogate
from latentscore_data.core.search.report import run_of, summary_lines
from latentscore_data.core.search.rows import improver_for
from latentscore_data.core.search.searcher import Searcher, _place
from latentscore_data.core.search.space import drawn, one_hot, uniform
from latentscore_data.core.search.vibe_search import near_payloads
from scoring_fakes import LoudnessScorer, render_by_echo

QUIET, MIDDLE = (make_payload(echo=echo) for echo in ("none", "subtle"))


@pytest.fixture(autouse=True)
def _fake_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "make_worker", make_fake_worker)


def make_fake_worker(render: Any) -> Any:
    return make_worker(render or render_by_echo)


def search(root: Path, *scorers: Scorer, rows: int = 2, **changes: Any) -> Summary:
    workspace = Workspace(root)
    if not workspace.candidates.exists():
        lines = [
            {
                **make_vibe(n, vibe=f"a lamp, number {n}").model_dump(mode="json"),
                "config_candidates": [QUIET, None, MIDDLE],
            }
            for n in range(1, rows + 1)
        ]
        replace_rows(workspace.candidates, lines)
    settings = Settings(
        scoring={"seconds": 0.5, "workers": 1}, search={"renders": 30, "near": 0.1, "batch": 8, **changes}
    )
    return run_scoring(settings, workspace, scorers=scorers or [LoudnessScorer()], make_improver=improver_for(settings))


def rows_of(root: Path) -> list[ScoredRow]:
    return list(read_rows(Workspace(root).scored("SFT-Train"), ScoredRow))


def test_every_candidate_stays_in_the_row_with_its_origin(root: Path) -> None:
    summary = search(root)
    (first, _) = rows_of(root)
    assert summary.exit_code == 0
    assert first.candidate_origins[:3] == ["model", "model", "model"]
    assert set(first.candidate_origins) == {"model", "map", "search"}
    assert len(first.config_candidates) == len(first.candidate_scores["loudness"]) == 31, (
        "30 renders and an empty place"
    )
    assert first.config_candidates[:3] == [QUIET, None, MIDDLE]
    assert model_candidates(first) == [QUIET, None, MIDDLE]
    assert first.config_payload is not None
    assert first.config_payload["config"]["echo"] == "infinite"
    assert first.config_payload == first.config_candidates[first.best_index or 0]
    assert first.search is not None
    assert (first.search["start_index"], first.search["renders"]) == (2, 30)
    scores = [step["scores"]["loudness"] for step in first.search["curve"]]
    assert scores == sorted(scores)
    assert all(checks == [1.0, 0.0, *[1.0] * 29] for checks in first.validation_scores.values())


def test_a_judge_that_disagrees_keeps_the_starts_and_one_that_agrees_does_not(root: Path, tmp_path: Path) -> None:
    refused = search(root, LoudnessScorer(), LoudnessScorer("softness", -1.0), judge="softness")
    assert [row.best_index for row in rows_of(root)] == [2, 2]
    assert rows_of(root)[0].config_payload == MIDDLE
    assert rows_of(root)[0].scores_external["softness"]["final_score"] == pytest.approx(-0.225, abs=0.01)
    assert refused.details["search"]["agrees"] is False
    said = summary_lines(refused.details["search"])
    assert "the judge softness does not agree" in said[-1]
    points = [at for at, line in enumerate(said) if line.startswith("search: after")]
    assert "less what its changes cost" in said[points[0] - 1]
    agreed = search(tmp_path / "other", LoudnessScorer(), LoudnessScorer("loud-too"), judge="loud-too")
    assert agreed.details["search"]["agrees"] is True
    assert all((row.best_index or 0) > 2 for row in rows_of(tmp_path / "other"))
    # The others score the model's candidates and each best so far, not everything.
    scores = rows_of(tmp_path / "other")[0].candidate_scores["loud-too"]
    assert scores[2] is not None
    assert sum(score is not None for score in scores) < 12


class Breaks(LoudnessScorer):
    """Fails for good after so many sounds."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Outcome]:
        self.left -= len(vibes)
        if self.left < 0:
            raise OutputError("the disk is full", "make room")
        return super().score(vibes, audios, configs)


@pytest.mark.long
def test_a_run_that_stopped_goes_on_and_ends_as_if_it_had_not(root: Path, tmp_path: Path) -> None:
    search(tmp_path / "whole", rows=3)
    whole = Workspace(tmp_path / "whole").scored("SFT-Train").read_bytes()
    with pytest.raises(OutputError):
        search(root, Breaks(after=45), rows=3)
    again = search(root, rows=3)
    assert Workspace(root).scored("SFT-Train").read_bytes() == whole
    assert again.details["renders"] < 60, "what was rendered before is in the cache"
    once_more = search(root, rows=3)
    assert (once_more.done, once_more.skipped) == (0, 3)
    assert Workspace(root).scored("SFT-Train").read_bytes() == whole


def test_rows_are_searched_again_for_other_settings_and_scored_plainly_without(root: Path) -> None:
    search(root)
    assert search(root, renders=34).done == 2
    assert len(rows_of(root)[0].config_candidates) == 35
    plain = run_scoring(Settings(scoring={"seconds": 0.5, "workers": 1}), Workspace(root), scorers=[LoudnessScorer()])
    assert plain.done == 2
    assert (rows_of(root)[0].best_index, rows_of(root)[0].search) == (2, None)


def test_the_benchmark_compares_what_was_found_with_what_it_started_from(root: Path) -> None:
    search(root)
    rows = rows_of(root)
    sources = choose_sources(BenchSettings(sources=["dataset:config_payload"]), rows)
    assert [source.label for source in sources][1:3] == ["search", "model"]
    (found, *_) = DatasetGenerator("search", "search", rows).generate(rows)
    (start, *_) = DatasetGenerator("model", "model", rows).generate(rows)
    assert found.payload is not None
    assert found.payload["config"]["echo"] == "infinite"
    assert start.payload == MIDDLE


def test_the_judge_needs_to_be_sure_where_there_are_rows_enough() -> None:
    def column(start: float, found: float) -> dict[str, Any]:
        scores = ({"judge": {"final_score": score}} for score in (start, found))
        return {
            "guide": "guide", "judge": "judge", "start_index": 0, "found_index": 1, "start_kept": 1.0, "found_kept": 0.5,
            "surrogate_r2": None, "external": dict(zip(("0", "1"), scores, strict=True)), "curve": [],
        }  # fmt: skip

    wild = [(f"text {n}", column(0.0, 5.0 if n == 0 else -0.4)) for n in range(12)]
    sure = [(f"text {n}", column(0.0, 0.2 + 0.01 * n)) for n in range(12)]
    few = [(f"text {n}", column(0.0, 0.2)) for n in range(3)]
    assert [run_of(rows, "judge").agrees for rows in (wild, sure, few)] == [False, True, True]
    assert run_of(sure, "judge").found_kept == 0.5
    assert run_of([], "judge").agrees is False


class Deaf(LoudnessScorer):
    """Gives every sound the same score."""

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Outcome]:
        return [Score(0.0) for _ in super().score(vibes, audios)]


def test_a_guide_that_hears_no_difference_changes_nothing_and_costs_little(root: Path) -> None:
    summary = search(root, Deaf())
    row = rows_of(root)[0]
    assert (row.best_index, row.config_payload) == (0, QUIET)
    assert "search" not in row.candidate_origins
    assert summary.details["search"]["found_kept"] == summary.details["search"]["start_kept"]


def test_a_candidate_that_is_no_config_is_no_start_and_keeps_its_place(root: Path) -> None:
    broken = {**QUIET, "config": {"tempo": "whenever"}}
    lines = [{**make_vibe(1).model_dump(mode="json"), "config_candidates": [broken, MIDDLE]}]
    replace_rows(Workspace(root).candidates, lines)
    search(root)
    (row,) = rows_of(root)
    assert row.candidate_scores["loudness"][0] is None
    assert row.candidate_origins[:2] == ["model", "model"]
    assert row.search is not None
    assert row.search["start_index"] == 1
    assert (row.best_index or 0) > 1


def test_the_nearest_vibes_of_an_exported_map_are_starts(root: Path, tmp_path: Path) -> None:
    words = WordVectorEmbedder()
    rows = [("a lamp, number 1", "infinite"), ("thunder", "none")]
    vectors = words.embed([vibe for vibe, _ in rows])
    lines = [
        {
            "vibe_original": vibe,
            "embedding": vector.tolist(),
            "embedding_model": words.fingerprint,
            **make_payload(echo=echo),
        }
        for (vibe, echo), vector in zip(rows, vectors, strict=True)
    ]
    path = tmp_path / "map.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    search(root, rows=1, map=path, neighbours=1)
    (row,) = rows_of(root)
    ours = [at for at, origin in enumerate(row.candidate_origins) if origin == "map"]
    assert [(row.config_candidates[at] or {})["config"]["echo"] for at in ours][-1] == "infinite"
    with pytest.raises(InputError, match="nowhere"):
        near_payloads("rain", SearchSettings(map=tmp_path / "nowhere.jsonl"))


@pytest.mark.long
def test_a_surrogate_that_was_fitted_is_not_fitted_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.stack([drawn(uniform(), 80, np.random.default_rng(0))])[0]
    vectors = one_hot(codes)[:, :3].astype(np.float32)
    (root / "x").mkdir(parents=True)

    def fitted() -> np.ndarray:
        with ScoringService([LoudnessScorer()], Settings().scoring, root / "x" / "scores.sqlite") as service:
            return Searcher(service, SearchSettings())._fitted(codes, vectors).predict(codes[:4])

    first = fitted()
    monkeypatch.setattr(surrogate, "_fitted", lambda *_: pytest.fail("the weights were in the cache"))
    assert np.array_equal(fitted(), first)


@pytest.mark.long
@pytest.mark.parametrize(
    "weights",
    [np.zeros(36 * 2), np.zeros(36 * 4), np.zeros(7), np.full(36 * 3, 1e30), np.full(36 * 3, -1e30)],
    ids=["too few", "too many", "no table", "huge", "tiny"],
)
def test_weights_in_the_cache_that_no_fit_leads_to_are_fitted_anew(root: Path, weights: np.ndarray) -> None:
    codes = np.stack([drawn(uniform(), 80, np.random.default_rng(0))])[0]
    vectors = one_hot(codes)[:, :3].astype(np.float32)
    root.mkdir(exist_ok=True)
    with ScoringService([LoudnessScorer()], Settings().scoring, root / "scores.sqlite") as service:
        searcher = Searcher(service, SearchSettings())
        first = searcher._fitted(codes, vectors)
        service.cache.keep_vector(*_place(codes, vectors), weights.astype(np.float32))
        assert np.array_equal(searcher._fitted(codes, vectors).predict(codes[:4]), first.predict(codes[:4]))
