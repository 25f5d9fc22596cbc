from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from factories import make_config, make_payload
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.loop import NotAttempted
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.scoring.renderer import LocalRenderer
from latentscore_data.core.scoring.service import ScoringService, config_hash
from latentscore_data.core.scoring.types import Score, Scorer
from scoring_fakes import LoudnessScorer, OddScorer, PeakEmbedder, render_by_root, render_slowly

SETTINGS = ScoringSettings(seconds=0.5, workers=1)


def open_scoring(
    *scorers: Scorer, cache: Path | None = None, version: str = "fake-1", timeout: float = 30.0
) -> ScoringService:
    return ScoringService(
        scorers,
        SETTINGS,
        cache,
        make_renderer=partial(LocalRenderer, render=render_by_root, timeout_seconds=timeout),
        renderer_version=version,
    )


@pytest.fixture(scope="module")
def service() -> Iterator[ScoringService]:
    with open_scoring(LoudnessScorer()) as service:
        yield service


def test_the_louder_config_gets_the_higher_score(service: ScoringService) -> None:
    quiet = service.score_one("a vibe", make_payload(echo="none"))
    loud = service.score_one("a vibe", make_payload(echo="infinite"))
    assert quiet.score("loudness") == Score(pytest.approx(0.1, abs=0.01), {"level": 1.0})  # type: ignore[arg-type]
    assert loud.score("loudness").final_score == pytest.approx(0.575, abs=0.01)  # type: ignore[union-attr]
    assert quiet.render_seconds is not None
    assert quiet.failure is None


def test_a_config_alone_is_as_good_as_a_payload_and_the_order_of_its_fields_does_not_matter(
    service: ScoringService,
) -> None:
    config = make_config(echo="subtle")
    backwards = dict(reversed(config.items()))
    assert config_hash(config) == config_hash(backwards)
    assert service.score_one("x", backwards).outcomes == service.score_one("x", {"config": config}).outcomes


@pytest.mark.parametrize(
    ("payload", "kind", "words"),
    [
        (None, "config", "no config"),
        ({}, "config", "no config"),
        ({"config": "loud please"}, "config", "no config"),
        (make_payload(tempo="warp"), "config", "tempo"),
        ({"config": {"tempo": "slow", "pace": "slow"}}, "config", "pace"),
        (make_payload(root="d"), "sound", "silent"),
        (make_payload(root="e"), "sound", "not finite"),
        (make_payload(root="f"), "render", "ValueError: no sound today"),
        (make_payload(root="g"), "render", "ended with code 3"),
    ],
)
def test_what_cannot_be_heard_has_a_reason_and_the_studio_goes_on(
    service: ScoringService, payload: dict | None, kind: str, words: str
) -> None:
    scored_render = service.score_one("a vibe", payload)
    unscored = scored_render.unscored("loudness")
    assert unscored is not None
    assert unscored == scored_render.failure
    assert (unscored.kind, words in unscored.reason) == (kind, True), unscored
    assert service.counts.unscored[unscored.reason] >= 1
    assert service.score_one("a vibe", make_payload(echo="heavy")).score("loudness") is not None


@pytest.mark.long
def test_a_render_that_hangs_is_killed() -> None:
    with open_scoring(LoudnessScorer(), timeout=1.0) as service:
        service.score_one("warm up", make_payload())
        hanging = service.submit("x", make_payload(root="a"))
        after = service.submit("x", make_payload(echo="none"))
        unscored = hanging.result(timeout=30).unscored("loudness")
        assert unscored is not None
        assert "took longer than 1 s" in unscored.reason
        assert after.result(timeout=30).score("loudness") is not None


def test_one_render_serves_every_scorer_and_every_vibe(tmp_path: Path) -> None:
    loudness, softness, peak = LoudnessScorer(), LoudnessScorer("softness", -1.0), PeakEmbedder()
    with open_scoring(loudness, softness, peak, cache=tmp_path / "scores.sqlite") as service:
        pairs = [(vibe, make_payload(echo=echo)) for vibe in ("one", "two") for echo in ("none", "heavy", "infinite")]
        scored_renders = service.score_all(pairs)
    assert all(set(scored_render.outcomes) == {"loudness", "softness", "peak"} for scored_render in scored_renders)
    assert peak.embedded == 3
    assert peak.compared == 6
    assert service.counts.embedded == {"peak": 3}
    assert service.counts.scored == {"loudness": 6, "softness": 6, "peak": 6}


def test_what_was_heard_before_costs_no_render(tmp_path: Path) -> None:
    cache = tmp_path / "scores.sqlite"
    payloads = [make_payload(echo=echo) for echo in ("none", "heavy", "infinite")]
    with open_scoring(PeakEmbedder(), cache=cache) as service:
        first = service.score_all([("one", payload) for payload in payloads])
        assert service.counts.renders == 3
    peak = PeakEmbedder()
    with open_scoring(peak, cache=cache) as service:
        again = service.score_all([("one", payload) for payload in payloads])
        other = service.score_all([("two", payload) for payload in payloads])
        assert service.counts.renders == 0
        assert service.counts.cached_scores == 3
        assert service.counts.cached_vectors == 3
    assert [h.outcomes for h in again] == [h.outcomes for h in first]
    assert [h.outcomes for h in other] == [h.outcomes for h in first]
    assert (peak.embedded, peak.compared) == (0, 3)
    with open_scoring(PeakEmbedder(), cache=cache, version="fake-2") as service:
        service.score_one("one", payloads[0])
        assert service.counts.renders == 1, "another renderer may sound different"


