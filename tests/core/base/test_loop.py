"""The loop that every slow step shares: resume, failures, the breaker, compaction, Ctrl-C."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from latentscore_data.core.base import loop as stage_module
from latentscore_data.core.base.errors import InputError, MissingError, OutputError, StoppedError
from latentscore_data.core.base.jsonl import Line
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.loop import Job, NotAttempted, RowFailure, run_stage
from latentscore_data.core.base.row_index import RowIndex, read_newest

Work = Callable[[str], Awaitable[Line]]


class Client:
    """Remembers what the loop tells a model client."""

    def __init__(self) -> None:
        self.usage = Usage(calls=3, cached=2, tokens_in=10, tokens_out=20, cost_usd=0.5, saved_usd=0.25)
        self.drained = self.closed = 0

    def drain(self) -> None:
        self.drained += 1

    async def aclose(self) -> None:
        self.closed += 1


class Lab:
    """A stage over words, in a folder, counting its work."""

    def __init__(self, folder: Path) -> None:
        self.output, self.failures = folder / "out.jsonl", folder / "out.failures.jsonl"
        self.worked: list[str] = []
        self.version = "1"

    async def shout(self, word: str) -> Line:
        self.worked.append(word)
        await asyncio.sleep(0)
        return {"loud": word.upper()}

    def run(self, words: list[str], work: Work | None = None, job: dict[str, Any] | None = None, **options: Any) -> Any:
        made: Job[str] = Job("shout", lambda w: w, lambda w: self.version + w, work or self.shout, **(job or {}))
        return run_stage(made, words, self.output, self.failures, **options)

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


WORDS = [f"word{n}" for n in range(30)]


def test_each_input_becomes_one_line_in_order_and_the_second_run_does_nothing(lab: Lab) -> None:
    async def slow_first(word: str) -> Line:
        await asyncio.sleep(0.02 if word == "word0" else 0)
        return await lab.shout(word)

    first = lab.run(WORDS, slow_first)
    assert (first.done, first.skipped, first.exit_code) == (30, 0, 0)
    assert [line["row_id"] for line in lab.lines()] == WORDS, "compacted into the order of the inputs"
    again = lab.run(WORDS)
    assert (again.done, again.skipped) == (0, 30)
    assert len(lab.worked) == 30


def test_a_changed_fingerprint_runs_again_and_the_newest_line_wins(lab: Lab) -> None:
    lab.run(WORDS)
    lab.version = "2"
    assert lab.run(WORDS).done == 30
    lines = lab.lines()
    assert len(lines) == 30
    assert all(line["input_fingerprint"].startswith("2") for line in lines)


def test_an_incomplete_line_runs_again(lab: Lab) -> None:
    lab.run(["a", "b"])
    summary = lab.run(["a", "b"], job={"complete": lambda line: line["loud"] != "A"})
    assert (summary.done, summary.skipped) == (1, 1)


def test_short_lines_are_counted_also_when_they_were_done_before(lab: Lab) -> None:
    job = {"short": lambda line: line["loud"] == "A"}
    assert lab.run(["a", "b"], job=job).short == 1
    again = lab.run(["a", "b"], job=job)
    assert (again.short, again.skipped, again.exit_code) == (1, 2, 1)


def test_what_a_line_carries_is_refreshed_without_work(lab: Lab) -> None:
    lab.run(["a", "b"])
    lab.run(["a", "b"], job={"refresh": lambda word, line: {**line, "split": "TEST"}})
    assert len(lab.worked) == 2
    assert [line["split"] for line in lab.lines()] == ["TEST", "TEST"]
    assert [line["input_fingerprint"] for line in lab.lines()] == ["1a", "1b"]


def failing(lab: Lab, kinds: dict[str, str]) -> Work:
    async def work(word: str) -> Line:
        if word in kinds:
            raise RowFailure(kinds[word], f"{word} cannot be done", 500, 3)
        return await lab.shout(word)

    return work


def test_failures_are_written_and_only_the_retryable_ones_are_tried_again(lab: Lab) -> None:
    summary = lab.run(WORDS, failing(lab, {"word1": "transient", "word2": "bad request", "word3": "answer"}))
    assert summary.failed == {"transient": 1, "bad request": 1, "answer": 1}
    assert summary.exit_code == 1
    written = [json.loads(line) for line in lab.failures.read_text().splitlines()]
    assert {line["row_id"]: (line["kind"], line["status"], line["attempts"]) for line in written} == {
        "word1": ("transient", 500, 3),
        "word2": ("bad request", 500, 3),
        "word3": ("answer", 500, 3),
    }
    again = lab.run(WORDS)
    assert (again.done, again.skipped, again.failed) == (2, 27, {"bad request": 1})
    assert [json.loads(line)["row_id"] for line in lab.failures.read_text().splitlines()] == ["word2"]
    last = lab.run(WORDS, retry_failed=True)
    assert (last.done, last.skipped, last.exit_code) == (1, 29, 0)
    assert not lab.failures.exists()


def test_failures_know_their_rows_by_the_line_key(lab: Lab) -> None:
    job = {"line_key": "source_id"}
    lab.run(["a", "b"], failing(lab, {"a": "bad request"}), job=job)
    again = lab.run(["a", "b"], job=job)
    assert again.failed == {"bad request": 1}
    assert lab.worked == ["b"]


def test_the_breaker_stops_after_twenty_when_half_have_failed_and_names_the_causes(lab: Lab) -> None:
    words = [f"w{n}" for n in range(200)]
    bad = dict.fromkeys(words[::2], "transient")
    with pytest.raises(
        StoppedError, match=r"10 of the last 20 rows failed .*1 x transient: w0 cannot be done"
    ) as caught:
        lab.run(words, failing(lab, bad), max_in_flight=1)
    assert caught.value.exit_code == 4
    assert len(lab.lines()) == 10, "finished work is kept"


def test_the_breaker_forgets_what_lies_forty_rows_back(lab: Lab) -> None:
    words = [f"w{n}" for n in range(100)]
    # 9 of the first 19 fail, so do 10 of a later 40: never half of the last 40.
    bad = dict.fromkeys([*words[:18:2], *words[60:70]], "transient")
    assert lab.run(words, failing(lab, bad), max_in_flight=1).failed == {"transient": 19}


def test_an_error_ends_the_run_after_what_is_in_flight(lab: Lab) -> None:
    async def work(word: str) -> Line:
        if word == "word5":
            raise MissingError("the key was refused")
        await asyncio.sleep(0.02)
        return await lab.shout(word)

    client = Client()
    with pytest.raises(MissingError):
        lab.run(WORDS, work, {"client": client}, max_in_flight=10)
    assert len(lab.lines()) == 5, "the five that were in flight are kept, nothing new was begun"
    assert client.drained
    assert client.closed == 1


def test_a_bug_ends_the_run_too_and_is_raised_as_itself(lab: Lab) -> None:
    async def work(word: str) -> Line:
        if word == "word5":
            raise ZeroDivisionError
        return await lab.shout(word)

    with pytest.raises(ZeroDivisionError):
        lab.run(WORDS, work, max_in_flight=1)
    assert len(lab.lines()) == 5


def test_a_row_that_was_not_attempted_is_neither_done_nor_failed(lab: Lab) -> None:
    async def work(word: str) -> Line:
        if word == "word3":
            raise NotAttempted
        return await lab.shout(word)

    summary = lab.run(WORDS, work)
    assert (summary.done, summary.failed) == (29, {})
    assert not lab.failures.exists()
    assert lab.run(WORDS).done == 1


def test_the_summary_says_what_the_client_used(lab: Lab) -> None:
    client = Client()
    summary = lab.run(["a"], job={"client": client})
    assert (summary.calls, summary.cached, summary.tokens_out) == (3, 2, 20)
    assert (summary.cost_usd, summary.saved_usd, client.closed) == (0.5, 0.25, 1)
    client.usage = Usage(calls=1, unpriced=1)
    assert lab.run(["b"], job={"client": client}).cost_usd is None


def test_never_more_in_flight_than_allowed(lab: Lab) -> None:
    now = most = 0

    async def work(word: str) -> Line:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return {}

    lab.run(WORDS, work, max_in_flight=7)
    assert most == 7


def test_a_torn_last_line_is_dropped_and_done_again(lab: Lab) -> None:
    lab.run(WORDS)
    whole = lab.output.read_bytes()
    lab.output.write_bytes(whole[:-20])
    assert (lab.run(WORDS).done, lab.output.read_bytes()) == (1, whole)


def test_a_broken_line_in_the_middle_names_file_and_line(lab: Lab) -> None:
    lab.run(["a", "b"])
    first, second = lab.output.read_bytes().splitlines(keepends=True)
    lab.output.write_bytes(first[:5] + b"\n" + second)
    with pytest.raises(InputError, match=r"out\.jsonl:1"):
        lab.run(["a", "b"])


def test_overwrite_does_the_inputs_again_and_leaves_the_others(lab: Lab) -> None:
    lab.run(["a", "b", "c"])

    async def whisper(word: str) -> Line:
        if word == "c":
            raise RowFailure("bad request", "no")
        return {"loud": word}

    done = set[str]()
    summary = lab.run(["b", "c"], whisper, overwrite=done)
    assert (summary.done, summary.failed) == (1, {"bad request": 1})
    assert {line["row_id"]: line["loud"] for line in lab.lines()} == {"a": "A", "b": "b", "c": "C"}
    assert lab.run(["b", "c"], overwrite=done).done == 1, "a later round of the same run goes on"
    assert {line["row_id"]: line["loud"] for line in lab.lines()} == {"a": "A", "b": "b", "c": "C"}


def test_overwrite_stopped_in_the_middle_loses_nothing(lab: Lab) -> None:
    async def refuse(word: str) -> Line:
        raise MissingError("the key was refused", "check it")

    lab.run(["a", "b"])
    with pytest.raises(MissingError):
        lab.run(["a", "b"], refuse, overwrite=set())
    assert [line["row_id"] for line in lab.lines()] == ["a", "b"]


def test_lines_of_keys_that_were_not_asked_for_stay(lab: Lab) -> None:
    lab.run(["a", "b", "c"])
    lab.version = "2"
    lab.run(["c"])
    assert [line["row_id"] for line in lab.lines()] == ["c", "a", "b"]


def test_a_failed_input_loses_the_line_it_had_before_it_changed(lab: Lab) -> None:
    async def picky(word: str) -> Line:
        if word in "ab":
            raise RowFailure("transient" if word == "a" else "bad request", "no")
        return await lab.shout(word)

    lab.run(["a", "b", "c", "d"])
    assert lab.run(["a", "b"], picky).skipped == 2
    lab.version = "2"
    assert dict(lab.run(["a", "b", "c"], picky).failed) == {"transient": 1, "bad request": 1}
    assert [(line["row_id"], line["input_fingerprint"]) for line in lab.lines()] == [("c", "2c"), ("d", "1d")]
    # One that is not even tried again has failed all the same.
    lab.version = "1"
    lab.run(["b"])
    lab.version = "2"
    lab.run(["b", "c"], picky)
    assert [line["row_id"] for line in lab.lines()] == ["c", "d"]


def test_a_failed_input_keeps_the_incomplete_line_of_the_same_question(lab: Lab) -> None:
    async def never(word: str) -> Line:
        raise RowFailure("transient", "no")

    lab.run(["a"])
    assert lab.run(["a"], never, {"complete": lambda line: False}).failed == {"transient": 1}
    assert [line["row_id"] for line in lab.lines()] == ["a"]


def test_what_a_stopped_run_did_not_reach_or_ended_in_the_middle_of_stays(lab: Lab) -> None:
    async def refuse(word: str) -> Line:
        if word == "c":
            raise MissingError("the key was refused", "check it")
        raise RowFailure("transient", "no") if word == "a" else NotAttempted

    lab.run(["a", "b", "c", "d"])
    lab.version = "2"
    with pytest.raises(MissingError):
        lab.run(["a", "b", "c", "d"], refuse, max_in_flight=1)
    assert [line["input_fingerprint"] for line in lab.lines()] == ["1a", "1b", "1c", "1d"]
    lab.run(["b"], refuse)
    assert len(lab.lines()) == 4, "a row that was not attempted has not failed"


def test_lines_are_found_by_their_place_in_the_file(lab: Lab) -> None:
    lab.run(["a", "b", "c"])
    assert [line["loud"] for line in read_newest(lab.output, "row_id", ["c", "x", "a"])] == ["C", "A"]
    with lab.output.open("ab") as file:
        file.write(b'{"row_id":"a","loud":"AA","input_fingerprint":"9"}\n')
    assert RowIndex(lab.output).entries["a"].fingerprint == "9"
    assert next(read_newest(lab.output, "row_id", ["a"]))["loud"] == "AA"


def test_a_last_line_that_lacks_only_its_end_is_kept(lab: Lab) -> None:
    lab.run(["a", "b"])
    lab.output.write_bytes(lab.output.read_bytes().rstrip(b"\n"))
    assert lab.run(["a", "b", "c"]).skipped == 2
    assert [line["loud"] for line in lab.lines()] == ["A", "B", "C"]
    lab.output.write_bytes(lab.output.read_bytes().rstrip(b"\n"))
    index = RowIndex(lab.output)
    index.keep(["c", "a"])
    assert [line["loud"] for line in lab.lines()] == ["C", "A"]
    assert index.line("a")["loud"] == "A"


def test_a_full_disk_is_a_clear_error_and_the_run_can_go_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 400
    write = os.write

    def small_disk(fd: int, data: bytes) -> int:
        nonlocal room
        if len(data) > room:
            # A full disk takes a part of the line first.
            taken = write(fd, data[:room]) if room else 0
            room = 0
            if taken:
                return taken
            raise OSError(28, "No space left on device")
        room -= len(data)
        return write(fd, data)

    monkeypatch.setattr("latentscore_data.core.base.jsonl.os.write", small_disk)
    with pytest.raises(OutputError, match="No space left") as caught:
        lab.run(WORDS, max_in_flight=2)
    assert caught.value.exit_code == 6
    monkeypatch.undo()
    kept = lab.lines()
    assert kept
    assert len(kept) < 30
    assert lab.run(WORDS).done == 30 - len(kept)
    assert [line["row_id"] for line in lab.lines()] == WORDS


@pytest.mark.long
def test_a_disk_that_takes_its_time_does_not_hold_up_what_is_in_flight(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps = itertools.chain([0.4, 0.4], itertools.repeat(0))
    monkeypatch.setattr(os, "fsync", lambda fd: time.sleep(next(naps)))

    async def call(word: str) -> Line:
        try:
            async with asyncio.timeout(0.25):
                # They come back one after the other, so there is always a call in flight while a line is written.
                await asyncio.sleep(0.02 * (1 + int(word[4:]) % 5))
        except TimeoutError:
            raise RowFailure("transient", "the call timed out") from None
        return await lab.shout(word)

    summary = lab.run(WORDS, call, max_in_flight=5)
    assert (summary.done, summary.failed) == (30, {})
    assert [line["row_id"] for line in lab.lines()] == WORDS


def test_rows_that_are_done_already_do_not_keep_everything_else_waiting(lab: Lab) -> None:
    words = [f"w{n}" for n in range(3 * stage_module.SKIPPED_AT_ONCE)]
    lab.run(words)
    turns = []

    class Seen(stage_module.Progress):
        def update(self, summary: stage_module.Summary, in_flight: int) -> None:
            turns.append(summary.skipped)

    lab.run(words, progress=Seen())
    assert any(0 < skipped < len(words) for skipped in turns), "the display had a turn on the way"


def press_ctrl_c(after: float) -> threading.Timer:
    timer = threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_ctrl_c_finishes_what_is_in_flight(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(stage_module.log, "warning", lambda text, *values: said.append(text % values))

    async def work(word: str) -> Line:
        await asyncio.sleep(0.3)
        return await lab.shout(word)

    client = Client()
    timer = press_ctrl_c(0.15)
    with pytest.raises(KeyboardInterrupt):
        lab.run(WORDS, work, {"client": client}, max_in_flight=3, total=len(WORDS))
    timer.join()
    assert len(lab.lines()) == 3
    assert said[-1].endswith(": 3 of 30 rows done, $0.5000 spent")
    assert client.drained == 1
    assert client.closed == 1
    assert lab.run(WORDS).done == 27


def test_ctrl_c_twice_stops_now(lab: Lab) -> None:
    async def work(word: str) -> Line:
        await asyncio.sleep(30)
        return {}

    before = signal.getsignal(signal.SIGINT)  # a background job starts with Ctrl-C ignored
    timers = [press_ctrl_c(0.1), press_ctrl_c(0.4)]
    with pytest.raises(KeyboardInterrupt):
        lab.run(WORDS, work, max_in_flight=3)
    for timer in timers:
        timer.join()
    assert lab.lines() == []
    assert signal.getsignal(signal.SIGINT) is before


def test_it_runs_outside_the_main_thread(lab: Lab) -> None:
    thread = threading.Thread(target=lambda: lab.run(WORDS))
    thread.start()
    thread.join()
    assert len(lab.lines()) == 30


def test_retryable_kinds_are_those_of_the_table() -> None:
    assert {"transient", "answer"} <= stage_module.RETRYABLE_KINDS
    assert "bad request" not in stage_module.RETRYABLE_KINDS


def test_an_error_beside_the_work_also_lets_what_is_in_flight_finish(lab: Lab) -> None:
    lab.run(["done"])

    async def slow(word: str) -> Line:
        await asyncio.sleep(0.05)
        return await lab.shout(word)

    def broken(word: str, line: Line) -> Line:
        raise OutputError("the line cannot be written", "free some disk space")

    client = Client()
    with pytest.raises(OutputError):
        lab.run(["a", "b", "done", "c"], slow, {"refresh": broken, "client": client})
    assert {line["row_id"] for line in lab.lines()} == {"done", "a", "b"}
    assert client.drained
    assert client.closed


def test_ctrl_c_is_dealt_with_by_the_loop_not_in_the_middle_of_a_step(lab: Lab) -> None:
    steps: list[str] = []

    class Watching(Client):
        def drain(self) -> None:
            steps.append("drained")

    async def work(word: str) -> Line:
        if word == "b":
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("the step goes on")
            for _ in range(1000):  # the interpreter looks for signals between these
                pass
            steps.append("the step ends")
        return await lab.shout(word)

    with pytest.raises(KeyboardInterrupt):
        lab.run([*WORDS[:1], "b", *WORDS[1:]], work, {"client": Watching()}, max_in_flight=1)
    assert steps[:2] == ["the step goes on", "the step ends"]
    assert "drained" in steps
    assert len(lab.lines()) < 10
