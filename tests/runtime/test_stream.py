"""A stream is a render that does not end, and that can be steered."""

from __future__ import annotations

import gc
import math
import tracemalloc

import numpy as np
import pytest
from listening import PLAIN, RATE, config
from numpy.typing import NDArray
from test_clean import CLICKLESS, clicks

from latentscore import Audio, InvalidConfigError, MusicConfig, compose, random_config, render
from latentscore.synth import engine, space
from latentscore.synth.context import KEPT_BYTES, RenderContext
from latentscore.synth.notes import Piece
from latentscore.synth.score import Composer
from latentscore.synth.stream import LEAD_SECONDS, MOST_PARTS, Leveler, Part, Stream, change_bars, stream

LOW_RATE = 8_000


def numbers(number: int) -> MusicConfig:
    return random_config(np.random.default_rng([7, number])).to_config()


def level_db(samples: NDArray[np.float32], seconds: float = 0.25) -> NDArray[np.float64]:
    step = round(seconds * RATE)
    parts = samples[: len(samples) // step * step].reshape(-1, step * 2).astype(np.float64)
    return 10 * np.log10((parts**2).mean(axis=1) + 1e-12)


@pytest.mark.parametrize("number", range(20))
def test_a_stream_is_a_render_before_gain_and_limiter(number: int) -> None:
    piece = numbers(number)
    score = compose(piece, 12.0, number)
    rendered = engine.mix_layers(score, RenderContext(score.piece, RATE), engine.GROUPS)
    space.bus(rendered, piece, RATE)
    part = Part(Composer(Piece(piece, math.inf, number)), 0, 0, 0, RATE)
    streamed = np.concatenate([part.play() for _ in range(int(10.9 * RATE) // space.STEP)], axis=1)
    assert np.abs(streamed).max() > 0.01
    assert np.array_equal(streamed, rendered[:, : streamed.shape[1]])


def steered(lengths: list[int]) -> bytes:
    """A stream with a change after 2, 5 and 9 s, read in blocks of these lengths, over and over."""
    playing = stream(numbers(1), 3, RATE)
    commands = [
        (2, lambda: playing.update(numbers(2))), (5, lambda: playing.next(numbers(3), bars=2, seed=9)),
        (9, lambda: playing.update(playing.config.model_copy(update={"brightness": 0.9}))), (15, lambda: None),
    ]  # fmt: skip
    sound, turn = [], 0
    for seconds, command in commands:
        while playing.position < seconds * RATE:
            sound.append(playing.read(min(lengths[turn % len(lengths)], seconds * RATE - playing.position)))
            turn += 1
        command()
    return np.concatenate(sound).tobytes()


def test_the_same_commands_give_the_same_bytes_in_blocks_of_any_length() -> None:
    whole = steered([100_000])
    assert whole == steered([100_000])
    assert whole == steered([space.STEP, 1, 777, 20_000])


def test_an_update_takes_effect_at_the_next_bar_line() -> None:
    playing, before = Stream(config(PLAIN).to_config(), 0, RATE), Stream(config(PLAIN).to_config(), 0, RATE)
    bar = round(playing.bar_seconds * RATE)
    first = playing.read(bar + bar // 4)
    playing.update(config(PLAIN, pad="thin_high", brightness="very_bright"))
    changed = np.concatenate([first, playing.read(2 * bar)])
    same = before.read(len(changed))
    differs = np.flatnonzero(np.abs(changed - same).max(axis=1) > 0)
    lead = round(LEAD_SECONDS * RATE) + space.STEP + space.Limiter.LAG
    assert 2 * bar - lead <= differs[0] <= 2 * bar + 0.1 * RATE
    assert playing.config.pad == "thin_high"


def test_the_last_of_several_updates_counts() -> None:
    playing, other = stream(numbers(4), 0, RATE), stream(numbers(4), 0, RATE)
    playing.update(numbers(5))
    playing.update(numbers(6))
    other.update(numbers(6))
    assert np.array_equal(playing.read(6 * RATE), other.read(6 * RATE))


def test_small_changes_begin_at_once_and_large_ones_cross_fade() -> None:
    base = config(PLAIN).to_config()
    changed = {name: base.model_copy(update=update) for name, update in {
        "same": {}, "room": {"space": 0.9, "brightness": 0.9}, "layer": {"bass": "walking"},
        "key": {"root": "f#"}, "all": {"tempo": 0.9, "bass": "walking", "pad": "cinematic", "rhythm": "tabla_essence",
                                       "texture": "glitch", "melody": "heroic", "accent": "chime"},
    }.items()}  # fmt: skip
    bars = {name: change_bars(base, new) for name, new in changed.items()}
    assert bars == {"same": 0, "room": 0, "layer": 0, "key": 2, "all": 4}


def steady(number: int) -> MusicConfig:
    """A random config without drums, noise and plucked basses, dark and soft, so that a step stands out from it."""
    words = random_config(np.random.default_rng([8, number])).model_dump()
    calm = {name: CLICKLESS[name] for name in ("rhythm", "texture", "echo")}
    calm["bass"] = "sustained" if words["bass"] == "walking" else words["bass"]
    return config({**words, **calm}, tempo="fast", brightness="very_dark", attack="soft", grain="clean").to_config()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames at which the notes of streams begin."""
    frames: list[int] = []
    add = engine.Player.add

    def recorded(player: engine.Player, notes: dict) -> None:
        add(player, notes)
        context = player._context
        if context.sample_rate != RATE:  # an excerpt that only predicts the loudness
            return
        sounding = next(part for part in parts if part._context is context)
        frames.extend(context.frame(note.start) + sounding._offset for layer in notes.values() for note in layer)

    parts: list[Part] = []
    begin = Part.__init__

    def begun(part: Part, *arguments: object) -> None:
        begin(part, *arguments)  # type: ignore[arg-type]
        parts.append(part)

    monkeypatch.setattr(engine.Player, "add", recorded)
    monkeypatch.setattr(Part, "__init__", begun)
    return frames


@pytest.mark.parametrize(
    ("first", "count"), [(0, 8), pytest.param(8, 42, marks=pytest.mark.long)], ids=["some", "the rest"]
)
def test_nothing_clicks_and_nothing_stops_when_the_config_changes(first: int, count: int, played: list[int]) -> None:
    """Random updates of one field, of all, and other pieces, at random places."""
    rng = np.random.default_rng(first)
    playing = stream(steady(first), 0, RATE)
    sound = [playing.read(2 * RATE)]
    for number in range(first + 1, first + 1 + count):
        new = steady(number)
        if number % 3 == 0:
            field = ("accent", "brightness", "bass", "density", "space")[number // 3 % 5]
            playing.update(playing.config.model_copy(update={field: getattr(new, field)}))
        elif number % 3 == 1:
            playing.update(new)
        else:
            playing.next(new, bars=int(rng.integers(0, 5)))
        sound.append(playing.read(int(rng.integers(RATE, 4 * RATE))))
    samples = np.concatenate(sound)
    assert np.isfinite(samples).all()
    assert clicks(Audio(samples, RATE), np.array(played)) == []
    assert level_db(samples[2 * RATE :]).min() > -50


def test_the_detector_finds_a_cut_without_a_cross_fade() -> None:
    one, other = (stream(steady(number), 0, RATE).read(8 * RATE)[5 * RATE :] for number in (1, 2))
    cuts = range(RATE, 2 * RATE, 1_111)
    found = [clicks(Audio(np.concatenate([one[:at], other[at:]]), RATE), np.array([-1e9])) for at in cuts]
    assert sum(map(bool, found)) > len(cuts) / 2


def test_two_pieces_cross_fade_with_equal_power() -> None:
    playing = stream(config(PLAIN, space="dry"), 0, RATE)
    playing.read(20 * RATE)
    playing.next(config(PLAIN, space="dry", root="f"), bars=4)
    levels = level_db(playing.read(30 * RATE), 2.0)
    assert levels.max() - levels.min() < 9


def test_what_sounds_at_once_is_bounded() -> None:
    playing = stream(config(PLAIN, echo="infinite", space="vast", tempo="very_fast"), 0, LOW_RATE)
    for number in range(12):
        playing.update(config(PLAIN, echo="infinite", space="vast", tempo="very_fast", brightness="dark", stereo="mono")
                       if number % 2 else config(PLAIN, echo="infinite", space="vast", tempo="very_fast"))  # fmt: skip
        playing.read(round(playing.bar_seconds * LOW_RATE))
        assert len(playing._parts) <= MOST_PARTS + 1
    playing.read(60 * LOW_RATE)
    assert len(playing._parts) == 1


@pytest.mark.long
def test_memory_stays_flat() -> None:
    playing = stream(config(melody="procedural", human="loose"), 0, LOW_RATE)
    playing.read(120 * LOW_RATE)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(3):
            playing.read(40 * LOW_RATE)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < KEPT_BYTES + 2**20
        kept = playing._parts[0]._context.kept
        assert sum(sound.nbytes for sound in kept._sounds.values()) == kept._bytes <= KEPT_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("number", range(4))
def test_a_stream_is_about_as_loud_as_a_render(number: int) -> None:
    audio = Audio(stream(numbers(10 + number), 0, RATE).read(120 * RATE), RATE)
    assert audio.loudness_lufs() == pytest.approx(-16.0, abs=1.6)
    assert audio.true_peak_dbfs() < -1.0


def test_loudness_is_corrected_slowly() -> None:
    leveler = Leveler(LOW_RATE)
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, (2, 4 * LOW_RATE)).astype(np.float32)
    levels = []
    for _ in range(40):
        block = noise.copy()
        leveler.apply(block)
        levels.append(20 * math.log10(float(np.sqrt((block**2).mean()) / np.sqrt((noise**2).mean()))))
    moves = np.diff(levels)
    assert levels[13] == pytest.approx(0.0, abs=1e-3)
    assert moves.max() <= 0.4 + 1e-3
    assert levels[-1] > 8


def test_a_stopped_stream_fades_and_ends() -> None:
    playing = stream(config(PLAIN), 0, RATE, block_frames=5_000)
    before = playing.read(5 * RATE)
    playing.stop(2.0)
    rest = np.concatenate(list(playing))
    assert 2.0 <= len(rest) / RATE < 2.2
    assert len(playing.read(100)) == 0
    assert np.abs(rest[-20:]).max() < 1e-3 < np.abs(before[-RATE:]).max()


@pytest.mark.parametrize(
    ("field", "arguments"),
    [("seed", {"seed": -1}), ("sample_rate", {"sample_rate": 100}), ("block_frames", {"block_frames": 0})],
)
def test_a_wrong_argument_is_refused_by_name(field: str, arguments: dict) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        stream(MusicConfig(), **arguments)
    assert caught.value.field == field


def test_a_wrong_command_is_refused_and_changes_nothing() -> None:
    playing, other = stream(config(PLAIN), 0, RATE), stream(config(PLAIN), 0, RATE)
    for command in (
        lambda: playing.next(config(PLAIN), bars=-1),
        lambda: playing.stop(math.nan),
        lambda: playing.update("rain"),  # type: ignore[arg-type]
        lambda: playing.next(config(PLAIN), seed=-1),
    ):
        with pytest.raises(InvalidConfigError):
            command()
    assert np.array_equal(playing.read(3 * RATE), other.read(3 * RATE))


# --- loops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(5))
def test_a_loop_repeats_without_a_seam(number: int) -> None:
    words = {} if number else {"motion": "chaotic", "echo": "infinite", "space": "vast", "grain": "gritty"}
    piece = config({**random_config(np.random.default_rng([9, number])).model_dump(), **words}).to_config()
    audio = render(piece, 9.0, number, RATE, loop=True)
    turn = len(audio.samples)
    bars = audio.seconds / Stream(piece).bar_seconds
    assert bars == pytest.approx(round(bars), abs=1e-3)
    assert 0.6 * 9 < audio.seconds < 1.5 * 9
    assert audio.loudness_lufs() == pytest.approx(-16.0, abs=0.5)
    assert Audio(np.tile(audio.samples, (2, 1)), RATE).true_peak_dbfs() < -1.0
    rough = np.abs(np.diff(np.tile(audio.samples, (2, 1)), 3, axis=0)).max(axis=1)
    assert rough[turn - 4 : turn + 3].max() <= 1.1 * rough[turn + 3 :].max()
    around = rough[turn - RATE // 2 : turn + RATE // 2]
    assert rough[turn - 4 : turn + 3].max() <= 3 * np.quantile(around, 0.99)


def test_a_loop_has_no_stems() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        render(MusicConfig(), 4.0, loop=True, stems=True)
    assert caught.value.field == "stems"
