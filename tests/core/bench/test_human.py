"""Listening packs: blind, balanced, with catch trials; and strengths against known answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench_fakes import make_result, make_rows
from browsing import open_page, until
from latentscore import Audio, read_audio
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.bench import human, strengths
from latentscore_data.core.bench.strengths import bradley_terry
from latentscore_data.core.scoring.clips import write_mp3

SOURCES = ("aster", "birch", "cedar")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bench" / "run-1"
    for i, source in enumerate(SOURCES):
        tone = np.sin(np.arange(9600) / (10 + i)).astype(np.float32) * 0.2
        sound = Audio(np.stack([tone, tone], axis=1), 48_000).tagged(title=f"by {source}", vibe="rain", seed=0)
        write_mp3(folder / "audio" / f"{source}.mp3", sound)
    return folder


def samples() -> list:
    return [
        make_result(row, source, 0.5, audio_file=f"audio/{source}.mp3")
        for source in SOURCES
        for row in make_rows(10, 2)
    ]


def test_pairs_are_balanced_blind_and_always_the_same():
    pairs = human.choose_pairs(samples(), 30, seed=0)
    assert pairs == human.choose_pairs(samples(), 30, seed=0)
    meetings = [tuple(sorted((pair.a, pair.b))) for pair in pairs]
    assert {meetings.count(m) for m in meetings} == {10}
    first = [pair.a for pair in pairs]
    assert all(5 <= first.count(source) <= 15 for source in SOURCES)


def test_the_same_sound_is_not_compared_with_itself():
    same = [make_result(row, source, 0.5, audio_file="audio/x.mp3") for source in SOURCES for row in make_rows(3, 1)]
    assert human.choose_pairs(same, 10, seed=0) == []


def test_a_pack_tells_nothing_and_its_catch_trials_have_a_right_answer(run_folder: Path):
    page = human.write_pack(samples(), run_folder, 20, seed=0)
    text = page.read_text()
    key = json.loads((page.parent / "key.json").read_text())
    assert not any(source in text for source in SOURCES)
    assert len(key["pairs"]) == 22
    catches = [pair for pair in key["pairs"] if pair["catch"]]
    assert len(catches) == 2
    for pair in key["pairs"]:
        for side in "ab":
            sound = page.parent / "audio" / f"{pair['id']}-{side}.mp3"
            clean = run_folder / pair[f"audio_{side}"]
            buried = pair["catch"] is not None and side != pair["catch"]
            assert np.array_equal(read_audio(sound).samples, read_audio(clean).samples) is not buried
            assert read_audio(clean).tags["title"].startswith("by ")
            assert read_audio(sound).tags.keys().isdisjoint({"title", "vibe", "seed", "comment"})
    sheet = (page.parent / "answers.csv").read_text().splitlines()
    assert sheet[0] == "pair,choice"
    assert len(sheet) == 23


def test_a_pack_without_two_sounds_is_refused(tmp_path: Path):
    with pytest.raises(MissingError, match="no two different sounds"):
        human.write_pack(
            [make_result(row, "one", 0.5, audio_file="audio/x.mp3") for row in make_rows(2, 1)], tmp_path, 4, 0
        )


def test_two_players_have_the_closed_form_of_davidson():
    # 30 wins, 10 losses, 20 ties: strength difference ln(30/10), tie parameter 20 / sqrt(30 * 10).
    games = [(0, 1, 0)] * 30 + [(0, 1, 1)] * 10 + [(0, 1, 2)] * 20
    strengths, tie = bradley_terry(games, 2, prior=0.0)
    assert strengths[0] - strengths[1] == pytest.approx(np.log(3), abs=1e-3)
    assert tie == pytest.approx(20 / np.sqrt(300), abs=1e-3)


def test_sides_do_not_matter_and_strengths_are_found_again():
    true = np.array([0.8, 0.1, -0.9])
    draw, games = np.random.default_rng(0), []
    for _ in range(6000):
        a, b = draw.choice(3, size=2, replace=False)
        odds = np.exp([true[a], true[b], np.log(0.5) + (true[a] + true[b]) / 2])
        games.append((int(a), int(b), int(draw.choice(3, p=odds / odds.sum()))))
    strengths, tie = bradley_terry(games, 3)
    assert strengths == pytest.approx(true, abs=0.08)
    assert tie == pytest.approx(0.5, abs=0.06)
    turned = [(b, a, (1, 0, 2)[choice]) for a, b, choice in games]
    assert bradley_terry(turned, 3)[0] == pytest.approx(strengths, abs=1e-3)


def test_who_wins_every_pair_has_a_finite_strength():
    strengths, _ = bradley_terry([(0, 1, 0)] * 20, 2)
    assert 1 < strengths[0] < 8


def test_the_interval_holds_the_true_strength_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch):
    known: dict[tuple, tuple] = {}

    def remembered(games: list, players: int, **options: object) -> tuple:
        key = (*sorted(games),)
        if key not in known:
            known[key] = bradley_terry(games, players, **options)
        return known[key]

    monkeypatch.setattr(strengths, "bradley_terry", remembered)
    draw, true, hits = np.random.default_rng(0), 0.3, 0
    odds = np.exp([true, -true, np.log(0.5)])
    for _ in range(300):
        choices = draw.choice(3, size=(8, 3), p=odds / odds.sum())
        games = [strengths.Game("x", "y", int(choice), f"d{i}") for i, row in enumerate(choices) for choice in row]
        player = next(player for player in strengths.fit(games, resamples=200)[0] if player.label == "x")
        hits += player.low <= true <= player.high
    assert 0.9 <= hits / 300 <= 0.98


def answers(pairs: list, listener: str, careful: bool = True) -> dict:
    """Prefers aster to birch to cedar; a careless listener always says a."""

    def choice(pair: dict) -> str:
        if not careful:
            return "a" if pair["catch"] != "a" else "b"
        if pair["catch"]:
            return pair["catch"]
        return "a" if SOURCES.index(pair["a"]) < SOURCES.index(pair["b"]) else "b"

    return {"run": "run-1", "listener": listener, "answers": [{"pair": p["id"], "choice": choice(p)} for p in pairs]}


def test_answers_become_strengths_and_careless_listeners_are_left_out(run_folder: Path, tmp_path: Path):
    page = human.write_pack(samples(), run_folder, 24, seed=0)
    pairs = json.loads((page.parent / "key.json").read_text())["pairs"]
    (tmp_path / "ann.json").write_text(json.dumps(answers(pairs, "ann")))
    (tmp_path / "bob.json").write_text(json.dumps(answers(pairs, "bob", careful=False)))
    lines = [f"{p['id']},{a['choice']}" for p, a in zip(pairs, answers(pairs, "x")["answers"], strict=True)]
    (tmp_path / "cy.csv").write_text("\n".join(["pair,choice", *lines[:-3], *(f"{p['id']}," for p in pairs[-3:])]))
    files = [tmp_path / name for name in ("ann.json", "bob.json", "cy.csv")]
    found = human.evaluate(files, run_folder.parent, resamples=50)
    assert [s["label"] for s in found["strengths"]] == ["aster", "birch", "cedar"]
    assert found["left_out"] == "bob"
    assert (found["listeners"], found["catch_trials"]["bob"]) == (3, 0.0)
    best = found["strengths"][0]
    assert best["low"] <= best["strength"] <= best["high"]
    assert best["lost"] == 0
    assert json.loads(Path(found["written"]).read_text())["answers"] == found["answers"]


def test_listeners_without_a_name_are_told_apart_by_their_files(run_folder: Path, tmp_path: Path):
    page = human.write_pack(samples(), run_folder, 24, seed=0)
    pairs = json.loads((page.parent / "key.json").read_text())["pairs"]
    files = [tmp_path / name for name in ("l1/answers.json", "l2/answers.json", "l1/answers.csv", "l2/answers.csv")]
    given = answers(pairs, "anonymous")
    for file in files:
        file.parent.mkdir(exist_ok=True)
        rows = [f"{a['pair']},{a['choice']}" for a in given["answers"]]
        file.write_text(json.dumps(given) if file.suffix == ".json" else "\n".join(["pair,choice", *rows]))
    twice = [*files, tmp_path / "l1" / ".." / "l1" / "answers.json"]
    found = human.evaluate(twice, run_folder.parent, resamples=2)
    assert (found["listeners"], found["answers"]) == (4, 4 * 24)
    assert f"anonymous ({files[1]})" in found["catch_trials"]


def test_a_listener_of_two_files_may_not_contradict_herself(run_folder: Path, tmp_path: Path):
    page = human.write_pack(samples(), run_folder, 24, seed=0)
    pairs = json.loads((page.parent / "key.json").read_text())["pairs"]
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps(answers(pairs[:15], "ann")))
    two.write_text(json.dumps(answers(pairs[10:], "ann")))
    assert human.evaluate([one, two], run_folder.parent, resamples=2)["listeners"] == 1
    two.write_text(json.dumps(answers(pairs, "ann", careful=False)))
    with pytest.raises(InputError, match=r"ann answers pair \w+ with \w+ in .*one\.json and \w+ in .*two\.json"):
        human.evaluate([one, two], run_folder.parent)


@pytest.mark.parametrize(
    ("text", "name", "match"),
    [
        ("not json", "x.json", "contains no answers"),
        ('{"answers": [{"pair": "p", "choice": "left"}]}', "x.json", "has the answer 'left'"),
        ("wrong,header\n1,2", "x.csv", "contains no answers"),
        ("pair,choice\nzzz,a", "x.csv", "no listening pack"),
    ],
)
def test_bad_answer_files_are_one_line(tmp_path: Path, text: str, name: str, match: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=match):
        human.evaluate([tmp_path / name], tmp_path)


def test_the_result_goes_beside_the_key_whatever_the_files_say(run_folder: Path, tmp_path: Path):
    """A key and the answers come from outside; neither may choose where we write."""
    page = human.write_pack(samples(), run_folder, 24, seed=0)
    key_file = page.parent / "key.json"
    key = json.loads(key_file.read_text())
    (run_folder.parent.parent / "outside" / "human").mkdir(parents=True)
    key_file.write_text(json.dumps({**key, "run": "../outside"}))
    given = {**answers(key["pairs"], "ann"), "run": "../outside"}
    (tmp_path / "ann.json").write_text(json.dumps(given))
    found = human.evaluate([tmp_path / "ann.json"], run_folder.parent, resamples=2)
    assert found["written"] == str(run_folder / "human" / "result.json")
    assert not list((run_folder.parent.parent / "outside" / "human").iterdir())


def test_a_pack_that_is_a_link_is_not_written_into(run_folder: Path, tmp_path: Path):
    page = human.write_pack(samples(), run_folder, 24, seed=0)
    pairs = json.loads((page.parent / "key.json").read_text())["pairs"]
    (tmp_path / "ann.json").write_text(json.dumps(answers(pairs, "ann")))
    elsewhere = tmp_path / "elsewhere"
    page.parent.rename(elsewhere)
    (run_folder / "human").symlink_to(elsewhere)
    with pytest.raises(InputError, match="no listening pack"):
        human.evaluate([tmp_path / "ann.json"], run_folder.parent)
    assert not (elsewhere / "result.json").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: "[" * 100_000,
        lambda key: json.dumps({"run": "run-1"}),
        lambda key: json.dumps({**key, "pairs": [{"id": "x"}]}),
        lambda key: json.dumps({**key, "pairs": [{**pair, "a": 7} for pair in key["pairs"]]}),
        lambda key: json.dumps({**key, "pairs": [{**pair, "catch": "c"} for pair in key["pairs"]]}),
    ],
)
def test_a_spoilt_key_is_one_line(run_folder: Path, tmp_path: Path, spoil: Callable[[dict], str]):
    page = human.write_pack(samples(), run_folder, 24, seed=0)
    key_file = page.parent / "key.json"
    key = json.loads(key_file.read_text())
    (tmp_path / "ann.json").write_text(json.dumps(answers(key["pairs"], "ann")))
    key_file.write_text(spoil(key))
    with pytest.raises(InputError, match="is not the key of a listening pack"):
        human.evaluate([tmp_path / "ann.json"], run_folder.parent)


@pytest.mark.browser
def test_a_listener_answers_in_the_browser_and_the_file_can_be_evaluated(run_folder: Path, tmp_path: Path):
    """Everything that a person does with a pack, in Chromium."""
    hostile = "<img src=x onerror=window.hacked=1></script><b>"
    rows = [row.model_copy(update={"vibe_original": f"{hostile} {row.vibe_original}"}) for row in samples()]
    page_file = human.write_pack(rows, run_folder, 12, seed=0)
    pairs = {pair["id"]: pair for pair in json.loads((page_file.parent / "key.json").read_text())["pairs"]}
    with open_page(page_file) as page:
        page.fill("#listener", "Ann Onymous")
        for side in ("b", "a"):
            page.evaluate(f"document.getElementById('audio-{side}').play()")
            until(page, f"document.getElementById('audio-{side}').currentTime > 0.02")
        assert page.evaluate("sides[1].paused"), "one sound at a time"
        page.click("[data-choice=tie]")
        assert page.evaluate("sides[0].currentTime") > 0, "an answer does not stop the sound"
        for number in range(len(pairs)):
            assert page.locator("#vibe").inner_text().startswith(hostile)
            shown = page.evaluate("trials[at].id")
            choice = answers([pairs[shown]], "x")["answers"][0]["choice"]
            page.click(f"[data-choice={choice}]")
            if number == 2:
                page.reload()  # what was answered is not lost, and the first pair without an answer is shown
                assert page.evaluate("Object.keys(answers).length") == 3
                assert page.evaluate("at") == 3
            elif number < len(pairs) - 1:
                assert page.locator("#said").inner_text() == ""
                page.click("#on")
        assert page.evaluate("document.getElementById('progress').value") == len(pairs)
        assert "All pairs are answered" in page.locator("#said").inner_text()
        with page.expect_download() as saved:
            page.click("#save")
        assert saved.value.suggested_filename == "answers-Ann_Onymous.json"
        saved.value.save_as(tmp_path / "ann.json")
        assert page.evaluate("window.hacked") is None
        assert page.errors == []
        page.set_viewport_size({"width": 390, "height": 844})
        until(page, "innerWidth === 390 && document.documentElement.scrollWidth <= 390")
    found = human.evaluate([tmp_path / "ann.json"], run_folder.parent, resamples=2)
    assert found["catch_trials"] == {"Ann Onymous": 1.0}
    assert [strength["label"] for strength in found["strengths"]] == ["aster", "birch", "cedar"]
