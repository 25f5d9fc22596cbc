"""Base models and trained models: find, check and load them, with their tokenizers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentscore.config import random_config
from latentscore.files import user_path
from latentscore.forms import json_text, prompt_messages
from latentscore.prompt import template_options
from latentscore.seeds import rng_for
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, install, one_line, require
from latentscore_data.core.base.jsonl import read_object
from latentscore_data.core.models.checkpoints import damaged_file
from latentscore_data.core.models.runs import finished_final
from latentscore_data.core.models.spec import TINY_RANDOM

SHORT_NAMES = {"gemma3-270m": "unsloth/gemma-3-270m-it", "qwen3-600m": "unsloth/Qwen3-0.6B"}

OTHER_BASES = (
    f"name a folder, a GGUF file, a hub id that can be reached, or one of {', '.join(SHORT_NAMES)}, {TINY_RANDOM}; a gated "
    "or private model needs HF_TOKEN"
)
BASE_FILE = "base.json"
"""Beside an adapter: ``{"name": base model, "weights": digest of the base's weights}``."""
HUB_SECONDS = 10.0
"""Time-out of the question whether the hub has a model."""
RETRAIN = "train the adapter again"
TINY_HIDDEN = 64


@dataclass(frozen=True)
class Loaded:
    """A ``PreTrainedModel`` (a ``PeftModel`` for an adapter) with its tokenizer."""

    model: Any
    tokenizer: Any


def is_local(name: str, runs: Path | None = None) -> bool:
    """Return True if this base model needs no download."""
    return name == TINY_RANDOM or _folder(name, runs) is not None


def _folder(name: str, runs: Path | None) -> Path | None:
    """Return the folder or GGUF file of a base model: a path, or the model of a run in ``runs``; None for a hub id.

    Raises :class:`InputError` for a run that is not finished.
    """
    if runs is not None and (final := runs / name / "final").is_dir():
        return finished_final(final)
    path = user_path(name)
    return finished_final(path) if path.exists() else None


def adapter_base(folder: Path) -> str | None:
    """Return the base model of an adapter; None if the folder holds no adapter.

    Raises :class:`InputError` for a damaged adapter configuration.
    """
    path = folder / "adapter_config.json"
    if not path.exists():
        return None
    base = read_object(path, RETRAIN).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"{path} does not name a base model", RETRAIN)
    return base


def absolute_base(name: str, runs: Path) -> str:
    """Return a base model's name with a path made absolute, so that it is valid in any working directory."""
    if name == TINY_RANDOM or (runs / name / "final").is_dir() or not user_path(name).exists():
        return name
    return str(user_path(name).resolve())


def load_base(name: str, *, runs: Path | None = None, device: str = "cpu", quantize: str = "none") -> Loaded:
    """Load a base model by short name, hub id, folder, GGUF file or run id, ready to be trained.

    Weights are float32 on a CPU and bfloat16 on a GPU; with ``quantize`` "4bit" they are NF4 (:func:`check_quantize`).
    Raises :class:`MissingError` if it cannot be found, and :class:`InputError` for an adapter or a damaged model.
    """
    require("transformers", "ml", "training")
    if quantize != "none":
        check_quantize(name, device)
    if name == TINY_RANDOM:
        return _tiny_random(device)
    folder = _folder(name, runs)
    if folder is not None and folder.is_dir() and adapter_base(folder) is not None:
        raise InputError(
            f"{name} is an adapter, not a base model", "name its base model, and the adapter with --adapter"
        )
    return _prepared(_from_pretrained(_place(name, runs), device, quantize), None if quantize != "none" else device)


def check_quantize(name: str, device: str) -> None:
    """Raise :class:`MissingError` without a GPU or bitsandbytes, :class:`InputError` without safetensors."""
    if device != "cuda" or find_spec("bitsandbytes") is None:
        lacking = "there is no NVIDIA GPU here" if device != "cuda" else "bitsandbytes is not installed"
        raise MissingError(
            f"train.quantize is 4bit, and {lacking}",
            f"{install('qlora')} beside a GPU, --on modal, or --set quantize=none",
        )
    if name == TINY_RANDOM or name.endswith(".gguf"):
        raise InputError(
            f"{name} cannot be loaded in 4 bits: it has no safetensors files",
            "use a hub id or a folder with safetensors, or --set quantize=none",
        )


