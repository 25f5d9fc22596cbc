"""Streams: items one after the other, an end where one was asked for, and steering while it plays."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import latentscore as ls
from speaker import Speaker

RATE = 8_000
CALM = ls.MusicConfig(tempo="slow", rhythm="none", space="small")
QUICK = ls.MusicConfig(tempo="very_fast", rhythm="kit_medium", root="f")
LOW: dict[str, Any] = {"sample_rate": RATE}


def test_a_stream_has_the_length_that_was_asked_for_and_ends_in_silence() -> None:
    playing = ls.stream(CALM, QUICK, seconds=9.5, transition=2, **LOW)
    assert [round(at / RATE, 2) for at, _, _ in playing._coming] == [4.75]
    audio = playing.collect()
    assert len(audio.samples) == 9.5 * RATE
    assert np.abs(audio.samples[-8:]).max() < 1e-3
    assert np.abs(audio.samples[RATE : 2 * RATE]).max() > 0.01
    assert playing.config == QUICK


def test_the_same_items_and_seed_give_the_same_bytes_whatever_the_blocks() -> None:
    sounds = {
        ls.stream(CALM, QUICK, seconds=4, seed=5, block_frames=frames, **LOW).collect().samples.tobytes()
        for frames in (500, 12_288)
    }
    assert len(sounds) == 1


def test_items_may_be_a_list_of_texts_tracks_and_configs() -> None:
    track = ls.Track("a lighthouse in fog", seconds=3, transition=1, name="fog")
    playing = ls.stream([track, {"tempo": "slow"}], "night drive", seconds=9, update={"brightness": "dark"}, **LOW)
    assert [found.title for found in playing.answers] == ["Lighthouse Fog", "Untitled", "Night Drive"]
    assert [found.config.brightness for found in playing.answers] == ["dark", 0.3, "dark"]
    assert [at for at, _, _ in playing._coming] == [3 * RATE, 6 * RATE]
    assert ls.stream("fog", "rain", **LOW).total_seconds == 120
    playlist = ls.Playlist([ls.Track(CALM, 1), ls.Track(QUICK, 1, transition=0.5)])
    assert playlist.render(**LOW).seconds == 2


def test_a_change_among_the_items_changes_what_plays_before_it() -> None:
    config = ls.MusicConfig(tempo="fast", brightness="bright")
    changed = ls.MusicConfigUpdate(brightness="dark")
    for items in ([config, changed], [ls.Track(config, 2.0), ls.Track(changed, 2.0)]):
        first, second = ls.stream(items, seconds=4.0).answers
        assert second.config == changed.apply(first.config) != first.config
    with pytest.raises(ls.InvalidConfigError, match="the first item must be something to play"):
        ls.stream(changed)


def test_saving_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.wav"
    assert ls.Audio(np.zeros((480, 2), np.float32), 48_000).save(path) == path
    assert path.is_file()


@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_saving_writes_what_collecting_gives_without_holding_it(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected = ls.stream(CALM, QUICK, seconds=3, **LOW).collect().save(tmp_path / f"collected{ending}")
    monkeypatch.delattr(ls.AudioStream, "collect")
    saved = ls.stream(CALM, QUICK, seconds=3, **LOW).save(tmp_path / "new" / f"saved{ending}")
    assert saved.read_bytes() == collected.read_bytes()


def test_a_stream_that_has_ended_makes_no_empty_file(tmp_path: Path) -> None:
    playing = ls.stream(CALM, seconds=1, **LOW)
    playing.collect()
    with pytest.raises(ls.InvalidConfigError, match=r"stream: it has ended .* create a new one"):
        playing.save(tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given", ["a storm", {"config": {"tempo": "fast"}}, ls.MusicConfig(tempo="fast"), ls.answer("a storm")]
)
def test_a_command_takes_what_a_stream_takes(given: Any) -> None:
    numbers = ls.answer(given).config
    numbers = numbers.to_config() if isinstance(numbers, ls.MusicConfigPrompt) else numbers
    for name in ("next", "update"):
        playing, other = ls.stream(CALM, **LOW), ls.stream(CALM, **LOW)
        getattr(playing, name)(given)
        getattr(other, name)(numbers)
        assert np.array_equal(playing.read(12 * RATE), other.read(12 * RATE))
        assert playing.config == numbers


def test_a_command_that_cannot_be_answered_is_refused() -> None:
    playing = ls.stream(CALM, **LOW)
    for given in (3, None, "", ["fog"]):
        for change in (playing.next, playing.update):
            with pytest.raises(ls.InvalidConfigError):
                change(given)  # type: ignore[arg-type]
    with pytest.raises(ls.InvalidConfigError, match="not MusicConfigUpdate"):
        playing.next(ls.MusicConfigUpdate(tempo="slow"))  # type: ignore[arg-type]


def test_updates_before_the_same_bar_line_add_up() -> None:
    playing, other = ls.stream(CALM, **LOW), ls.stream(CALM, **LOW)
    playing.update(ls.MusicConfigUpdate(tempo=ls.Step(+1)))
    playing.update(ls.MusicConfigUpdate(tempo=ls.Step(+1)))
    playing.update({"brightness": "dark"})
    other.update(ls.MusicConfigUpdate(tempo="fast", brightness="dark").apply(CALM))  # type: ignore[arg-type]
    assert np.array_equal(playing.read(12 * RATE), other.read(12 * RATE))
    playing.update(ls.MusicConfigUpdate(tempo=ls.Step(-1)))
    playing.read(12 * RATE)
    assert (playing.config.tempo, playing.config.brightness) == (0.5, ls.MusicConfig(brightness="dark").brightness)


def test_an_update_of_the_piece_that_waits_keeps_its_beginning_and_seed() -> None:
    playing, other = ls.stream(CALM, **LOW), ls.stream(CALM, **LOW)
    playing.next(QUICK, bars=2, seed=5)
    playing.update(ls.MusicConfigUpdate(brightness="dark"))
    other.next(ls.answer(QUICK).updated({"brightness": "dark"}), bars=2, seed=5)
    assert np.array_equal(playing.read(12 * RATE), other.read(12 * RATE))
    assert playing.seed == 5


def test_the_model_of_a_stream_answers_its_commands() -> None:
    playing = ls.stream("calm", model=lambda text: {"calm": CALM, "quick": QUICK}[text], **LOW)
    playing.next("quick", bars=1)
    playing.read(12 * RATE)
    assert playing.config == QUICK


def test_one_item_without_seconds_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    playing = ls.stream(CALM, **LOW)
    with pytest.raises(ls.InvalidConfigError, match="no end"):
        playing.collect()
    assert playing.collect(1.5).seconds == 1.5
    assert len(playing.read(100)) == 100
    playing.next(QUICK, bars=0)
    playing.stop(0.5)
    assert 0.5 < playing.collect().seconds < 2
    assert ls.read_audio(ls.stream(CALM, seconds=1, **LOW).save(tmp_path / "a.wav")).seconds == 1


@pytest.mark.parametrize(
    ("items", "options", "field"),
    [((), {}, "items"), (("fog",), {"seconds": 0}, "seconds"), (("",), {}, "text"), ((3,), {}, "what")],
)
def test_what_cannot_be_streamed_is_refused_before_there_is_sound(
    items: tuple[Any, ...], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(ls.InvalidConfigError) as caught:
        ls.stream(*items, **options, **LOW)
    assert caught.value.field == field
    with pytest.raises(ls.InvalidConfigError, match="seconds"):
        ls.Track("fog", seconds=-1)


def test_blocks_come_in_async_code() -> None:
    async def heard() -> int:
        return sum([len(block) async for block in ls.astream(CALM, seconds=1, **LOW)])

    assert asyncio.run(heard()) == RATE

    async def steered() -> set[float]:
        tempos, playing = set(), ls.stream(CALM, **LOW)
        async for _ in playing:
            tempos.add(playing.config.tempo)
            if not playing.seconds < 1:
                await asyncio.to_thread(playing.update, ls.MusicConfigUpdate(tempo="fast"))
            if playing.seconds > 12:
                playing.stop(0.5)
        return tempos

    assert asyncio.run(steered()) == {CALM.tempo, 0.7}


@pytest.mark.long
def test_a_generator_steers_a_stream_while_it_plays() -> None:
    def source() -> Iterator[Any]:
        yield CALM
        yield ls.MusicConfigUpdate(tempo=ls.Step(+1))
        yield QUICK

    async def source_async() -> AsyncIterator[Any]:
        for item in source():
            await asyncio.sleep(0)
            yield item

    def source_late() -> Iterator[Any]:
        for item in source():
            time.sleep(0.3)
            yield item

    assert sum(map(len, ls.live([CALM], **LOW))) == 10 * RATE + ls.stream(CALM, **LOW).block_frames
    sounds = [ls.live(one, transition=0.5, **LOW).collect(8) for one in (source(), source_async(), source_late())]
    for audio in sounds:
        assert audio.seconds == 8
        np.testing.assert_array_equal(audio.samples, sounds[0].samples)
    plain = ls.stream(CALM, seconds=8, **LOW).collect()
    assert not np.array_equal(sounds[0].samples, plain.samples)


def test_a_collected_stream_does_not_wait_for_an_item_after_its_end() -> None:
    def source() -> Iterator[Any]:
        yield ls.Track(CALM, 2)
        threading.Event().wait()

    assert ls.live(source(), transition=0.5, **LOW).collect(2).seconds == 2


def test_a_live_stream_ends_after_its_source_and_says_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["latentscore.api.streaming"], "LAST_SECONDS", 1.0)
    session = ls.live(iter([CALM]), transition=0.1, **LOW)
    assert 0 < sum(map(len, session.blocks())) < 8 * RATE
    with pytest.raises(ls.InvalidConfigError, match="only once"):
        list(session.blocks(1))

    def broken() -> Iterator[Any]:
        yield CALM
        raise OSError("the sensor is gone")

    with pytest.raises(OSError, match="sensor"):
        for _ in ls.live(broken(), transition=0.0, **LOW).blocks(600):
            time.sleep(0.001)
    for wrong in (iter([]), iter([ls.MusicConfigUpdate(tempo="slow")])):
        with pytest.raises(ls.InvalidConfigError, match="first item"):
            list(ls.live(wrong, **LOW).blocks(1))
    with pytest.raises(ls.InvalidConfigError, match="a generator"):
        ls.live("fog")


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> Speaker:
    found = Speaker()
    monkeypatch.setitem(sys.modules, "sounddevice", found)
    return found


def test_playing_hands_over_the_blocks(speaker: Speaker) -> None:
    ls.stream(CALM, seconds=1, **LOW).play()
    assert (speaker.frames, speaker.rate) == (RATE, RATE)
    ls.live(iter([CALM]), **LOW).play(seconds=1)
    assert speaker.frames == 2 * RATE


# --- as the public package of this name spells it --------------------------------------------------------------------


def test_the_public_spellings_of_render_run(speaker: Speaker, tmp_path: Path) -> None:
    from latentscore.config import Step

    with pytest.raises(ls.ModelError, match="unknown model 'slow'"):
        ls.prefetch("slow")
    with pytest.raises(ls.InvalidConfigError, match="duration: is another name of seconds"):
        ls.render("rain", seconds=1, duration=2)
    ls.prefetch("fast")
    audio = ls.render("harbour at dawn", duration=1.0)
    audio.play()
    assert speaker.rate == ls.SAMPLE_RATE == 48_000
    audio.save(str(tmp_path / "out.wav"))
    assert np.asarray(audio).dtype == np.float32
    assert audio.metadata is not None
    assert audio.metadata.thinking
    assert audio.metadata.config
    for palette in audio.metadata.palettes:
        assert [color.hex for color in palette.colors]
    update = ls.MusicConfigUpdate(tempo=Step(+4), brightness=Step(-4), echo="infinite")
    nudged = ls.render("harbour at dawn", model="fast", update=update, duration=1.0).metadata
    assert nudged is not None
    assert (nudged.config.tempo, nudged.config.brightness, nudged.config.echo) == ("very_fast", "very_dark", "infinite")
    called: list[str] = []
    hooks = ls.RenderHooks(
        on_start=lambda: called.append("start"),
        on_model_start=lambda model: called.append(f"model {model}"),
        on_synth_start=lambda: called.append("synth"),
        on_end=lambda: called.append("end"),
        on_error=lambda error: called.append(type(error).__name__),
    )
    ls.render("harbour", duration=1.0, hooks=hooks)
    with pytest.raises(ls.InvalidConfigError):
        ls.render("", hooks=hooks)
    assert called == ["start", "model fast", "synth", "end", "start", "model fast", "InvalidConfigError"]
    assert asyncio.run(ls.arender("harbour", duration=1.0)).seconds == 1.0


def test_the_hooks_of_a_stream_say_how_far_it_is() -> None:
    called: list[str] = []
    hooks = ls.StreamHooks(
        on_stream_start=lambda: called.append("start"),
        on_item_resolve_start=lambda at, item: called.append(f"resolve {at}"),
        on_item_resolve_success=lambda at, item: called.append(f"resolved {at}"),
        on_item_resolve_error=lambda at, item, error, fallback: called.append(f"failed {at}"),
        on_first_config_ready=lambda at, item: called.append("ready"),
        on_first_audio_chunk=lambda: called.append("sound"),
        on_stream_end=lambda: called.append("end"),
        on_error=lambda error: called.append(type(error).__name__),
    )
    track = ls.Track("harbour", duration=1.0, transition_seconds=0.5)
    playing = ls.stream(track, "fog", duration=2.0, hooks=hooks, pattern_seconds=4.0, queue_maxsize=2)
    assert called == ["start", "resolve 0", "resolved 0", "ready", "resolve 1", "resolved 1"]
    assert playing.collect().seconds == pytest.approx(2.0)
    assert called[6:] == ["sound", "end"]
    with pytest.raises(ls.InvalidConfigError):
        ls.stream("", hooks=hooks)
    assert called[-3:] == ["resolve 0", "failed 0", "InvalidConfigError"]


@pytest.mark.parametrize("model", ["fast_heavy", "expressive"])
def test_a_model_that_only_the_public_package_has_is_named_with_a_way(model: str) -> None:
    with pytest.raises(ls.ModelError, match=f"{model} is not part of this package; .*FOLDER"):
        ls.render("harbour", model=model)


def test_an_external_model_is_a_hosted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    answers = ls.parse_payload(_payload())
    monkeypatch.setattr(
        sys.modules["latentscore.api.models"], "ask_hosted", lambda *given: asked.append(given) or answers
    )
    metadata = ls.render("harbour", duration=0.5, model="external:provider/some-model").metadata
    assert asked == [("provider/some-model", "harbour")]
    assert metadata is not None
    assert metadata.answered_by == "litellm:provider/some-model"


def _payload() -> dict[str, Any]:
    return {name: value for name, value in ls.starter_pairs()[0].items() if name != "vibe"}


def test_the_public_spellings_of_streams_run(speaker: Speaker) -> None:
    ls.stream("harbour", "storm", duration=2, transition=0.5, chunk_seconds=0.5).play()
    assert speaker.frames == 2 * ls.SAMPLE_RATE

    async def source() -> AsyncIterator[Any]:
        yield "harbour"
        await asyncio.sleep(0.01)
        yield ls.MusicConfigUpdate(tempo="fast")

    ls.live(source(), transition_seconds=0.5).play(seconds=1)
    assert speaker.frames == 3 * ls.SAMPLE_RATE
    ls.Playlist(tracks=(ls.Track("harbour", duration=1, transition=0.2),)).play()
    assert speaker.frames == 4 * ls.SAMPLE_RATE
    assert ls.Streamable(content="storm", duration=3, transition_duration=1).seconds == 3
