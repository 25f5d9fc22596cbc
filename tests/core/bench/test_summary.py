"""From samples to the table: failures count with the floor, marks, suites, and what holds with few documents."""

from __future__ import annotations

import numpy as np
import pytest

from bench_fakes import make_result, make_rows, noise
from factories import make_payload
from latentscore_data.core.bench.report import in_short
from latentscore_data.core.bench.summary import RunFacts, SourceFacts, headline_scorer, summarise
from latentscore_data.core.stages.bench import in_words


def facts(*sources: SourceFacts, **changes: object) -> RunFacts:
    values = {
        "name": "r", "title": "TEST rows", "created": "2026-01-01T00:00+00:00", "sources": sources, "scorers": ["bright"],
        "baseline": sources[0].label, "seconds": 5.0, "seed": 0, "resamples": 500, **changes,
    }  # fmt: skip
    return RunFacts(**values)  # type: ignore[arg-type]


LOW, HIGH = SourceFacts("low", "baseline", "random"), SourceFacts("high", "dataset", "config_payload")


def samples(documents: int = 12, lift: float = 0.3, failed: int = 0) -> list:
    rows = make_rows(documents, 2)
    low = [make_result(row, "low", 0.2 + 0.1 * noise(row.row_id)) for row in rows]
    high = [
        make_result(row, "high", None if i < failed else 0.2 + lift + 0.1 * noise(row.row_id, "high"))
        for i, row in enumerate(rows)
    ]
    return low + high


def source(summary: dict, label: str) -> dict:
    return next(source for source in summary["sources"] if source["label"] == label)


def test_a_real_difference_is_found_and_ranked_first():
    summary = summarise(samples(), facts(LOW, HIGH))
    assert [s["label"] for s in summary["sources"]] == ["high", "low"]
    difference = source(summary, "high")["versus_baseline"]["bright"]
    assert difference["mean"] == pytest.approx(0.3, abs=0.03)
    assert difference["low"] < 0.3 < difference["high"] + 0.03
    assert difference["p_holm"] < 0.01
    assert source(summary, "low")["versus_baseline"]["bright"] is None
    assert summary["detectable"]["bright"] < 0.1
    assert (summary["rows"], summary["documents"], summary["few_documents"]) == (24, 12, "")


def test_a_failed_sample_counts_with_the_mean_of_the_shuffled_row():
    rows = samples(failed=6)
    summary = summarise(rows, facts(LOW, HIGH))
    floor = np.mean([row.shuffled_scores["bright"] for row in rows if row.shuffled_scores])
    assert summary["floor"]["bright"]["mean"] == pytest.approx(floor)
    high = source(summary, "high")
    known = [row.scores["bright"]["final_score"] for row in rows if row.source == "high" and row.scores]
    assert high["scores"]["bright"]["mean"] == pytest.approx((sum(known) + 6 * floor) / 24)
    assert high["scores"]["bright"]["mean_of_scored"] == pytest.approx(np.mean(known))
    assert (high["success_rate"], high["valid_rate"]) == (0.75, 0.75)
    assert high["failures"] == {"not a valid payload: config.tempo": 6}


def test_without_a_shuffled_row_the_lowest_score_stands_in_and_says_so():
    rows = [row.model_copy(update={"shuffled_scores": {}}) for row in samples(failed=1)]
    floor = summarise(rows, facts(LOW, HIGH))["floor"]["bright"]
    assert floor["mean"] == min(row.scores["bright"]["final_score"] for row in rows if row.scores)
    assert floor["of"] == "the lowest score of this run"


def test_below_eight_documents_there_are_means_and_a_reason():
    summary = summarise(samples(documents=5), facts(LOW, HIGH))
    high = source(summary, "high")
    assert high["scores"]["bright"]["low"] is None
    assert high["versus_baseline"]["bright"]["p_holm"] is None
    assert "only 5 source documents" in summary["few_documents"]
    assert summary["detectable"]["bright"] is None


def test_the_headline_is_the_scorer_that_did_not_choose():
    chosen = SourceFacts("high", "dataset", "config_payload", chosen_by=("a",))
    assert headline_scorer(["a", "b"], [LOW, chosen]) == "b"
    assert headline_scorer(["a"], [LOW, chosen]) == "a"
    assert headline_scorer(["a", "b"], [LOW, HIGH]) == "a"


def test_ceiling_times_and_costs_are_told():
    rows = [row.model_copy(update={"cost_usd": 0.01, "tokens_in": 5}) for row in samples()]
    summary = summarise(rows, facts(LOW, HIGH, ceiling={"bright": [0.9] * 24}, ceiling_of="the best of 3"))
    assert summary["ceiling"]["bright"]["mean"] == pytest.approx(0.9)
    high = source(summary, "high")
    assert high["cost_usd"] == pytest.approx(0.24)
    assert high["tokens_in"] == 120
    assert high["generate_seconds"]["median"] == pytest.approx(0.2)
    assert high["render_seconds"] is None


