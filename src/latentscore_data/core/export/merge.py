"""The model to export: an adapter merged into its base, or alone; comparison of models by their logits."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscore.files import user_path
from latentscore.forms import FORM_FILE
from latentscore.json_search import JsonObject
from latentscore.prompt import template_options
from latentscore_data.core.base.errors import InputError, VerificationError
from latentscore_data.core.base.jsonl import replace_json, writing
from latentscore_data.core.models.base_models import adapter_base, load_base, load_trained, model_config
from latentscore_data.core.models.runs import RunFolder, find_run, find_runs
from latentscore_data.core.training.context import quiet_libraries

Logits = NDArray[np.float32]
"""Next-token logits, shape (tokens, vocabulary)."""

# Short, because each token of a probe needs 1 MB of logits with a vocabulary of 262,144.
PROBES = ("rain on a tin roof", "an empty station at four in the morning, one lamp humming", "glad tidings")

SHARD_SIZE = "4GB"
_TOKENIZER_FILE = re.compile(r"(tokenizer|special_tokens|added_tokens|vocab|merges|chat_template)\b.*|.*\.jinja")

MERGE_TOLERANCE = 0.01
"""Largest relative logit error of a merge (:class:`Parity`); in float32 it is about 1e-5."""

RETRAIN = "train it again: its weights are damaged"


@dataclass(frozen=True)
class Parity:
    """The difference between two models' logits, over all tokens of the probes."""

    tokens: int
    max_abs_diff: float
    relative_error: float
    """Root mean square of the difference, divided by the standard deviation of the reference's logits."""
    top1_agreement: float
    """Share, 0 to 1, of positions at which both models have the same most likely next token."""
    kl: float
    """Mean Kullback-Leibler divergence of the next-token distribution from the reference's, in nats."""


@dataclass(frozen=True)
class Source:
    """The model to export: a folder of weights, and the run that made it if it is known."""

    name: str
    weights: Path
    run: RunFolder | None


def find_source(name: str | None, train_dir: Path) -> Source:
    """Return the source for a run id, a folder with a model or an adapter, or without a name the newest finished run.

    Raises :class:`InputError` if there is none, and for a run that is not finished.
    """
    if name is None:
        run = next((run for run in find_runs(train_dir) if run.done), None)
        if run is None:
            raise InputError(f"no finished run in {train_dir}", "train one with lsdata train sft, or name a folder")
    elif (path := user_path(name)).is_dir() and not RunFolder(train_dir / name).spec_file.exists():
        run = RunFolder(path)
        if not run.spec_file.exists():
            if not any((path / file).exists() for file in ("adapter_config.json", "config.json")):
                raise InputError(
                    f"{path} contains no model (adapter_config.json or config.json)", "name a run or its final/"
                )
            return Source(path.resolve().name, path, None)
    else:
        run = find_run(train_dir, name)
    if not run.done:
        raise InputError(
            f"run {run.run_id} is {run.record().get('status', 'not finished')}",
            "finish it with lsdata train, then export",
        )
    return Source(run.run_id, run.final, run)


@dataclass(frozen=True)
class WrittenModel:
    """The weights of an export, and their numerical errors."""

    base: str
    """The adapter's base model; for a whole model that of its run, or without a run the model itself."""
    model_type: str
    parameters: int
    merged: Parity | None = None
    """The adapter on its base against the written model; None for a whole model."""
    gguf: dict[str, Parity] = field(default_factory=dict[str, Parity])
    """GGUF file -> its difference to the merged model."""
    tools: dict[str, str] = field(default_factory=dict[str, str])
    """External programs that made a GGUF file -> their version."""


