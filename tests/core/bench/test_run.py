"""The two slow steps: batches, resume, failures that stay in the comparison, the floor's foreign vibes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench_fakes import CountingGenerator, FakeScoringService, make_rows
from factories import make_payload
from latentscore import read_audio
from latentscore.meaning.offline import payload_for
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.loop import RowFailure
from latentscore_data.core.base.rows import BenchRow
from latentscore_data.core.base.settings import ConfigsSettings, ScoringSettings
from latentscore_data.core.bench import run
from latentscore_data.core.generators.models import LLMGenerator
from latentscore_data.core.generators.types import Generated
from latentscore_data.core.llm.types import Answer, Question
from latentscore_data.core.scoring.renderer import LocalRenderer
from latentscore_data.core.scoring.service import ScoredRender, ScoringService
from latentscore_data.core.scoring.types import Unscored
from scoring_fakes import LoudnessScorer, render_slowly


@pytest.fixture
def files(tmp_path: Path) -> run.RunFiles:
    return run.RunFiles(tmp_path / "run")


def results(files: run.RunFiles, generators: list, rows: list, service: FakeScoringService) -> list[BenchRow]:
    for generator in generators:
        run.generate(generator, rows, files)
    samples = run.load_answers(files, rows, {g.label: g.fingerprint for g in generators}, seed=0)
    run.score_answers(samples, service, files)
    return run.results_in_order(files, samples, service)


def test_every_source_answers_every_row_in_batches(files: run.RunFiles):
    rows, service = make_rows(5, 2), FakeScoringService()
    one, two = CountingGenerator("one"), CountingGenerator("two", brightness="bright")
    found = results(files, [one, two], rows, service)
    assert [(row.source, row.row_id) for row in found] == [(s, r.row_id) for s in ("one", "two") for r in rows]
    assert sorted(map(len, one.batches)) == [2, 4, 4]
    assert {row.scores["bright"]["final_score"] for row in found if row.source == "two"} == {0.7}
    assert all((files.folder / str(row.audio_file)).stat().st_size > 500 for row in found)
    # One config, one sound: the page's MP3 files are shared, and name the first row.
    sounds = list(files.audio.iterdir())
    assert len(sounds) == 2
    assert {read_audio(sound).tags["vibe"] for sound in sounds} == {rows[0].vibe_original}


def test_the_sounds_say_what_they_are(files: run.RunFiles):
    (row,), generator = make_rows(1, 1), CountingGenerator()
    run.generate(generator, [row], files)
    samples = run.load_answers(files, [row], {generator.label: generator.fingerprint}, seed=0)
    run.score_answers(samples, FakeScoringService(), files, keep_flac=True)
    sounds = [read_audio(path) for path in files.audio.iterdir()]
    assert len(sounds) == 2
    assert samples[0].answer is not None
    for sound in sounds:
        assert sound.tags["vibe"] == row.vibe_original
        assert sound.tags["title"] == (samples[0].answer.payload or {})["title"]


def test_the_same_command_again_does_nothing_and_a_changed_row_alone_is_done_again(files: run.RunFiles):
    rows = make_rows(5, 2)
    results(files, [CountingGenerator()], rows, FakeScoringService())
    again, service = CountingGenerator(), FakeScoringService()
    before = files.results.read_bytes()
    results(files, [again], rows, service)
    assert again.batches == []
    assert service.heard == []
    assert files.results.read_bytes() == before
    changed = [rows[0].model_copy(update={"vibe_original": "quite another"}), *rows[1:]]
    results(files, [again], changed, service)
    assert again.batches == [["quite another"]]


def test_a_torn_result_and_a_lost_sound_are_made_again(files: run.RunFiles):
    rows = make_rows(4, 1)
    whole = results(files, [CountingGenerator()], rows, FakeScoringService())
    lines = files.results.read_bytes().splitlines(keepends=True)
    files.results.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    service = FakeScoringService()
    assert results(files, [CountingGenerator()], rows, service) == whole
    assert len({vibe for vibe, _ in service.heard}) >= 2
    for sound in files.audio.iterdir():
        sound.unlink()
    results(files, [CountingGenerator()], rows, FakeScoringService())
    assert len(list(files.audio.iterdir())) == 1


class KilledStudio(FakeScoringService):
    """One whose renderer was killed."""

    def submit(self, vibe: str, payload: Mapping[str, Any] | None, *, want_audio: bool = False) -> Future[ScoredRender]:
        super().submit(vibe, payload, want_audio=want_audio)
        killed = Unscored("render", "the renderer failed: a worker ended with code -9")
        future: Future[ScoredRender] = Future()
        future.set_result(ScoredRender({"bright": killed}, 0.1, failure=killed))
        return future


def test_what_a_killed_renderer_left_out_is_heard_by_the_same_command(files: run.RunFiles):
    rows = make_rows(4, 1)
    assert all(
        "ended with code -9" in str(row.failure) for row in results(files, [CountingGenerator()], rows, KilledStudio())
    )
    mended = results(files, [CountingGenerator()], rows, FakeScoringService())
    assert all(row.scores and row.failure is None for row in mended)
    service = FakeScoringService()
    assert results(files, [CountingGenerator()], rows, service) == mended
    assert service.heard == []


def test_failed_answers_and_silent_audio_stay_in_the_comparison(files: run.RunFiles):
    rows = make_rows(4, 1)
    rows[0] = rows[0].model_copy(update={"vibe_original": "unspeakable"})
    found = results(files, [CountingGenerator("a"), CountingGenerator("silent", root="d")], rows, FakeScoringService())
    assert (found[0].valid, found[0].failure) == (False, "no words for it")
    silent = found[5]
    assert silent.valid
    assert silent.failure == "the audio is silent"
    assert silent.scores == {}
    assert len(found) == 8


def test_foreign_vibes_come_from_other_texts(files: run.RunFiles):
    rows, service = make_rows(6, 3), FakeScoringService()
    foreign = run.foreign_vibes(rows, seed=0)
    by_vibe = {row.vibe_original: row.source_id for row in rows}
    assert all(by_vibe[str(vibe)] != row.source_id for vibe, row in zip(foreign, rows, strict=True))
    found = results(files, [CountingGenerator()], rows, service)
    assert all(row.shuffled_scores["bright"] == 0.5 for row in found)  # type: ignore[attr-defined]
    assert run.foreign_vibes(rows[:3], seed=0) == [None, None, None]


def test_the_floor_can_be_limited_to_one_source(files: run.RunFiles):
    rows = make_rows(3, 1)
    generators = [CountingGenerator("a"), CountingGenerator("b", brightness="dark")]
    for generator in generators:
        run.generate(generator, rows, files)
    samples = run.load_answers(files, rows, {g.label: g.fingerprint for g in generators}, seed=0)
    service = FakeScoringService()
    run.score_answers(samples, service, files, floor_source="b")
    found = run.results_in_order(files, samples, service, floor_source="b")
    assert [hasattr(row, "shuffled_scores") for row in found] == [False] * 3 + [True] * 3


class TalkingLLM:
    """Answers with keywords; says no to some vibes, in one way or another."""

    model = "fake/talker"

    def __init__(self) -> None:
        self.usage, self.closed, self.asked = Usage(), False, 0

    async def ask(self, question: Question, answer_type: type) -> Answer:
        self.asked += 1
        text = str(question.user)
        if "broken" in text:
            raise RowFailure("answer", "no JSON after 3 tries")
        if "offline" in text:
            raise RowFailure("transient", "connection reset")
        value = payload_for(text, temperature=0.0, seed=0, sample_idx=0)
        return Answer(value, tokens_in=10, tokens_out=20, cost_usd=0.001, seconds=0.5)

    def drain(self) -> None: ...

    async def aclose(self) -> None:
        self.closed = True


def test_a_model_s_bad_answer_is_its_own_failure_and_the_network_s_is_tried_again(files: run.RunFiles):
    rows = [
        row.model_copy(update={"vibe_original": vibe})
        for row, vibe in zip(make_rows(3, 1), ("rain", "broken", "offline"), strict=True)
    ]
    llm = TalkingLLM()
    generator = LLMGenerator("talker", llm, ConfigsSettings(), max_concurrency=2)
    summary = run.generate(generator, rows, files)
    assert (summary.done, dict(summary.failed), llm.closed) == (2, {"transient": 1}, True)
    rain, broken, offline = run.load_answers(files, rows, {"talker": generator.fingerprint}, seed=0)
    assert rain.answer is not None
    assert (rain.answer.tokens_out, rain.answer.cost_usd, rain.answer.seconds) == (20, 0.001, 0.5)
    assert broken.answer == Generated(failure="no valid answer: no JSON after 3 tries")
    assert offline.answer == Generated(failure="transient: connection reset")
    run.generate(LLMGenerator("talker", llm, ConfigsSettings(), max_concurrency=2), rows, files)
    assert llm.asked == 4


def test_an_answer_to_an_older_question_stands_in_for_no_failed_one(files: run.RunFiles):
    rows = [row.model_copy(update={"vibe_original": vibe}) for row, vibe in zip(make_rows(2, 1), "ab", strict=True)]
    results(files, [CountingGenerator("hosted")], rows, FakeScoringService())
    offline = make_rows(1, 1)[0].model_copy(update={"vibe_original": "offline"})
    llm = TalkingLLM()
    now = LLMGenerator("hosted", llm, ConfigsSettings(temperature=0.2), max_concurrency=1)
    # Nothing was asked yet under the new settings: the old answers are not the new source's.
    assert [s.answer for s in run.load_answers(files, rows, {"hosted": now.fingerprint}, seed=0)] == [
        Generated(failure="missing: no answer")
    ] * 2
    asked = [offline, rows[1]]
    run.generate(now, asked, files)
    failed, answer = run.load_answers(files, asked, {"hosted": now.fingerprint}, seed=0)
    assert failed.answer == Generated(failure="transient: connection reset")
    assert answer.answer is not None
    assert answer.answer.cost_usd == 0.001


def test_what_was_heard_of_another_answer_does_not_count(files: run.RunFiles):
    rows, service = make_rows(2, 1), FakeScoringService()
    results(files, [CountingGenerator()], rows, service)
    other = run.load_answers(files, rows, {"counting": "another"}, seed=0)
    assert [row.scores for row in run.results_in_order(files, other, service)] == [{}, {}]
    samples = run.load_answers(files, rows, {"counting": "1"}, seed=0)
    service.scorers[0].fingerprint = "bright-2"
    assert [row.failure for row in run.results_in_order(files, samples, service)] == ["missing: not scored"] * 2


def test_the_ceiling_is_the_best_candidate_of_each_row():
    rows = make_rows(2, 1)
    assert run.ceiling(rows, FakeScoringService(), ["bright"]) == {"bright": [0.5, 0.5]}
    best = [
        make_payload("Yyy", brightness="dark"),
        make_payload("Xxx", root="d"),
        make_payload("Zzz", brightness="bright"),
    ]
    mixed = rows[0].model_copy(update={"config_candidates": [*best, None]})
    assert run.ceiling([mixed], FakeScoringService(), ["bright"]) == {"bright": [0.7]}
    bare = rows[0].model_copy(update={"config_candidates": [None]})
    assert run.ceiling([bare], FakeScoringService(), ["bright"]) == {"bright": [None]}


def test_ctrl_c_cancels_the_renders_that_wait(files: run.RunFiles):
    payloads = [make_payload(tempo=t, density=d) for t in ("slow", "medium", "fast") for d in (2, 3, 4, 5, 6)]
    rows = make_rows(len(payloads), 1)
    samples = [run.Sample(row, "one", Generated(one)) for row, one in zip(rows, payloads, strict=True)]
    scoring = ScoringSettings(seconds=0.5, workers=1)
    make_renderer = partial(LocalRenderer, render=render_slowly)
    with ScoringService([LoudnessScorer()], scoring, make_renderer=make_renderer) as service:
        service.score_one("a vibe", make_payload(root="b"))  # the process has started
        pressed = threading.Timer(1.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        pressed.start()
        with pytest.raises(KeyboardInterrupt):
            run.score_answers(samples, service, files, max_in_flight=service.at_once)
        pressed.join()
        begun = service.counts.renders - 1
    assert 0 < begun < 5
    assert len(files.results.read_text().splitlines()) == begun, "the rows of the renders that had begun are finished"
    assert not files.score_failures.read_text(), "the others do not count as failed"
