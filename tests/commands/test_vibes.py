"""lsdata vibes: offline end to end, what is asked again and what is not, stability when texts are added."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import here
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.jsonl import read_rows, replace_rows
from latentscore_data.core.base.manifest import stale_reasons
from latentscore_data.core.base.rows import LEVELS, SPLITS, VibeRow
from latentscore_data.core.base.sample import sample_texts
from latentscore_data.core.base.settings import Settings, VibesSettings, load_settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm import builtin
from latentscore_data.core.llm.extraction import rows_of, text_fingerprint
from latentscore_data.core.stages import download, vibes
from latentscore_data.core.stages.base import RunContext
from servers import Body, ChatServer


def settings_for(root: Path, **sections: dict[str, Any]) -> Settings:
    sections = {"vibes": {"max_vibes": 1, "characters": False}, "dedupe": {"model": "words"}, **sections}
    return load_settings(None, paths={"root": root}, download={"datasets": ["builtin"]}, **sections)


def rows_in(root: Path) -> list[VibeRow]:
    return [row for split in SPLITS for row in read_rows(Workspace(root).vibes(split), VibeRow)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the questions the offline model gets."""
    counts: Counter[str] = Counter()
    real = builtin.BuiltinLLM.ask

    async def ask(self: Any, question: Any, answer_type: Any) -> Any:
        counts["all"] += 1
        return await real(self, question, answer_type)

    monkeypatch.setattr(builtin.BuiltinLLM, "ask", ask)
    return counts


@pytest.fixture
def sampled(root: Path) -> Path:
    download.run_download(settings_for(root))
    return root


def test_the_sample_gives_one_ladder_for_each_passage(sampled: Path, asked: Counter[str]):
    settings = settings_for(sampled)
    summary = vibes.run_vibes(settings)
    rows = rows_in(sampled)
    assert asked["all"] == summary.done == 16
    assert len(rows) == 80
    assert len({row.row_id for row in rows}) == 80
    assert Counter(row.vibe_level for row in rows) == dict.fromkeys(LEVELS, 16)
    assert {row.vibe_scope for row in rows} == {"scene"}
    assert {row.split for row in rows} == set(SPLITS)
    assert summary.details["near_duplicates"] == 0
    # Sources never part.
    for source in {row.source_id for row in rows}:
        assert len({row.split for row in rows if row.source_id == source}) == 1
    for split in SPLITS:
        mine = [row for row in rows if row.split == split]
        assert any(row.vibe_noisy != row.vibe_original for row in mine)
    noisy = sum(row.vibe_noisy != row.vibe_original for row in rows)
    assert 5 <= noisy <= 25
    manifest = json.loads((sampled / ".vibes" / "manifest.json").read_text())
    leak = manifest["details"]["leakage"]
    assert leak["share_same_source"] == 0.0
    assert manifest["details"]["leakage_if_split_by_row"]["share_same_source"] > 0.5
    assert leak["mean_nearest"] < manifest["details"]["leakage_if_split_by_row"]["mean_nearest"]
    assert stale_reasons(vibes.stage_files(settings, Workspace(sampled))[0], sampled) == []


@pytest.mark.parametrize(("limit", "method"), [(1000, "exact"), (20, "faiss")])
def test_the_manifest_says_how_near_duplicates_were_found_and_how_many_of_them(sampled: Path, limit: int, method: str):
    if method == "faiss":
        pytest.importorskip("faiss")
    vibes.run_vibes(settings_for(sampled, dedupe={"model": "words", "threshold": 0.6, "exact_up_to": limit}))
    details = json.loads((sampled / ".vibes" / "manifest.json").read_text())["details"]
    assert details["dedupe_method"].startswith(method)
    assert details["near_duplicates"] > 0
    assert details["dedupe_recall"] == 1.0, "in so few rows the index misses none"
    assert details["dedupe_recall_near_duplicates"] == (0 if method == "exact" else details["near_duplicates"])


def test_a_second_run_asks_nothing_and_writes_the_same(sampled: Path, asked: Counter[str]):
    vibes.run_vibes(settings_for(sampled))
    before = {path.name: path.read_bytes() for path in Workspace(sampled).vibe_files()}
    summary = vibes.run_vibes(settings_for(sampled))
    assert (summary.skipped, summary.done, asked["all"]) == (16, 0, 16)
    assert {path.name: path.read_bytes() for path in Workspace(sampled).vibe_files()} == before


def test_another_server_means_other_answers_but_not_for_the_model_that_asks_none(sampled: Path, asked: Counter[str]):
    vibes.run_vibes(settings_for(sampled))
    summary = vibes.run_vibes(settings_for(sampled, llm={"api_base": "http://127.0.0.1:1/v1"}))
    assert (summary.skipped, asked["all"]) == (16, 16)
    text, settings = next(sample_texts()), VibesSettings()
    places = [text_fingerprint(text, "vllm/mine", settings, base) for base in (None, "http://one/v1", "http://two/v1")]
    assert len(set(places)) == 3
    assert places[0] == text_fingerprint(text, "vllm/mine", settings)


