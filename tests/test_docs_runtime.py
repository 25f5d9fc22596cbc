"""Every block of docs/runtime.md and every cell of its notebook runs.

Stand-ins: a loudspeaker, a hosted model on a loopback port, and the folder of a local model.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import latentscore as ls
from factories import make_payload, make_scored
from latentscore.api import models
from latentscore.embed import WordVectorEmbedder
from latentscore_data.core.export.maps import write_map
from notebooks import code_cells, run_blocks, run_cells
from servers import ChatServer

MAP = "data_work/.exports/map-text"


class Speaker:
    PortAudioError = RuntimeError
    frames = 0

    def play(self, samples: Any, rate: int, blocking: bool) -> None:
        self.frames += len(samples)

    @contextlib.contextmanager
    def OutputStream(self, **options: Any) -> Any:
        yield SimpleNamespace(write=lambda block: self.play(block, 0, True))


def write_a_map(folder: Path) -> None:
    rows = [make_scored(1, vibe_original="a harbour", config_payload=make_payload("Harbour"), split="GRPO")]
    embedder = WordVectorEmbedder()
    folder.mkdir(parents=True)
    write_map(
        folder, rows, "text", lambda batch: embedder.embed([r.vibe_original for r in batch]), embedder.fingerprint
    )


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
def test_the_notebook_runs_and_its_cells_show_players(speaker: Speaker) -> None:
    names: dict[str, Any] = {}
    shown = asyncio.run(run_cells(code_cells("runtime.ipynb"), names))
    assert sum("<audio controls" in page for page in shown) >= 5
    assert len(names["layered"].stems) == 6
