"""Models on this machine write the data: a tiny one with random weights, held to the schema by the real libraries."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from conftest import Lsdata, here
from factories import make_text, make_vibe
from latentscore.decoding import Prompt, Written
from latentscore_data.core.base.answerers import kind_of
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm import answerers, local_transport
from latentscore_data.core.llm.client import connect
from latentscore_data.core.llm.types import Question
from latentscore_data.core.models import engines
from latentscore_data.core.models.engines import Decoder
from tiny_models import finished_run, with_adapter


class Word(BaseModel):
    word: str = Field(max_length=12)


ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""On a busy machine the threads of so small a model wait for each other."""
SCHEMA = Word.model_json_schema()


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("builtin/keywords", "builtin"),
        ("local:tiny-random", "local"),
        ("local:org/model", "local"),
        ("openai/gpt-4o", "hosted"),
        ("hosted_vllm/local:x", "hosted"),
    ],
)
def test_a_name_says_who_answers(model: str, kind: str) -> None:
    assert kind_of(model).name == kind
    assert kind_of(model).here == (kind != "hosted")


def test_a_model_that_was_trained_again_is_another(tmp_path: Path) -> None:
    (tmp_path / "run" / "final").mkdir(parents=True)
    weights = tmp_path / "run" / "final" / "model.safetensors"
    weights.write_bytes(b"1")
    version = answerers.answerer("local:run").version
    before = version("local:run", tmp_path)
    assert before.startswith("local:run@")
    weights.write_bytes(b"22")
    assert version("local:run", tmp_path) != before
    assert version("local:org/on-the-hub", tmp_path) == "local:org/on-the-hub"


# -- batches


class Echo:
    """An engine that says the last word of each prompt, and remembers its batches."""

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.batches: list[list[str]] = []
        self.hold = hold

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        words = [str(prompt.messages[-1]["content"]).split()[-1] for prompt in prompts]
        self.batches.append(words)
        assert len({prompt.max_tokens for prompt in prompts}) == 1
        if "bang" in words:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return [Written(json.dumps({"word": word}), 10, 3, word == "cut") for word in words]


def ask(
    engine: Echo, *words: str, cache: Path | None = None, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> list[Any]:
    monkeypatch.setattr(local_transport, "engine_for", lambda name, runs, what, stopped: engine)
    monkeypatch.setattr(answerers, "check_local", lambda model, runs: None)

    async def run() -> list[Any]:
        llm = connect("local:some", LLMSettings(**changes), cache_path=cache, ledger=None, stage="test")
        questions = [Question("Answer.", f"say {word}", temperature=0.5, max_tokens=20) for word in words]
        try:
            return await asyncio.gather(*(llm.ask(q, Word) for q in questions), return_exceptions=True)
        finally:
            await llm.aclose()

    return asyncio.run(run())


def test_questions_are_answered_in_batches_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"w{n}" for n in range(40)]
    engine = Echo()
    answers = ask(engine, *words, cache=tmp_path / "c.sqlite", monkeypatch=monkeypatch, max_concurrency=8)
    assert [answer.value.word for answer in answers] == words
    assert max(map(len, engine.batches)) > 1
    assert max(map(len, engine.batches)) <= 8
    assert {(answer.tokens_in, answer.tokens_out, answer.cost_usd) for answer in answers} == {(10, 3, 0.0)}
    again = ask(engine, *words, cache=tmp_path / "c.sqlite", monkeypatch=monkeypatch)
    assert all(answer.cached for answer in again)
    assert sum(map(len, engine.batches)) == 40


def test_what_does_not_fit_into_memory_ends_the_run_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    (failure,) = ask(Echo(), "bang", monkeypatch=monkeypatch)
    assert isinstance(failure, InputError)
    assert "--max-concurrency" in failure.remedy


def test_an_answer_that_is_cut_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Echo()
    (answer,) = ask(engine, "cut", monkeypatch=monkeypatch)
    # The question that is asked again ends in "shorter."; this engine repeats that.
    assert (engine.batches, answer.value.word) == ([["cut"], ["shorter."]], "shorter.")