def merge(source: Source, runs: Path, folder: Path) -> tuple[WrittenModel, Any, list[Logits]]:
    """Write the model as float32 safetensors with its tokenizer into ``folder``, load it again and compare.

    Returns the model, its tokenizer and its logits, one array for each probe, to compare GGUF files with. Raises :class:`MissingError` for a base that cannot be loaded, :class:`InputError` for an adapter that does not
    match it, and :class:`VerificationError` for weights that are not finite and for a written model that differs.
    """
    base = adapter_base(source.weights)
    loaded = load_trained(source.weights, runs=runs)
    tokenizer, model = loaded.tokenizer, loaded.model.float().eval()
    _require_finite(model)
    before = logits(model, tokenizer)
    if base is not None:
        try:
            model = model.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise VerificationError(f"merging {source.name} failed ({error})", RETRAIN) from None
        _require_finite(model)
    with writing(folder), quiet_libraries():
        model.save_pretrained(str(folder), max_shard_size=SHARD_SIZE)
        tokenizer.save_pretrained(str(folder))
        if (form := source.weights / FORM_FILE).is_file():
            shutil.copyfile(form, folder / FORM_FILE)
        # The library makes weights readable only by their owner.
        for weights in folder.glob("*.safetensors"):
            weights.chmod(0o644)
    parameters = sum(tensor.numel() for tensor in model.parameters())
    del model, loaded
    with quiet_libraries():
        back = load_base(str(folder))
    after = logits(back.model.eval(), tokenizer)
    parity = compare(before, after)
    if not parity.relative_error <= MERGE_TOLERANCE:
        raise VerificationError(
            f"the merged model differs from adapter and base (relative error {parity.relative_error:.2g})",
            "report this: the models should be equal in float32",
        )
    model_type = back.model.config.model_type
    written = WrittenModel(base or base_of(source), model_type, parameters, parity if base else None)
    return written, back.tokenizer, after


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def copy_adapter(source: Source, folder: Path) -> tuple[str, int]:
    """Copy the adapter and its tokenizer into ``folder``; return its base model and the number of its parameters.

    Raises :class:`InputError` for a whole model, and :class:`VerificationError` for weights that are not finite.
    """
    from safetensors.numpy import load_file

    base = adapter_base(source.weights)
    if base is None:
        raise InputError(f"{source.name} was trained without an adapter", "leave out --adapter-only")
    files = [
        path
        for path in source.weights.iterdir()
        if path.name in (*ADAPTER_FILES, FORM_FILE) or _TOKENIZER_FILE.match(path.name)
    ]
    with writing(folder):
        for path in files:
            shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    replace_json(folder / ADAPTER_FILES[0], {**config, "base_model_name_or_path": public_name(base)})
    weights = load_file(folder / ADAPTER_FILES[1])
    for name, tensor in weights.items():
        if not np.isfinite(tensor).all():
            raise VerificationError(f"{name} holds values that are not finite", RETRAIN)
    return base, sum(tensor.size for tensor in weights.values())


def config_of(source: Source, runs: Path) -> Any:
    """Return the exported model's architecture, without weights. Raises :class:`MissingError` for a missing base."""
    base = adapter_base(source.weights)
    return model_config(base, runs=runs) if base is not None else model_config(str(source.weights))


def _require_finite(model: Any) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise VerificationError(f"{name} holds values that are not finite", RETRAIN)


def base_of(source: Source) -> str:
    """Return the base model of a whole model: that of its run, or without a run the model itself."""
    spec = source.run.spec() if source.run is not None else None
    return spec.base_model if spec is not None else str(source.weights)


def base_chain(name: str, runs: Path) -> list[str]:
    """Return the base model and, if it is a run, the base models of that run, the first ancestor last."""
    chain = [name]
    while (run := RunFolder(runs / chain[-1])).final.is_dir() and (spec := run.spec()) is not None:
        if spec.base_model in chain:
            break
        chain.append(spec.base_model)
    return chain


def is_hub_id(name: str) -> bool:
    """Return True for OWNER/NAME."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) is not None


def public_name(name: str) -> str:
    """Return a model's name for publication: of a path on this machine only the last part."""
    return name if "/" not in name or is_hub_id(name) else Path(name).name


def public_record(record: JsonObject) -> JsonObject:
    """Return the record of a run without paths on this machine."""
    names = {key: public_name(record[key]) for key in ("base_model", "adapter") if isinstance(record.get(key), str)}
    inner = {"spec": public_record(record["spec"])} if isinstance(record.get("spec"), dict) else {}
    return {**record, **names, **inner}


def logits(model: Any, tokenizer: Any) -> list[Logits]:
    """Return the next-token logits for each of :data:`PROBES`: float32, shape (tokens, vocabulary)."""
    import torch

    found: list[Logits] = []
    with torch.inference_mode():
        for probe in PROBES:
            ids = torch.tensor([probe_tokens(tokenizer, probe)])
            found.append(model(input_ids=ids).logits[0].float().numpy())
    return found


def probe_tokens(tokenizer: Any, probe: str) -> list[int]:
    """Return the tokens of a probe, in the chat template if the tokenizer has one."""
    if not tokenizer.chat_template:
        return tokenizer(probe)["input_ids"]
    messages = [{"role": "user", "content": f"<vibe>{probe}</vibe>"}]
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **template_options(tokenizer.chat_template)
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def compare(reference: Sequence[Logits], other: Sequence[Logits]) -> Parity:
    """Compare two models' logits on the same probes, over the tokens of the smaller vocabulary (one may be padded)."""
    from scipy.special import log_softmax

    size = min(reference[0].shape[1], other[0].shape[1])
    a = np.concatenate([part[:, :size] for part in reference])
    b = np.concatenate([part[:, :size] for part in other])
    log_p, log_q = log_softmax(a, axis=1), log_softmax(b, axis=1)
    return Parity(
        tokens=len(a),
        max_abs_diff=float(np.abs(a - b).max()),
        relative_error=float(np.sqrt(np.mean((a - b) ** 2)) / max(float(a.std()), 1e-12)),
        top1_agreement=float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
        kl=float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()),
    )


def tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield (name, float32 array) for each tensor of a saved model, one at a time, in a stable order."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    else:
        with safe_open(folder / "model.safetensors", framework="numpy") as file:
            where = dict.fromkeys(file.keys(), "model.safetensors")
    for shard in sorted(set(where.values())):
        with safe_open(folder / shard, framework="numpy") as file:
            for name in sorted(name for name, at in where.items() if at == shard):
                yield name, file.get_tensor(name)