def load_trained(
    folder: Path, *, runs: Path | None = None, device: str = "cpu", trainable: bool = False, quantize: str = "none"
) -> Loaded:
    """Load a model that training saved: an adapter on its base, or a whole model.

    ``trainable`` loads the adapter for further training. Raises what :func:`load_base` raises, and :class:`InputError`
    for an adapter that does not match its base.
    """
    base = adapter_base(folder)
    if base is None:
        return load_base(str(folder), device=device, quantize=quantize)
    from peft import PeftModel
    from transformers import AutoTokenizer

    loaded = load_base(base, runs=runs or folder.parent.parent, device=device, quantize=quantize)
    # Adapters made before version 0.2 have no digest, and the digest of 4-bit weights differs.
    if quantize == "none" and (folder / BASE_FILE).exists():
        known = read_object(folder / BASE_FILE, RETRAIN).get("weights")
        if known != weights_digest(loaded.model):
            raise InputError(
                f"the weights of base model {base} differ from those that the adapter {folder} was trained on",
                "restore the base's old weights, or train the adapter again",
            )
    tokenizer = loaded.tokenizer
    if (folder / "tokenizer.json").exists():
        with _found(str(folder)):
            tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer = _usable(tokenizer, str(folder))
    with _found(str(folder), base), warnings.catch_warnings():
        # For missing adapter weights, the library only warns and leaves them at their initial values.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        return Loaded(PeftModel.from_pretrained(loaded.model, str(folder), is_trainable=trainable), tokenizer)


def weights_digest(model: Any) -> str:
    """Return the SHA-256 of a model's base weights; an adapter on the model does not change it.

    Weights are converted to bfloat16, as on a GPU. Names and order do not count, because libraries rename weights.
    """
    import torch

    parts = [
        hashlib.sha256(
            weight.detach().to(torch.bfloat16).contiguous().view(torch.int16).cpu().numpy().tobytes()
        ).digest()
        for name, weight in model.named_parameters()
        if "lora_" not in name
    ]
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def load_tokenizer(name: str, *, runs: Path | None = None) -> Any:
    """Load the tokenizer of a base model without its weights. Raises what :func:`load_base` raises."""
    require("transformers", "ml", "counting tokens")
    if name == TINY_RANDOM:
        return _tiny_tokenizer()
    where = _place(name, runs)
    with _found(where):
        tokenizer = _auto_tokenizer(where)
    return _usable(tokenizer, where)


def model_config(name: str, *, runs: Path | None = None) -> Any:
    """Load the architecture of a base model without its weights. Raises what :func:`load_base` raises."""
    require("transformers", "ml", "counting parameters")
    if name == TINY_RANDOM:
        return _tiny_config(len(_tiny_tokenizer()))
    from transformers import AutoConfig

    where = _place(name, runs)
    with _found(where):
        source, options = _source(where)
        return AutoConfig.from_pretrained(source, **options)


def unreachable_hub(repo: str) -> str | None:
    """Return why the hub cannot be reached, or None. Raises :class:`MissingError` if it lacks the model.

    One request with a short time-out: without a connection, the libraries retry each file of a model for minutes.
    """
    import httpx
    from huggingface_hub import HfApi, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().model_info(repo, timeout=HUB_SECONDS)
    except RepositoryNotFoundError as error:
        raise MissingError(f"the hub has no model {repo}, or it is private", OTHER_BASES) from error
    except HfHubHTTPError:
        return None  # the hub can be reached; the library handles its status
    except (httpx.HTTPError, OSError) as error:
        return one_line(error)
    return None


def check_base(name: str, *, runs: Path | None = None) -> None:
    """Raise :class:`MissingError` for a base model neither on this machine nor on the hub. Downloads nothing."""
    if is_local(name, runs):
        return
    from huggingface_hub import try_to_load_from_cache

    repo = _place(name, runs)
    with _found(repo):
        if not isinstance(try_to_load_from_cache(repo, "config.json"), str):
            _only_cached(repo)