def test_a_batch_that_nobody_waits_for_any_more_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    class Endless(Echo):
        def __init__(self, stopped: threading.Event) -> None:
            self.stopped = stopped

        def write(self, prompts: Sequence[Prompt]) -> list[Written]:
            begun.set()
            assert self.stopped.wait(30)
            ended.set()
            return []

    monkeypatch.setattr(local_transport, "engine_for", lambda name, runs, what, stopped: Endless(stopped))

    async def run() -> None:
        transport = local_transport.LocalTransport("local:some", tmp_path, 4)
        asked = asyncio.create_task(transport.complete([{"role": "user", "content": "say it"}], {}, None))
        await asyncio.to_thread(begun.wait)
        asked.cancel()
        await transport.aclose()

    asyncio.run(run())
    assert ended.is_set()


# -- the real libraries


@pytest.mark.ml
def test_decoding_ends_at_the_next_token_after_it_was_stopped(tmp_path: Path) -> None:
    stopped = threading.Event()
    decoder = Decoder("tiny-random", tmp_path, "a test", stopped)
    prompt = Prompt([{"role": "user", "content": "say it"}], 60, SCHEMA)
    assert len(decoder.write([prompt])) == 1
    stopped.set()
    with pytest.raises(InputError, match="tiny-random: stopped"):
        decoder.write([prompt])


@pytest.mark.ml
def test_an_answer_fits_the_schema_and_depends_on_its_own_seed_alone(tmp_path: Path) -> None:
    decoder = Decoder("tiny-random", tmp_path, "a test")

    def prompt(seed: int, temperature: float = 1.0, top_p: float = 1.0) -> Prompt:
        messages = [{"role": "user", "content": f"say {seed % 3}"}]
        return Prompt(messages, 60, SCHEMA, temperature, top_p, seed)

    together = decoder.write([prompt(seed) for seed in range(4)])
    for written in together:
        assert set(json.loads(written.text)) == {"word"}
        assert not written.cut
    assert len({written.text for written in together}) > 1
    (alone,) = decoder.write([prompt(2)])
    assert alone.text == together[2].text, "whoever is in the batch with it"
    greedy = decoder.write([prompt(0, 0.0), prompt(3, 0.0), prompt(0, 1.0, top_p=1e-6)])
    assert len({written.text for written in greedy}) == 1, "the likeliest token each time"


@pytest.mark.ml
def test_draws_follow_the_models_shares(tmp_path: Path) -> None:
    import torch

    from latentscore.decoding import _Draws

    shares = torch.tensor([0.6, 0.3, 0.1])
    draws = _Draws([Prompt([], 1, SCHEMA, 1.0, 1.0, seed) for seed in range(3000)])
    picked = draws(torch.zeros(3000, 1), shares.log().repeat(3000, 1)).argmax(dim=1)
    found = torch.bincount(picked, minlength=3) / 3000
    assert torch.allclose(found, shares, atol=0.04)
    narrow = _Draws([Prompt([], 1, SCHEMA, 1.0, 0.7, seed) for seed in range(500)])
    assert narrow(torch.zeros(500, 1), shares.log().repeat(500, 1)).argmax(dim=1).max() == 1


@pytest.mark.ml
@pytest.mark.long
@pytest.mark.timeout(900)
def test_vibes_and_configs_are_written_by_a_run_on_this_machine(root: Path, lsdata: Lsdata) -> None:
    from latentscore_data.core.models.base_models import load_base

    workspace = Workspace(root)
    base = load_base("tiny-random")
    adapted = with_adapter(base.model, "tiny-random")
    finished_run(workspace.train_dir, "tiny", adapted, base.tokenizer, base_model="tiny-random", method="lora")
    replace_rows(workspace.vibes("TEST"), [make_vibe(n, vibe=f"slow rain {n}", split="TEST") for n in range(1)])
    Path("latentscore.toml").write_text("[configs]\nmax_tokens = 1600\n[vibes]\nmax_tokens = 1200\n")
    command = ("configs", "--only", "generate", "--json", "--root", str(root), "--n", "2", "--model", "local:tiny")
    out = lsdata(*command, timeout=280, env=ONE_THREAD)
    assert out.returncode in (0, 1), out.stderr
    summary = json.loads(out.stdout)
    assert summary["calls"] >= 2
    assert summary["cost_usd"] == 0.0
    lines = [line for _, line in read_lines(workspace.candidates)]
    assert [line["config_model"] for line in lines] == ["local:tiny"]
    again = lsdata(*command, "--overwrite", timeout=280, env=ONE_THREAD)
    assert json.loads(again.stdout)["cached"] >= sum(c is not None for x in lines for c in x["config_candidates"])
    replace_rows(workspace.texts("moby-dick"), [make_text(1)])
    vibes = lsdata(
        *(
            "vibes",
            "--json",
            "--root",
            str(root),
            "--model",
            "local:tiny",
            "--max-vibes",
            "1",
            "--dedupe-model",
            "words",
        ),
        timeout=280,
        env=ONE_THREAD,
    )
    # Random weights may write a list without an end; that is told with its kind.
    assert vibes.returncode in (0, 1), vibes.stderr
    assert json.loads(vibes.stdout)["calls"] >= 1