def test_each_scorer_has_its_own_share_of_scored_samples_and_its_reasons_are_counted():
    rows = [
        row.model_copy(update={"scores": {**row.scores, "ear": {"final_score": 0.5}}})
        if i % 4
        else row.model_copy(update={"unscored": {"ear": "every window is below -60 dBFS"}})
        for i, row in enumerate(samples(failed=1))
    ]
    summary = summarise(rows, facts(LOW, HIGH, scorers=["bright", "ear"]))
    high, low = source(summary, "high"), source(summary, "low")
    # Every fourth of 24 samples has no score by the second scorer; the failed one has none by both.
    assert [low["scores"][scorer]["scored"] for scorer in ("bright", "ear")] == [24, 18]
    assert [high["scores"][scorer]["scored"] for scorer in ("bright", "ear")] == [23, 18]
    assert low["failures"] == {"every window is below -60 dBFS": 6}
    assert high["failures"] == {"not a valid payload: config.tempo": 1, "every window is below -60 dBFS": 5}
    assert "75% scored" in in_words(low, "ear")
    assert "100% scored" in in_words(low, "bright")


def test_a_source_without_any_score_is_never_the_best():
    rows = make_rows(8, 1)
    # The floor, -0.1, is above the scores against the own vibes.
    scored = [make_result(row, "low", -0.5, shuffled_scores={"bright": -0.1}) for row in rows]
    failed = [make_result(row, "high", None) for row in rows]
    summary = summarise(scored + failed, facts(LOW, HIGH))
    assert [s["label"] for s in summary["sources"]] == ["low", "high"]
    assert in_short(summary).startswith("“low” has the highest mean")
    nothing = [row.model_copy(update={"source": "low"}) for row in failed]
    assert in_short(summarise(nothing, facts(LOW))) == "No answer has a bright score."


def test_a_row_without_a_scored_candidate_counts_in_the_ceiling_with_the_floor():
    rows = samples()
    summary = summarise(
        rows, facts(LOW, HIGH, ceiling={"bright": [None, None, *[0.9] * 22]}, ceiling_of="the best of 3")
    )
    floor = summary["floor"]["bright"]["mean"]
    assert summary["ceiling"]["bright"]["mean"] == pytest.approx((22 * 0.9 + 2 * floor) / 24)
    assert summarise(rows, facts(LOW, HIGH, ceiling={"bright": [None] * 24}))["ceiling"]["bright"] is None


def test_a_suite_counts_the_fields_that_came_out_as_asked():
    rows = make_rows(8, 1)
    answers = []
    for i, row in enumerate(rows):
        asked = {"expect": {"tempo": ["slow"], "mode": ["minor", "dorian"]}, "half": "held-out" if i % 2 else "open"}
        payload = make_payload(tempo="slow" if i < 6 else "fast")
        answers.append(make_result(row, "low", 0.5, config_payload=payload, **asked))
    answers[0] = make_result(rows[0], "low", None, expect={"tempo": ["slow"], "mode": ["minor"]}, half="open")
    fields = summarise(answers, facts(LOW))["sources"][0]["fields"]
    # Eight prompts ask for two fields each; one answer is missing and two have another tempo.
    assert (fields["asked"], fields["right"]) == (16, 12)
    assert fields["mean"] == pytest.approx(12 / 16)
    assert fields["low"] < 0.75 < fields["high"]
    assert fields["by_field"]["tempo"] == {"asked": 8, "right": 5}
    assert fields["by_half"] == {"held-out": 7 / 8, "open": 5 / 8}


def test_variety_and_agreement_see_a_source_that_always_says_the_same():
    rows = make_rows(10, 1)
    data = [
        make_result(row, "high", 0.5, config_payload=make_payload(mode=("major", "minor")[i % 2]))
        for i, row in enumerate(rows)
    ]
    same = [make_result(row, "low", 0.5) for row in rows]
    summary = summarise(same + data, facts(LOW, HIGH))
    assert source(summary, "low")["variety"]["mean"] == 0.0
    assert source(summary, "high")["variety"]["by_field"]["mode"] == pytest.approx(np.log(2) / np.log(4))
    assert source(summary, "low")["agreement"]["by_field"]["mode"] == 0.5
    assert source(summary, "high")["agreement"] is None


def test_sources_on_different_rows_are_not_compared():
    rows = samples()
    with pytest.raises(ValueError, match="same rows"):
        summarise(rows[:-1], facts(LOW, HIGH))
