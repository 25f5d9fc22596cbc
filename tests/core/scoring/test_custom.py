from __future__ import annotations

import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest

from factories import make_config
from latentscore import Audio
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.scoring.custom import CustomScorer, make_caller
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorer, make_scorers
from latentscore_data.core.scoring.types import Score, Unscored

CODE = textwrap.dedent(
    """
    import time
    import numpy as np

    print("a banner on stdout")

    def loud(vibe, config, audio):
        assert audio.sample_rate == 48_000 and audio.samples.shape[1] == 2
        return np.float32(np.abs(audio.samples).max())

    def parts(vibe, config, audio):
        return {"final_score": len(vibe), "is_slow": config["tempo"] == "slow" and 1.0 or 0.0}

    def moody(vibe, config, audio):
        if vibe == "raise": raise RuntimeError("not today")
        if vibe == "exit": raise SystemExit(3)
        if vibe == "die": import os; os.kill(os.getpid(), 9)
        if vibe == "hang": time.sleep(600)
        return {"nan": float("nan"), "text": "0.5", "true": True, "none": None, "empty": {}, "deep": {"final_score": "x"}}.get(vibe, 0.5)
    """
)

SOUND = Audio(np.full((4800, 2), 0.25, dtype=np.float32), 48_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE, encoding="utf-8")
    return path


def needs(*names: str) -> ScorerDeps:
    return ScorerDeps(ScoringSettings(scorers=list(names)), trusted=frozenset(names))


def open_scorer(name: str, seconds: float = 60.0) -> CustomScorer:
    return CustomScorer(name, needs(name), call_seconds=seconds)


def test_a_function_in_a_file_scores(file: Path) -> None:
    scorer = make_scorer(f"{file}:loud", needs(f"{file}:loud"))
    assert isinstance(scorer, CustomScorer)
    assert scorer.score(["x", "y"], [SOUND, SOUND], [make_config()] * 2) == [Score(0.25), Score(0.25)]
    scorer.close()


def test_a_function_in_a_module_of_the_working_folder_scores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "ours" / "ears"
    package.mkdir(parents=True)
    (tmp_path / "ours" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    scorer = open_scorer("ours.ears.mine:parts")
    (outcome,) = scorer.score(["four"], [SOUND], [make_config(tempo="slow")])
    assert outcome == Score(4.0, {"is_slow": 1.0})
    scorer.close()


@pytest.mark.long
def test_whatever_it_does_costs_that_pair_and_no_other(file: Path) -> None:
    scorer = open_scorer(f"{file}:moody", seconds=2.0)
    vibes = ["fine", "raise", "exit", "die", "hang", "nan", "text", "true", "none", "empty", "deep", "fine"]
    outcomes = scorer.score(vibes, [SOUND] * len(vibes))
    scorer.close()
    assert outcomes[0] == outcomes[-1] == Score(0.5)
    reasons = {v: o.reason for v, o in zip(vibes, outcomes, strict=True) if isinstance(o, Unscored)}
    for vibe, words in {
        "raise": "RuntimeError: not today",
        "exit": "SystemExit: 3",
        "die": "SIGKILL",
        "hang": "took longer than 2 s",
        "nan": "it returned nan",
        "text": "returned str instead of a number",
        "true": "returned bool instead of a number",
        "none": "returned NoneType instead of a number",
        "empty": "a dict without final_score",
        "deep": "final_score is str instead of a number",
    }.items():
        assert words in reasons[vibe]


def test_only_what_the_user_named_runs(file: Path) -> None:
    name = f"{file}:loud"
    scorer = make_scorer(name, ScorerDeps(ScoringSettings()))
    with pytest.raises(InputError, match="settings file") as refused:
        scorer.score(["x"], [SOUND])
    assert "--trust-settings" in refused.value.remedy
    with pytest.raises(InputError, match="settings file"):
        make_scorers(ScorerDeps(ScoringSettings(scorers=[name])))


def test_what_cannot_be_found_is_an_error_at_once(file: Path) -> None:
    for name, words in (
        ("nowhere.py:fn", "neither a file nor an importable module"),
        ("no.such.module:fn", "neither a file nor an importable module"),
        (f"{file}:", "does not name a function"),
    ):
        with pytest.raises(InputError, match=words):
            make_scorers(needs(name))
    with pytest.raises(InputError, match="scorers are auto, acoustic, clap, judge"):
        make_scorers(needs("loudness"))


@pytest.mark.parametrize(
    ("code", "function", "words"),
    [
        ("import nothing_like_this", "fn", "nothing_like_this"),
        ("x = 1", "fn", "no attribute 'fn'"),
        ("fn = 1", "fn", "not a function"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_before_any_work(
    tmp_path: Path, code: str, function: str, words: str
) -> None:
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(InputError, match=words):
        open_scorer(f"{tmp_path / 'bad.py'}:{function}").prepare()


def test_the_fingerprint_follows_the_code(file: Path) -> None:
    before = open_scorer(f"{file}:loud").fingerprint
    assert before != open_scorer(f"{file}:parts").fingerprint
    file.write_text(CODE + "\n# changed\n", encoding="utf-8")
    assert open_scorer(f"{file}:loud").fingerprint != before


@pytest.mark.parametrize(
    ("signature", "called_with"),
    [
        ("vibe, config, audio", "vibe config audio"),
        ("*anything", "vibe config audio"),
        ("vibe, audio", "vibe audio"),
        ("text, sound", "vibe audio"),
        ("vibe, config", "vibe config"),
        ("vibe, config, audio, *, loud=1", "vibe config audio"),
    ],
)
def test_a_scorer_is_called_with_what_it_takes(
    signature: str, called_with: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "custom_scorer", types.ModuleType("custom_scorer"))
    path = tmp_path / "mine.py"
    path.write_text(f"calls = []\ndef fn({signature}):\n    calls.append(locals())\n    return 0.5\n", encoding="utf-8")
    call = make_caller(str(path), "fn", str(tmp_path))
    assert call(None, None, None, 0) == tuple(called_with.split())
    assert call("rain", {"tempo": "slow"}, SOUND.samples, SOUND.sample_rate) == (0.5, {})
    (given,) = sys.modules["custom_scorer"].calls
    values = given.get("anything") or [given[name] for name in given if name != "loud"]
    of_kind = {str: "vibe", dict: "config", Audio: "audio"}
    assert " ".join(of_kind[type(value)] for value in values) == called_with


def test_a_scorer_that_takes_less_than_all_says_what_it_is_called_with(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    file.write_text("def fn(text, sound):\n    return 0.5\ndef full(vibe, config, audio):\n    return 0.5\n")
    for function, said in (("fn", "takes 2 arguments: it is called with vibe, audio"), ("full", "")):
        scorer = open_scorer(f"{file}:{function}")
        try:
            assert scorer.score(["rain"], [SOUND], [make_config()]) == [Score(0.5)]
        finally:
            scorer.close()
        heard = capsys.readouterr().err
        assert said in heard
        assert ("is called with" in heard) == bool(said)


def test_a_scorer_that_takes_neither_says_what_it_should(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def fn(audio):\n    return 0.5\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"\(vibe, config, audio\) or \(vibe, audio\)"):
        open_scorer(f"{path}:fn").prepare()
