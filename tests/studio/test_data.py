"""The studio's view of a workspace: many rows, hostile rows, marks, and what an export leaves out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from browsing import until
from conftest import here
from factories import make_payload, make_scored, make_vibe
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import read_lines, replace_json, replace_rows
from latentscore_data.core.base.marks import Mark, add_mark, bad_rows, marks_file, read_marks
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.studio import rows as studio_rows
from latentscore_data.studio.places import Places
from latentscore_data.studio.playlists import Playlists
from latentscore_data.studio.rows import PAGE, Rows, Wanted
from studio_server import StudioProcess, open_studio, run_studio

HOSTILE = [
    "<script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "</textarea><b>bold</b>",
    "javascript:window.hacked=1", "'\"><svg onload=window.hacked=1>", "{{constructor.constructor('hacked=1')()}}",
    "\u202eevil\u202c", "a\u0000b", "\u2028\u2029", "&lt;script&gt;", "${window.hacked=1}", "`;window.hacked=1;`",
    "x" * 3000, "\U0001f600" * 50, "../../etc/passwd", "%2e%2e%2f", "\ud7ff\ufffd", "<!--", "]]>", "\t\r\n  spaces",
]  # fmt: skip


def write_workspace(root: Path, count: int) -> Workspace:
    """``count`` rows in two splits, a vibe without candidates, and twenty hostile rows at the front of TEST."""
    workspace = Workspace(root)
    nasty = [
        make_scored(i, row_id=f"nasty-{i}", split="TEST", vibe_original=text, tags_original=[text],
                    config_payload=make_payload(title=(text.strip() or "x").split()[0][:60] or "x"),
                    config_candidates=[make_payload(thinking=text), make_payload()], config_error=text)
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip
    rows = [
        make_scored(
            i, row_id=f"row-{i}", vibe_original=f"vibe number {i}", candidate_scores={"acoustic": [i / count, 0]}
        )
        for i in range(count)
    ]
    replace_rows(workspace.scored("SFT-Train"), rows)
    replace_rows(workspace.scored("TEST"), nasty)
    replace_rows(workspace.vibes("TEST"), [make_vibe(9, vibe="still waiting", row_id="waiting", split="TEST")])
    return workspace


def rows_of(workspace: Workspace) -> Rows:
    return Rows(workspace, Settings())


class TestRows:
    def test_a_page_at_a_time_filtered_searched_and_sorted(self, root: Path):
        rows = rows_of(write_workspace(root, 200))
        first = rows.page(Wanted(split="SFT-Train", sort="score", descending=True), 0)
        assert (first["total"], first["all"], len(first["rows"])) == (200, 221, PAGE)
        assert first["rows"][0]["id"] == "row-199"
        second = rows.page(Wanted(split="SFT-Train", sort="score", descending=True), PAGE)
        assert second["rows"][0]["id"] == f"row-{199 - PAGE}"
        assert [row["id"] for row in rows.page(Wanted(search="NUMBER 77"), 0)["rows"]] == ["row-77"]
        assert [row["id"] for row in rows.page(Wanted(state="waiting"), 0)["rows"]] == ["waiting"]
        assert rows.page(Wanted(field="root", label="c", least=0.9), 0)["total"] == 20
        assert rows.page(Wanted(field="root", label="d"), 0)["total"] == 0

    def test_a_file_that_changes_is_read_again(self, root: Path):
        workspace = write_workspace(root, 3)
        rows = rows_of(workspace)
        assert rows.page(Wanted(split="SFT-Train"), 0)["total"] == 3
        replace_rows(workspace.scored("SFT-Train"), [make_scored(1, row_id="only")])
        assert [row["id"] for row in rows.page(Wanted(split="SFT-Train"), 0)["rows"]] == ["only"]

    def test_a_failure_of_a_running_stage_is_seen_without_reading_the_rows_again(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ):
        workspace = write_workspace(root, 3)
        rows = rows_of(workspace)
        before = rows.page(Wanted(state="waiting"), 0)
        assert before["total"] == 1
        read: list[Path] = []
        lines = studio_rows._lines
        monkeypatch.setattr(studio_rows, "_lines", lambda path, split: read.append(path) or lines(path, split))
        failures = workspace.failures("configs")
        failures.parent.mkdir(parents=True, exist_ok=True)
        failures.write_text(json.dumps({"row_id": "waiting", "kind": "timeout", "message": "no answer"}) + "\n")
        after = rows.page(Wanted(state="failed", split="TEST"), 0)
        assert [row["failure"] for row in after["rows"]] == ["timeout: no answer"]
        assert read == []
        assert after["version"] != before["version"]
        failures.unlink()
        assert rows.page(Wanted(state="waiting"), 0)["total"] == 1
        replace_rows(workspace.vibes("TEST"), [make_vibe(9, vibe="another", row_id="another", split="TEST")])
        assert [row["id"] for row in rows.page(Wanted(state="waiting"), 0)["rows"]] == ["another"]
        assert read == [workspace.vibes("TEST")]

    def test_a_row_in_full_holds_the_question_and_all_candidates(self, root: Path):
        found = rows_of(write_workspace(root, 3)).row("row-1")
        assert "vibe number 1" in json.dumps(found["prompt"])
        assert [one["score"] for one in found["candidates"]] == [pytest.approx(1 / 3), 0]
        assert found["best"] == 0
        with pytest.raises(InputError, match="no row"):
            rows_of(Workspace(root)).row("../../etc/passwd")

    def test_a_damaged_line_costs_that_line(self, root: Path):
        workspace = write_workspace(root, 3)
        with workspace.scored("SFT-Train").open("ab") as file:
            file.write(b"{not json\n[1]\n")
        assert rows_of(workspace).page(Wanted(split="SFT-Train"), 0)["total"] == 3


class TestMarks:
    def test_the_newest_mark_counts_and_the_file_only_grows(self, root: Path):
        rows = rows_of(write_workspace(root, 3))
        rows.mark("row-1", Mark("bad", "too loud"))
        rows.mark("row-2", Mark("good"))
        rows.mark("row-2", Mark("none"))
        rows.prefer("row-0", 1, 0, tied=False)
        assert read_marks(root) == {"row-1": Mark("bad", "too loud")}
        assert [row["id"] for row in rows.page(Wanted(verdict="bad"), 0)["rows"]] == ["row-1"]
        lines = [line for _, line in read_lines(marks_file(root))]
        assert [line["kind"] for line in lines] == ["mark", "mark", "mark", "pair"]
        assert lines[-1]["better"]["title"] == "Another Name"
        with pytest.raises(InputError):
            rows.mark("no such row", Mark("bad"))
        with pytest.raises(InputError):
            rows.prefer("row-0", 1, 1, tied=False)

    def test_an_exported_data_set_can_leave_bad_rows_out(self, root: Path):
        workspace = write_workspace(root, 4)
        workspace.scored("TEST").unlink()
        workspace.vibes("TEST").unlink()
        add_mark(root, "row-1", Mark("bad"))
        assert bad_rows(root) == {"row-1"}
        for flag, count in ((None, 4), ("--leave-out-bad", 3)):
            words = ["export", "dataset", "--license", "cc0-1.0", "--overwrite", "--root", str(root)]
            here(*words, *([flag] if flag else []), code=0)
            rows = list(read_lines(next((root / ".exports").glob("*/jsonl/train.jsonl"))))
            assert len(rows) == count


class TestPlaces:
    def test_rounds_are_a_table_and_a_damaged_one_is_named(self, root: Path):
        line = {"model": "start", "clap": 0.2, "acoustic": 0.3, "entropy": 0.6, "answered": 1.0, "learned": 0}
        better = {
            **line,
            "model": "r-1",
            "clap": 0.25,
            "against_round_0": 0.05,
            "low": 0.01,
            "high": 0.09,
            "learned": 40,
        }
        rounds = [{"round": 0, **line}, {"round": 1, **better}]
        table = {
            "judge": "clap",
            "guide": "acoustic",
            "best": "r-1",
            "stopped": "all rounds are made",
            "rounds": rounds,
        }
        replace_json(root / ".improve" / "first" / "rounds.json", table)
        replace_json(root / ".improve" / "second" / "rounds.json", {"judge": "clap"})
        first, second = Places(Workspace(root)).listed()["rounds"]
        assert (first["id"], first["best"], first["judge"]) == ("first", "r-1", "clap")
        assert [(one["judge"], one["guide"], one["low"]) for one in first["rounds"]] == [
            (0.2, 0.3, None),
            (0.25, 0.3, 0.01),
        ]
        assert second["status"].startswith("damaged")

    def test_only_runs_with_new_steps_are_read_again(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        runs = [RunFolder(Workspace(root).train_dir / name) for name in ("done", "running")]
        for run in runs:
            replace_json(run.record_file, {"kind": "sft", "status": "running"})
            replace_json(run.spec_file, {})
            replace_rows(run.metrics, [{"step": 1, "loss": 2.0}])
        read: list[str] = []
        history = RunFolder.history
        monkeypatch.setattr(RunFolder, "history", lambda run: read.append(run.run_id) or history(run))
        places = Places(Workspace(root))
        assert len(places.listed()["runs"]) == 2
        with runs[1].metrics.open("a") as file:
            file.write('{"step": 2, "loss": 1.0}\n')
        listed = {run["id"]: run["curves"] for run in places.listed()["runs"]}
        assert listed == {"done": {"loss": [[1, 2.0]]}, "running": {"loss": [[1, 2.0], [2, 1.0]]}}
        assert sorted(read) == ["done", "running", "running"]

    def test_only_listed_files_of_an_opened_report_are_served(self, root: Path):
        workspace = Workspace(root)
        folder = workspace.bench_dir / "first"
        (folder / "audio").mkdir(parents=True)
        (folder / "report.html").write_text("<p>report</p>")
        (folder / "audio" / "a.mp3").write_bytes(b"ID3")
        (workspace.root / "secret").write_text("not for the page")
        (folder / "audio" / "secret.html").symlink_to(workspace.root / "secret")
        (folder / "rows.jsonl").write_text("{}")
        replace_json(folder / "summary.json", {"headline": "s", "title": "t", "sources": []})
        places = Places(workspace)
        assert [page["id"] for page in places.listed()["pages"]] == ["benchmark/first"]
        _, key, name = places.open("benchmark/first").lstrip("/").split("/")
        assert places.file(key, name) == folder / "report.html"
        assert places.file(key, "audio/a.mp3") is not None
        assert places.file(key, "audio/secret.html") is None, "a link out of the report"
        for other in ("rows.jsonl", "../first/report.html", "/etc/passwd", "audio/../report.html", ""):
            assert places.file(key, other) is None
        assert places.file("x", name) is None
        with pytest.raises(InputError):
            places.open("benchmark/../../etc")


def test_playlists_are_files_whose_names_no_text_decides(root: Path):
    playlists = Playlists(root)
    piece = {**make_payload(), "vibe": "rain", "seed": 1, "seconds": 60}
    playlists.save("../../evil", [piece])
    playlists.save("evening", [piece, piece])
    assert {one["name"]: one["pieces"] for one in playlists.names()} == {"../../evil": 1, "evening": 2}
    assert playlists.load("evening")["pieces"][1] == piece
    assert all(path.parent == root / ".playlists" for path in root.rglob("*.json"))
    playlists.delete("evening")
    with pytest.raises(InputError, match="no playlist"):
        playlists.load("evening")
    with pytest.raises(InputError):
        playlists.save("x", [{"config": {}}])


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    root = tmp_path_factory.mktemp("studio") / "data"
    write_workspace(root, 2000)
    add_mark(root, "row-3", Mark("good"))
    with run_studio(root) as running:
        yield running


@pytest.mark.long
def test_look_up_answers_with_the_nearest_rows(tmp_path: Path):
    rows = [
        make_scored(i, row_id=f"row-{i}", vibe_original=vibe, config_payload=make_payload(title, tempo=tempo))
        for i, (vibe, title, tempo) in enumerate(
            [
                ("slow rain at night", "Rain", "slow"),
                ("a fast neon arcade", "Neon", "very_fast"),
                ("desert", "Sand", "medium"),
            ]
        )
    ]
    replace_rows(Workspace(tmp_path).scored("SFT-Train"), rows)
    with run_studio(tmp_path, "--model", "openai/gpt-4o-mini") as studio:
        menu = {one["id"]: one for one in studio.json("/api/setup")["models"]}
        assert menu["lookup"]
        found = studio.json("/api/answer", {"vibe": "rain in the night", "model": "lookup", "n": 1})["candidates"]
        assert [one["payload"]["title"] for one in found] == ["Rain"]
        paid = "hosted:openai/gpt-4o-mini"
        assert menu[paid]["paid"]
        plan = studio.json("/api/price", {"vibe": "rain", "model": paid, "n": 2})
        assert 0 < plan["cost_usd"] < plan["worst_usd"]
        status, body, _ = studio.ask("/api/answer", {"vibe": "rain", "model": paid, "n": 2})
        assert status == 400
        assert b"no cap was agreed to" in body


def test_a_scorer_that_costs_money_is_refused(root: Path):
    out = here(
        "studio", "--scorer", "judge:openai/gpt-4o-audio-preview", "--root", str(root), "--no-open", "--port", "0"
    )
    assert out.returncode in (2, 3)
    assert "costs money" in out.stderr


def open_data(page: Any) -> None:
    page.get_by_role("button", name="Data", exact=True).click()
    page.wait_for_selector(".rowline")


AXE = resources.files("axe_playwright_python") / "axe.min.js"


def faults(page: Any) -> list[str]:
    """What axe-core calls serious or critical."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0].get('failureSummary')}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.browser
