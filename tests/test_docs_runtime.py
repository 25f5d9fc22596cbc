"""Every block of docs/runtime.md and every cell of its notebook runs.

Stand-ins: a loudspeaker, a hosted model on a loopback port, and the folder of a local model.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import latentscore as ls
from factories import make_payload, make_scored
from latentscore.api import models
from latentscore.embed import WordVectorEmbedder
from latentscore_data.core.export.maps import write_map
from notebooks import code_cells, run_block_with, run_blocks, run_cells
from servers import ChatServer
from speaker import Speaker

MAP = "data_work/.exports/map-text"


def write_a_map(folder: Path) -> None:
    rows = [make_scored(1, vibe_original="a harbour", config_payload=make_payload("Harbour"), split="GRPO")]
    embedder = WordVectorEmbedder()
    folder.mkdir(parents=True)
    write_map(
        folder, rows, "text", lambda batch: embedder.embed([r.vibe_original for r in batch]), embedder.fingerprint
    )


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an application that is served on a loopback port."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture
def speaker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Speaker:
    found = Speaker()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sounddevice", found)
    local = SimpleNamespace(answer=lambda text: ls.parse_payload(make_payload("Local")))
    monkeypatch.setattr(models, "local_model", lambda folder: local)
    return found


@pytest.mark.long
def test_every_block_of_the_page_runs_in_its_order(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_a_map(Path(MAP))
    names: dict[str, Any] = {}
    with ChatServer(lambda body: json.dumps(make_payload("Hosted"))) as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a key")
        assert run_blocks("runtime.md", names) >= 12
        assert len(server.received) == 1
    said = capsys.readouterr().out
    assert "tempo: 'slw' is none of very_slow, slow, medium, fast, very_fast, and no number" in said
    assert "model: fast\ndone" in said
    assert names["metadata"].title == "Morning Coffee Shop"
    assert names["metadata"].config.tempo == "medium"
    assert repr(names["audio"]) == "Audio('Morning Coffee Shop', 10.0 s, stereo, 48000 Hz)"
    assert speaker.frames == (10 + 12 + 6) * 48_000
    assert sorted(path.name for path in Path().glob("*.flac")) == ["coffee.flac", "rain.flac"]


@pytest.mark.long
def test_the_web_service_of_the_page_plays_changes_and_forgets(speaker: Speaker) -> None:
    names: dict[str, Any] = {"ls": ls, "asyncio": asyncio}
    run_block_with("Starlette(", "runtime.md", names)
    with served(names["app"]) as url:
        with urllib.request.urlopen(f"{url}/sound?text=rain", timeout=60) as reply:
            assert (reply.headers["Content-Type"], reply.read(4)) == ("audio/flac", b"fLaC")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{url}/sound", timeout=60)
        with urllib.request.urlopen(f"{url}/station/one", timeout=60) as station:
            sound = station.read(44 + 4 * 48_000)
            playing = names["stations"]["one"]
            before = playing.config
            urllib.request.urlopen(f"{url}/station/one", b"a storm at sea, very fast drums", timeout=60).close()
            while playing.config == before:
                assert station.read(4 * 4_800)
        assert np.frombuffer(sound[44:], "<i2").any()
        until = time.monotonic() + 30
        while names["stations"] and time.monotonic() < until:
            time.sleep(0.05)
        assert not names["stations"]


@pytest.mark.long
def test_the_notebook_runs_and_its_cells_show_players(speaker: Speaker) -> None:
    names: dict[str, Any] = {}
    shown = asyncio.run(run_cells(code_cells("runtime.ipynb"), names))
    assert sum("<audio controls" in page for page in shown) >= 5
    assert len(names["layered"].stems) == 6
