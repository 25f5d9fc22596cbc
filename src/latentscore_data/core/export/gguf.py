"""A merged model as a GGUF file, for llama.cpp and programs based on it.

The ``gguf`` package provides the names of tensors and keys. This module adds what it leaves to the converter: the keys
of each architecture, the checks of values that llama.cpp assumes, and the ``tokenizer.*`` keys from a tokenizer's
files.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentscore_data.core.base.errors import InputError, VerificationError, one_line, require
from latentscore_data.core.base.jsonl import writing
from latentscore_data.core.export.merge import PROBES, Logits, Parity, compare, logits, probe_tokens, tensors
from latentscore_data.core.training.context import quiet_libraries

if TYPE_CHECKING:
    from gguf import GGUFWriter

QUANTIZATIONS = ("q8_0", "q5_0", "q4_0", "f16", "bf16")
"""The types that the ``gguf`` package writes."""

K_QUANTS = ("q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k")
"""The types that ``llama-quantize`` of llama.cpp writes."""

# Maximum relative logit error (see Parity) of each type on the probes. Errors measured on random weights, the worst case:
# f16 0.001, bf16 0.008, q8_0 0.023, q5_0 0.17, q4_0 0.32;
# with rows of 256 and llama-quantize q6_k 0.07, q5_k 0.12, q4_k 0.21, q3_k_l 0.30, q3_k_m 0.32, q3_k_s 0.45, q2_k 0.61.
TOLERANCES: Mapping[str, float] = {
    "f16": 0.01, "bf16": 0.05, "q8_0": 0.10, "q5_0": 0.40, "q4_0": 0.60,
    "q6_k": 0.20, "q5_k_m": 0.40, "q5_k_s": 0.40, "q4_k_m": 0.60, "q4_k_s": 0.60,
    "q3_k_l": 0.75, "q3_k_m": 0.75, "q3_k_s": 0.90, "q2_k": 0.95,
}  # fmt: skip

_BLOCK = 32
"""Weights per block of the quantized types: a row must be a multiple of this."""


@dataclass(frozen=True)
class Architecture:
    """The keys of a model family in a GGUF file, and its changes to tensors."""

    name: str
    keys: Callable[[GGUFWriter, Any], None]
    norm_offset: float = 0.0
    """Added to the weights of norms: Gemma stores the weight minus 1, llama.cpp expects the weight."""
    interleaved: bool = False
    """True if llama.cpp expects rotary pairs side by side; transformers stores first halves, then second halves."""


def write_gguf(model_folder: Path, path: Path, quantization: str, name: str, tokenizer_from: Path | None) -> None:
    """Write a saved model (safetensors, config and tokenizer in one folder) as one GGUF file.

    ``quantization`` is one of :data:`QUANTIZATIONS`, or f32. Weights are read and written one at a time.
    ``tokenizer_from`` is a GGUF of the same family whose tokenizer keys are copied; without it they are made from
    ``tokenizer.json``. Raises :class:`InputError` for an architecture, shape, tokenizer or quantization that cannot be
    written, and :class:`MissingError` without the gguf package.
    """
    require("gguf", "ml", "writing GGUF")
    import gguf
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(model_folder)
    architecture = architecture_of(config)
    kind = gguf.GGMLQuantizationType[quantization.upper()]
    writer = gguf.GGUFWriter(None, architecture.name)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if quantization == "f32" else f"MOSTLY_{quantization.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _common_keys(writer, config)
    architecture.keys(writer, config)
    if tokenizer_from is not None:
        copy_tokenizer(writer, tokenizer_from, config.vocab_size)
    else:
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        add_tokenizer(writer, json.loads(tokenizer.backend_tokenizer.to_str()), tokenizer, config, model_folder)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.name.upper()], config.num_hidden_layers)

    plan: dict[str, gguf.GGMLQuantizationType] = {}
    for hf_name, array in tensors(model_folder):
        if hf_name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        gguf_name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None:
            raise InputError(f"{hf_name} is not supported in a GGUF of {architecture.name}", "export without --gguf")
        stored = _stored_kind(gguf_name, array, kind)
        # Only the size; the weight is converted when it is written.
        size = math.prod(gguf.quant_shape_to_byte_shape(array.shape, stored))
        writer.add_tensor_info(gguf_name, array.shape, array.dtype, size, stored)
        plan[hf_name] = stored
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for hf_name, array in tensors(model_folder):
            if hf_name in plan:
                converted = _converted(architecture, config, hf_name, array)
                writer.write_tensor_data(_encode(hf_name, converted, plan[hf_name]))
        writer.close()


def _converted(architecture: Architecture, config: Any, name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the tensor as llama.cpp expects it (:class:`Architecture`)."""
    if name.endswith("norm.weight") and architecture.norm_offset:
        return array + architecture.norm_offset
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None or not architecture.interleaved:
        return array
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _stored_kind(name: str, array: NDArray[np.float32], kind: Any) -> Any:
    """Return a tensor's type: float32 for vectors, at least 8 bits for embeddings, often also the output matrix."""
    import gguf

    if array.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    if kind in (gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q5_0) and name in (
        "token_embd.weight",
        "output.weight",
    ):
        kind = gguf.GGMLQuantizationType.Q8_0
    if gguf.GGML_QUANT_SIZES[kind][0] > 1 and array.shape[-1] % _BLOCK:
        raise InputError(
            f"{name} has rows of {array.shape[-1]} weights, and {kind.name.lower()} stores blocks of {_BLOCK}",
            "choose --gguf f16 or bf16 for this model",
        )
    return kind


