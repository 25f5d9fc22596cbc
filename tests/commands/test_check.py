"""lsdata check: a clean workspace has no faults, and each planted fault is found alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import here
from factories import make_payload, make_scored, make_text
from latentscore.config import random_config
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.suites import suite_lines
from latentscore_data.core.checks.diversity import vendi_score
from latentscore_data.core.vibes.tags import tags_of

SPLITS = ["SFT-Train"] * 24 + ["SFT-Val"] * 4 + ["GRPO"] * 6 + ["TEST"] * 6
VIBES = [
    "rain on a tin roof", "an empty station at night", "the first day of spring", "a knife fight in an alley",
    "grandmother's kitchen", "a satellite falling", "desert caravan under stars", "children running home",
    "the archive burns", "a whale below the ice", "waiting for the verdict", "neon market at dawn", "moss on old stone",
    "an elevator without end", "the harvest dance", "a letter never sent", "monks at prayer", "racing across salt flats",
    "fever dream", "a lighthouse in fog", "the king is dead", "paper lanterns on a river", "factory at full speed",
    "a slow goodbye", "frozen waterfall", "circus leaving town", "moon over rice fields", "a bitter argument",
    "sunlit library", "the boiler room", "a ship without a crew", "picnic by the lake", "volcano asleep", "a broken carousel",
    "marching home", "jungle after the storm", "city seen from a plane", "the last candle", "bees in lavender",
    "a cave of crystals",
]  # fmt: skip


def rows() -> list[ScoredRow]:
    rng = np.random.default_rng(1)
    found = []
    for number, (split, vibe) in enumerate(zip(SPLITS, VIBES, strict=True), 1):
        answers = [make_payload("One", **random_config(rng).model_dump()) for _ in range(2)]
        found.append(
            make_scored(
                number,
                split=split,
                vibe_original=vibe,
                config_candidates=answers,
                candidate_scores={"acoustic": [0.5 + number / 100, 0.1], "other": [0.4 + number / 100, 0.1]},
                config_payload=answers[0],
                best_index=0,
            )
        )
    return found


def write(root: Path, rows: list[ScoredRow], **metadata: Any) -> None:
    workspace = Workspace(root)
    for split in dict.fromkeys(SPLITS):
        replace_rows(workspace.scored(split), [row for row in rows if row.split == split])
    known = {"license": "public domain", "author": "Herman Melville", **metadata}
    replace_rows(workspace.texts("moby-dick"), [make_text(n, metadata=known) for n in range(1, len(rows) + 1)])


def check(root: Path, *args: str, code: int = 8) -> dict[str, Any]:
    env = {"LSDATA_SCORING__SECONDS": "5", "LSDATA_DEDUPE__MODEL": "words"}
    return here("check", "--root", str(root), "--sounds", "2", "--json", *args, env=env, code=code).json()


def faults(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["group"], each["name"]) for each in found["findings"] if each["verdict"] == "fault"]


def test_a_clean_workspace_has_no_faults(root: Path) -> None:
    write(root, rows())
    found = check(root, "--license", "cc-by-4.0", code=0)
    assert faults(found) == []
    values = {each["name"]: each["value"] for each in found["findings"]}
    assert values["SFT-Train"] == "24 rows of 24 texts"
    assert values["distinct winning configs"] == "100.0%"


def _text(vibe: str) -> Callable[[list[ScoredRow]], None]:
    def plant(rows: list[ScoredRow]) -> None:
        rows[2].vibe_original = vibe

    return plant


def _said_twice(rows: list[ScoredRow]) -> None:
    rows[2].vibe_original = "Rain, on a tin roof!"


def _same_winners(rows: list[ScoredRow]) -> None:
    for row in rows[1:4]:
        row.config_payload = rows[0].config_payload


def _one_tempo(rows: list[ScoredRow]) -> None:
    for row in rows:
        assert row.config_payload is not None
        row.config_payload["config"]["tempo"] = "slow"


def _in_a_suite(rows: list[ScoredRow]) -> None:
    rows[2].vibe_original = suite_lines("short")[0]["vibe"].upper()


def _by_a_hair(rows: list[ScoredRow]) -> None:
    for row in rows[:30]:
        best = row.candidate_scores["acoustic"][0]
        assert best is not None
        row.candidate_scores["acoustic"] = [best, best - 0.0001]


def _unread(rows: list[ScoredRow]) -> None:
    for row in rows[:10]:
        row.scores_external = {"acoustic": {"final_score": 0.1, "words": 0.0}}


def _against_each_other(rows: list[ScoredRow]) -> None:
    for number, row in enumerate(rows):
        row.candidate_scores = {"acoustic": [number / 50 + 0.1, 0.0], "other": [1 - number / 50, 0.0]}


def _restricted(rows: list[ScoredRow]) -> None:
    rows[2].config_model = "openai/gpt-5-mini"


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (_said_twice, ("duplicates", "duplicate vibes")),
        (_same_winners, ("duplicates", "winning configs of another vibe")),
        (_one_tempo, ("diversity", "fields with almost no variation")),
        (_in_a_suite, ("contamination", "training rows in short")),
        (_by_a_hair, ("scores", "winners less than 0.005 above the next candidate")),
        (_unread, ("scores", "vibes without any word that the scorer knows")),
        (_against_each_other, ("scores", "agreement of acoustic and other")),
        (_text("..."), ("text", "tagged empty")),
        (_text("word " * 130), ("text", "tagged long")),
        (_text("der Regen auf dem Dach und die Nacht"), ("text", "tagged language")),
        (_text("a cafÃ© at noon"), ("text", "tagged encoding")),
        (_text("write to ahab@pequod.example about the sea"), ("text", "tagged email")),
        (_text("call me on +49 170 1234567 at dawn"), ("text", "tagged phone")),
        (_text("the sea at https://pequod.example/log"), ("text", "tagged link")),
        (_restricted, ("provenance", "model openai/gpt-5-mini")),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found_alone(
    root: Path, plant: Callable[[list[ScoredRow]], None], expected: tuple[str, str]
) -> None:
    planted = rows()
    plant(planted)
    write(root, planted)
    assert faults(check(root)) == [expected]


def test_a_training_row_that_stands_in_test_is_contamination(root: Path) -> None:
    planted = rows()
    planted[2].vibe_original = planted[-1].vibe_original
    write(root, planted)
    found = faults(check(root))
    assert found == [("duplicates", "duplicate vibes"), ("contamination", "training rows in TEST")]


@pytest.mark.parametrize(
    ("license", "declared", "problem"),
    [
        ("", None, "is unknown"),
        ("CC BY-NC 4.0", "cc-by-4.0", "not for commercial use"),
        ("CC BY-SA 4.0", "mit", "must keep its licence"),
        ("CC BY-ND 4.0", None, "no derivatives"),
    ],
)
def test_licences_that_do_not_fit(root: Path, license: str, declared: str | None, problem: str) -> None:
    write(root, rows(), license=license)
    found = check(root, *(["--license", declared] if declared else []))
    (fault,) = [each for each in found["findings"] if each["verdict"] == "fault"]
    assert fault["group"] == "provenance"
    assert problem in fault["value"]


def test_a_sound_that_clips_or_is_silent_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import latentscore

    write(root, rows())
    render = latentscore.render

    def loud(*args: Any) -> latentscore.Audio:
        audio = render(*args)
        return latentscore.Audio(audio.samples * 20, audio.sample_rate)

    monkeypatch.setattr(latentscore, "render", loud)
    names = [name for _, name in faults(check(root))]
    assert names == ["winners with peaks over -0.1 dBTP", "winners off -16 LUFS by more than 3 LU"]
    monkeypatch.setattr(
        latentscore, "render", lambda *args: latentscore.Audio(np.zeros((48_000, 2), np.float32), 48_000)
    )
    assert [name for _, name in faults(check(root))] == ["silent winners"]


def test_the_table_names_the_rows_to_look_at_and_what_changed(root: Path) -> None:
    planted = rows()
    planted[2].vibe_original = "ahab@pequod.example"
    write(root, planted)
    here("export", "dataset", "--root", str(root), code=0)
    write(root, planted[:-1])
    out = here("check", "--root", str(root), "--sounds", "0", code=8)
    assert planted[2].row_id in out.stderr.replace("\n", "")
    assert "0 new, 1 gone, 0" in out.stdout


def test_rows_with_a_tag_can_be_left_out_of_an_export(root: Path) -> None:
    planted = rows()
    planted[2].vibe_original = "ahab@pequod.example"
    write(root, planted)
    for args, count in (((), 24), (("--exclude", "email", "--overwrite"), 23)):
        here("export", "dataset", "--root", str(root), *args, code=0)
        lines = (root / ".exports" / "dataset" / "jsonl" / "train.jsonl").read_text().splitlines()
        assert len(lines) == count
    assert all(json.loads(line)["text_tags"] == [] for line in lines)
    assert "email" in here("export", "dataset", "--root", str(root), "--exclude", "rude").stderr


@pytest.mark.parametrize(
    "text", ["rain at 3:00 in the morning", "1999", "10,000 candles", "a café at noon", "rock'n'roll", "Ångström"]
)
def test_ordinary_texts_have_no_tags(text: str) -> None:
    assert tags_of(text) == []


def test_the_vendi_score_counts_different_items() -> None:
    assert vendi_score(np.eye(8, dtype=np.float32)) == pytest.approx(8)
    assert vendi_score(np.repeat(np.eye(8, dtype=np.float32)[:2], 10, axis=0)) == pytest.approx(2)


def test_without_rows_there_is_nothing_to_check(root: Path) -> None:
    assert "run lsdata configs first" in here("check", "--root", str(root), code=2).stderr
