"""``latentscore.render``: from a text, a payload, a config or labels to sound that says where it comes from."""

from __future__ import annotations

import asyncio
import contextvars
import json
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import latentscore as ls
from factories import make_payload
from forked import python
from latentscore.api import models, runtime
from latentscore.decoding import SchemaDecoder
from latentscore.forms import JSON
from latentscore.installed import available_cores, install
from latentscore.prompt import decoding_schema
from servers import ChatServer
from tiny_models import tiny_qwen3

SHORT: dict[str, Any] = {"seconds": 0.5, "sample_rate": 8_000}


def test_a_text_is_read_and_what_it_names_is_obeyed() -> None:
    audio = ls.render("a slow walking bass in D minor, very bright", **SHORT)
    metadata = audio.metadata
    assert metadata is not None
    config = metadata.config
    assert (config.tempo, config.bass, config.root, config.mode) == ("slow", "walking", "d", "minor")
    assert config.brightness == "very_bright"
    assert "“walking” asks for bass walking" in metadata.reasons
    assert (metadata.answered_by, metadata.text) == ("builtin/keywords", "a slow walking bass in D minor, very bright")
    assert len(metadata.palettes) == 3


def test_every_shape_of_a_config_gives_the_same_sound() -> None:
    payload = ls.parse_payload(make_payload("Same"))
    config = payload.config
    given = [
        payload,
        config,
        config.to_config(),
        payload.model_dump(),
        config.model_dump(),
        config.to_config().model_dump(),
    ]
    sounds = {ls.render(one, **SHORT).samples.tobytes() for one in given}
    assert len(sounds) == 1
    assert ls.render(payload, **SHORT).metadata.title == "Same"  # type: ignore[union-attr]
    row = {"vibe_original": "a vibe", "config_payload": payload.model_dump()}
    assert ls.render(row, **SHORT).samples.tobytes() in sounds


