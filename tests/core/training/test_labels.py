"""Training on a line of labels, and everything that asks such a model afterwards."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from conftest import here
from factories import make_payload, make_vibe
from latentscore import forms
from latentscore.api.answers import line_to_json
from latentscore.api.models import LocalModel
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.settings import GrpoSettings, PromptsSettings, ScoringSettings, TrainSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.generators.local import LocalGenerator
from latentscore_data.core.llm.local_transport import LocalTransport
from latentscore_data.core.models.base_models import load_tokenizer
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import Choices, TrainSpec
from latentscore_data.core.scoring.rewards import RewardBook, calibrate, part_weights
from latentscore_data.core.training.audit import audit
from latentscore_data.core.training.prepare import prepare
from training_runs import train, training_row, write_rows

QUICK = ("answer=labels", "optim.max_steps=2", "batch.size=2")


def test_a_line_is_rewarded_for_its_number_of_labels_its_labels_and_its_sound() -> None:
    book = RewardBook(
        calibrate("fake", [0.0, 1.0], []), lambda pairs: [0.0] * len(pairs), lambda pairs: [1.0] * len(pairs), forms.LABELS
    )  # fmt: skip
    line = forms.labels_line(make_payload())
    whole, wrong, short, json_answer = book.score(
        ["rain"] * 4, [line, f"quick {line.partition(' ')[2]}", line[:40], forms.json_text(make_payload())]
    )
    assert (whole["format"], whole["schema"], whole["audio"]) == (1.0, 1.0, 1.0)
    assert (wrong["format"], wrong["schema"], wrong["audio"]) == (1.0, pytest.approx(33 / 34), 0.0)
    assert 0 < short["format"] < 0.3
    assert short["schema"] < 0.3
    assert json_answer["schema"] == 0.0
    weights = part_weights(GrpoSettings(), forms.LABELS)
    assert (weights["title"], weights["audio"]) == (0.0, pytest.approx(0.55))
    assert part_weights(GrpoSettings(constrained=True), forms.LABELS)["audio"] == pytest.approx(1.0)


@pytest.mark.ml
def test_rows_have_a_tenth_of_the_tokens_and_unnamed_json_runs_keep_their_names(workspace: Workspace) -> None:
    write_rows(workspace)
    runs = {
        answer: prepare(TrainSettings(base_model="tiny-random", answer=answer), ScoringSettings(), workspace, Choices("sft"))
        for answer in ("json", "labels")
    }  # fmt: skip
    tokenizer = load_tokenizer("tiny-random")
    found = {answer: audit(run.spec, run.rows, tokenizer)[0] for answer, run in runs.items()}
    assert found["labels"].answer_tokens["max"] < found["json"].answer_tokens["max"] / 3
    spec = runs["json"].spec
    old = json.loads(spec.model_dump_json(exclude={"answer"}))
    assert TrainSpec.model_validate(old).hash() == spec.hash() != runs["labels"].spec.hash()
    examples = PromptsSettings(examples=2)
    with pytest.raises(InputError, match=r"prompts\.examples shows 2 answers in JSON"):
        prepare(TrainSettings(answer="labels"), ScoringSettings(), workspace, Choices("sft"), prompts=examples)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> tuple[Workspace, RunFolder]:
    """A workspace with a tiny model that was trained on lines for two steps."""
    workspace = Workspace(tmp_path_factory.mktemp("labels"))
    write_rows(workspace)
    return workspace, train(workspace, "sft", *QUICK, run_id="lines")


@pytest.mark.ml
def test_bench_configs_and_the_runtime_get_whole_payloads_of_it(taught: tuple[Workspace, RunFolder]) -> None:
    workspace, run = taught
    assert json.loads((run.final / forms.FORM_FILE).read_text()) == {"answer": "labels", "system": None}
    generator = LocalGenerator("local:lines", "lines", batch_size=2, max_new_tokens=2048, runs=workspace.train_dir)
    first, second = generator.generate([make_vibe(vibe="rain at night"), make_vibe(2, vibe="a bright fair")])
    assert first.payload is not None
    assert second.payload is not None
    assert (first.payload["title"], second.payload["title"]) == ("Rain Night", "Bright Fair")
    assert first.tokens_out < 350

    vibes = [make_vibe(number, vibe="slow rain", split="TEST") for number in (1, 2)]
    replace_rows(workspace.vibes("TEST"), vibes)
    asked = ("configs", "--only", "generate", "--root", str(workspace.root), "--split", "TEST", "--n", "2")
    here(*asked, "--model", "local:lines", code=0)
    (_, line), _ = read_lines(workspace.candidates)
    assert [candidate["title"] for candidate in line["config_candidates"]] == ["Slow Rain"] * 2
    packed = {"json_schema": {"name": "Packed", "schema": {}}}
    with pytest.raises(InputError, match="trained to answer a vibe with labels, but the request is for Packed"):
        asyncio.run(LocalTransport("local:lines", workspace.train_dir, 1).complete([], {}, packed))

    payload = LocalModel(run.final).answer("slow rain")
    assert payload.title == "Slow Rain"


@pytest.mark.ml
@pytest.mark.parametrize("kind", ["dpo", "grpo"])
def test_preference_and_reward_go_on_in_the_same_form(taught: tuple[Workspace, RunFolder], kind: Any) -> None:
    workspace, _ = taught
    one, two = make_payload(), make_payload(tempo="very_slow", brightness="very_dark")
    pairs = {"config_candidates": [one, two], "candidate_scores": {"acoustic": [0.1, 0.9]}}
    replace_rows(workspace.scored("GRPO"), [training_row(n).model_copy(update=pairs) for n in range(4)])
    with pytest.raises(InputError, match="has the answer format labels, and train"):
        train(workspace, kind, "method=full", adapter="lines")
    seen: list[str] = []

    def reward(vibes: list[str], answers: list[str]) -> list[float]:
        seen.extend(answers)
        return [float(len(set(answer))) for answer in answers]

    held = ("grpo.constrained=true", "grpo.generations=2", "grpo.max_completion_tokens=300", "dpo.margin=0")
    run = train(workspace, kind, *QUICK, *held, adapter="lines", reward=reward if kind == "grpo" else None)
    assert forms.form_of(run.final).name == "labels"
    if kind == "grpo":
        assert len(seen) == 4
        assert all(line_to_json(answer, "rain") != answer for answer in seen)


@pytest.mark.ml
def test_what_is_exported_says_how_it_answers(taught: tuple[Workspace, RunFolder], tmp_path: Path) -> None:
    workspace, _ = taught
    out = tmp_path / "model"
    here("export", "model", "lines", "--root", str(workspace.root), "--gguf", "q8_0", "--out", str(out), code=0)
    assert forms.form_of(out / "gguf" / "lines-q8_0.gguf").name == "labels"
    card = (out / "README.md").read_text()
    assert "answer.gbnf" in card
    assert "one JSON object" not in card
    assert (out / "answer.gbnf").read_text().startswith("root ::= ( ")
    question = json.loads((out / "question.json").read_text())
    assert "format" not in question
    assert question["messages"][0]["content"] == forms.LABELS.system()