@cache
def _only_cached(repo: str) -> bool:
    """Return True if a hub model must come from the cache. Raises :class:`MissingError` if it is not in it."""
    from huggingface_hub import try_to_load_from_cache

    reason = unreachable_hub(repo)
    if reason is not None and not isinstance(try_to_load_from_cache(repo, "config.json"), str):
        raise MissingError(
            f"base model {repo} cannot be loaded: it is not on this machine, and the hub cannot be reached ({reason})",
            OTHER_BASES,
        )
    return reason is not None


def pick_device(wanted: str) -> str:
    """Return ``cpu`` or ``cuda``. Raises :class:`MissingError` if ``wanted`` is ``cuda`` and there is no GPU."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise MissingError(
            "train.device is cuda, but there is no GPU here", "use --set device=auto, or train --on modal"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if "LOCAL_RANK" in os.environ:  # several processes, each with its own GPU
        torch.cuda.set_device(this_gpu())
    return "cuda"


@contextlib.contextmanager
def _found(where: str, base: str | None = None) -> Iterator[None]:
    """Convert the libraries' errors for a missing or damaged model to :class:`MissingError` or :class:`InputError`.

    Libraries raise many types (SafetensorError, UnpicklingError, EOFError, a bare Exception of tokenizers), so all
    exceptions are caught. ``base`` is the base model of an adapter in ``where``.
    """
    try:
        yield
    except (LsdataError, MemoryError):
        raise
    except Exception as error:
        if "out of memory" in str(error):
            raise
        place, reason = Path(where), one_line(error)
        if (broken := damaged_file(place)) is not None:
            raise InputError(
                f"{place / broken[0]} is damaged ({broken[1]})", "fetch, copy or train the model again"
            ) from error
        if base is not None:
            raise InputError(
                f"the adapter {where} does not match its base {base} ({reason})", "name the base it was trained on"
            ) from error
        # A folder without a config.json, and an unknown name, count as missing.
        missing = isinstance(error, OSError) or not (place.is_file() or (place / "config.json").is_file())
        kind = MissingError if missing else InputError
        raise kind(f"base model {where} cannot be loaded ({reason})", OTHER_BASES) from error


def _place(name: str, runs: Path | None) -> str:
    """Return the path or hub id of a base model. Raises :class:`MissingError` for a path that does not exist."""
    folder = _folder(name, runs)
    if folder is not None:
        return str(folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MissingError(
            f"base model {name} cannot be loaded: there is no such file or folder",
            "name it by its full path; an adapter's base is named in its adapter_config.json",
        )
    return SHORT_NAMES.get(name, name)


def _source(where: str) -> tuple[str, dict[str, Any]]:
    """Return the first argument and the options of the libraries' ``from_pretrained``."""
    path = Path(where)
    if path.suffix == ".gguf":
        return str(path.parent), {"gguf_file": path.name}
    return where, {"local_files_only": True} if not path.exists() and _only_cached(where) else {}


def _auto_tokenizer(where: str) -> Any:
    from transformers import AutoTokenizer

    source, options = _source(where)
    if (Path(source) / "tokenizer.model").is_file() and not (Path(source) / "tokenizer.json").exists() and not options:
        # Without sentencepiece, transformers reads the file as another format and fails with an unclear error.
        require("sentencepiece", "ml", f"reading {Path(source) / 'tokenizer.model'}")
    return AutoTokenizer.from_pretrained(source, **options)


def _from_pretrained(where: str, device: str, quantize: str) -> Loaded:
    import torch
    import transformers

    # The library's progress bar would be drawn between the lines of the run.
    transformers.logging.disable_progress_bar()
    with _found(where):
        source, options = _source(where)
        if "gguf_file" in options:
            # Without it the weights stay quantized, and can be neither trained nor saved.
            options["quantization_config"] = transformers.GgufConfig(dequantize=True)
        if quantize == "4bit":
            # As in the QLoRA paper: NF4, double quantization, computation in bfloat16.
            options["quantization_config"] = transformers.BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
            )
            options["device_map"] = {"": this_gpu()}
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        load: Any = transformers.AutoModelForCausalLM.from_pretrained
        model, info = load(source, dtype=dtype, output_loading_info=True, **options)
        if lacking := sorted(info["missing_keys"]):
            # The library initializes them with random numbers.
            raise ValueError(f"its files lack {len(lacking)} weights, {lacking[0]} among them")
        return Loaded(model, _auto_tokenizer(where))


