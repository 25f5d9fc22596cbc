"""Rendering and scoring in Modal's containers: the same scores, the same rows, the same cache, and what stops it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import needs
from factories import make_payload, make_scored
from latentscore_data.core.base.errors import InputError, StoppedError, VerificationError
from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.settings import ModalSettings, ScoringSettings, Settings, TrainSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute import entrypoints
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.scoring.best_of import run_scoring
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clips import make_clip
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorers, remote_blocker
from latentscore_data.core.scoring.service import ScoredRender, ScoringService

if TYPE_CHECKING:
    from modal_loopback import LoopbackModal

pytestmark = needs("modal")

SCORING = ScoringSettings(scorers=["acoustic"], seconds=1, workers=1)
BRIGHT, DARK, BROKEN = make_payload(brightness="very_bright"), make_payload(brightness="very_dark"), {"tempo": "purple"}


def service_there(cache: ScoreCache, *, keep_flac: bool = False, **modal: Any) -> ScoringService:
    scorers = make_scorers(ScorerDeps(SCORING, cache=cache))
    settings = Settings(scoring=SCORING, train=TrainSettings(modal=ModalSettings(**{"shard_rows": 2, **modal})))
    renderer = make_executor("modal", settings, print).make_renderer(keep_flac=keep_flac)
    return ScoringService(scorers, SCORING, cache, make_renderer=renderer)


def service_here(cache: ScoreCache) -> ScoringService:
    return ScoringService(make_scorers(ScorerDeps(SCORING, cache=cache)), SCORING, cache)


def sent(modal: LoopbackModal) -> list[dict[str, Any]]:
    """The sounds of each shard that was sent."""
    return [json.loads(text)["sounds"] for name, (text,) in modal.sent if name == "score_shard"]


@pytest.mark.long
def test_what_is_heard_there_is_what_is_heard_here(modal: LoopbackModal) -> None:
    pairs: list[tuple[str, Mapping[str, Any]]] = [
        ("a bright morning", BRIGHT), ("a cellar", BRIGHT), ("a bright morning", DARK), ("anything", BROKEN),
    ]  # fmt: skip
    with ScoreCache() as cache, ScoreCache() as cache_there:
        with service_here(cache) as here:
            expected = here.score_all(pairs)
        with service_there(cache_there) as there:
            assert [scored_render.outcomes for scored_render in there.score_all(pairs)] == [
                h.outcomes for h in expected
            ]
            assert [scored_render.failure for scored_render in there.score_all(pairs)] == [h.failure for h in expected]
            assert cache_there.dump() == cache.dump()
            assert cache.dump()["vectors"]
            # One sound, one item; what cannot be played is asked for again, the rest is known.
            assert [[len(sound["vibes"]) for sound in shard] for shard in sent(modal)[:2]] == [[2, 1], [1]]
            assert [shard[0]["config"] for shard in sent(modal)[2:]] == [BROKEN]
            # Another vibe costs neither a render nor a container.
            assert there.score_one("quite another", BRIGHT).score("acoustic") is not None
            assert len(sent(modal)) == 3
            assert there.counts.renders == 4
        with service_here(cache_there) as later:
            later.score_all(pairs[:3])
            assert later.counts.renders == 0


@pytest.mark.long
def test_a_clip_made_there_is_the_clip_made_here(modal: LoopbackModal, tmp_path: Path) -> None:
    with ScoreCache() as cache, service_here(cache) as here:
        audio = here.score_one("rain", BRIGHT, want_audio=True).audio
    assert audio is not None
    with ScoreCache() as cache, service_there(cache, keep_flac=True) as there:
        futures = [there.submit("rain", BRIGHT, want_audio=True), there.submit("fog", BRIGHT)]
        first, second = (future.result() for future in futures)
    clip = make_clip(audio.tagged(vibe="rain"), keep_flac=True)
    assert first.clip == clip
    assert second.clip is None
    clip.write(tmp_path / "clip.mp3")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"clip.mp3", "clip.flac"}
    assert entrypoints.unpack(json.loads(json.dumps(entrypoints.pack(first)))) == ScoredRender(
        first.outcomes, first.render_seconds, first.score_seconds
    )


@pytest.mark.long
def test_candidates_are_scored_there_as_here_and_only_what_is_missing(modal: LoopbackModal, tmp_path: Path) -> None:
    rows = [
        make_scored(number, vibe_original=f"a bright morning {number}", config_candidates=[BRIGHT, DARK, broken])
        for number, broken in enumerate([None, {**BRIGHT, "config": BROKEN}])
    ]
    written: dict[str, Any] = {}
    for place in ("here", "there"):
        workspace = Workspace(tmp_path / place)
        replace_rows(workspace.vibes("SFT-Train"), rows)
        replace_rows(workspace.candidates, rows)
        settings = Settings(scoring=SCORING, train=TrainSettings(modal=ModalSettings(shard_rows=2)))
        make_renderer = make_executor("modal" if place == "there" else "here", settings, print).make_renderer()
        summary = run_scoring(settings, workspace, make_renderer=make_renderer)
        assert (summary.done, summary.short) == (2, 1)
        written[place] = [line for _, line in read_lines(workspace.scored("SFT-Train"))]
        with ScoreCache(workspace.score_cache) as cache:
            written[f"{place}, cache"] = cache.dump()
    assert written["there"] == written["here"]
    assert written["there, cache"] == written["here, cache"]
    assert written["there"][1]["candidate_failures"]["acoustic"].keys() == {"2"}
    asked = len(modal.sent)
    again = run_scoring(settings, workspace, make_renderer=make_renderer)
    assert (again.done, again.skipped, len(modal.sent)) == (0, 2, asked)


def test_scorers_that_are_not_those_of_this_machine_are_noticed(modal: LoopbackModal) -> None:
    modal.bodies["score_shard"] = lambda text: json.dumps({"fingerprints": {"acoustic": "old"}, "renderer": "0"})
    with ScoreCache() as cache, service_there(cache) as there:
        first = there.submit("rain", BRIGHT)
        with pytest.raises(VerificationError, match="differ from this machine"):
            first.result()
        # After that nothing more is sent.
        with pytest.raises(VerificationError):
            there.score_one("fog", DARK)
        assert len(modal.sent) == 1


@pytest.mark.long
def test_nothing_is_heard_after_the_time_that_was_agreed_to(
    modal: LoopbackModal, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.chain([0.0], itertools.repeat(2 * 3600.0))
    monkeypatch.setattr(entrypoints.time, "time", lambda: next(clock))
    with (
        ScoreCache() as cache,
        service_there(cache, timeout_hours=1) as there,
        pytest.raises(StoppedError, match="time-out") as error,
    ):
        there.score_one("rain", BRIGHT)
    assert "timeout_hours" in error.value.remedy


@pytest.mark.parametrize(
    ("scoring", "reason"),
    [
        ({"scorers": ["acoustic", "judge:openai/gpt-audio"]}, "judge:openai/gpt-audio needs your key"),
        ({"scorers": ["mine.py:fn"]}, "mine.py:fn is code on this machine"),
        ({"scorers": ["clap"], "clap_backend": "laion-clap"}, "not in the containers"),
        ({"scorers": ["clap"], "clap_model": "."}, "weights . are on this machine"),
    ],
)
def test_what_must_listen_here_is_told(scoring: dict[str, Any], reason: str) -> None:
    settings = Settings(scoring=ScoringSettings(**scoring))
    assert reason in str(remote_blocker(settings.scoring))
    with pytest.raises(InputError) as error:
        make_executor("modal", settings, print).make_renderer()
    assert "--on here" in error.value.remedy
    assert remote_blocker(ScoringSettings(scorers=["acoustic", "clap"])) is None
