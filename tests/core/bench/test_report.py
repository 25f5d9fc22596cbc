"""The page: small, self-contained, escaped, and (in Chromium) playable, sortable, searchable and readable."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench_fakes import make_result, make_rows, noise
from browsing import PHONE, TOO_SMALL, open_page, until
from factories import make_payload
from latentscore.labels import FIELDS
from latentscore_data.core.base.rows import BenchRow
from latentscore_data.core.bench.report import in_short, json_for_html, pack_config, pack_palette, render_report
from latentscore_data.core.bench.summary import RunFacts, SourceFacts, summarise

NASTY = """</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">"'&\u2028"""

FACTS = RunFacts(
    name="r",
    title="TEST rows",
    created="2026-01-01T00:00+00:00",
    sources=[
        SourceFacts("data", "dataset", "config_payload", ("bright",), NASTY),
        SourceFacts("chance", "baseline", "random"),
    ],
    scorers=["bright"],
    baseline="chance",
    seconds=5.0,
    seed=0,
    fingerprints={"renderer": "1"},
    resamples=500,
)


def write_page(folder: Path, documents: int = 12, per_document: int = 5) -> tuple[Path, list[BenchRow]]:
    """A page of two sources with real MP3 files; the first vibe and its title are hostile."""
    import numpy as np

    from latentscore import Audio
    from latentscore_data.core.scoring.clips import waveform, write_mp3

    tone = (np.sin(np.arange(96_000) / 30) * np.linspace(0.1, 0.9, 96_000)).astype(np.float32)
    sound = Audio(np.stack([tone, tone], axis=1), 48_000)
    rows: list[BenchRow] = []
    for source, lift in (("data", 0.3), ("chance", 0.0)):
        write_mp3(folder / "audio" / f"{source}.mp3", sound)
        for i, row in enumerate(make_rows(documents, per_document)):
            title = NASTY[:60] if i == 0 else "Piece " + "abcdefghij"[i % 10]
            changes: dict[str, Any] = {"config_payload": make_payload(title, tempo="slow" if lift else "fast")}
            if i == 0:
                changes["vibe_original"] = NASTY
            score = None if i == 3 and not lift else round(lift + noise(row.row_id, source), 4)
            if score is None:
                changes = {"failure": NASTY}
            else:
                changes |= {"audio_file": f"audio/{source}.mp3", "peaks": waveform(sound)}
            rows.append(make_result(row, source, score, **changes))
    return render_report(summarise(rows, FACTS), rows, folder / "audio", folder / "report.html"), rows


def write_acoustic_page(folder: Path) -> Path:
    """A page that acoustic judges: a source that reads words, and vibes of which it knows some."""
    facts = replace(
        FACTS,
        scorers=["acoustic", "bright"],
        baseline="data",
        sources=[SourceFacts("words", "baseline", "keywords", (), "reads words"), SourceFacts("data", "dataset", "x")],
    )
    vibes = ("a bright morning", "bright <b>cellar</b>", "xyzzy plugh")
    rows = [
        make_result(row, source, 0.5, vibe_original=vibe, scores={n: {"final_score": 0.5} for n in facts.scorers})
        for source in ("words", "data")
        for row, vibe in zip(make_rows(3, 1), vibes, strict=True)
    ]
    return render_report(summarise(rows, facts), rows, folder / "audio", folder / "report.html")


def page_data(page: Path) -> dict[str, Any]:
    """The data inside the page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


class Tags(HTMLParser):
    """Counts elements and what could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_hostile_text_stays_text_and_nothing_is_fetched(tmp_path: Path):
    page, _ = write_page(tmp_path)
    text = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.tags.count("script") == 2
    assert "img" not in tags.tags
    assert set(tags.addresses) <= {"data:,", "#listen"}
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/2000/svg", "", text)
    data = page_data(page)
    assert data["rows"][0]["v"] == NASTY
    assert data["rows"][0]["x"][0]["t"] == NASTY[:60]


def test_where_acoustic_judges_the_page_says_who_reads_words_alike(tmp_path: Path):
    assert "with the same axes" in write_acoustic_page(tmp_path).read_text("utf-8")
    assert "with the same axes" not in write_page(tmp_path)[0].read_text("utf-8")


