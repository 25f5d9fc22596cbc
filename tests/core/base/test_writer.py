"""Writing beside an event loop: in order, whoever waits, and in few handings-over."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

from latentscore_data.core.base.writer import BackgroundWriter


def test_writes_keep_their_order_and_their_results() -> None:
    written: list[int] = []

    def write(number: int) -> int:
        written.append(number)
        return 2 * number

    async def many() -> list[int]:
        writer = BackgroundWriter()
        results = await asyncio.gather(*(writer.write(write, number) for number in range(500)))
        writer.close()
        return results

    assert asyncio.run(many()) == [2 * number for number in range(500)]
    assert written == list(range(500))


def test_a_slow_write_does_not_stop_the_loop() -> None:
    goes_on = threading.Event()

    async def beside() -> tuple[bool, str]:
        writer = BackgroundWriter()
        writing = asyncio.create_task(writer.write(lambda: (goes_on.wait(60), threading.current_thread().name)))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not writing.done()
        goes_on.set()  # by the loop: one that stood still would never get here
        wrote = await writing
        writer.close()
        return wrote

    told, thread = asyncio.run(beside())
    assert told
    assert thread.startswith("writing")


def test_what_is_written_together_is_told_together() -> None:
    kept: list[int] = []

    @contextlib.contextmanager
    def together() -> Iterator[None]:
        batch = len(kept)
        yield
        if len(kept) - batch > 1:
            raise OSError("the disk is full")

    begun, goes_on = threading.Event(), threading.Event()

    async def three() -> list[object]:
        writer = BackgroundWriter(together)
        tasks = [asyncio.create_task(writer.write(lambda: (begun.set(), goes_on.wait(60), kept.append(1))))]
        await asyncio.to_thread(begun.wait, 60)
        tasks += [asyncio.create_task(writer.write(kept.append, n)) for n in (2, 3)]
        await asyncio.sleep(0)  # both have been given
        goes_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        return list(results)

    # The others came while the first was written.
    assert [type(result) for result in asyncio.run(three())] == [tuple, OSError, OSError]


def test_one_failed_write_fails_for_its_own_caller_alone() -> None:
    async def three() -> list[object]:
        writer = BackgroundWriter()
        results = await asyncio.gather(
            writer.write(int, "1"), writer.write(int, "one"), writer.write(int, "2"), return_exceptions=True
        )
        writer.close()
        return list(results)

    first, second, third = asyncio.run(three())
    assert (first, third) == (1, 2)
    assert isinstance(second, ValueError)


def test_what_was_given_is_written_though_nobody_waits_for_it_any_more() -> None:
    written: list[str] = []

    goes_on = threading.Event()

    async def leave() -> None:
        writer = BackgroundWriter()
        first = asyncio.create_task(writer.write(lambda: (goes_on.wait(60), written.append("first"))))
        second = asyncio.create_task(writer.write(written.append, "second"))
        await asyncio.sleep(0)  # both have been given
        second.cancel()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first
        writer.close()

    asyncio.run(leave())
    assert written == ["first", "second"]