@pytest.mark.long
class TestInChromium:
    def test_rows_scroll_filter_and_are_marked_by_keys(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            open_data(page)
            page.evaluate("document.querySelector('.rows').scrollTop = 1500 * 78")
            until(page, "document.querySelector('#row-1500') !== null")
            assert page.locator(".rowline").count() < 40
            page.fill("[type=search]", "vibe number 3")
            until(page, "/^111 of/.test(document.querySelector('.count').textContent)")
            page.evaluate("document.activeElement.blur()")
            page.keyboard.press("j")
            until(page, "document.querySelector('#row-1').classList.contains('current')")
            until(page, "document.querySelector('.bigvibe').textContent === 'vibe number 30'")
            page.keyboard.press("b")
            until(page, "document.querySelector('#row-1 .badtext')?.textContent === 'bad'")
            page.keyboard.press("2")
            page.wait_for_selector("html.playing")
            page.locator(".pairing .button").first.click()
            until(page, "document.querySelector('#toast').textContent.startsWith('Noted')")
            until(page, "document.querySelectorAll('.peoplesay').length === 2")
            until(page, "document.querySelectorAll('.strengths li').length === 2")
            page.locator(".pairing .button", has_text="No difference").click()
            until(page, "document.querySelector('#toast').textContent.startsWith('Noted: no difference')")
            until(page, "document.querySelector('.people').textContent.includes('without a difference')")
            page.select_option("select[aria-label=Mark]", "bad")
            until(page, "/^1 of/.test(document.querySelector('.count').textContent)")
            assert page.errors == []

    def test_twenty_hostile_rows_stay_text(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            open_data(page)
            page.select_option("select[aria-label=Split]", "TEST")
            until(page, "/^21 of/.test(document.querySelector('.count').textContent)")
            for i, text in enumerate(HOSTILE):
                page.evaluate(f"document.querySelector('#row-{i}')?.click()")
                until(page, f"document.querySelector('.bigvibe')?.textContent === {json.dumps(text)}")
                # The next row comes into view with the one before it.
                page.evaluate(f"document.querySelector('.rows').scrollTop = {78 * max(i - 1, 0)}")
                until(page, f"document.querySelector('#row-{i + 1}') !== null")
            assert page.locator("main img, main script").count() == 0
            page.locator(".cand .play").first.click()
            page.wait_for_selector("html.playing")
            page.get_by_role("button", name="Play", exact=True).first.click()
            for text in HOSTILE[:6]:
                page.fill("#vibe", text)
                page.press("#vibe", "Enter")
                until(page, "!document.querySelector('.busy')")
            assert page.evaluate("window.hacked") is None
            assert page.errors == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing_serious(self, browser: Any, studio: StudioProcess, scheme: str):
        with open_studio(browser, studio, color_scheme=scheme, reduced_motion="reduce") as page:
            assert faults(page) == []
            page.fill("#vibe", "a warm evening in the harbour")
            page.press("#vibe", "Enter")
            page.wait_for_selector("html.playing")
            page.keyboard.press("Escape")
            until(page, "!document.querySelector('.busy') && document.querySelectorAll('.candidate').length === 4")
            page.get_by_role("button", name="Keep").click()
            page.wait_for_selector(".keptone")
            page.wait_for_timeout(600)
            assert faults(page) == []
            page.get_by_role("button", name="Take away").click()
            assert faults(page) == []
            page.keyboard.press("Escape")
            open_data(page)
            page.wait_for_selector(".cand")
            assert faults(page) == []
