"""Engines that answer prompts with a local model: transformers with a grammar's mask, or vLLM beside a GPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from latentscore.decoding import Prompt, SchemaDecoder, Written
from latentscore.errors import ModelError
from latentscore.prompt import template_options
from latentscore_data.core.base.answerers import LOCAL
from latentscore_data.core.base.errors import InputError, one_line, require
from latentscore_data.core.models.base_models import (
    SHORT_NAMES,
    adapter_base,
    check_base,
    load_base,
    load_tokenizer,
    load_trained,
    pick_device,
)
from latentscore_data.core.models.local_names import place_of
from latentscore_data.core.models.spec import TINY_RANDOM


class Engine(Protocol):
    """Answers prompts in batches, in the calling thread."""

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        """One answer per prompt, in order; the prompts of a call share grammar and ``max_tokens``."""
        ...


def check_local(model: str, runs: Path) -> None:
    """Raise :class:`MissingError` if the libraries or the model are missing. Loads and downloads nothing."""
    for module in ("torch", "transformers", "xgrammar"):
        require(module, "ml", f"answers of {model}")
    check_base(model.removeprefix(LOCAL.prefix), runs=runs)


def engine_for(name: str, runs: Path, what: str, stopped: threading.Event | None = None) -> Engine:
    """Return vLLM if it can run the model, otherwise transformers with constrained decoding, which ends at the next token
    after ``stopped`` is set."""
    return VLLMEngine(name, runs) if vllm_answers(name) else Decoder(name, runs, what, stopped)


class Decoder:
    """A folder, an adapter, a training run, a GGUF file, a hub id or ``tiny-random``.

    Raises :class:`MissingError` without the ml extra or the weights, :class:`InputError` for a tokenizer that no schema can
    be compiled for.
    """

    def __init__(self, name: str, runs: Path, what: str, stopped: threading.Event | None = None) -> None:
        for module in ("torch", "transformers", "xgrammar"):
            require(module, "ml", what)
        self._name, self._runs, self._stopped = name, runs, stopped

    @cached_property
    def _model(self) -> SchemaDecoder:
        device = pick_device("auto")
        place = place_of(self._name, self._runs)
        if place is not None and place.is_dir():
            loaded = load_trained(place, runs=self._runs, device=device)
        else:
            loaded = load_base(str(place) if place is not None else self._name, runs=self._runs, device=device)
        return SchemaDecoder(loaded.model.eval(), loaded.tokenizer, self._name, self._stopped)

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        """One answer per prompt, decoded as one batch."""
        try:
            return self._model.write(prompts)
        except ModelError as error:
            raise InputError(str(error), "use another model") from None


def vllm_answers(name: str) -> bool:
    """Return True if vLLM is installed, there is a GPU, and vLLM can load the model's files."""
    if name == TINY_RANDOM or find_spec("vllm") is None:
        return False
    import torch

    return torch.cuda.is_available()


class VLLMEngine:
    """A model in vLLM, loaded at the first answer; an adapter is used through a LoRA request."""

    def __init__(self, name: str, runs: Path) -> None:
        self._name, self._runs = name, runs
        place = place_of(name, runs)
        base = adapter_base(place) if place is not None and place.is_dir() else None
        self._adapter = str(place) if base is not None else None
        self._model = self._source(base) if base is not None else self._source(name)

    def _source(self, name: str) -> str:
        place = place_of(name, self._runs)
        return str(place) if place is not None else SHORT_NAMES.get(name, name)

    @cached_property
    def _engine(self) -> Any:
        options: dict[str, Any] = {"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True}}
        if self._adapter is not None:
            options |= {"enable_lora": True, "max_lora_rank": 256}
        try:
            return import_module("vllm").LLM(model=self._model, **options)
        except (ValueError, OSError, RuntimeError) as error:
            raise InputError(
                f"vLLM cannot load {self._name} ({one_line(error)})",
                "use a model that fits this GPU, or uninstall vllm to answer with transformers",
            ) from error

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        """One answer per prompt; vLLM makes its own batches of them."""
        # Not installed where the types are checked.
        sampling = import_module("vllm.sampling_params")
        params = [
            sampling.SamplingParams(
                temperature=prompt.temperature,
                top_p=prompt.top_p,
                max_tokens=prompt.max_tokens,
                seed=prompt.seed,
                structured_outputs=None
                if prompt.grammar is None
                else sampling.StructuredOutputsParams(
                    **{"regex" if isinstance(prompt.grammar, str) else "json": prompt.grammar}
                ),
            )
            for prompt in prompts
        ]
        found = self._engine.chat(
            [list(prompt.messages) for prompt in prompts], params, use_tqdm=False, **self._options
        )
        return [
            Written(
                each.outputs[0].text,
                len(each.prompt_token_ids or ()),
                len(each.outputs[0].token_ids),
                each.outputs[0].finish_reason == "length",
            )
            for each in found
        ]

    @cached_property
    def _options(self) -> dict[str, Any]:
        template = load_tokenizer(self._name if self._adapter is None else self._model, runs=self._runs).chat_template
        options: dict[str, Any] = {"chat_template": template, "chat_template_kwargs": template_options(template)}
        if self._adapter is not None:
            options["lora_request"] = import_module("vllm.lora.request").LoRARequest("adapter", 1, self._adapter)
        return options
