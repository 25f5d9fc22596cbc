from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from factories import make_config, make_payload
from latentscore_data.core.errors import MissingError
from latentscore_data.core.scoring.base import Score, Scorer
from latentscore_data.core.scoring.studio import Studio, config_hash
from latentscore_data.core.settings import ScoringSettings
from scoring_fakes import LoudnessScorer, OddScorer, PeakEmbedder, render_by_root

SETTINGS = ScoringSettings(seconds=0.5, workers=1)


def open_studio(*scorers: Scorer, cache: Path | None = None, version: str = "fake-1", timeout: float = 30.0) -> Studio:
    return Studio(
        scorers,
        SETTINGS,
        cache,
        render=render_by_root,
        renderer_version=version,
        render_timeout_seconds=timeout,
    )


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with open_studio(LoudnessScorer()) as studio:
        yield studio


def test_the_louder_config_gets_the_higher_score(studio: Studio) -> None:
    quiet = studio.hear("a vibe", make_payload(echo="none"))
    loud = studio.hear("a vibe", make_payload(echo="infinite"))
    assert quiet.score("loudness") == Score(pytest.approx(0.1, abs=0.01), {"level": 1.0})  # type: ignore[arg-type]
    assert loud.score("loudness").final_score == pytest.approx(0.575, abs=0.01)  # type: ignore[union-attr]
    assert quiet.render_seconds is not None
    assert quiet.failure is None


def test_a_config_alone_is_as_good_as_a_payload_and_the_order_of_its_fields_does_not_matter(studio: Studio) -> None:
    config = make_config(echo="subtle")
    backwards = dict(reversed(config.items()))
    assert config_hash(config) == config_hash(backwards)
    assert studio.hear("x", backwards).outcomes == studio.hear("x", {"config": config}).outcomes


@pytest.mark.parametrize(
    ("payload", "kind", "words"),
    [
        (None, "config", "no config"),
        ({}, "config", "no config"),
        ({"config": "loud please"}, "config", "no config"),
        (make_payload(tempo="warp"), "config", "tempo"),
        ({"config": {"tempo": "slow"}}, "config", "root"),
        (make_payload(root="d"), "sound", "silent"),
        (make_payload(root="e"), "sound", "not finite"),
        (make_payload(root="f"), "render", "ValueError: no sound today"),
        (make_payload(root="g"), "render", "ended with code 3"),
    ],
)
def test_what_cannot_be_heard_has_a_reason_and_the_studio_goes_on(
    studio: Studio, payload: dict | None, kind: str, words: str
) -> None:
    hearing = studio.hear("a vibe", payload)
    unscored = hearing.unscored("loudness")
    assert unscored is not None
    assert unscored == hearing.failure
    assert (unscored.kind, words in unscored.reason) == (kind, True), unscored
    assert studio.counts.unscored[unscored.reason] >= 1
    assert studio.hear("a vibe", make_payload(echo="heavy")).score("loudness") is not None


def test_a_render_that_hangs_is_killed() -> None:
    with open_studio(LoudnessScorer(), timeout=1.0) as studio:
        studio.hear("warm up", make_payload())
        hanging = studio.submit("x", make_payload(root="a"))
        after = studio.submit("x", make_payload(echo="none"))
        unscored = hanging.result(timeout=30).unscored("loudness")
        assert unscored is not None
        assert "took longer than 1 s" in unscored.reason
        assert after.result(timeout=30).score("loudness") is not None


def test_one_render_serves_every_scorer_and_every_vibe(tmp_path: Path) -> None:
    loudness, softness, peak = LoudnessScorer(), LoudnessScorer("softness", -1.0), PeakEmbedder()
    with open_studio(loudness, softness, peak, cache=tmp_path / "scores.sqlite") as studio:
        pairs = [(vibe, make_payload(echo=echo)) for vibe in ("one", "two") for echo in ("none", "heavy", "infinite")]
        hearings = studio.hear_all(pairs)
    assert all(set(hearing.outcomes) == {"loudness", "softness", "peak"} for hearing in hearings)
    assert peak.listened == 3
    assert peak.compared == 6
    assert studio.counts.listened == {"peak": 3}
    assert studio.counts.scored == {"loudness": 6, "softness": 6, "peak": 6}