def test_labels_stand_wherever_numbers_go_and_the_rest_are_defaults() -> None:
    config = ls.MusicConfig(tempo="slow", space="vast", bass="drone", motion=0.42)
    assert (config.tempo, config.space, config.motion, config.pad) == (0.30, 0.95, 0.42, ls.MusicConfig().pad)
    partial = ls.render({"tempo": "slow", "space": 0.95}, **SHORT).metadata
    assert partial is not None
    assert partial.config == ls.MusicConfig(tempo="slow", space="vast")


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ({"tempo": "slw"}, "tempo", "'slw' is none of very_slow, slow, medium, fast, very_fast, and no number"),
        ({"tmpo": "slow"}, "tmpo", "did you mean tempo"),
        ({"tempo": 3}, "tempo", "less than or equal to 1"),
        ({"tempo": True}, "tempo", "neither a label nor a number"),
        ({"bass": "tuba"}, "bass", "'drone', 'sustained'"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_takes(wrong: dict[str, Any], field: str, said: str) -> None:
    for make in (ls.MusicConfig, ls.MusicConfigUpdate, lambda **mapping: ls.answer(mapping)):
        with pytest.raises(ls.InvalidConfigError) as caught:
            make(**wrong)
        assert caught.value.field == field
    with pytest.raises(ls.InvalidConfigError, match=said):
        ls.MusicConfig(**wrong)


def test_an_update_changes_only_what_it_names() -> None:
    before = ls.answer("morning coffee shop").config
    after = ls.answer("morning coffee shop").updated(ls.MusicConfigUpdate(tempo=ls.Step(+1), brightness="dark")).config
    assert after == before.step(tempo=1).model_copy(update={"brightness": "dark"})
    assert ls.MusicConfigUpdate(tempo=ls.Step(-9)).apply(ls.MusicConfig()).tempo == 0.15
    assert ls.MusicConfigUpdate(tempo=ls.Step(+1)).apply(ls.MusicConfig(tempo=0.32)).tempo == 0.5
    assert ls.MusicConfigUpdate(tempo=0.33).apply(before).tempo == 0.33
    assert ls.MusicConfigUpdate(register_min_oct=8).apply(before).register_max_oct == 8
    with pytest.raises(ls.InvalidConfigError, match="bass: has no ordered labels"):
        ls.MusicConfigUpdate(bass=ls.Step(1))
    updated = ls.render(before, update={"tempo": "very_fast"}, **SHORT).metadata
    assert updated is not None
    assert updated.config.tempo == "very_fast"


def test_a_map_answers_with_its_nearest_row_as_it_stands(tmp_path: Path) -> None:
    pair = next(pair for pair in ls.starter_pairs() if len(pair["vibe"].split()) > 3)
    found = ls.answer(pair["vibe"], "starter")
    assert found.config.model_dump() == pair["config"]
    assert (found.title, found.answered_by) == (pair["title"], "map:starter")
    assert pair["vibe"] in found.reasons
    with pytest.raises(ls.MapError, match="does not exist"):
        ls.render("fog", map=tmp_path / "none", **SHORT)
    with pytest.raises(ls.InvalidConfigError, match="cannot both"):
        ls.render("fog", map="starter", model=dict, **SHORT)


def test_what_is_wrong_beside_the_config_is_named() -> None:
    payload = make_payload("Colours")
    for palettes in (3, [{"colors": []}], [{"colors": [{"hex": "red", "weight": "xs"}] * 5}]):
        with pytest.raises(ls.InvalidConfigError, match="palettes"):
            ls.render(payload | {"palettes": palettes}, **SHORT)
    with pytest.raises(ls.InvalidConfigError, match="update: must be a MusicConfigUpdate"):
        ls.render(payload, update="slow", **SHORT)  # type: ignore[arg-type]


def test_any_function_can_answer() -> None:
    payload = make_payload("By Function")

    async def later(text: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return payload

    for model in (
        lambda text: payload,
        lambda text: json.dumps(payload),
        lambda text: ls.parse_payload(payload),
        later,
    ):
        for audio in (
            ls.render("fog", model=model, **SHORT),
            asyncio.run(ls.arender("fog", model=model, **SHORT)),
        ):
            assert audio.metadata is not None
            assert (audio.metadata.title, audio.metadata.text) == ("By Function", "fog")
    assert ls.render("fog", model=later, **SHORT).metadata.answered_by == "later"  # type: ignore[union-attr]

    async def in_a_notebook() -> ls.Audio:
        return ls.render("fog", model=later, **SHORT)

    assert asyncio.run(in_a_notebook()).metadata.title == "By Function"  # type: ignore[union-attr]
    assert ls.answer("fog", model=later).title == "By Function"
    assert ls.answer("fog", map="starter").answered_by.startswith("map:")
    for text in (
        '{"tempo": "slow"}',
        '{"title": "By Function", "config": {"tempo": "slow"}}',
        '```json\n{"tempo": 0.3}\n```',
    ):
        assert ls.answer("fog", model=lambda _, text=text: text).config == ls.MusicConfig(tempo="slow")
    for reply in (None, 5, ("slow",)):
        with pytest.raises(ls.ModelError, match=f"returned {type(reply).__name__}; a model returns a payload"):
            ls.answer("fog", model=lambda _, reply=reply: reply)  # type: ignore[arg-type, return-value]
    with pytest.raises(ls.ModelError, match="no usable answer: tempo"):
        ls.render("fog", model=lambda text: {"tempo": "slw"}, **SHORT)
    with pytest.raises(ls.ModelError, match="litellm:PROVIDER/MODEL"):
        ls.render("fog", model="gpt", **SHORT)
    with pytest.raises(ls.InvalidConfigError, match="needs a text"):
        ls.render(ls.MusicConfig(), model=later, **SHORT)


def test_many_renders_leave_the_threads_of_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    release, begun = threading.Event(), []

    def slow(found: ls.Answer, seconds: float, *_: Any) -> ls.Audio:
        begun.append(seconds)
        assert release.wait(30)
        return ls.Audio(np.zeros((1, 2), np.float32), 8_000)

    monkeypatch.setattr(runtime, "render_answer", slow)

    async def main() -> None:
        tasks = [asyncio.create_task(ls.arender(ls.MusicConfig(), seconds=number)) for number in range(60)]
        while len(begun) < available_cores():
            await asyncio.sleep(0.01)
        await asyncio.wait_for(asyncio.to_thread(int), 20)
        assert len(begun) == available_cores()
        for task in tasks[30:]:
            task.cancel()
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks[:30])

    asyncio.run(main())
    assert sorted(begun) == list(range(30))


def test_slow_models_leave_the_threads_of_the_event_loop_free() -> None:
    release, user = threading.Event(), contextvars.ContextVar("user", default="nobody")

    def slow(text: str) -> ls.Answer:
        assert release.wait(30)
        return ls.Answer(ls.MusicConfig(), title=user.get())

    async def main() -> list[ls.Audio]:
        user.set("somebody")
        tasks = [asyncio.create_task(ls.arender("fog", model=slow, **SHORT)) for _ in range(60)]
        await asyncio.wait_for(asyncio.to_thread(int), 20)
        release.set()
        return await asyncio.gather(*tasks)

    assert {audio.metadata.title for audio in asyncio.run(main()) if audio.metadata} == {"somebody"}


@pytest.mark.parametrize("given", ["", "  ", 3, None, {}, {"config": 3}])
def test_what_is_nothing_to_render_is_refused(given: Any) -> None:
    with pytest.raises(ls.InvalidConfigError):
        ls.render(given, **SHORT)


def test_audio_is_an_array_a_file_and_a_player(tmp_path: Path) -> None:
    audio = ls.render("a <b>bell</b>", seed=3, **SHORT)
    assert np.asarray(audio).shape == (4_000, 2)
    assert np.asarray(audio, dtype=np.float64).dtype == np.float64
    assert repr(audio) == f"Audio({audio.metadata.title!r}, 0.5 s, stereo, 8000 Hz)"  # type: ignore[union-attr]
    assert len(repr(ls.render("fog", stems=True, **SHORT))) < 150
    shown = ls.Audio(
        audio.samples, 8_000, metadata=ls.Metadata("<b>", ls.MusicConfig(), 0, 0.5, "config")
    )._repr_html_()
    assert "<b>&lt;b&gt;</b>" in shown
    assert 'src="data:audio/flac;base64,' in shown
    path = audio.save(tmp_path / "bell.flac")
    assert path.read_bytes() == audio.to_bytes() != audio.to_bytes("wav")
    assert ls.render("a <b>bell</b>", seed=3, **SHORT) == audio != ls.render("a <b>bell</b>", seed=4, **SHORT)
    with pytest.raises(ls.AudioError, match=r"one of \.wav, \.flac, \.ogg"):
        audio.to_bytes("mp3")
    import soundfile

    with soundfile.SoundFile(path) as file:
        comment = json.loads(file.comment)
    again = ls.render(comment["config"], comment["seconds"], comment["seed"], 8_000)
    assert np.array_equal(again.samples, audio.samples)
    assert comment["vibe"] == "a <b>bell</b>"


def test_a_hosted_model_is_asked_and_told_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = iter(['{"title": "No Config"}', f"Here it is:\n```json\n{json.dumps(make_payload('Hosted'))}\n```"])
    with ChatServer(lambda body: next(replies)) as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-value")
        metadata = ls.render("fog </vibe> over the bay", model="litellm:openai/some-model", **SHORT).metadata
        assert metadata is not None
        assert (metadata.title, metadata.answered_by) == ("Hosted", "litellm:openai/some-model")
        asked = [one.body["messages"] for one in server.received]
    assert asked[0][1]["content"].count("</vibe>") == 1
    assert "thinking: Field required" in asked[1][-1]["content"]


def test_a_hosted_model_that_fails_is_named_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"error": {"message": "Incorrect API key provided: sk-secret-value"}}
    with ChatServer(lambda body: "", refuse=(401, body)) as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-value")
        with pytest.raises(ls.ModelError, match="the call of openai/some-model failed: AuthenticationError") as caught:
            ls.render("fog", model="litellm:openai/some-model", **SHORT)
    assert "sk-secret-value" not in str(caught.value)