def test_audio_comes_when_it_is_asked_for(service: ScoringService) -> None:
    scored_render = service.score_one("a vibe", make_payload(echo="medium"), want_audio=True)
    assert scored_render.audio is not None
    assert scored_render.audio.samples.shape == (24_000, 2)
    assert scored_render.score("loudness") is not None
    assert service.score_one("a vibe", make_payload(echo="medium")).audio is None


def test_a_bad_scorer_costs_only_the_pairs_it_is_bad_at() -> None:
    odd = OddScorer(
        good=Score(0.5),
        nan=Score(float("nan")),
        text="8 out of 10",
        word=Score("high"),
        burst=ValueError("no idea"),  # type: ignore[arg-type]
    )
    with open_scoring(odd, LoudnessScorer()) as service:
        scored_renders = dict(
            zip(odd.answers, service.score_all([(vibe, make_payload()) for vibe in odd.answers]), strict=True)
        )
    assert scored_renders["good"].score("odd") == Score(0.5)
    reasons = {vibe: scored_render.unscored("odd") for vibe, scored_render in scored_renders.items() if vibe != "good"}
    assert {vibe: unscored.reason for vibe, unscored in reasons.items() if unscored} == {
        "nan": "odd returned nan",
        "text": "odd returned str instead of a score",
        "word": "odd returned str instead of a number",
        "burst": "odd failed: ValueError: no idea",
    }
    assert all(scored_render.score("loudness") for scored_render in scored_renders.values())


def test_an_error_that_ends_the_run_reaches_who_waits() -> None:
    odd = OddScorer(any=MissingError("the key was refused", "set another one"))
    with open_scoring(odd) as service, pytest.raises(MissingError, match="refused"):
        service.score_one("any", make_payload())


def test_a_vector_that_is_not_finite_is_a_reason_and_is_not_kept(tmp_path: Path) -> None:
    class Deaf(PeakEmbedder):
        def embed(self, audios):
            return np.full((len(audios), 2), np.nan, dtype=np.float32)

    for _ in range(2):
        with open_scoring(Deaf(), cache=tmp_path / "scores.sqlite") as service:
            unscored = service.score_one("x", make_payload()).unscored("peak")
            assert unscored is not None
            assert "not finite" in unscored.reason
            assert service.counts.renders == 1


def test_closing_cancels_what_has_not_begun() -> None:
    service = open_scoring(LoudnessScorer())
    futures = [
        service.submit(f"vibe {i}", make_payload(register_min_oct=1 + i % 3, phrase_len_bars=2)) for i in range(40)
    ]
    service.close()
    assert {type(future.exception()) for future in futures} >= {NotAttempted}
    assert all(future.done() for future in futures)


def test_draining_finishes_the_renders_that_have_begun_and_starts_no_more() -> None:
    make_renderer = partial(LocalRenderer, render=render_slowly)
    with ScoringService([LoudnessScorer()], SETTINGS, make_renderer=make_renderer) as service:
        service.score_one("a vibe", make_payload())  # the process has started
        futures = [service.submit("a vibe", make_payload(density=density)) for density in (2, 3, 6)]
        begun = service.submit("another", make_payload(density=2))
        time.sleep(0.2)
        service.drain()
        late = service.submit("a vibe", make_payload(density=5))
        assert [type(future.exception()) for future in (*futures, late)] == [type(None), *[NotAttempted] * 3]
        assert begun.result().score("loudness") is not None
        assert service.score_one("a vibe", make_payload(density=2)).score("loudness") is not None, "in the cache"


def test_scores_and_vectors_survive_a_damaged_cache(tmp_path: Path) -> None:
    cache = tmp_path / "scores.sqlite"
    cache.write_bytes(b"this is no database, however long it may be" * 50)
    with open_scoring(PeakEmbedder(), cache=cache) as service:
        assert service.score_one("x", make_payload()).score("peak") is not None
    assert len([*tmp_path.glob("scores.damaged-*.sqlite")]) == 1


def test_a_score_does_not_know_its_company() -> None:
    """Rounding must not depend on how many others were scored in the same batch."""
    from latentscore import Audio
    from latentscore_data.core.scoring.acoustic import AcousticScorer

    scorer = AcousticScorer()
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(40, len(scorer.embed([Audio(np.zeros((48_000, 2), np.float32), 48_000)])[0])))
    vibes = ["fast dark drums in a vast dry calm bright hall"] * 40
    together = scorer.compare(vibes, vectors)
    alone = [scorer.compare([vibe], vector[None])[0] for vibe, vector in zip(vibes, vectors, strict=True)]
    pairs = [*scorer.compare(vibes[:7], vectors[:7]), *scorer.compare(vibes[7:], vectors[7:])]
    assert together == alone == pairs
