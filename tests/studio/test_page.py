"""The studio's page in Chromium: type, hear, compare, change, undo, link, take away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import until
from studio_server import StudioProcess, open_studio, run_studio, visit

pytestmark = [pytest.mark.browser, pytest.mark.long]

# Modules cannot be reached from outside, but a second import gives the same ones.
ENGINE = "(async () => { const e = await import('/static/engine.js'); return %s; })()"


def engine(page: Any, expression: str) -> Any:
    """The value of an expression over ``e``, the page's own player."""
    return page.evaluate(ENGINE % expression)


def until_engine(page: Any, expression: str) -> None:
    """Wait for an expression over ``e`` to hold."""
    for _ in range(600):
        if engine(page, expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never became true: {expression}")


def until_sounding(page: Any) -> None:
    """Wait until the clock of the sound runs and its samples are not silence."""
    page.wait_for_selector("html.playing")
    until_engine(page, "e.position() > 0.2 && e.hear().level > 0.01")


def play(page: Any, vibe: str, count: str = "4") -> None:
    page.select_option("#count", count)
    page.fill("#vibe", vibe)
    page.press("#vibe", "Enter")
    until(page, f"document.querySelectorAll('.candidate').length === {count}")
    until_sounding(page)


@pytest.fixture(scope="module")
def studio() -> Iterator[StudioProcess]:
    with tempfile.TemporaryDirectory() as folder, run_studio(Path(folder) / "data") as running:
        yield running


@pytest.fixture(scope="module")
def page(browser: Any, studio: StudioProcess) -> Iterator[Any]:
    with open_studio(browser, studio) as page:
        yield page
        assert page.errors == []


def test_a_typed_vibe_sounds_with_its_candidates_beside_it(page: Any):
    play(page, "slow rain on a tin roof")
    assert page.locator(".candidate").count() == 4
    first, last = (float(page.locator(".points").nth(i).inner_text()) for i in (0, 3))
    assert first >= last
    until_engine(page, f"e.position() > {engine(page, 'e.position()')}")


def test_another_candidate_takes_over_at_the_same_second(page: Any):
    until_engine(page, "e.position() > 1.5")
    before = engine(page, "e.position()")
    page.keyboard.press("Escape")
    page.locator(".pickone").nth(1).click()
    until(page, "document.querySelectorAll('.candidate')[1].classList.contains('chosen')")
    until_sounding(page)
    assert engine(page, "e.position()") >= before
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("x")
    until(page, "document.querySelectorAll('.candidate')[0].classList.contains('chosen')")


def test_a_changed_field_sounds_without_a_gap_and_can_be_undone(page: Any):
    before = page.evaluate("location.hash")
    page.locator("#field-brightness").focus()
    page.keyboard.press("End")
    assert page.locator("#field-brightness").get_attribute("aria-valuetext") == "very bright"
    assert page.evaluate("location.hash") != before
    silent = 0
    for _ in range(30):
        silent += not engine(page, "e.player.playing && e.hear().level > 0.001")
        page.wait_for_timeout(60)
    assert silent == 0
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Control+z")
    until(page, f"location.hash === {before!r}")


def test_a_change_is_heard_from_an_excerpt_until_the_whole_piece_is_rendered(page: Any):
    engine(page, "e.seek(8)")
    asked: list[dict[str, Any]] = []
    page.on("request", lambda request: request.url.endswith("/api/sound") and asked.append(request.post_data_json))
    page.locator("#field-motion").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    for _ in range(600):
        page.wait_for_timeout(50)
        if asked and "length" not in asked[-1] and not page.evaluate("document.querySelector('.loading') !== null"):
            break
    assert asked[0]["length"] >= 10
    assert asked[0]["begin"] >= 8
    assert "length" not in asked[-1]
    assert {asked[0]["seconds"], asked[-1]["seconds"]} == {60}
    engine(page, "e.seek(40)")
    page.wait_for_timeout(700)
    until_sounding(page)
    assert engine(page, "e.position()") > 40, "the whole piece is there, not only its excerpt"
    page.evaluate("document.activeElement.blur()")


def test_the_address_is_the_piece_in_a_second_tab(page: Any, studio: StudioProcess):
    title = page.locator(".title").inner_text()
    brightness = page.locator("#field-brightness").get_attribute("aria-valuetext")
    tab = page.context.new_page()
    visit(tab, page.evaluate("location.href"))
    assert tab.locator(".title").inner_text() == title
    assert tab.locator("#field-brightness").get_attribute("aria-valuetext") == brightness
    tab.locator(".front .play").click()
    until_sounding(tab)
    assert tab.errors == []
    tab.close()


def test_locked_fields_survive_a_shuffle(page: Any):
    page.locator(".field", has=page.locator("#field-tempo")).locator(".lock").click()
    page.get_by_role("button", name="Shuffle").click()
    tempo = page.locator("#field-tempo").get_attribute("aria-valuetext")
    for _ in range(3):
        page.get_by_role("button", name="Shuffle").click()
        assert page.locator("#field-tempo").get_attribute("aria-valuetext") == tempo
    page.get_by_role("button", name="Unlock all").click()


def test_more_like_this_keeps_the_key(page: Any):
    key = page.input_value("#field-root"), page.input_value("#field-mode")
    page.get_by_role("button", name="More like this").click()
    until(page, "!document.querySelector('.busy')")
    until_sounding(page)
    assert (page.input_value("#field-root"), page.input_value("#field-mode")) == key


def test_the_piece_can_be_taken_away(page: Any):
    page.get_by_role("button", name="Take away").click()
    for name, ending in (("MIDI", ".mid"), ("Payload", ".json"), ("FLAC", ".flac")):
        with page.expect_download() as download:
            page.locator("dialog .file", has_text=name).first.click()
        assert download.value.suggested_filename.endswith(ending)
        assert Path(download.value.path()).stat().st_size > 100
    page.keyboard.press("Escape")


def test_the_sound_keeps_playing_in_a_loop_and_can_be_paused(page: Any):
    page.evaluate("document.activeElement.blur()")
    engine(page, "e.seek(e.duration() - 0.6)")
    until_engine(page, "e.position() > e.duration() - 0.6")
    until_engine(page, "e.position() > 0 && e.position() < e.duration() - 1")
    until_sounding(page)
    page.keyboard.press(" ")
    until(page, "!document.documentElement.classList.contains('playing')")
    page.keyboard.press(" ")
    until_sounding(page)


def test_an_endless_piece_flows_changes_and_pauses(page: Any):
    page.select_option("#length", label="Endless")
    until_sounding(page)
    assert engine(page, "e.duration()") == float("inf")
    page.locator("#field-echo").focus()
    page.keyboard.press("Home")
    silent = 0
    for _ in range(40):
        silent += engine(page, "e.hear().level") < 0.0005
        page.wait_for_timeout(80)
    assert silent == 0
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    until(page, "!document.documentElement.classList.contains('playing')")
    page.keyboard.press(" ")
    until_sounding(page)
    page.select_option("#length", label="1 min")
    until_sounding(page)
    assert engine(page, "e.duration()") < 70


@pytest.mark.parametrize("width", [360, 390, 768, 1600])
def test_no_width_scrolls_sideways(browser: Any, studio: StudioProcess, width: int):
    with open_studio(browser, studio, viewport={"width": width, "height": 800}, color_scheme="dark") as narrow:
        assert narrow.evaluate("document.documentElement.scrollWidth") <= width
        play(narrow, "a" * 300 + " rain", "2")
        assert narrow.evaluate("document.documentElement.scrollWidth") <= width
        assert narrow.errors == []


def test_without_the_token_the_page_says_what_to_do(browser: Any, studio: StudioProcess):
    with open_studio(browser, studio) as page:
        page.evaluate("localStorage.clear()")
        page.reload()
        page.wait_for_selector("html[data-ready=refused]")
        assert "lsdata studio" in page.locator("main").inner_text()


def test_better_plays_each_new_best_and_can_be_cancelled(page: Any):
    play(page, "neon arcade, two minutes to midnight", "1")
    before = page.evaluate("location.hash")
    points = float(page.locator(".points").first.inner_text())
    page.locator("#better").click()
    until(page, f"location.hash !== {before!r}")
    until_sounding(page)
    assert float(page.locator(".facts li").last.inner_text().split()[-1]) > points
    assert page.locator("progress").is_visible()
    assert page.locator("#better").inner_text() == "Cancel"
    page.locator("#better").click()
    assert page.locator("progress").is_hidden()
    stopped = page.evaluate("location.hash")
    page.wait_for_timeout(1500)
    assert page.evaluate("location.hash") == stopped, "a cancelled search changes nothing any more"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Control+z")
    until(page, f"location.hash !== {stopped!r}")