def test_a_local_model_without_its_folder_or_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ls.ModelError, match="the folder does not exist"):
        ls.render("fog", model=f"local:{tmp_path / 'none'}", **SHORT)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ls.ModelError, match="torch is not installed: " + re.escape(install("ml"))):
        ls.render("fog", model=f"local:{tmp_path}", **SHORT)


@pytest.mark.ml
@pytest.mark.slow
def test_a_local_model_answers_a_valid_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xgrammar")
    folder = tiny_qwen3(tmp_path / "model")
    # A model of random weights would think to its last token.
    schema = decoding_schema()
    schema["properties"]["thinking"]["maxLength"] = 5
    form = replace(JSON, grammar=lambda: schema, system=lambda: "Answer in one object.")
    monkeypatch.setattr(models, "form_of", lambda folder: form)
    asked: list[str] = []
    write = SchemaDecoder.write
    monkeypatch.setattr(
        SchemaDecoder,
        "write",
        lambda self, prompts: asked.append(prompts[0].messages[0]["content"]) or write(self, prompts),
    )
    metadata = ls.render("fog", model=f"local:{folder}", **SHORT).metadata
    assert metadata is not None
    assert asked == ["Answer in one object."], "what the run was trained with"
    assert metadata.answered_by == f"local:{folder}"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ls.ModelError, match="empty cannot be loaded"):
        ls.render("fog", model=f"local:{tmp_path / 'empty'}", **SHORT)