def _encode(name: str, array: NDArray[np.float32], kind: Any) -> NDArray[Any]:
    import gguf

    array = np.ascontiguousarray(array, dtype=np.float32)
    if kind == gguf.GGMLQuantizationType.F16 and np.abs(array).max() > np.finfo(np.float16).max:
        raise InputError(f"{name} holds values too large for f16", "choose --gguf bf16")
    return gguf.quantize(array, kind)


def architecture_of(config: Any) -> Architecture:
    """Return the architecture of a config. Raises :class:`InputError` for one that cannot be written as GGUF."""
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        raise InputError(
            f"a GGUF of a {config.model_type} model cannot be written here",
            f"export without --gguf; GGUF is written for {', '.join(sorted(ARCHITECTURES))}",
        )
    return found


def _common_keys(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_vocab_size(config.vocab_size)


def _refuse(what: str, value: Any, only: Any) -> None:
    raise InputError(
        f"a GGUF cannot represent that {what} is {value}: llama.cpp assumes {only}", "export without --gguf"
    )


GEMMA3_PATTERN = 6
"""Every sixth layer has full attention, the others sliding windows."""
GEMMA3_LOCAL_THETA = 10_000.0


def _gemma3_keys(writer: GGUFWriter, config: Any) -> None:
    layers = [
        "full_attention" if (i + 1) % GEMMA3_PATTERN == 0 else "sliding_attention"
        for i in range(config.num_hidden_layers)
    ]
    if list(config.layer_types) != layers:
        _refuse("the pattern of attention layers", config.layer_types, f"one full in {GEMMA3_PATTERN}")
    if config.query_pre_attn_scalar != config.head_dim:
        _refuse("query_pre_attn_scalar", config.query_pre_attn_scalar, f"head_dim, {config.head_dim}")
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, name):
            _refuse(name, getattr(config, name), "absent")
    rope = config.rope_parameters
    if (local := rope["sliding_attention"].get("rope_theta", GEMMA3_LOCAL_THETA)) != GEMMA3_LOCAL_THETA:
        _refuse("the rotary base of sliding layers", local, GEMMA3_LOCAL_THETA)
    _rope_keys(writer, rope["full_attention"])
    writer.add_sliding_window(config.sliding_window)


def _qwen3_keys(writer: GGUFWriter, config: Any) -> None:
    if getattr(config, "use_sliding_window", False):
        _refuse("use_sliding_window", True, "absent")
    _rope_keys(writer, config.rope_parameters)


def _llama_keys(writer: GGUFWriter, config: Any) -> None:
    writer.add_rope_dimension_count(config.head_dim)
    _rope_keys(writer, config.rope_parameters)


def _rope_keys(writer: GGUFWriter, rope: Mapping[str, Any]) -> None:
    import gguf

    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind != "default":
        _refuse("the rotary scaling", kind, "default or linear")


ARCHITECTURES: Mapping[str, Architecture] = {
    "gemma3_text": Architecture("gemma3", _gemma3_keys, norm_offset=1.0),
    "llama": Architecture("llama", _llama_keys, interleaved=True),
    "qwen3": Architecture("qwen3", _qwen3_keys),
}


def copy_tokenizer(writer: GGUFWriter, path: Path, vocabulary: int) -> None:
    """Copy every ``tokenizer.*`` key of another GGUF. Raises :class:`InputError` for another size of the vocabulary."""
    import gguf

    try:
        reader = gguf.GGUFReader(path)
    except Exception as error:  # it does not validate the lengths and offsets in the file
        raise InputError(f"{path} cannot be read as GGUF ({one_line(error)})", "check --tokenizer") from None
    tokens = reader.fields.get("tokenizer.ggml.tokens")
    if tokens is None or len(tokens.data) != vocabulary:
        count = len(tokens.data) if tokens is not None else 0
        raise InputError(f"{path} has {count} tokens, the model {vocabulary}", "name a GGUF of the same base model")
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub_type)


# A ByteLevel tokenizer without its own regex splits like GPT-2; others are recognized by a part of their regex.
_SPLITS_BY_REGEX = {r"\p{N}{1,3}": "llama-bpe", r"|\p{N}| ?": "qwen2"}


