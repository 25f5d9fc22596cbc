"""What goes wrong around the studio: a full disk, killed renderers, a network that is away, a stream that ended, two tabs."""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_page import engine, play, until_sounding

from browsing import until
from factories import make_config, make_payload, make_scored
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.marks import read_marks
from latentscore_data.core.base.workspace import Workspace
from studio_server import StudioProcess, open_studio, run_studio, visit

pytestmark = pytest.mark.long

PIECE = {**make_payload(), "vibe": "rain", "seed": 1, "seconds": 60}


@pytest.fixture(scope="module")
def studio() -> Iterator[StudioProcess]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        replace_rows(Workspace(root).scored("TEST"), [make_scored(1, row_id="row-1", split="TEST")])
        with run_studio(root) as running:
            yield running


@contextmanager
def full_disk(studio: StudioProcess) -> Iterator[None]:
    """No process of the studio can make a file longer than 64 bytes; the kernel refuses as it does on a full disk."""
    server = psutil.Process(studio.process.pid)
    pids = [one.pid for one in (server, *server.children(recursive=True))]
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def renderers(studio: StudioProcess) -> list[psutil.Process]:
    """The processes that render: the children of the process that they are forked from."""
    server = psutil.Process(studio.process.pid)
    direct = server.children()
    return [one for one in server.children(recursive=True) if one not in direct]


def test_a_full_disk_is_said_and_everything_works_once_there_is_room(studio: StudioProcess):
    sound = {"config": make_config(), "seed": 5, "seconds": 2.0, "format": "pcm"}
    assert studio.ask("/api/sound", {**sound, "seed": 4})[0] == 200
    asked = {
        "/api/playlist": {"do": "save", "name": "evening", "pieces": [PIECE]},
        "/api/mark": {"id": "row-1", "verdict": "bad", "note": "too loud " * 20},
        "/api/prefer": {"id": "row-1", "better": 0, "worse": 1},
    }
    with full_disk(studio):
        assert studio.ask("/api/sound", sound)[0] == 200, "playing needs no disk"
        for path, data in asked.items():
            status, body, _ = studio.ask(path, data)
            said = json.loads(body)
            assert status == 507, (path, said)
            assert "disk space" in said["remedy"], (path, said)
        assert studio.ask("/api/setup")[0] == 200
    for path, data in asked.items():
        assert studio.ask(path, data)[0] == 200, path
    root = Path(studio.json("/api/setup")["workspace"])
    assert read_marks(root).keys() == {"row-1"}


def test_a_killed_renderer_costs_time_and_no_sound(studio: StudioProcess):
    with ThreadPoolExecutor() as pool:
        asked = {"config": make_config(), "seed": 9, "seconds": 300.0, "format": "pcm"}
        answer = pool.submit(studio.ask, "/api/sound", asked)
        end = time.monotonic() + 60
        while not (busy := [one for one in renderers(studio) if one.cpu_percent(0.05) > 5]):
            assert not answer.done(), "the renderer was not seen at work"
            assert time.monotonic() < end, "the renderer did not start"
            time.sleep(0.02)
        for one in busy:
            one.kill()
        status, body, _ = answer.result(timeout=120)
    assert status == 200
    assert len(body) > 300 * 48_000 * 4


@pytest.mark.browser
class TestInChromium:
    def test_a_full_disk_is_said_on_the_page(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            play(page, "slow rain", "1")
            page.get_by_role("button", name="Keep").click()
            page.fill("[aria-label='Name of the playlist']", "night")
            with full_disk(studio):
                page.get_by_role("button", name="Save").click()
                until(page, "document.querySelector('#toast').textContent.includes('disk space')")
            page.get_by_role("button", name="Save").click()
            until(page, "document.querySelector('#toast').textContent.startsWith('Saved')")

    def test_endless_music_comes_back_after_the_network_and_after_its_stream(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            page.select_option("#length", label="Endless")
            play(page, "slow rain", "1")
            page.context.set_offline(True)
            page.wait_for_timeout(2500)
            page.context.set_offline(False)
            page.wait_for_timeout(500)
            until_sounding(page)
            for _ in range(4):
                studio.json("/api/stream", {"config": make_config(), "seed": 1})
            page.wait_for_timeout(2500)
            until_sounding(page)
            assert page.evaluate("document.querySelector('#toast').textContent") == ""

    def test_one_tab_sounds_at_a_time(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            play(page, "slow rain", "1")
            other = page.context.new_page()
            visit(other, studio.page)
            play(other, "a bright morning", "1")
            until(page, "!document.documentElement.classList.contains('playing')")
            assert engine(other, "e.player.playing")
            assert page.errors == other.errors == []