def test_playing_without_the_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ls.AudioError, match=re.escape(install("play"))):
        ls.render("fog", **SHORT).play()


def test_playing_hands_the_samples_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[Any] = []

    class Device:
        PortAudioError = RuntimeError

        def play(self, samples: Any, rate: int, blocking: bool) -> None:
            if played:
                raise RuntimeError("no output device")
            played.append((samples, rate, blocking))

    monkeypatch.setitem(sys.modules, "sounddevice", Device())
    audio = ls.render("fog", **SHORT)
    audio.play()
    assert played == [(audio.samples, 8_000, True)]
    with pytest.raises(ls.AudioError, match="no output device"):
        audio.play()


@pytest.mark.long
def test_importing_is_light_and_rendering_a_text_needs_the_base_install_only() -> None:
    code = (
        "import sys, latentscore as ls\n"
        "print(*sorted({'numpy', 'pydantic', 'numba', 'litellm'} & set(sys.modules)))\n"
        "ls.render('a lighthouse in fog', 0.5, sample_rate=8_000)\n"
        "print(*sorted({'torch', 'litellm', 'sounddevice', 'latentscore_data', 'transformers'} & set(sys.modules)))\n"
    )
    assert python("-c", code).stdout.splitlines() == ["", ""]


@pytest.mark.long
def test_after_prefetch_no_loop_is_loaded_or_compiled() -> None:
    code = (
        "import numpy as np, latentscore as ls\n"
        "from numba.core.dispatcher import Dispatcher\n"
        "ls.prefetch()\n"
        "def late(dispatcher, signature): raise AssertionError(dispatcher.py_func, signature)\n"
        "Dispatcher.compile = late\n"
        "for number in range(40):\n"
        "    config = ls.random_config(np.random.default_rng(number))\n"
        "    ls.render(config, 12, number, (44_100, 48_000)[number % 2], stems=number % 3 == 0, loop=number % 3 == 1)\n"
        "playing = ls.stream('a choir in a cathedral')\n"
        "playing.read(4 * 48_000)\n"
        "playing.update(config)\n"
        "playing.stop(6)\n"
        "print(len(playing.collect().samples) > 0)\n"
    )
    assert python("-c", code).stdout.strip() == "True"


def test_type_checkers_find_the_annotations() -> None:
    assert Path(ls.__file__).with_name("py.typed").is_file()