def add_tokenizer(writer: GGUFWriter, backend: Mapping[str, Any], tokenizer: Any, config: Any, folder: Path) -> None:
    """Add the ``tokenizer.*`` keys for a ``tokenizer.json``: byte-level BPE, or sentencepiece BPE with byte fallback.

    Raises :class:`InputError` for any other kind, because llama.cpp would tokenize texts differently.
    """
    model = backend["model"]
    if model["type"] != "BPE":
        raise InputError(
            f"a GGUF cannot hold a tokenizer of type {model['type']}", "export without --gguf, or use --tokenizer"
        )
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        steps = [*_steps(backend.get("normalizer")), *_steps(backend.get("pre_tokenizer"))]
        spaces = [s for s in steps if s["type"] == "Metaspace" and s.get("prepend_scheme") != "never"]
        writer.add_add_space_prefix(bool(spaces) or any(step["type"] == "Prepend" for step in steps))
        scores = _merge_scores(model)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_split_name(backend))
        writer.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]])
        scores = None
    _add_tokens(writer, backend, config.vocab_size, scores)
    _add_special_tokens(writer, tokenizer, folder)


def _split_name(backend: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the pre-tokenization of a byte-level tokenizer."""
    steps = _steps(backend.get("pre_tokenizer"))
    regexes = [step["pattern"]["Regex"] for step in steps if step["type"] == "Split"]
    kinds = [step["type"] for step in steps]
    if kinds and kinds[-1] == "ByteLevel" and steps[-1].get("use_regex", True):
        if kinds == ["ByteLevel"]:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
            return "smollm"
    for piece, name in _SPLITS_BY_REGEX.items():
        if any(piece in regex for regex in regexes):
            return name
    raise InputError(
        "a GGUF cannot represent this tokenizer's pre-tokenization", "export without --gguf, or use --tokenizer"
    )


def _steps(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    return list(part.get("pretokenizers") or part.get("normalizers") or [part])


def _merge_scores(model: Mapping[str, Any]) -> dict[str, float]:
    """Return each token's score, in the order of the merges: llama.cpp merges the highest score first."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
        ranks.setdefault(left + right, rank)
    last = len(model["merges"])
    return {token: -float(ranks.get(token, last)) for token in model["vocab"]}


def _add_tokens(writer: GGUFWriter, backend: Mapping[str, Any], size: int, scores: Mapping[str, float] | None) -> None:
    import gguf

    tokens: list[str] = [f"[PAD{i}]" for i in range(size)]
    kinds = [int(gguf.TokenType.UNUSED)] * size
    values = [-1000.0] * size
    vocabulary, added = backend["model"]["vocab"], {token["id"]: token for token in backend["added_tokens"]}
    if (last := max([*vocabulary.values(), *added], default=-1)) >= size:
        raise InputError(
            f"the tokenizer has a token {last}, but the model only {size} tokens", "export the model's own tokenizer"
        )
    for token, at in vocabulary.items():
        tokens[at], kinds[at] = token, int(gguf.TokenType.NORMAL)
        values[at] = scores[token] if scores is not None else 0.0
        if scores is not None and len(token) == 6 and token.startswith("<0x"):
            kinds[at], values[at] = int(gguf.TokenType.BYTE), 0.0
    for at, token in added.items():
        kinds[at] = int(gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED)
        # llama.cpp searches for these in the raw text, in which a space is not "▁".
        spelled = token["content"] if token["special"] or scores is None else token["content"].replace("▁", " ")
        tokens[at], values[at] = spelled, -1000.0
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if scores is not None:
        writer.add_token_scores(values)


def _add_special_tokens(writer: GGUFWriter, tokenizer: Any, folder: Path) -> None:
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id"):
        if (token := getattr(tokenizer, name)) is not None:
            getattr(writer, f"add_{name}")(token)
    probe = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(bool(probe) and probe[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(bool(probe) and probe[-1] == tokenizer.eos_token_id)
    generation = folder / "generation_config.json"
    ends = json.loads(generation.read_text(encoding="utf-8")).get("eos_token_id") if generation.exists() else None
    turn_ends = [end for end in ends if end != tokenizer.eos_token_id] if isinstance(ends, list) else []
    if turn_ends:
        writer.add_eot_token_id(turn_ends[0])
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def verify_gguf(path: Path, quantization: str, reference: list[Logits], tokenizer: Any) -> Parity:
    """Load the file with transformers, and compare its tokens and its logits with the merged model's.

    Raises :class:`VerificationError` if tokens differ, or the error is larger than in :data:`TOLERANCES`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        # The library draws a progress bar for GGUF files even if progress bars are off.
        with quiet_libraries(), contextlib.redirect_stderr(io.StringIO()):
            back = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            ).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise VerificationError(
            f"{path.name} cannot be read back ({error})", "report this, with the model's config"
        ) from None
    for probe in PROBES:
        # As a chat, to compare template and special tokens, and as plain text.
        same = probe_tokens(back, probe) == probe_tokens(tokenizer, probe)
        if not same or _plain(back, probe) != _plain(tokenizer, probe):
            raise VerificationError(
                f"{path.name} tokenizes {probe!r} differently from the model's tokenizer",
                "use --tokenizer FILE.gguf",
            )
    parity = compare(reference, logits(model, tokenizer))
    if not parity.relative_error <= TOLERANCES[quantization]:
        raise VerificationError(
            f"{path.name} differs from the merged model (relative error {parity.relative_error:.2g}, "
            f"{TOLERANCES[quantization]:.2g} allowed)",
            "choose a type with more bits",
        )
    return parity


def _plain(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