def test_what_was_heard_before_costs_no_render(tmp_path: Path) -> None:
    cache = tmp_path / "scores.sqlite"
    payloads = [make_payload(echo=echo) for echo in ("none", "heavy", "infinite")]
    with open_studio(PeakEmbedder(), cache=cache) as studio:
        first = studio.hear_all([("one", payload) for payload in payloads])
        assert studio.counts.renders == 3
    peak = PeakEmbedder()
    with open_studio(peak, cache=cache) as studio:
        again = studio.hear_all([("one", payload) for payload in payloads])
        other = studio.hear_all([("two", payload) for payload in payloads])
        assert studio.counts.renders == 0
        assert studio.counts.cached_scores == 3
        assert studio.counts.cached_vectors == 3
    assert [h.outcomes for h in again] == [h.outcomes for h in first]
    assert [h.outcomes for h in other] == [h.outcomes for h in first]
    assert (peak.listened, peak.compared) == (0, 3)
    with open_studio(PeakEmbedder(), cache=cache, version="fake-2") as studio:
        studio.hear("one", payloads[0])
        assert studio.counts.renders == 1, "another renderer may sound different"


def test_audio_comes_when_it_is_asked_for(studio: Studio) -> None:
    hearing = studio.hear("a vibe", make_payload(echo="medium"), want_audio=True)
    assert hearing.audio is not None
    assert hearing.audio.samples.shape == (24_000, 2)
    assert hearing.score("loudness") is not None
    assert studio.hear("a vibe", make_payload(echo="medium")).audio is None


def test_a_bad_scorer_costs_only_the_pairs_it_is_bad_at() -> None:
    odd = OddScorer(
        good=Score(0.5),
        nan=Score(float("nan")),
        text="8 out of 10",
        word=Score("high"),
        burst=ValueError("no idea"),  # type: ignore[arg-type]
    )
    with open_studio(odd, LoudnessScorer()) as studio:
        hearings = dict(
            zip(odd.answers, studio.hear_all([(vibe, make_payload()) for vibe in odd.answers]), strict=True)
        )
    assert hearings["good"].score("odd") == Score(0.5)
    reasons = {vibe: hearing.unscored("odd") for vibe, hearing in hearings.items() if vibe != "good"}
    assert {vibe: unscored.reason for vibe, unscored in reasons.items() if unscored} == {
        "nan": "odd returned nan",
        "text": "odd returned str instead of a score",
        "word": "odd returned str instead of a number",
        "burst": "odd failed: ValueError: no idea",
    }
    assert all(hearing.score("loudness") for hearing in hearings.values())


def test_an_error_that_ends_the_run_reaches_who_waits() -> None:
    odd = OddScorer(any=MissingError("the key was refused", "set another one"))
    with open_studio(odd) as studio, pytest.raises(MissingError, match="refused"):
        studio.hear("any", make_payload())


def test_a_vector_that_is_not_finite_is_a_reason_and_is_not_kept(tmp_path: Path) -> None:
    class Deaf(PeakEmbedder):
        def listen(self, audios):
            return np.full((len(audios), 2), np.nan, dtype=np.float32)

    for _ in range(2):
        with open_studio(Deaf(), cache=tmp_path / "scores.sqlite") as studio:
            unscored = studio.hear("x", make_payload()).unscored("peak")
            assert unscored is not None
            assert "not finite" in unscored.reason
            assert studio.counts.renders == 1


def test_closing_cancels_what_has_not_begun() -> None:
    studio = open_studio(LoudnessScorer())
    futures = [
        studio.submit(f"vibe {i}", make_payload(register_min_oct=1 + i % 3, phrase_len_bars=2)) for i in range(40)
    ]
    studio.close()
    assert all(future.done() for future in futures)


def test_scores_and_vectors_survive_a_damaged_cache(tmp_path: Path) -> None:
    cache = tmp_path / "scores.sqlite"
    cache.write_bytes(b"this is no database, however long it may be" * 50)
    with open_studio(PeakEmbedder(), cache=cache) as studio:
        assert studio.hear("x", make_payload()).score("peak") is not None
    assert len([*tmp_path.glob("scores.damaged-*.sqlite")]) == 1


def test_a_score_does_not_know_its_company() -> None:
    """Rounding must not depend on how many others were scored in the same batch."""
    from latentscore import Audio
    from latentscore_data.core.scoring.acoustic import AcousticScorer

    scorer = AcousticScorer()
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(40, len(scorer.listen([Audio(np.zeros((48_000, 2), np.float32), 48_000)])[0])))
    vibes = ["fast dark drums in a vast dry calm bright hall"] * 40
    together = scorer.compare(vibes, vectors)
    alone = [scorer.compare([vibe], vector[None])[0] for vibe, vector in zip(vibes, vectors, strict=True)]
    pairs = [*scorer.compare(vibes[:7], vectors[:7]), *scorer.compare(vibes[7:], vectors[7:])]
    assert together == alone == pairs
