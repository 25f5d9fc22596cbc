"""Visits to the studio: on a phone, with the keyboard, back and forward, over a network, with a workspace from elsewhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_data import open_data, write_workspace
from test_page import engine, play, until_engine

from browsing import PHONE, TOO_SMALL, until
from factories import make_scored
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.workspace import Workspace
from studio_server import StudioProcess, open_studio, run_studio, visit

pytestmark = [pytest.mark.browser, pytest.mark.long]

READING = "document.querySelector('#data-view')?.classList.contains('reading')"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    root = tmp_path_factory.mktemp("visit") / "data"
    write_workspace(root, 300)
    with run_studio(root) as running:
        yield running


def key_of_focus(page: Any) -> str | None:
    return page.evaluate("document.activeElement.dataset.key ?? null")


def toast(page: Any) -> str:
    return page.evaluate("document.querySelector('#toast').textContent")


class TestPhone:
    def test_fingers_hit_every_control(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio, **PHONE) as page:
            assert page.evaluate(TOO_SMALL) == []
            play(page, "slow rain", "2")
            page.get_by_role("button", name="Keep").tap()
            page.wait_for_selector(".keptone")
            assert page.evaluate(TOO_SMALL) == []
            page.get_by_role("button", name="Take away").tap()
            assert page.evaluate(TOO_SMALL) == []
            page.keyboard.press("Escape")
            open_data(page)
            assert page.evaluate(TOO_SMALL) == []
            page.locator(".rowline").first.tap()
            page.wait_for_selector(".cand")
            assert page.evaluate(TOO_SMALL) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= 390

    def test_back_closes_a_row_and_then_the_view(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio, **PHONE) as page:
            open_data(page)
            page.evaluate("document.querySelector('.rows').scrollTop = 100 * 78")
            page.locator("#row-102").tap()
            until(page, f"{READING} && document.querySelector('.bigvibe')?.textContent === 'vibe number 102'")
            page.reload()
            until(page, f"{READING} && document.querySelector('.bigvibe')?.textContent === 'vibe number 102'")
            page.go_back()
            until(page, f"!{READING} && document.querySelector('#row-102.current') !== null")
            page.go_back()
            until(page, "!document.querySelector('#play-view').hidden")
            assert page.errors == []

    def test_the_text_of_a_link_is_not_cut_off_and_a_turned_phone_shows_it_whole(
        self, browser: Any, studio: StudioProcess
    ):
        cut = "(() => { const box = document.querySelector('#vibe'); return box.scrollHeight - box.clientHeight; })()"
        with open_studio(browser, studio, **PHONE) as page:
            play(page, "a white sky over white snow at noon, nothing else in sight", "1")
            other = page.context.new_page()
            visit(other, page.evaluate("location.href"))
            assert other.evaluate(cut) <= 1
            other.set_viewport_size({"width": 844, "height": 390})
            until(other, "document.querySelector('#vibe').clientHeight < 50")
            other.set_viewport_size({"width": 390, "height": 844})
            until(other, f"{cut} <= 1 && document.querySelector('#vibe').clientHeight > 50")

    def test_a_sound_that_the_lock_screen_stopped_is_not_shown_as_playing(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio, **PHONE) as page:
            page.evaluate("""() => {
              const Real = AudioContext;
              globalThis.AudioContext = class extends Real { constructor(...a) { super(...a); globalThis.sound = this; } };
            }""")
            play(page, "slow rain", "1")
            page.evaluate("async () => { await sound.suspend(); sound.resume = () => new Promise(() => {}); }")
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            until(page, "!document.documentElement.classList.contains('playing')")
            page.evaluate("delete sound.resume")
            before = engine(page, "e.position()")
            page.locator(".front .play").tap()
            until_engine(page, f"e.position() > {before} + 0.2")

    def test_long_pieces_do_not_fill_the_memory(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio, **PHONE) as page:
            asked: list[str] = []
            page.on("request", lambda request: request.url.endswith("/api/sound") and asked.append(request.post_data))
            page.select_option("#length", label="5 min")
            play(page, "slow rain", "2")
            page.locator(".pickone").nth(1).tap()
            until(page, "document.querySelectorAll('.candidate')[1].classList.contains('chosen')")
            until(page, "!document.querySelector('.loading')")
            page.locator(".pickone").nth(0).tap()
            until(page, "document.querySelectorAll('.candidate')[0].classList.contains('chosen')")
            until(page, "!document.querySelector('.loading')")
            assert len(asked) == 3, "the page kept two pieces of 5 minutes, which take 230 MB"


class TestKeyboard:
    def test_the_focus_stays_where_it_is_and_the_pair_too(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            open_data(page)
            page.wait_for_selector(".pairing")
            pair = page.locator(".pairing").inner_text()
            for number in (0, 1, 0):
                page.locator(".cand .play").nth(number).focus()
                page.keyboard.press("Enter")
                until(page, f"document.querySelectorAll('.cand')[{number}].classList.contains('chosen')")
                assert key_of_focus(page) == f"play {number}"
                assert (
                    page.locator(".cand .play").nth(number).get_attribute("aria-label")
                    == f"Pause candidate {number + 1}"
                )
            page.locator("#deck .play").click()
            until(page, "document.querySelector('.cand.chosen') === null")
            assert page.locator(".pairing").inner_text() == pair
            page.locator(".marking .good").focus()
            page.keyboard.press("Enter")
            until(page, "document.querySelector('.marking .good').getAttribute('aria-pressed') === 'true'")
            assert key_of_focus(page) == "good"
            page.keyboard.press("Enter")
            page.locator("summary").first.click()
            until(page, "document.querySelector('.marking .good').getAttribute('aria-pressed') === 'false'")
            assert page.locator("details").first.get_attribute("open") is not None

    def test_a_typed_score_and_note_are_only_typed(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            open_data(page)
            page.wait_for_selector(".cand")
            page.locator("[aria-label='Score at least']").focus()
            page.keyboard.type("1")
            page.wait_for_timeout(500)
            assert not page.evaluate("document.documentElement.classList.contains('playing')")
            page.fill("[aria-label='Score at least']", "")
            until(page, "/^321 rows/.test(document.querySelector('.count').textContent)")
            page.wait_for_selector(".cand")
            page.locator(".cand .play").first.click()
            page.wait_for_selector("html.playing")
            page.locator("#note").press_sequentially("too l")
            engine(page, "e.pause()")
            assert page.input_value("#note") == "too l"

    def test_the_skip_link_leaves_the_piece_in_the_address(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            play(page, "slow rain", "1")
            before = page.evaluate("location.hash")
            page.locator(".skip").focus()
            page.keyboard.press("Enter")
            assert page.evaluate("[document.activeElement.id, location.hash]") == ["vibe", before]


class TestPlace:
    def test_reload_tabs_and_back_keep_filters_and_row(self, browser: Any, studio: StudioProcess):
        here = "[...document.querySelectorAll('.filters select, .filters input')].map((box) => box.value)"

        def place(page: Any) -> Any:
            until(page, "document.querySelector('.rowline.current .vibeline')?.textContent === 'vibe number 259'")
            until(page, "document.querySelector('.bigvibe')?.textContent === 'vibe number 259'")
            return page.evaluate(here)

        with open_studio(browser, studio) as page:
            open_data(page)
            page.select_option("select[aria-label=Split]", "SFT-Train")
            until(page, "/^300 of/.test(document.querySelector('.count').textContent)")
            page.select_option("select[aria-label=Sort]", "score-")
            page.wait_for_timeout(300)
            page.evaluate("document.querySelector('.rows').scrollTop = 40 * 78")
            page.locator("#row-40").click()
            before = place(page)
            page.reload()
            assert place(page) == before
            page.get_by_role("button", name="Play", exact=True).first.click()
            page.get_by_role("button", name="Data", exact=True).click()
            assert place(page) == before
            page.go_back()
            until(page, "!document.querySelector('#play-view').hidden")
            page.go_back()
            assert place(page) == before
            assert page.errors == []

    def test_the_selected_row_stays_selected_while_a_stage_writes_rows(self, browser: Any, tmp_path: Path):
        workspace = Workspace(tmp_path)

        def write(*numbers: int) -> None:
            rows = [make_scored(i, row_id=f"row-{i}", vibe_original=f"vibe number {i}") for i in numbers]
            replace_rows(workspace.scored("SFT-Train"), rows)

        def wait_for(page: Any, count: int) -> list[str]:
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            until(page, f"document.querySelector('.count').textContent === '{count} rows'")
            return page.locator(".rowline.current .vibeline").all_inner_texts()

        write(*range(40))
        with run_studio(tmp_path) as studio, open_studio(browser, studio) as page:
            open_data(page)
            page.locator("#row-3").click()
            until(page, "document.querySelector('.bigvibe')?.textContent === 'vibe number 3'")
            write(100, 101, *range(40))
            assert wait_for(page, 42) == ["vibe number 3"]
            page.keyboard.press("g")
            until(page, "document.querySelector('.rowline.current .goodtext') !== null")
            assert page.locator(".rowline .goodtext").count() == 1
            write(0, 1)
            assert wait_for(page, 2) == []
            page.keyboard.press("k")
            until(page, "document.querySelector('.bigvibe').textContent === 'vibe number 0'")

    def test_rows_that_could_not_be_read_are_read_again_on_scrolling(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            open_data(page)
            page.route("**/api/rows", lambda route: route.abort())
            page.evaluate("""() => {
              globalThis.drawn = 0;
              const rows = document.querySelector(".rows");
              new MutationObserver(() => { drawn += 1; }).observe(rows, { attributes: true });
              rows.scrollTop = 200 * 78;
            }""")
            until(page, "document.querySelector('#toast').textContent.includes('does not respond')")
            page.wait_for_timeout(500)
            assert page.evaluate("drawn") < 5
            page.unroute("**/api/rows")
            page.evaluate("document.querySelector('.rows').scrollTop += 1")
            page.wait_for_selector("#row-200")

    def test_a_row_that_is_still_being_read_is_selected_when_it_is_there(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            open_data(page)
            page.evaluate("""() => {
              const real = fetch;
              globalThis.held = new Promise((done) => { globalThis.release = done; });
              globalThis.fetch = async (path, ...more) => { if (path === "/api/rows") await held; return real(path, ...more); };
              document.querySelector(".rows").scrollTop = 52 * 78;
            }""")
            page.locator("#row-59").click()
            until(page, "document.querySelector('.bigvibe')?.textContent === 'vibe number 59'")
            page.keyboard.press("j")
            page.evaluate("release()")
            until(page, "document.querySelector('#row-60.current') !== null")
            until(page, "document.querySelector('.bigvibe').textContent === 'vibe number 60'")

    def test_a_restarted_server_is_named_and_a_new_token_is_taken_over(self, browser: Any, tmp_path: Path):
        with run_studio(tmp_path) as first, open_studio(browser, first) as page:
            port = first.base.rpartition(":")[2]
            first.process.terminate()
            first.process.wait(30)
            play_button = page.locator("#ask")
            page.fill("#vibe", "slow rain")
            play_button.click()
            until(page, "document.querySelector('#toast').textContent.includes('does not respond')")
            with run_studio(tmp_path, "--port", port) as second:
                play_button.click()
                until(page, "document.querySelector('#toast').textContent.includes('token')")
                assert toast(page) == (
                    "The token is missing or of an earlier start. Open the address that lsdata studio printed."
                )
                visit(page.context.new_page(), second.page)
                play_button.click()
                until(page, "document.querySelectorAll('.candidate').length === 4")


class TestDialog:
    def test_its_messages_are_in_it_and_a_link_is_copied_without_a_clipboard(self, browser: Any, studio: StudioProcess):
        with open_studio(browser, studio) as page:
            # Browsers give navigator.clipboard to no page of another machine without HTTPS.
            page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
            play(page, "slow rain", "1")
            page.get_by_role("button", name="Take away").click()
            page.get_by_role("button", name="Copy link").click()
            until(page, "document.querySelector('dialog [role=status]').textContent === 'The link is copied.'")
            assert toast(page) == ""
            page.keyboard.press("Escape")
            page.fill("#vibe", "")
            page.locator("#vibe").focus()
            page.keyboard.press("Control+v")
            assert page.input_value("#vibe") == page.evaluate("location.href")
            assert page.errors == []


def test_an_opened_report_of_another_workspace_reaches_no_other_host(browser: Any, tmp_path: Path):
    hits: list[str] = []

    class Beacon(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    other = ThreadingHTTPServer(("127.0.0.1", 0), Beacon)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    host = json.dumps(f"http://127.0.0.1:{other.server_port}")
    folder = tmp_path / ".benchmarks" / "from elsewhere"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(
        f"""<title>report</title><script>
        new Image().src = {host} + "/image";
        fetch({host} + "/fetch", {{ mode: "no-cors" }}).catch(() => {{}});
        navigator.sendBeacon({host} + "/beacon", "x");
        setTimeout(() => {{ document.title = "scripts run"; }}, 1000);
        </script>"""
    )
    with run_studio(tmp_path) as studio, open_studio(browser, studio) as page:
        page.get_by_role("button", name="Data", exact=True).click()
        with page.context.expect_page() as opened:
            page.get_by_role("button", name="Open").click()
        opened.value.wait_for_url("**/open/**")
        until(opened.value, "document.title === 'scripts run'")
    other.shutdown()
    other.server_close()
    assert hits == []
