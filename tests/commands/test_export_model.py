"""lsdata export model: merged weights and GGUF files that other software loads and that say the same."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import Lsdata, here
from latentscore.forms import FORM_FILE
from latentscore.installed import install
from latentscore_data.core.base.settings import PromptsSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.generators.local import system_of
from latentscore_data.core.models.runs import RunFolder
from tiny_models import (
    change_json,
    finished_run,
    save,
    save_tiny_random,
    sentencepiece_gemma,
    tiny_llama,
    tiny_qwen3,
    trained_run,
)

# Not importorskip: libraries that are imported while tests are collected read the user's settings.
EXTRAS = ("torch", "transformers", "peft", "gguf")
pytestmark = [
    pytest.mark.ml,
    pytest.mark.skipif(not all(map(find_spec, EXTRAS)), reason="needs the ml extra"),
]


def run(root: Path, *args: str, code: int = 0) -> str:
    return here("export", "model", *args, "--root", str(root), code=code).output


@pytest.fixture
def tiny_run(root: Path) -> RunFolder:
    """A finished LoRA run on tiny-random, the Gemma-3-shaped model."""
    return trained_run(Workspace(root).train_dir, "tiny-lora")


@pytest.fixture
def qwen_run(root: Path, tmp_path: Path) -> RunFolder:
    folder = tiny_qwen3(tmp_path / "qwen3")
    (folder / "LICENSE").write_text("Apache License, Version 2.0")
    return trained_run(Workspace(root).train_dir, "qwen-lora", str(folder))


def test_the_merged_model_answers_like_adapter_and_base(root: Path, tiny_run: RunFolder) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from latentscore_data.core.models.base_models import load_trained

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


def test_an_adapter_alone_answers_on_its_base_as_before(root: Path, tiny_run: RunFolder) -> None:
    run(root, "tiny-lora", "--adapter-only")
    folder = Workspace(root).export_dir / "tiny-lora"
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= names
    assert "model.safetensors" not in names
    exported, trained = folder / "adapter_model.safetensors", tiny_run.final / "adapter_model.safetensors"
    assert exported.read_bytes() == trained.read_bytes()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-random"
    card = (folder / "README.md").read_text()
    assert "library_name: peft" in card
    assert "AutoPeftModelForCausalLM" in card


def test_an_adapter_alone_is_no_gguf_and_a_whole_model_is_no_adapter(root: Path, tiny_run: RunFolder) -> None:
    assert "--adapter-only" in run(root, "tiny-lora", "--adapter-only", "--gguf", "f16", code=2)
    trained_run(Workspace(root).train_dir, "whole", method="full")
    assert "was trained without an adapter" in run(root, "whole", "--adapter-only", code=2)


def test_a_missing_licence_text_is_found_before_anything_is_merged(
    root: Path, tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentscore_data.core.export.merge.merge", lambda *_: pytest.fail("merged first"))
    assert "terms.txt" in run(root, "tiny-lora", "--terms", "terms.txt", code=2)


def test_ollama_gets_a_modelfile_and_a_question_under_the_schema(root: Path, tiny_run: RunFolder) -> None:
    import jsonschema

    from factories import make_payload

    tiny_run.note(spec={**tiny_run.record()["spec"], "system": "Answer in one object."})
    (tiny_run.final / FORM_FILE).write_text(json.dumps({"answer": "json", "system": "Answer in one object."}))
    tiny_run.mark_done()
    run(root, "tiny-lora", "--gguf", "q8_0")
    folder = Workspace(root).export_dir / "tiny-lora"
    first, *rest = (folder / "Modelfile").read_text().splitlines()
    assert (folder / first.removeprefix("FROM ")).is_file()
    assert 'SYSTEM """Answer in one object."""' in rest, "what the run was trained with"
    question = json.loads((folder / "question.json").read_text())
    assert question["messages"][0]["content"] == "Answer in one object."
    assert system_of(str(folder), root, PromptsSettings()) == "Answer in one object.", "bench asks the export the same"
    jsonschema.validate(make_payload("Grey Tide"), question["format"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"title": "Grey Tide"}, question["format"])


@pytest.mark.parametrize("system", ['Answer """so""".', 'Say "yes"', " Answer in one object.\n"])
def test_a_system_message_that_a_modelfile_cannot_hold_stands_only_in_the_question(tmp_path: Path, system: str) -> None:
    from latentscore_data.core.export.quantize import write_modelfile

    (tmp_path / FORM_FILE).write_text(json.dumps({"answer": "json", "system": system}))
    write_modelfile(tmp_path, "tiny", "gguf/model-q8_0.gguf")
    *settings, last = (tmp_path / "Modelfile").read_text().splitlines()
    assert all(line.startswith(("FROM ", "PARAMETER ")) for line in settings)
    assert last.startswith("# No SYSTEM")
    assert json.loads((tmp_path / "question.json").read_text())["messages"][0]["content"] == system


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


def test_a_llama_gguf_says_that_digits_stand_alone_and_thinks_the_same(root: Path, tmp_path: Path) -> None:
    import gguf

    run(root, str(tiny_llama(tmp_path / "llama")), "--gguf", "f16")
    folder = root / ".exports" / "llama"
    reader = gguf.GGUFReader(folder / "gguf" / "llama-f16.gguf")
    assert reader.fields["tokenizer.ggml.pre"].contents() == "smollm"
    parity = json.loads((folder / "export.json").read_text())["parity"]["gguf/llama-f16.gguf"]
    assert parity["relative_error"] < 0.01


def test_a_model_that_was_trained_whole_is_written_as_it_is(root: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from latentscore_data.core.models.base_models import load_base

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


def test_the_card_shows_what_the_evaluation_found_with_its_intervals(root: Path, tiny_run: RunFolder) -> None:
    """The verdict is made by the code that ``train --evaluate`` runs, from samples with known means."""
    from bench_fakes import make_result, make_rows, noise
    from latentscore_data.core.bench.evaluate import RIVALS, TRAINED, judge
    from latentscore_data.core.bench.summary import RunFacts, SourceFacts, summarise

    means = {TRAINED: 0.5, "base": 0.2, "random": 0.1, "look-up": 0.49}
    rows = make_rows(12, 1)
    samples = [
        make_result(row, label, mean + 0.1 * noise(row.row_id, label), raw_valid=label == TRAINED)
        for label, mean in means.items()
        for row in rows
    ]
    facts = RunFacts(
        "e", "rows", "2026-01-01T00:00", [SourceFacts(label, "local", label) for label in means], ["bright"], TRAINED, 5.0, 0,
        resamples=500,
    )  # fmt: skip
    verdict = judge(summarise(samples, facts))
    assert verdict["raw_valid"] == 1.0
    tiny_run.note(evaluation=verdict)
    run(root)
    card = (root / ".exports" / "tiny-lora" / "README.md").read_text()
    assert "On 12 validation rows of 12 source documents" in card
    assert f"judged by bright, its mean score is {verdict['trained']:.3f}." in card
    shown = {line.split(" | ")[0].strip("| "): line for line in card.splitlines() if line.endswith((" yes |", " no |"))}
    assert set(shown) == set(RIVALS)
    rival = verdict["rivals"]["base"]
    assert f"| {rival['difference']:+.3f} | {rival['low']:+.3f} to {rival['high']:+.3f} | " in shown["base"]
    assert rival["low"] < rival["difference"] < rival["high"]
    assert rival["difference"] == pytest.approx(0.3, abs=0.05)
    assert shown["base"].endswith("| yes |")
    assert shown["look-up"].endswith("| no |")
    assert "too few" not in card

    few = judge(summarise([s for s in samples if s.id_in_dataset <= "chapter-004"], facts))
    tiny_run.note(evaluation=few)
    run(root, "--overwrite")
    card = (root / ".exports" / "tiny-lora" / "README.md").read_text()
    assert "too few source documents for intervals" in card
    assert "| – | – |" in card


def test_the_loading_example_of_the_card_runs(root: Path, tiny_run: RunFolder, capsys) -> None:
    run(root)
    folder = root / ".exports" / "tiny-lora"
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code is not None
    exec(code[1].replace("PATH_OR_REPO", str(folder)), {})
    assert "assistant" in capsys.readouterr().out


def test_a_gemma_ships_its_terms_or_says_that_they_are_missing(root: Path, tmp_path: Path) -> None:
    folder = save_tiny_random(tmp_path / "some-gemma")
    assert "the text of the base model's licence (gemma) is missing" in run(root, str(folder))
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


def test_a_base_whose_tokenizer_is_a_tokenizer_model_alone(root: Path, tmp_path: Path) -> None:
    """Its pieces become the tokenizer's keys of the GGUF, which splits texts as it does."""
    import gguf
    from transformers import AutoTokenizer

    folder = sentencepiece_gemma(tmp_path / "pieces")
    run(root, str(folder), "--gguf", "f16")
    exported = root / ".exports" / "pieces"
    reader = gguf.GGUFReader(exported / "gguf" / "pieces-f16.gguf")
    assert reader.fields["tokenizer.ggml.model"].contents() == "llama"
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    scores = dict(zip(tokens, reader.fields["tokenizer.ggml.scores"].contents(), strict=True))
    assert scores["▁rain"] > scores["a"]
    kinds = dict(zip(tokens, reader.fields["tokenizer.ggml.token_type"].contents(), strict=True))
    assert kinds["<0xC3>"] == gguf.TokenType.BYTE
    assert kinds["<bos>"] == gguf.TokenType.CONTROL
    back = AutoTokenizer.from_pretrained(exported / "gguf", gguf_file="pieces-f16.gguf")
    text = "rain on a tin roof, a station\n(café)"
    assert back(text)["input_ids"] == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert "▁rain" not in back.convert_ids_to_tokens(back("rain", add_special_tokens=False)["input_ids"])