@pytest.mark.parametrize(
    "change",
    [{"noise": {"rate": 0.5}}, {"dedupe": {"model": "words", "threshold": 0.5}}, {"splits": {"test": 0.3}}],
    ids=["noise", "dedupe", "splits"],
)
def test_noise_dedupe_and_splits_ask_nothing_again(sampled: Path, asked: Counter[str], change: dict[str, Any]):
    vibes.run_vibes(settings_for(sampled))
    before = [row.model_dump() for row in rows_in(sampled)]
    settings = settings_for(sampled, **change)
    assert stale_reasons(vibes.stage_files(settings, Workspace(sampled))[0], sampled)
    vibes.run_vibes(settings)
    assert asked["all"] == 16
    assert [row.model_dump() for row in rows_in(sampled)] != before


def test_adding_texts_moves_no_test_or_validation_row_and_asks_only_for_them(sampled: Path, asked: Counter[str]):
    workspace = Workspace(sampled)
    texts = list(sample_texts())
    replace_rows(workspace.texts("builtin"), texts[:9])
    vibes.run_vibes(settings_for(sampled))
    before = {row.row_id: row for row in rows_in(sampled)}
    more = [text.model_copy(update={"id_in_dataset": f"more-{i}"}) for i, text in enumerate(texts[9:] * 4)]
    for i, text in enumerate(more):
        text.text += f" And in the year {1700 + i} the bells of harbour {i} rang over a cold grey sea."
    replace_rows(workspace.texts("builtin"), [*texts[:9], *more])
    vibes.run_vibes(settings_for(sampled))
    after = {row.row_id: row for row in rows_in(sampled)}
    assert asked["all"] == 9 + len(more)
    judged = [row for row in before.values() if row.split in ("TEST", "SFT-Val")]
    assert judged
    for row in judged:
        assert after[row.row_id].split == row.split
        assert after[row.row_id].vibe_original == row.vibe_original


def test_texts_that_are_gone_or_changed_leave_no_rows_behind(sampled: Path, asked: Counter[str]):
    workspace = Workspace(sampled)
    vibes.run_vibes(settings_for(sampled))
    texts = list(sample_texts())
    texts[3].text = "A quiet meadow. Bees hum over the warm grass. The old mill turns slowly in the golden light."
    replace_rows(workspace.texts("builtin"), texts[:12])
    vibes.run_vibes(settings_for(sampled))
    assert asked["all"] == 17
    rows = rows_in(sampled)
    assert {row.id_in_dataset for row in rows} == {text.id_in_dataset for text in texts[:12]}
    assert any("meadow" in row.vibe_original or "golden" in row.vibe_original for row in rows)


def test_characters_that_are_not_kept_are_not_asked_for_and_answers_with_them_do(root: Path):
    replace_rows(Workspace(root).texts("mine"), list(sample_texts())[:2])
    ladder = dict.fromkeys(("xl", "lg", "m", "sm", "xs"), "slow rain on a tin roof")
    scene = {"vibe_index": 0, "text_page": 0, "scene_vibes": [ladder], "tags": []}
    angry = dict.fromkeys(ladder, "a furious man shouts in bright sunlight")

    def reply(body: Body) -> str:
        wanted = "characters" in json.dumps(body)
        people = {"characters": [{"name": "Ann", "ladders": [angry]}]} if wanted else {}
        return json.dumps({"vibes": [{**scene, **people}]})

    def run(*options: str) -> dict[str, Any]:
        command = ["vibes", "--json", "--root", str(root), "--model", "hosted_vllm/test", "--api-base", server.url]
        return here(*command, *options, code=0).json()

    with ChatServer(reply) as server:
        assert run("--no-characters")["calls"] == 2
        assert not any("characters" in json.dumps(one.body) for one in server.received)
        assert {row.vibe_scope for row in rows_in(root)} == {"scene"}
        assert run()["calls"] == 2, "characters were not in the first answers"
        assert {row.vibe_scope for row in rows_in(root)} == {"scene", "character"}
        again = run("--no-characters")
        assert (again["calls"], again["skipped"]) == (0, 2)
        assert {row.vibe_scope for row in rows_in(root)} == {"scene"}


def test_a_model_that_answers_nothing_leaves_the_rows_as_they_were(sampled: Path, capsys: pytest.CaptureFixture[str]):
    vibes.run_vibes(settings_for(sampled))
    before = rows_in(sampled)
    elsewhere = {"model": "hosted_vllm/test", "api_base": "http://127.0.0.1:9/v1", "max_attempts": 1}
    summary = vibes.run_vibes(settings_for(sampled, llm=elsewhere))
    assert (summary.done, summary.exit_code, sum(summary.failed.values())) == (0, 1, 16)
    assert rows_in(sampled) == before
    assert "the existing rows are kept" in capsys.readouterr().err
    vibes.run_vibes(settings_for(sampled))
    assert rows_in(sampled) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_limit_keeps_the_rows_of_the_other_texts(sampled: Path, asked: Counter[str], overwrite: bool):
    vibes.run_vibes(settings_for(sampled))
    before = rows_in(sampled)
    settings = settings_for(sampled, vibes={"max_vibes": 1, "characters": False, "limit": 2, "seed": 1})
    vibes.run_vibes(settings, RunContext(overwrite=overwrite))
    assert asked["all"] == 16 + 2
    assert rows_in(sampled) == before


