"""The same four arguments give the same bytes: in any process, on any number of threads, in any order."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from listening import random_words

from forked import python
from latentscore import InvalidConfigError, MusicConfigPrompt, compose, render
from latentscore.synth import engine
from latentscore.synth.context import RenderContext

PRINT_DIGEST = """
import hashlib, sys
from latentscore import parse_config, render
import json
print(hashlib.sha256(render(parse_config(json.loads(sys.argv[1])), 3.0, 7, 22_050).samples.tobytes()).hexdigest())
"""


def digest(number: int) -> str:
    return hashlib.sha256(
        render(MusicConfigPrompt(**random_words(number)), 3.0, 7, 22_050).samples.tobytes()
    ).hexdigest()


@pytest.mark.long
def test_another_process_renders_the_same_bytes() -> None:
    words = MusicConfigPrompt(**random_words(0)).model_dump_json()
    for threads in ("1", "4"):
        done = python("-c", PRINT_DIGEST, words, env={"OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads})
        assert done.stdout.strip() == digest(0)


def test_threads_and_orders_do_not_matter() -> None:
    alone = [digest(number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, [3, 1, 0, 2])) == [alone[3], alone[1], alone[0], alone[2]]


@pytest.mark.parametrize("number", range(3))
def test_two_threads_share_a_piece_and_give_the_bytes_of_one(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    workers: set[int] = set()
    play_layer = engine.play_layer
    beside = threading.Event()

    def watched(*arguments: Any) -> None:
        workers.add(threading.get_ident())
        if len(workers) == 2:
            beside.set()
        elif shared:
            beside.wait(10.0)  # until the other thread plays, too
        play_layer(*arguments)

    monkeypatch.setattr(engine, "play_layer", watched)
    words = MusicConfigPrompt(**random_words(number))
    shared = False
    alone = render(words, 6.0, 7, 22_050, threads=1)
    assert workers == {threading.get_ident()}
    shared = True
    both = render(words, 6.0, 7, 22_050, threads=2)
    assert len(workers) == 2
    assert both.samples.tobytes() == alone.samples.tobytes()


def test_no_frame_is_mixed_before_every_group_has_cleared_its_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    score = compose(MusicConfigPrompt(**random_words(0)).to_config(), 12.0, 7)
    # The first note is late, so that no bar before it has anything that the room would wait for.
    late = [{layer: [n for n in notes if n.start >= 8.0] for layer, notes in bar.items()} for bar in score.bars]
    score = replace(score, bars=late)
    begun: set[int] = set()
    mixed_after: list[int] = []
    add_group, move = engine.Player.add_group, engine.Player.move

    def watched_group(player: engine.Player, number: int, notes: Any) -> None:
        begun.add(number)
        add_group(player, number, notes)

    def watched_move(player: engine.Player, at: int, frames: int) -> None:
        mixed_after.append(len(begun))
        move(player, at, frames)

    monkeypatch.setattr(engine.Player, "add_group", watched_group)
    monkeypatch.setattr(engine.Player, "move", watched_move)
    engine.mix_layers(score, RenderContext(score.piece, 48_000), engine.GROUPS, threads=2)
    assert mixed_after[0] == len(engine.GROUPS)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, None])
def test_a_number_of_threads_that_is_none_is_refused(threads: Any) -> None:
    with pytest.raises(InvalidConfigError) as refused:
        render(MusicConfigPrompt(**random_words(0)), 0.5, 0, 8_000, threads=threads)
    assert refused.value.field == "threads"


def test_another_seed_gives_another_piece() -> None:
    prompt = MusicConfigPrompt(**random_words(1))
    assert render(prompt, 2.0, 0, 22_050).samples.tobytes() != render(prompt, 2.0, 1, 22_050).samples.tobytes()


@pytest.mark.long
def test_a_cache_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    env = {"NUMBA_CACHE_DIR": str(blocked / "cache"), "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    program = "from latentscore import MusicConfig, render; print(len(render(MusicConfig(), 0.5, 0, 8_000).samples))"
    done = python("-c", program, env=env)
    assert done.stdout.strip() == "4000"
    assert "in each process, because no folder for them is writable; set NUMBA_CACHE_DIR to one" in done.stderr
