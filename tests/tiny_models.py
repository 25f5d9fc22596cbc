"""Finished runs of tiny models: the files that training writes, made without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from factories import make_scored
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.settings import ScoringSettings, TrainSettings
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import Choices, DataFact, build_spec


def finished_run(
    train_dir: Path, run_id: str, model: Any, tokenizer: Any, *, base_model: str, method: str
) -> RunFolder:
    """A run folder as training leaves it, with these weights as its result."""
    run = RunFolder(train_dir / run_id)
    settings = TrainSettings.model_validate({"base_model": base_model, "method": method})
    spec, _ = build_spec(
        settings, Choices("sft", run_id=run_id), {"train": DataFact(sha256="0" * 64, rows=4)}, ScoringSettings()
    )
    run.final.mkdir(parents=True)
    run.spec_file.write_text(spec.model_dump_json())
    replace_rows(run.data("train"), [make_scored(n) for n in range(4)])
    save(run.final, model, tokenizer)
    run.note(
        run_id=run_id,
        kind="sft",
        method=method,
        base_model=base_model,
        status="finished",
        spec=spec.model_dump(mode="json"),
        metrics={"first_loss": 6.25, "last_loss": 1.5},
    )
    run.mark_done()
    return run


def trained_run(
    train_dir: Path, run_id: str, base_model: str = "tiny-random", *, method: str = "lora", scale: float = 0.05
) -> RunFolder:
    """A finished run on this base model; that of a LoRA has the adapter of :func:`with_adapter`."""
    from latentscore_data.core.models.base_models import load_base

    base = load_base(base_model)
    model = with_adapter(base.model, base_model, scale=scale) if method == "lora" else base.model
    return finished_run(train_dir, run_id, model, base.tokenizer, base_model=base_model, method=method)


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Write a model and its tokenizer to a folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_random(folder: Path) -> Path:
    """Write ``tiny-random``, the Gemma-3-shaped model, to a folder."""
    from latentscore_data.core.models.base_models import load_base

    base = load_base("tiny-random")
    return save(folder, base.model, base.tokenizer)


def with_adapter(model: Any, base_model: str, seed: int = 1, scale: float = 0.05) -> Any:
    """The model with a LoRA adapter that does something: as made, an adapter changes nothing."""
    import torch
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * scale
    adapted.peft_config["default"].base_model_name_or_path = base_model
    return adapted


def byte_level_tokenizer(pre_tokenizer: Any) -> Any:
    """A byte-level tokenizer with a chat template, which splits texts before it joins bytes as it is told."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(["rain on a tin roof, an empty station at four in the morning"] * 4, trainer)
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def tiny_qwen3(folder: Path) -> Path:
    """A Qwen-3-shaped model of random weights with a byte-level tokenizer that splits as Qwen's does."""
    import torch
    from tokenizers import Regex, pre_tokenizers
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = byte_level_tokenizer(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    )
    torch.manual_seed(0)
    # Rows of the embedding beyond the tokenizer, as real Qwen models have them.
    config = Qwen3Config(
        vocab_size=len(tokenizer) + 24,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=128,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
    )
    return save(folder, Qwen3ForCausalLM(config), tokenizer)


def tiny_llama(folder: Path) -> Path:
    """A Llama-shaped model of random weights whose tokenizer takes digits one by one, as SmolLM2's does."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_level_tokenizer(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return save(folder, LlamaForCausalLM(config), tokenizer)


def sentencepiece_gemma(folder: Path) -> Path:
    """A tiny Gemma 3 whose tokenizer is a ``tokenizer.model`` alone: BPE with byte fallback, as Gemma's is."""
    import torch
    from sentencepiece import sentencepiece_model_pb2
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    normal, unknown, control, user_defined, byte = 1, 2, 3, 4, 6
    special = ["<pad>", "<eos>", "<bos>"]
    turns = ["<start_of_turn>", "<end_of_turn>"]
    joined = "ra in ra|in on ti ti|n ro of ro|of ▁|rain ▁|on ▁|a ▁|tin ▁|roof st st|a sta|tion ti|on".replace(
        "|", ""
    ).split()
    letters = [*"▁abcdefghijklmnopqrstuvwxyz.,:<>/\n0123456789"]
    pieces = [(piece, control) for piece in special] + [("<unk>", unknown), ("<mask>", user_defined)]
    pieces += [(piece, user_defined) for piece in turns] + [(f"<0x{i:02X}>", byte) for i in range(256)]
    pieces += [(piece, normal) for piece in dict.fromkeys([*joined, *letters])]
    proto: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    for rank, (piece, kind) in enumerate(pieces):
        entry = proto.pieces.add()
        entry.piece, entry.type, entry.score = piece, kind, -float(rank) if kind == normal else 0.0
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.add_dummy_prefix = False
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    tokens = {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer", **tokens}))
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(pieces), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=256, max_position_embeddings=1024, sliding_window=512,
        bos_token_id=2, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(str(folder))
    return folder


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def tiny_sentences(folder: Path) -> Path:
    """A sentence-transformers model of random weights that knows the letters: fast, and its vectors depend on the text."""
    import string

    import torch
    from sentence_transformers import SentenceTransformer, models
    from tokenizers import Regex, Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = ["[PAD]", "[UNK]", *string.printable]
    backend = Tokenizer(WordLevel({letter: n for n, letter in enumerate(letters)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(letters), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    bert = save(folder / "bert", BertModel(config), tokenizer)
    words = models.Transformer(str(bert), max_seq_length=128)
    model = SentenceTransformer(modules=[words, models.Pooling(words.get_word_embedding_dimension())], device="cpu")
    model.save(str(folder / "sentences"))
    return folder / "sentences"
