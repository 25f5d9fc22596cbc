"""A CLAP model with random weights on disk: config, safetensors, feature extractor, tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

SMALL_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
    "initializer_factor": 200.0,
}
SMALL_AUDIO = {
    "patch_embeds_hidden_size": 8,
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "hidden_size": 64,
    "initializer_factor": 20.0,
}


def save_clap(folder: Path, *, small: bool = True, collapsed: bool = False, seed: int = 0) -> Path:
    """``collapsed`` gives a text tower that answers nearly the same to everything."""
    import torch
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    torch.manual_seed(seed)
    vocabulary = _save_tokenizer(folder)
    if small:
        text = {**SMALL_TEXT, "vocab_size": vocabulary, "initializer_factor": 0.01 if collapsed else 200.0}
        config = ClapConfig(text_config=text, audio_config=dict(SMALL_AUDIO), projection_dim=16)
    else:
        # An untrained text tower answers the same to everything unless its weights are large.
        config = ClapConfig(text_config={"initializer_factor": 50.0})
    model = ClapModel(config).eval()
    model.save_pretrained(folder, safe_serialization=True)
    ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad").save_pretrained(folder)
    return folder


def _save_tokenizer(folder: Path) -> int:
    """A byte-level tokenizer without merges; returns the size of its vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    vocab = folder / "vocab.json"
    vocab.write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}), encoding="utf-8")
    merges = folder / "merges.txt"
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    RobertaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return len(pieces)
