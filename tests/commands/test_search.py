"""--search of configs and render, with the real renderer on short pieces."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import here

SHORT = ("--scorer", "acoustic", "--seconds", "1", "--workers", "1")
VIBE = "a slow dark piece in D minor"


@pytest.fixture(autouse=True)
def _small_surrogate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSDATA_SEARCH__SURROGATE_RENDERS", "70")
    monkeypatch.setenv("LSDATA_SEARCH__SURROGATE_MIN_R2", "0")
    monkeypatch.setenv("LSDATA_SCORING__SECONDS", "1")


@pytest.mark.long
def test_a_typed_vibe_is_searched_and_keeps_what_it_names(root: Path) -> None:
    out = here("configs", VIBE, "--n", "2", "--search", "24", *SHORT, "--root", str(root), "--json", code=0)
    details = out.json()["details"]
    (answer,) = details["answers"]
    assert len(answer["scores"]) == len(answer["candidate_origins"]) == 24
    assert answer["candidate_origins"][:2] == ["model", "model"]
    assert answer["score"] >= max(answer["scores"][:2])
    config = answer["config_payload"]["config"]
    assert (config["tempo"], config["root"], config["mode"]) == ("slow", "d", "minor")
    assert details["search"]["surrogate_r2"] is not None
    curve = details["search"]["curve"]
    assert curve[-1]["scores"]["acoustic"] == pytest.approx(answer["score"])


def test_a_judge_without_a_search_is_refused() -> None:
    assert "--judge needs --search" in here("configs", VIBE, "--judge", "clap", code=2).stderr


@pytest.mark.parametrize("scorers", [("acoustic", "acoustic"), ("acoustic", "auto"), ("auto", "acoustic")])
def test_a_judge_that_is_the_guide_is_refused(scorers: tuple[str, str]) -> None:
    guide, judge = scorers
    command = ("configs", VIBE, "--search", "8", "--scorer", guide, "--judge", judge)
    for more in ((), ("--dry-run",)):
        out = here(*command, *more, code=2)
        assert "judge and guide of the search are the same scorer: acoustic" in out.stderr


@pytest.mark.long
def test_render_writes_what_the_search_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSDATA_SEARCH__RENDERS", "16")
    monkeypatch.setenv("LSDATA_SCORING__SCORERS", '["acoustic"]')
    out = here("render", VIBE, "--search", "--seconds", "1", "--out", "found.wav", code=0)
    assert Path("found.wav").stat().st_size > 100_000
    assert "search: acoustic" in out.stderr
    here("render", "--payload", "some.json", "--search", code=2)