def test_rows_that_others_put_into_the_files_stay(sampled: Path):
    theirs = {"vibe_original": "a row of theirs", "dataset": "theirs", "id_in_dataset": 7, "their_column": "stays"}
    replace_rows(Workspace(sampled).vibes("TEST"), [theirs])
    for _ in range(2):
        assert vibes.run_vibes(settings_for(sampled)).details["from_elsewhere"] == 1
        (row,) = [row for row in rows_in(sampled) if row.dataset == "theirs"]
        assert (row.vibe_original, row.model_dump()["their_column"]) == ("a row of theirs", "stays")
        assert len(rows_in(sampled)) == 81


def test_near_duplicates_across_texts_are_dropped_in_order(sampled: Path):
    workspace = Workspace(sampled)
    texts = list(sample_texts())[:4]
    copies = [text.model_copy(update={"id_in_dataset": f"copy-{i}"}) for i, text in enumerate(texts)]
    replace_rows(workspace.texts("builtin"), [*texts, *copies])
    summary = vibes.run_vibes(settings_for(sampled))
    assert summary.details["near_duplicates"] == 20
    assert {row.id_in_dataset for row in rows_in(sampled)} == {text.id_in_dataset for text in texts}


def test_sentences_that_are_vibes_are_taken_as_they_stand(root: Path) -> None:
    said = ["Regen", "slow rain on a tin roof", "no rain, not sad " * 4, "(Page 3) of a torn letter", "x" * 1001]
    path = root.parent / "mine.csv"
    path.write_text("who,sentence\n" + "".join(f'p{n},"{text}"\n' for n, text in enumerate(said)), "utf-8")
    typed = ("--root", str(root))
    here("download", "--dataset", str(path), *typed, code=0)
    # One is too long.
    out = here("vibes", "--model", "builtin/verbatim", "--dedupe-threshold", "1", *typed, code=1)
    assert "each text is one vibe" in out.stderr
    found = {row.vibe_original: row.vibe_level for row in rows_in(root)}
    assert found == {said[0]: "xs", said[1]: "sm", said[2].strip(): "m", said[3]: "sm"}
    (failed,) = Workspace(root).failures("vibes").read_text().splitlines()
    assert "1,001 characters are no vibe" in failed
    again = here("vibes", "--model", "builtin/verbatim", "--dedupe-threshold", "1", *typed, "--json")
    assert again.json()["skipped"] == 4
    assert "builtin/keywords" in here("configs", "rain", "--model", "builtin/verbatim", *typed, code=2).stderr


def test_without_texts_it_says_what_to_do(root: Path):
    with pytest.raises(MissingError, match="there are no texts"):
        vibes.run_vibes(settings_for(root))


def test_every_ladder_of_an_answer_becomes_five_rows_with_a_name_of_their_own():
    ladder = {"xl": "a\nb", "lg": "b b", "m": "c c", "sm": "d d d d d", "xs": "e"}
    vibe = {
        "vibe_index": 7,
        "text_page": 9,
        "characters": [{"name": "Ann", "ladders": [ladder]}, {"name": "Bob", "ladders": [ladder, ladder]}],
        "scene_vibes": [ladder, ladder],
        "tags": ["Wet  Stone Walls", "wet stone walls", "sea"],
    }
    line = {
        "dataset": "a:b",
        "id_in_dataset": "c/d",
        "pages": 3,
        "vibe_model": "fake/model",
        "vibes": [vibe, vibe],
    }
    rows = list(rows_of(line, VibesSettings()))
    assert len(rows) == 2 * 5 * 5
    assert len({row.row_id for row in rows}) == len(rows)
    assert rows[0].row_id == "a%3Ab:c/d:0:scene:0:xl"
    assert {row.row_id.split(":")[-2] for row in rows if row.character_name == "Bob"} == {"1.0", "1.1"}
    # A page that does not exist becomes the last one; indexes are counted here.
    assert {row.text_page for row in rows} == {2}
    assert {row.vibe_index for row in rows} == {0, 1}
    assert rows[0].tags_original == ["wet stone walls", "sea"]
    assert len(list(rows_of(line, VibesSettings(max_vibes=1, characters=False)))) == 10


@pytest.mark.long
def test_the_program_runs_offline_and_speaks_json(lsdata: Any, root: Path):
    lsdata("--root", str(root), "download", "--dataset", "builtin", code=0)
    result = lsdata("--root", str(root), "vibes", "--limit", "3", "--json", code=0)
    document = result.json()
    assert document["done"] == 3
    assert document["cost_usd"] == 0
    assert "model: builtin/keywords" in result.stderr
    assert "near-duplicates by words" in result.stderr
    assert lsdata("--root", str(root), "vibes", "--dry-run", "--json").json()["calls"] == 16
