"""lsdata export model: merged weights and GGUF files that other software loads and that say the same."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latentscore_data.cli import app
from latentscore_data.core.training.runs import RunFolder
from latentscore_data.core.workspace import Workspace
from tiny_models import change_json, finished_run, tiny_qwen3, with_adapter

# Not importorskip: libraries that are imported while tests are collected read the user's settings.
EXTRAS = ("torch", "transformers", "peft", "gguf")
pytestmark = [
    pytest.mark.ml,
    pytest.mark.skipif(not all(map(find_spec, EXTRAS)), reason="needs the ml extra"),
]


def run(root: Path, *args: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["export", "model", *args, "--root", str(root)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def tiny_run(root: Path) -> RunFolder:
    """A finished LoRA run on tiny-random, the Gemma-3-shaped model."""
    from latentscore_data.core.training.base_models import load_base

    base = load_base("tiny-random")
    adapted = with_adapter(base.model, "tiny-random")
    train_dir = Workspace(root).train_dir
    return finished_run(train_dir, "tiny-lora", adapted, base.tokenizer, base_model="tiny-random", method="lora")


@pytest.fixture
def qwen_run(root: Path, tmp_path: Path) -> RunFolder:
    from latentscore_data.core.training.base_models import load_base

    folder = tiny_qwen3(tmp_path / "qwen3")
    (folder / "LICENSE").write_text("Apache License, Version 2.0")
    base = load_base(str(folder))
    adapted = with_adapter(base.model, str(folder))
    train_dir = Workspace(root).train_dir
    return finished_run(train_dir, "qwen-lora", adapted, base.tokenizer, base_model=str(folder), method="lora")


def test_the_merged_model_answers_like_adapter_and_base(root: Path, tiny_run: RunFolder) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from latentscore_data.core.training.base_models import load_trained

    run(root)
    folder = root / ".exports" / "tiny-lora"
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("a storm that has passed", add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        expected = load_trained(tiny_run.final).model.eval()(input_ids=ids).logits
        base_only = load_trained(tiny_run.final).model.eval()
        with base_only.disable_adapter():
            untrained = base_only(input_ids=ids).logits
        found = merged.eval()(input_ids=ids).logits
    assert (found - expected).abs().max() < 1e-4
    # The adapter does something, so equal logits are no accident.
    assert (untrained - expected).abs().max() > 0.05
    record = json.loads((folder / "export.json").read_text())
    assert record["parity"]["merged"]["relative_error"] < 1e-5
    assert record["parity"]["merged"]["top1_agreement"] == 1.0
    assert record["base"] == ["tiny-random"]


def test_each_gguf_says_nearly_the_same(root: Path, tiny_run: RunFolder) -> None:
    import gguf

    bits_and_error = {
        "q8_0": (8.5, 0.05),
        "q5_0": (8.5, 0.3),
        "q4_0": (8.5, 0.5),
        "f16": (16, 0.005),
        "bf16": (16, 0.02),
    }
    run(root, *(flag for name in bits_and_error for flag in ("--gguf", name)))
    folder = root / ".exports" / "tiny-lora"
    parities = json.loads((folder / "export.json").read_text())["parity"]
    for name, (embedding_bits, error) in bits_and_error.items():
        reader = gguf.GGUFReader(folder / "gguf" / f"tiny-lora-{name}.gguf")
        assert reader.fields["general.architecture"].contents() == "gemma3"
        kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
        assert kinds["blk.0.ffn_up.weight"] == name.upper()
        assert kinds["blk.0.attn_norm.weight"] == "F32"
        embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
        assert embedding.n_bytes * 8 / embedding.n_elements == embedding_bits
        assert 0 < parities[f"gguf/tiny-lora-{name}.gguf"]["relative_error"] < error


def test_a_qwen3_gguf_keeps_its_tokenizer_and_its_untied_output(root: Path, qwen_run: RunFolder) -> None:
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    run(root, "qwen-lora", "--gguf", "f16")
    folder = root / ".exports" / "qwen-lora"
    reader = gguf.GGUFReader(folder / "gguf" / "qwen-lora-f16.gguf")
    assert reader.fields["tokenizer.ggml.pre"].contents() == "qwen2"
    spelled = reader.fields["tokenizer.ggml.tokens"].contents()
    assert spelled[-1] == f"[PAD{len(spelled) - 1}]"
    assert "output.weight" in {tensor.name for tensor in reader.tensors}
    arguments = {"gguf_file": "qwen-lora-f16.gguf", "quantization_config": GgufConfig(dequantize=True)}
    back = AutoModelForCausalLM.from_pretrained(folder / "gguf", dtype=torch.float32, **arguments)
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = AutoTokenizer.from_pretrained(folder / "gguf", gguf_file="qwen-lora-f16.gguf")
    text = "<|im_start|>user\nrain, 1234 don't\n\n  stop<|im_end|>"
    assert tokens(text)["input_ids"] == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    ids = torch.tensor([tokens(text)["input_ids"]])
    with torch.inference_mode():
        difference = (back.eval()(input_ids=ids).logits - merged.eval()(input_ids=ids).logits).abs().max()
    assert difference < 0.01


def test_a_model_that_was_trained_whole_is_written_as_it_is(root: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from latentscore_data.core.training.base_models import load_base

    base = load_base("tiny-random")
    with torch.no_grad():
        base.model.model.norm.weight.add_(0.25)
    finished_run(
        Workspace(root).train_dir, "whole", base.model, base.tokenizer, base_model="tiny-random", method="full"
    )
    run(root, "whole", "--gguf", "q8_0")
    folder = root / ".exports" / "whole"
    written = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(written[name], tensor) for name, tensor in base.model.state_dict().items())
    record = json.loads((folder / "export.json").read_text())
    assert set(record["parity"]) == {"gguf/whole-q8_0.gguf"}
    assert record["base"] == ["tiny-random"]


def test_the_card_tells_the_run(root: Path, tiny_run: RunFolder) -> None:
    from huggingface_hub import ModelCard

    run(root, "--gguf", "q8_0")
    folder = root / ".exports" / "tiny-lora"
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    for fact in (
        "| last\\_loss | 1.5 |",
        "| lora.rank | 32 |",
        "`gguf/tiny-lora-q8_0.gguf`",
        "moby-dick",
        "not compared with",
    ):
        assert fact in card.text
    assert json.loads((folder / "training.json").read_text())["metrics"]["last_loss"] == 1.5
    assert "Apache License" in (folder / "LICENSE").read_text()


def test_the_loading_example_of_the_card_runs(root: Path, tiny_run: RunFolder, capsys) -> None:
    run(root)
    folder = root / ".exports" / "tiny-lora"
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code is not None
    exec(code[1].replace("PATH_OR_REPO", str(folder)), {})
    assert "assistant" in capsys.readouterr().out


def test_a_gemma_ships_its_terms_or_says_that_they_are_missing(root: Path, tmp_path: Path) -> None:
    from latentscore_data.core.training.base_models import load_base

    base = load_base("tiny-random")
    folder = tmp_path / "some-gemma"
    base.model.save_pretrained(str(folder))
    base.tokenizer.save_pretrained(str(folder))
    assert "the text of the base model's licence (gemma) is not here" in run(root, str(folder))
    exported = root / ".exports" / "some-gemma"
    assert "Gemma Terms of Use" in (exported / "NOTICE").read_text()
    terms = tmp_path / "gemma-terms.html"
    terms.write_text("<p>the terms</p>")
    assert "cannot be pushed" not in run(root, str(folder), "--terms", str(terms), "--overwrite")
    assert (exported / "LICENSE.html").read_text() == "<p>the terms</p>"
    assert json.loads((exported / "export.json").read_text())["missing_notices"] == []


def test_tokenizer_keys_can_be_taken_from_another_gguf(root: Path, tiny_run: RunFolder) -> None:
    import gguf

    run(root, "--gguf", "f16")
    first = root / ".exports" / "tiny-lora" / "gguf" / "tiny-lora-f16.gguf"
    copy = root / "base.gguf"
    copy.write_bytes(first.read_bytes())
    run(root, "--gguf", "f16", "--tokenizer", str(copy), "--overwrite")
    a, b = gguf.GGUFReader(copy), gguf.GGUFReader(first)
    keys = [name for name in a.fields if name.startswith("tokenizer.")]
    assert len(keys) >= 8
    assert all(a.fields[name].contents() == b.fields[name].contents() for name in keys)


def refused(root: Path, *args: str, code: int) -> str:
    """What a refusal says; it must leave nothing behind."""
    before = sorted((root / ".exports").glob("*"))
    output = run(root, *args, code=code)
    assert len(output.strip().splitlines()) <= 4
    assert sorted(path for path in (root / ".exports").glob("*")) == before
    assert not [path for path in root.rglob("*") if path.name.endswith(".tmp")]
    return output


def test_an_adapter_without_its_base(root: Path, tiny_run: RunFolder) -> None:
    change_json(tiny_run.final / "adapter_config.json", base_model_name_or_path="nobody/has-this-model")
    assert "nobody/has-this-model cannot be loaded" in refused(root, code=3)


def test_an_adapter_of_another_shape(root: Path, qwen_run: RunFolder, tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config.from_pretrained(tmp_path / "qwen3")
    config.hidden_size = 128
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "qwen3")
    output = refused(root, "qwen-lora", code=2)
    assert "does not fit its base" in output


def test_weights_that_are_not_finite(root: Path, tiny_run: RunFolder) -> None:
    from safetensors.torch import load_file, save_file

    path = tiny_run.final / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    assert "not finite" in refused(root, code=7)


def test_a_gguf_that_is_not_the_model_is_never_left(root: Path, tiny_run: RunFolder, monkeypatch) -> None:
    from latentscore_data.core.export import gguf

    broken = gguf.Architecture("gemma3", gguf.ARCHITECTURES["gemma3_text"].keys, norm_offset=0.0)
    monkeypatch.setattr(gguf, "ARCHITECTURES", {"gemma3_text": broken})
    assert "differs from the merged model" in refused(root, "--gguf", "f16", code=7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_pre_attn_scalar": 32}, "query_pre_attn_scalar is 32"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"layer_types": ["full_attention", "full_attention"]}, "the pattern of attention layers"),
    ],
)
def test_what_llama_cpp_takes_for_granted_is_refused(root: Path, tmp_path: Path, change: dict, message: str) -> None:
    from latentscore_data.core.training.base_models import load_base

    base = load_base("tiny-random")
    folder = tmp_path / "odd"
    base.model.save_pretrained(str(folder))
    base.tokenizer.save_pretrained(str(folder))
    change_json(folder / "config.json", **change)
    assert message in refused(root, str(folder), "--gguf", "f16", code=2)


def test_an_architecture_without_gguf(root: Path, tmp_path: Path, tiny_run: RunFolder) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "llama"
    tokenizer = AutoTokenizer.from_pretrained(tiny_run.final)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    assert "a GGUF of a llama model cannot be written here" in refused(root, str(folder), "--gguf", "f16", code=2)
    run(root, str(folder))


def test_an_unknown_quantisation_names_those_there_are(root: Path, tiny_run: RunFolder) -> None:
    assert "q8_0" in refused(root, "--gguf", "q4_k_m", code=2)


@pytest.mark.parametrize("source", ["no-such-run", "."])
def test_a_source_that_is_no_model(root: Path, tiny_run: RunFolder, source: str) -> None:
    assert "lsdata:" in refused(root, source, code=2)


def test_a_run_that_is_not_finished(root: Path, tiny_run: RunFolder) -> None:
    tiny_run.done_mark.unlink()
    tiny_run.note(status="interrupted")
    assert "run tiny-lora is interrupted" in refused(root, "tiny-lora", code=2)
    assert "no finished run" in refused(root, code=2)