def this_gpu() -> int:
    """Return the index of this process's GPU on the machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _prepared(loaded: Loaded, device: str | None) -> Loaded:
    """Move the model to ``device`` (None: leave it), complete its tokenizer, and set all end tokens of its family."""
    tokenizer = _usable(loaded.tokenizer, loaded.tokenizer.name_or_path)
    tokenizer.padding_side = "left"
    declared = loaded.model.generation_config.eos_token_id
    # A base model does not declare the end of a turn; without it, an answer runs to the token limit.
    ends = [tokenizer.eos_token_id, tokenizer.get_vocab().get("<end_of_turn>")]
    ends += declared if isinstance(declared, list) else [declared]
    loaded.model.generation_config.eos_token_id = sorted({end for end in ends if end is not None})
    return Loaded(loaded.model if device is None else loaded.model.to(device), tokenizer)


def _usable(tokenizer: Any, where: str) -> Any:
    """Return the tokenizer with a padding token and a chat template. Raises :class:`InputError` if it has no end token
    or no template that renders all messages."""
    if tokenizer.eos_token is None:
        raise InputError(
            f"the tokenizer of {where} names no end-of-sequence token", "add eos_token to its tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        if "<start_of_turn>" not in tokenizer.get_vocab():
            raise InputError(f"the tokenizer of {where} has no chat template", "use an instruction-tuned model")
        tokenizer.chat_template = gemma_template()
    _check_template(tokenizer, where)
    return tokenizer


def _check_template(tokenizer: Any, where: str) -> None:
    """Raise :class:`InputError` for a template that fails or drops a system, user or assistant message."""
    messages = [{"role": role, "content": f"lsdata {role}"} for role in ("system", "user", "assistant")]
    remedy = "use another instruction-tuned model, or correct the template"
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=False, **template_options(tokenizer.chat_template)
        )
    except Exception as error:  # a template is code that can raise any exception
        raise InputError(
            f"the chat template of {where} cannot render a system, a user and an assistant message ({one_line(error)})",
            remedy,
        ) from None
    if dropped := [message["role"] for message in messages if message["content"] not in text]:
        raise InputError(f"the chat template of {where} drops the {dropped[0]} message", remedy)


@cache
def gemma_template() -> str:
    """Return Gemma 3's chat template from TRL."""
    return (files("trl") / "chat_templates" / "gemma3.jinja").read_text(encoding="utf-8")


def _tiny_config(vocabulary: int) -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=TINY_HIDDEN,
        intermediate_size=TINY_HIDDEN * 2,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=256,
        max_position_embeddings=8192,
        sliding_window=512,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )


def _tiny_random(device: str) -> Loaded:
    """Return a two-layer Gemma 3 with random weights from a fixed seed; it needs no download."""
    import torch
    from transformers import Gemma3ForCausalLM

    tokenizer = _tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gemma3ForCausalLM(_tiny_config(len(tokenizer)))
    return _prepared(Loaded(model, tokenizer), device)


def _tiny_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer trained on the prompt and on random answers, so that rows have few tokens.

    Each long line of the prompt, which all rows share, is one token: 5,000 characters become a few dozen tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1536,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tiny_corpus(), trainer)
    system = prompt_messages("")[0]["content"]
    lines = dict.fromkeys(line for line in system.splitlines() if len(line) >= 24)
    tokenizer.add_tokens([AddedToken(line, normalized=False) for line in lines])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=gemma_template(),
        padding_side="left",
    )


def _tiny_corpus() -> list[str]:
    rng = rng_for(TINY_RANDOM)
    colors = [{"hex": f"#{int(rng.integers(1 << 24)):06X}", "weight": weight} for weight in ("xxl", "lg", "md", "sm")]
    answers = [
        json_text({"thinking": "", "title": "", "config": random_config(rng).model_dump(), "palettes": [colors]})
        for _ in range(64)
    ]
    return [message["content"] for message in prompt_messages("a quiet morning by the sea")] * 4 + answers