def test_a_tokenizer_model_without_its_library_names_the_remedy(root: Path, tmp_path: Path, monkeypatch) -> None:
    folder = sentencepiece_gemma(tmp_path / "pieces")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    said = " ".join(refused(root, str(folder), code=3).split())
    assert "pieces/tokenizer.model" in said
    assert install("ml") in said


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_model_that_was_really_trained_is_exported_and_read_back(
    lsdata: Lsdata, root: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """From rows through the program's own training to files that transformers opens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from latentscore_data.core.models.base_models import load_base, load_trained
    from training_runs import write_rows

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    workspace = Workspace(root)
    write_rows(workspace)
    quick = ("--base-model", "tiny-random", "--max-steps", "2", "--limit", "4", "--set", f"method={method}")
    name = lsdata("train", "sft", *quick, "--root", str(root), "--json", timeout=280, code=0).json()["details"]["run"]
    run(root, "--gguf", "q8_0")
    folder = root / ".exports" / name

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("a storm that has passed", add_special_tokens=False)["input_ids"]])
    options = {"gguf_file": f"{name}-q8_0.gguf", "quantization_config": GgufConfig(dequantize=True)}
    with torch.inference_mode():
        expected = load_trained(RunFolder(workspace.train_dir / name).final).model.eval()(input_ids=ids).logits
        exported = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(input_ids=ids).logits
        served = AutoModelForCausalLM.from_pretrained(folder / "gguf", dtype=torch.float32, **options).eval()
        packed = served(input_ids=ids).logits
        untrained = load_base("tiny-random").model.eval()(input_ids=ids).logits
    assert (exported - expected).abs().max() < 1e-4
    assert (packed - expected).std() < 0.1 * expected.std()
    assert (untrained - expected).abs().max() > 1e-3, "training changed nothing, so equal logits prove nothing"
    # The prompt that it was trained with is in the file that a server reads.
    back = AutoTokenizer.from_pretrained(folder / "gguf", gguf_file=f"{name}-q8_0.gguf")
    messages = [{"role": "user", "content": "<vibe>rain</vibe>"}]
    assert back.apply_chat_template(messages, tokenize=False) == tokenizer.apply_chat_template(messages, tokenize=False)
    card = (folder / "README.md").read_text()
    assert "| optim.max\\_steps | 2 |" in card
    assert "steps" in json.loads((folder / "training.json").read_text())["metrics"]


def refused(root: Path, *args: str, code: int) -> str:
    """What a refusal says; it must leave nothing behind."""
    before = sorted((root / ".exports").glob("*"))
    output = run(root, *args, code=code)
    assert len(output.strip().splitlines()) <= 4
    assert sorted(path for path in (root / ".exports").glob("*")) == before
    assert not [path for path in root.rglob("*") if path.name.endswith((".tmp", ".lsdata-draft"))]
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
    assert "does not match its base" in output


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
    folder = save_tiny_random(tmp_path / "odd")
    change_json(folder / "config.json", **change)
    assert message in refused(root, str(folder), "--gguf", "f16", code=2)


def test_an_architecture_without_gguf(root: Path, tmp_path: Path, tiny_run: RunFolder) -> None:
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_run.final)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    folder = save(tmp_path / "mistral", MistralForCausalLM(config), tokenizer)
    said = refused(root, str(folder), "--gguf", "f16", code=2)
    assert "a GGUF of a mistral model cannot be written here" in said
    assert "merging" not in said
    run(root, str(folder))


def test_an_unknown_quantisation_names_those_there_are(root: Path, tiny_run: RunFolder) -> None:
    assert "q8_0" in refused(root, "--gguf", "q7_z", code=2)


TOOL = """#!{python}
import shutil, sys
import gguf, numpy
source, target, kind = sys.argv[1:]
print("main: build = 4711 (fa4e)")
shutil.copy(source, target)
reader = gguf.GGUFReader(target, "r+")
field = reader.fields["general.file_type"]
field.parts[field.data[0]][0] = gguf.LlamaFileType["MOSTLY_" + kind]
{more}
"""
"""Stands in for llama-quantize: leaves the weights as they are, and says that they are of the asked type."""


@pytest.fixture
def quantizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a ``llama-quantize`` on the path that does ``more`` than it should; there is no other one."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def put(more: str = "", script: str = TOOL) -> None:
        path = programs / "llama-quantize"
        path.write_text(script.replace("{python}", sys.executable).replace("{more}", more))
        path.chmod(0o755)

    return put


def test_a_k_quant_is_made_by_llama_quantize_where_it_is_on_the_path(
    root: Path, tiny_run: RunFolder, quantizer: Callable[..., None]
) -> None:
    import gguf

    quantizer()
    run(root, "--gguf", "q4_k_m", "--gguf", "q8_0")
    folder = root / ".exports" / "tiny-lora"
    assert sorted(path.name for path in (folder / "gguf").iterdir()) == ["tiny-lora-q4_k_m.gguf", "tiny-lora-q8_0.gguf"]
    reader = gguf.GGUFReader(folder / "gguf" / "tiny-lora-q4_k_m.gguf")
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q4_K_M
    record = json.loads((folder / "export.json").read_text())
    assert record["tools"] == {"llama-quantize": "4711 (fa4e)"}
    # The file it started from is exact, so nothing was rounded before the tool rounds.
    assert record["parity"]["gguf/tiny-lora-q4_k_m.gguf"]["relative_error"] < 1e-5
    assert "K-quants were made by llama-quantize, 4711 (fa4e)." in (folder / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("llama-quantize") is None, reason="needs llama.cpp's llama-quantize on the path")
def test_the_real_llama_quantize_makes_every_k_quant(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gguf

    from latentscore_data.core.export.gguf import K_QUANTS
    from latentscore_data.core.models import base_models

    # Rows of 256 weights, which K-quants are made for; with others the tool takes other types.
    monkeypatch.setattr(base_models, "TINY_HIDDEN", 256)
    folder = save_tiny_random(root / "wide")
    run(root, str(folder), *(flag for name in K_QUANTS for flag in ("--gguf", name)))
    exported = root / ".exports" / "wide"
    for name in K_QUANTS:
        reader = gguf.GGUFReader(exported / "gguf" / f"wide-{name}.gguf")
        assert name[:4].upper() in {tensor.tensor_type.name for tensor in reader.tensors}
    record = json.loads((exported / "export.json").read_text())
    errors = [record["parity"][f"gguf/wide-{name}.gguf"]["relative_error"] for name in ("q6_k", "q4_k_m", "q2_k")]
    assert errors == sorted(errors)
    assert record["tools"]["llama-quantize"] != "unknown"


def test_without_llama_quantize_a_k_quant_names_the_remedy(
    root: Path, tiny_run: RunFolder, quantizer: Callable[..., None]
) -> None:
    said = refused(root, "--gguf", "q4_k_m", code=2)
    assert "llama-quantize, which is not on the path" in said
    assert "install llama.cpp, or choose q8_0" in said


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ("print('no such tensor'); sys.exit(3)", 7, "llama-quantize failed with exit code 3 (no such tensor)"),
        ("import os; os.remove(target)", 7, "llama-quantize failed with exit code 0"),
        ("open(target, 'wb').write(b'nothing')", 7, "the file of llama-quantize cannot be read"),
        ("field.parts[field.data[0]][0] = 0", 7, "was asked for q4_k_m and wrote all_f32"),
        ("for tensor in reader.tensors: tensor.data[:] = 1.0", 7, "differs from the merged model"),
    ],
)
def test_what_llama_quantize_does_wrong_is_not_kept(
    root: Path, tiny_run: RunFolder, quantizer: Callable[..., None], more: str, code: int, message: str
) -> None:
    quantizer(more)
    assert message in " ".join(refused(root, "--gguf", "q4_k_m", code=code).split())


def test_a_llama_quantize_that_cannot_be_run(root: Path, tiny_run: RunFolder, quantizer: Callable[..., None]) -> None:
    quantizer(script="#!/no/such/interpreter\n")
    assert "llama-quantize cannot be run" in " ".join(refused(root, "--gguf", "q6_k", code=2).split())


@pytest.mark.parametrize("source", ["no-such-run", "."])
def test_a_source_that_is_no_model(root: Path, tiny_run: RunFolder, source: str) -> None:
    assert "lsdata:" in refused(root, source, code=2)


def test_a_run_that_is_not_finished(root: Path, tiny_run: RunFolder) -> None:
    tiny_run.done_mark.unlink()
    tiny_run.note(status="interrupted")
    assert "run tiny-lora is interrupted" in refused(root, "tiny-lora", code=2)
    assert "no finished run" in refused(root, code=2)