def test_what_is_missing_is_said_before_any_work(root: Path, tmp_path: Path) -> None:
    workspace = Workspace(root)
    replace_rows(workspace.texts("moby-dick"), [make_text(1)])
    out = here("vibes", "--root", str(root), "--model", f"local:{tmp_path}/nothing", "--dedupe-model", "words", code=3)
    assert "nothing" in out.stderr


# -- vLLM, which needs a GPU: a stand-in for the library shows what it is asked


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the engine was made with and asked."""
    seen: list[dict[str, Any]] = []

    class LLM:
        def __init__(self, **given: Any) -> None:
            seen.append(given)

        def chat(self, conversations: Any, params: Any, **given: Any) -> list[Any]:
            seen.append({"conversations": conversations, "params": params, **given})
            done = types.SimpleNamespace(text='{"word": "rain"}', token_ids=[1, 2], finish_reason="stop")
            return [types.SimpleNamespace(outputs=[done], prompt_token_ids=[1, 2, 3]) for _ in conversations]

    def module(name: str, **what: Any) -> None:
        made = types.ModuleType(name)
        vars(made).update(what)
        monkeypatch.setitem(sys.modules, name, made)

    keep = lambda **given: types.SimpleNamespace(**given)  # noqa: E731
    module("vllm", LLM=LLM)
    module("vllm.sampling_params", SamplingParams=keep, StructuredOutputsParams=keep)
    module("vllm.lora", __path__=[])
    module("vllm.lora.request", LoRARequest=lambda *given: given)
    return seen


@pytest.mark.ml
def test_vllm_is_asked_for_structured_outputs_in_one_batch(vllm: list[dict[str, Any]], tmp_path: Path) -> None:
    from latentscore_data.core.models.base_models import load_base

    base = load_base("tiny-random")
    folder = tmp_path / "base"
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    adapted = with_adapter(base.model, str(folder))
    finished_run(tmp_path, "tiny", adapted, base.tokenizer, base_model=str(folder), method="lora")
    engine = engines.VLLMEngine("tiny", tmp_path)
    prompts = [Prompt([{"role": "user", "content": "rain"}], 20, SCHEMA, 0.7, 0.9, seed) for seed in (1, 2)]
    assert engine.write(prompts) == [Written('{"word": "rain"}', 3, 2, False)] * 2
    made, asked = vllm
    assert made["model"] == str(folder)
    assert made["enable_lora"]
    assert asked["lora_request"] == ("adapter", 1, str(tmp_path / "tiny" / "final"))
    assert [params.seed for params in asked["params"]] == [1, 2]
    assert {params.structured_outputs.json["title"] for params in asked["params"]} == {"Word"}
    assert asked["chat_template"] == base.tokenizer.chat_template


@pytest.mark.ml
def test_without_a_gpu_or_vllm_transformers_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(engines, "find_spec", lambda name: object())
    for gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        engine = engines.engine_for("org/model", tmp_path, "a test")
        assert isinstance(engine, engines.VLLMEngine if gpu else Decoder)
    assert isinstance(engines.engine_for("tiny-random", tmp_path, "a test"), Decoder), "which has no files"


def test_the_libraries_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(module: str, extra: str, what: str) -> None:
        raise MissingError(f"{what} needs {module}", f"pip install latentscore-data[{extra}]")

    monkeypatch.setattr(engines, "require", missing)
    with pytest.raises(MissingError, match="local:x needs torch"):
        answerers.answerer("local:x").check("local:x", LLMSettings(), tmp_path)
