"""The stages from Python: the page and the notebook run; differences from the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import SRC
from factories import make_payload, make_scored, make_vibe
from forked import python
from latentscore_data import Workspace
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.workspace import Workspace as Files
from notebooks import code_cells, run_blocks, run_cells
from servers import ChatServer


def test_the_import_is_light():
    code = (
        "import sys, time; begun = time.process_time()\nfrom latentscore_data import Workspace\n"
        "print(time.process_time() - begun, *{'pydantic', 'numpy', 'typer', 'scipy'} & set(sys.modules))"
    )
    runs = [python("-c", code, cwd=SRC).stdout.split() for _ in range(3)]
    assert all(loaded == [] for _, *loaded in runs)
    assert min(float(seconds) for seconds, *_ in runs) < 0.1


@pytest.mark.long
def test_every_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert run_blocks("python.md", names) == 4
    said = capsys.readouterr().out
    assert "Slow Rain Tin Roof" in said
    assert "unknown setting bench.limits (did you mean limit?)" in said
    assert len(names["answer"].candidates) == len(names["answer"].scores) == 8
    assert names["table"]["config.tempo"].notna().all()
    assert Path("rain.flac").stat().st_size > 10_000
    assert Path("out/dataset/README.md").exists()


@pytest.mark.long
def test_the_notebook_runs_although_its_kernel_runs_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    async def kernel() -> tuple[list[str], bool]:
        loop = asyncio.get_running_loop()
        shown = await run_cells(code_cells("python.ipynb"), names)
        await asyncio.sleep(0.01)
        return shown, asyncio.get_running_loop() is loop

    shown, same_loop = asyncio.run(kernel())
    assert same_loop
    assert sum("<audio controls" in page for page in shown) == 2
    assert names["summary"].done == len(names["table"])


@pytest.mark.long
def test_a_script_without_a_main_guard_is_run_once(tmp_path: Path):
    script = tmp_path / "mine.py"
    script.write_text(
        "print('begun', flush=True)\nfrom latentscore_data import Workspace\n"
        "print(Workspace('data', scoring={'seconds': 1}).answer('rain', n=2).title)\n"
    )
    assert python(script, cwd=tmp_path).stdout.split() == ["begun", "Rain"]


class TestRows:
    def test_scored_rows_come_first_and_vibes_follow(self, root: Path):
        files = Files(root)
        replace_rows(files.scored("TEST"), [make_scored(1, row_id="one", split="TEST")])
        replace_rows(
            files.vibes("TEST"), [make_vibe(i, row_id=name, split="TEST") for i, name in enumerate(("one", "two"))]
        )
        rows = Workspace(root).rows("TEST")
        assert [(row.row_id, row.config_payload is None) for row in rows] == [("one", False), ("two", True)]
        assert [row.row_id for row in rows] == ["one", "two"], "they can be read again"
        assert list(Workspace(root).rows("GRPO")) == []

    def test_what_is_not_there_is_named(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        with pytest.raises(MissingError, match="no rows in"):
            Workspace(root).rows()
        with pytest.raises(InputError, match="splits: SFT-Train"):
            Workspace(root).rows("test")
        replace_rows(Files(root).scored("TEST"), [make_scored(1, split="TEST")])
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(MissingError, match="pip install pandas"):
            Workspace(root).rows().to_pandas()


@pytest.mark.parametrize("wrong", [None, 5, "", "  "])
def test_what_is_no_vibe_is_refused(root: Path, wrong: Any):
    with pytest.raises(InputError, match=r"a vibe (must be a text, not|is empty)"):
        Workspace(root).answer(wrong)


def test_settings_of_the_call_win_over_those_of_the_workspace(root: Path):
    work = Workspace(root, configs={"n": 3, "seed": 7}, llm={"max_qps": 2})
    settings = work.settings(1.5, configs={"n": 4})
    assert (settings.configs.n, settings.configs.seed) == (4, 7)
    assert (settings.llm.max_qps, settings.llm.max_cost) == (2, 1.5)
    assert settings.paths.root == root


def test_a_paid_model_is_asked_only_with_a_cap(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a key of the test")
    with ChatServer(lambda body: json.dumps(make_payload("Bought"))) as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        work = Workspace(root, configs={"model": "openai/gpt-4o-mini"}, scoring={"seconds": 1})
        with pytest.raises(InputError, match="costs money"):
            work.answer("rain", n=1)
        assert server.received == []
        assert work.answer("rain", n=1, max_cost=1.0).title == "Bought"
        assert len(server.received) == 1
