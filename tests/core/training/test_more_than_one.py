"""Several rows in a sequence, several processes in a run, 4-bit weights, and GRPO's checkpoint chosen by score."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentscore import forms
from latentscore_data.core.base.errors import InputError, MissingError, StoppedError
from latentscore_data.core.base.settings import ModalSettings, ScoringSettings, TrainSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.estimates import check_gpu, gpu_count, price_per_hour
from latentscore_data.core.models.spec import Choices, DataFact, TrainSpec, build_spec
from latentscore_data.core.training.audit import packed
from latentscore_data.core.training.launch import _handle, check_processes, train_together
from training_runs import ready, short_system, train, write_rows

DATA = {"train": DataFact(sha256="0" * 64, rows=100)}


def spec(kind: Any, *overrides: str) -> TrainSpec:
    return build_spec(TrainSettings(), Choices(kind, overrides=overrides), DATA, ScoringSettings())[0]


@pytest.fixture
def short_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "config_system", short_system)


@pytest.mark.parametrize("value", ["sft.packing=true", "lora.use_rslora=true", "quantize=4bit"])
def test_a_later_setting_names_a_run_only_where_it_is_not_at_its_default(value: str) -> None:
    default = value.replace("true", "false").replace("4bit", "none")
    assert spec("sft").run_id == spec("sft", default).run_id != spec("sft", value).run_id


def test_rows_are_packed_best_fit_decreasing() -> None:
    assert packed([6, 5, 4, 3, 2], room=10) == 2
    assert packed([6, 6, 6], room=10) == 3


@pytest.mark.parametrize(("count", "fits"), [(1, True), (2, True), (3, False)])
def test_a_batch_is_shared_out_evenly_or_refused(count: int, fits: bool) -> None:
    wanted = spec("sft", "batch.size=8", "batch.per_device=2")
    with contextlib.nullcontext() if fits else pytest.raises(InputError, match=r"cannot be divided among 3 processes"):
        check_processes(wanted, count)


def test_the_number_of_gpus_stands_behind_their_name_and_multiplies_their_price() -> None:
    one, two, three = (price_per_hour(ModalSettings(), gpu) for gpu in ("L4", "L4:2", "L4:3"))
    assert gpu_count("L4:2") == 2
    assert two - one == pytest.approx(three - two)
    assert two > one
    for wrong in ("L4:0", "L4:9", "L4:x", "L4:"):
        with pytest.raises(InputError, match="not a number of GPUs"):
            check_gpu(wrong)


def test_reports_of_the_first_process_are_passed_on_and_other_lines_kept() -> None:
    said: list[str] = []
    heard: list[Any] = []
    for line in ('{"say": "step 1/2"}', '{"checkpoint": "/run/checkpoint-1"}', "a library's warning", "3"):
        _handle(line + "\n", said, heard.append, heard.append)
    assert heard == ["step 1/2", Path("/run/checkpoint-1")]
    assert said == ["a library's warning", "3"]
    with pytest.raises(StoppedError, match="time is up"):
        _handle(json.dumps({"failed": ["StoppedError", "time is up", "go on"]}), said, heard.append, None)


def test_4_bits_are_refused_for_full_training() -> None:
    with pytest.raises(InputError, match="method full trains all weights"):
        spec("sft", "quantize=4bit", "method=full")


@pytest.mark.parametrize("answer", ["json", "labels"])
@pytest.mark.ml
def test_vllm_gets_the_grammar_of_the_answers_by_a_name_of_its_own(answer: str) -> None:

    from trl.trainer.grpo_config import GRPOConfig

    from latentscore_data.core.training.grpo import vllm_arguments, vllm_grammar

    assert vllm_grammar(spec("grpo", f"answer={answer}")) == {}
    held = spec("grpo", "grpo.constrained=true", "grpo.vllm=true", f"answer={answer}")
    grammar = vllm_grammar(held)
    assert len(grammar) == 1
    assert grammar.keys() <= GRPOConfig.__dataclass_fields__.keys()
    with pytest.raises(MissingError, match="but vLLM or an NVIDIA GPU is missing"):
        vllm_arguments(held)


@pytest.mark.ml
@pytest.mark.usefixtures("one_thread", "short_prompt")
class TestRuns:
    def test_4_bits_without_an_nvidia_gpu_are_refused_with_what_helps(self, workspace: Workspace) -> None:
        write_rows(workspace)
        with pytest.raises(MissingError, match="no NVIDIA GPU here") as caught:
            train(workspace, "sft", "quantize=4bit", "method=lora", "device=cpu")
        assert "--set quantize=none" in caught.value.remedy

    def test_packed_rows_take_fewer_steps_and_the_adapter_says_its_scale(self, workspace: Workspace) -> None:
        write_rows(workspace)
        values = ("method=lora", "lora.use_rslora=true", "optim.epochs=1", "batch.size=8", "batch.per_device=8")
        run = train(workspace, "sft", "sft.packing=true", *values)
        record = run.record()
        assert record["audit"]["steps"] == 3, "24 rows of one length, 8 in a sequence"
        assert [line["step"] for line in run.history() if "loss" in line] == [1, 2, 3]
        assert json.loads((run.final / "adapter_config.json").read_text())["use_rslora"]

    def test_grpo_keeps_the_checkpoint_whose_answers_sound_best(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from latentscore_data.core.training import choice

        write_rows(workspace)
        scores = iter([0.9, 0.2])

        @contextlib.contextmanager
        def one_score_a_validation(*_: object) -> Iterator[Any]:
            def score_pairs(pairs: list[Any]) -> list[float]:
                return [next(scores)] * len(pairs)

            yield "fake", "", score_pairs

        monkeypatch.setattr(choice, "open_scorer", one_score_a_validation)
        monkeypatch.setattr(choice, "COMPLETION_ROOM", 6)
        run = train(
            workspace, "grpo", "optim.max_steps=2", "checkpoint.every_steps=1", "choose_by=score", "choose_rows=1",
            "batch.size=2", "batch.per_device=2", "grpo.generations=2", "grpo.max_completion_tokens=16",
            "grpo.mask_truncated_completions=false", adapter="none",
            reward=lambda vibes, answers: [float(len(set(answer))) for answer in answers],
        )  # fmt: skip
        assert [line["eval_score"] for line in run.history() if "eval_score" in line] == [0.9, 0.2]
        first, last = ((run.checkpoints / f"checkpoint-{n}" / "model.safetensors").read_bytes() for n in (1, 2))
        assert first != last
        assert (run.final / "model.safetensors").read_bytes() == first

    @pytest.mark.long
    def test_two_processes_end_with_one_complete_run(self, workspace: Workspace) -> None:
        write_rows(workspace)
        values = ("optim.max_steps=2", "checkpoint.every_steps=1", "answer=labels", "device=cpu")
        run = ready(workspace, "sft", *values, "batch.size=4", "batch.per_device=2")
        committed: list[Path] = []
        train_together(run.spec, run.folder, 2, on_checkpoint=committed.append)
        run.folder.verify()
        names = [path.name for path in committed]
        assert names == ["checkpoint-1", "checkpoint-2", run.spec.run_id]
        assert [line["step"] for line in run.folder.history() if "loss" in line] == [1, 2], "one of the two writes"
