"""``lsdata studio --bundle``: a folder that plays from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_data import write_workspace

from browsing import open_page, until
from conftest import Lsdata, here
from factories import make_scored, make_vibe
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.settings import PathsSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.studio.bundle import _winners


@pytest.mark.long
def test_rows_become_a_page_that_needs_no_server(root: Path, tmp_path: Path, lsdata: Lsdata):
    write_workspace(root, 3)
    words = ["studio", "--bundle", str(tmp_path / "site"), "--root", str(root), "--limit", "2", "--split", "TEST"]
    out = lsdata(*words)
    assert out.returncode == 0, out.stderr
    assert len(list((tmp_path / "site" / "audio").glob("*.mp3"))) == 2
    assert lsdata(*words).returncode == 6, "an earlier bundle is replaced only when asked"
    assert lsdata(*words, "--overwrite").returncode == 0
    assert lsdata("studio", "--bundle", str(tmp_path / "x"), "--root", str(tmp_path / "no")).returncode == 3


def test_a_limit_takes_rows_of_different_texts(root: Path):
    rows = [make_scored(n, row_id=make_vibe(n, level).row_id) for n in (1, 2) for level in ("xl", "m", "xs")]
    replace_rows(Workspace(root).scored("TEST"), rows)
    shown = _winners(Settings(paths=PathsSettings(root=root)), ["TEST"], 2)
    assert [row.row_id for row in shown] == [rows[0].row_id, rows[3].row_id]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--vibe", "rain"], "--vibe needs --bundle"),
        (["--split", "TEST"], "--split needs --bundle"),
        (["--limit", "3"], "--limit needs --bundle"),
        (["--overwrite"], "--overwrite needs --bundle"),
        (["--bundle", "site", "--vibe", "rain", "--limit", "3"], "--split and --limit have no effect"),
        (["--bundle", "site", "--model", "openai/gpt-4o-mini"], "--model has no effect"),
    ],
)
def test_an_option_without_effect_is_refused(options: list[str], said: str):
    out = here("studio", *options, code=2)
    assert said in out.stderr
    assert not Path("site").exists()


@pytest.mark.browser
@pytest.mark.long
def test_one_piece_plays_from_a_file(tmp_path: Path, lsdata: Lsdata):
    site = tmp_path / "site"
    out = lsdata("studio", "--bundle", str(site), "--vibe", "<b>rain</b> at night", "--root", str(tmp_path / "data"))
    assert out.returncode == 0, out.stderr
    with open_page(site / "index.html") as page:
        assert page.locator(".vibetext").inner_text() == "<b>rain</b> at night"
        page.locator(".player .play").first.click()
        until(page, "!audio.paused && audio.currentTime > 0.05")
        assert page.errors == []