def test_json_cannot_close_its_script():
    text = json_for_html({"a": "</script><!--\u2028\u2029&"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028\u2029&"}


def test_configs_and_palettes_are_packed_without_loss():
    payload = make_payload(tempo="very_fast", depth=True, density=6)
    packed = pack_config(payload["config"])
    assert {name: spec.labels[int(packed[i], 36)] for i, (name, spec) in enumerate(FIELDS.items())} == payload["config"]
    assert pack_palette(payload["palettes"][0]).startswith("1B2A415324A5F4")


def test_the_sentence_is_no_stronger_than_the_numbers(tmp_path: Path):
    _, rows = write_page(tmp_path)
    clear = in_short(summarise(rows, FACTS))
    assert "“data” has the highest mean" in clear
    assert "selected by bright itself" in clear
    assert "p < 0.001" in clear or "p = 0.0" in clear
    few = in_short(summarise([row for row in rows if row.id_in_dataset <= "chapter-004"], FACTS))
    assert "the order is not reliable" in few
    same = [make_result(row, s, 0.5 + noise(row.row_id, s)) for s in ("data", "chance") for row in make_rows(12, 1)]
    assert "chance could explain" in in_short(summarise(same, FACTS)) or "no source has a higher mean" in in_short(
        summarise(same, FACTS)
    )


def test_a_page_of_players_needs_no_table(tmp_path: Path):
    _, rows = write_page(tmp_path)
    out = render_report(None, [r for r in rows if r.source == "data"], tmp_path / "audio", tmp_path / "x" / "p.html")
    text = out.read_text(encoding="utf-8")
    assert '"audio":"../audio/"' in text
    assert "Listening page" in text


@pytest.mark.browser
def test_fingers_hit_every_control_on_a_phone(tmp_path: Path):
    path, _ = write_page(tmp_path)
    with open_page(path, **PHONE) as page:
        page.locator(".player .play").first.tap()
        assert page.evaluate(TOO_SMALL) == []


LONG = "a model behind a server, asked as configs asks it"
ALIKE = (f"{LONG}, first wording", f"{LONG}, second wording", f"the one on {LONG} too", f"the two on {LONG} too")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_long_labels_stay_apart_and_inside_and_no_two_ticks_read_alike(tmp_path: Path, width: int):
    facts = replace(FACTS, sources=[SourceFacts(label, "litellm", label) for label in ALIKE], baseline=ALIKE[0])
    rows = [
        make_result(row, label, 0.4 + 0.1 * at, generate_seconds=seconds)
        for at, (label, seconds) in enumerate(zip(ALIKE, (2e-6, 3e-5, 3e-4, 2e-3), strict=True))
        for row in make_rows(4, 2)
    ]
    path = render_report(summarise(rows, facts), rows, tmp_path / "audio", tmp_path / "report.html")
    with open_page(path, viewport={"width": width, "height": 900}) as page:
        plots = page.evaluate(PLOTS)
    drawn = [plot for plot in plots if plot["labels"]]
    assert len(drawn) == 2  # how the scores spread, and score against effort
    for plot in drawn:
        assert len(plot["labels"]) == len(set(plot["labels"])) == len(ALIKE)
        assert plot["outside"] == []
    ticks = [tick for tick in drawn[1]["ticks"] if tick[0].endswith("s")]
    assert len({text for text, _ in ticks}) == len({x for _, x in ticks}) == len(ticks) >= 3


PLOTS = """[...document.querySelectorAll('svg.plot')].map((plot) => {
  const texts = [...plot.querySelectorAll('text')], within = plot.closest('.card').getBoundingClientRect();
  return {
    labels: texts.filter((t) => t.classList.contains('strong')).map((t) => t.textContent).filter((t) => t.length > 2),
    ticks: texts.filter((t) => !t.classList.contains('strong')).map((t) => [t.textContent, t.getAttribute('x')]),
    outside: texts.filter((t) => { const box = t.getBoundingClientRect(); return box.left < within.left || box.right > within.right; }).map((t) => t.textContent),
  };
})"""
"""The text in each drawing, and what reaches beyond its card."""


# Behind what opens a page of its own: two at once are one too many for Playwright.


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder:
        path, _ = write_page(Path(folder))
        with open_page(path) as page:
            yield page


@pytest.fixture
def page(opened: Any) -> Any:
    """The page as it opens: what one test did to it does not reach the next.

    Read what stands in a card with ``text_content``: the page lays out cards only near the window
    (``content-visibility: auto``), a frame after they are drawn, and ``inner_text`` is empty until then.
    """
    opened.reload()
    opened.wait_for_selector("html[data-ready]")
    return opened


@pytest.mark.browser
class TestInChromium:
    """What a person does with the page."""

    def test_it_loads_without_an_error_and_runs_nothing_hostile(self, page: Any):
        assert page.errors == []
        assert page.evaluate("window.hacked") is None
        assert page.locator(".vibe").first.locator(".vibetext").text_content() == NASTY
        assert page.evaluate("document.querySelectorAll('main img').length") == 0
        assert page.locator(".board tbody tr").count() >= 4

    def test_one_sound_plays_at_a_time(self, page: Any):
        players = page.locator(".player")
        players.nth(0).locator(".play").click()
        until(page, "!audio.paused && audio.currentTime > 0.05")
        assert page.evaluate("document.querySelectorAll('audio').length") == 1
        players.nth(1).locator(".play").click()
        until(page, "audio.src.endsWith('chance.mp3') && audio.currentTime > 0.05")
        assert page.locator(".player.playing").count() == 1
        assert page.locator("#deck").is_visible()
        assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--tint')") == "#1B2A41"

    def test_keys_play_step_switch_and_stop(self, page: Any):
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("1")
        until(page, "audio.src.endsWith('data.mp3') && !audio.paused")
        page.keyboard.press("j")
        until(page, "now.row === 1 && now.source === 0")
        page.keyboard.press(" ")
        until(page, "audio.paused")
        page.keyboard.press("k")
        until(page, "now.row === 0 && !audio.paused")
        page.keyboard.press("Escape")
        assert page.evaluate("[audio.paused, now.row]") == [True, -1]
        assert not page.locator("#deck").is_visible()
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"

    def test_search_level_and_order(self, page: Any):
        page.fill("#search", "number 7")
        assert page.locator("#count").inner_text() == "5 of 60"
        page.select_option("#level", "xs")
        assert page.locator(".vibe .vibetext").all_text_contents() == ["rain number 7, xs"]
        page.fill("#search", "nothing like this")
        assert "No vibe matches" in page.locator("#rows").inner_text()
        page.fill("#search", "")
        page.select_option("#level", "")
        page.select_option("#sort", "high0")
        shown = page.evaluate("shown.map((row) => scoreOf(row, 0))")
        assert shown == sorted(shown, reverse=True)
        page.select_option("#sort", "low1")
        low = page.evaluate("shown.map((row) => scoreOf(row, 1)).filter((v) => v !== null)")
        assert low == sorted(low)
        page.select_option("#sort", "failed")
        assert page.locator(".vibe").count() == 1
        assert page.locator(".failed").text_content().startswith("</script>")
        page.select_option("#sort", "data")

    def test_configs_are_compared_with_differences_marked(self, page: Any):
        card = page.locator(".vibe").nth(1)
        card.locator(".compare button").click()
        assert card.locator("caption").text_content().startswith("1 of 34 fields differ")
        assert card.locator("td.other").all_text_contents() == ["fast"]

    def test_it_is_dark_when_asked_and_fits_a_phone(self, page: Any):
        light = page.evaluate("getComputedStyle(document.body).color")
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).color") != light
        page.click("#theme")
        page.set_viewport_size({"width": 390, "height": 844})
        until(page, "innerWidth === 390 && document.documentElement.scrollWidth <= 390")
        page.set_viewport_size({"width": 1280, "height": 900})

    def test_names_focus_and_contrast(self, page: Any):
        unnamed = page.evaluate(
            """[...document.querySelectorAll('button, input, select, [role=img]')].filter((e) =>
                 !(e.getAttribute('aria-label') || e.textContent.trim() || e.querySelector('title'))).length"""
        )
        assert unnamed == 0
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            ratios = page.evaluate(CONTRAST)
            assert min(ratios.values()) >= 4.5, ratios
        page.emulate_media(color_scheme="light")
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


CONTRAST = """(() => {
  const probe = document.createElement('span'); document.body.append(probe);
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const light = (name) => {
    probe.style.color = `var(${name})`;
    canvas.fillStyle = getComputedStyle(probe).color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((m, n) => n - m); return (x + 0.05) / (y + 0.05); };
  const found = {};
  for (const ink of ['--ink', '--soft', '--accent', '--good', '--bad']) for (const under of ['--paper', '--card', '--sunk']) found[ink + ' on ' + under] = ratio(ink, under);
  found['--ink on --mark'] = ratio('--ink', '--mark');
  probe.remove();
  return found;
})()"""
