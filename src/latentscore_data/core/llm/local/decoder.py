"""A Hugging Face model that decodes with a grammar's mask: only tokens that the grammar allows get through."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentscore.forms import JSON, Grammar
from latentscore_data.core.base.errors import InputError, require
from latentscore_data.core.base.seeds import seed_for
from latentscore_data.core.llm.local.names import place_of
from latentscore_data.core.llm.local.types import Prompt, Written
from latentscore_data.core.training.base_models import Loaded, load_base, load_trained, pick_device
from latentscore_data.core.training.chat import template_options

if TYPE_CHECKING:
    import torch


class Decoder:
    """A folder, an adapter, a training run, a GGUF file, a hub id or ``tiny-random``, loaded at the first answer.

    Raises :class:`MissingError` without the ml extra or the weights, :class:`InputError` for a tokenizer that no schema can
    be compiled for.
    """

    def __init__(self, name: str, runs: Path, what: str) -> None:
        for module in ("torch", "transformers", "xgrammar"):
            require(module, "ml", what)
        self._name, self._runs = name, runs
        self._grammars: dict[str, Any] = {}

    @classmethod
    def of(cls, loaded: Loaded, runs: Path) -> Decoder:
        """A decoder of a model in memory, such as one that is being trained."""
        decoder = cls("the model that is trained", runs, "answers of a model in training")
        decoder.loaded = loaded
        return decoder

    @cached_property
    def loaded(self) -> Loaded:
        device = pick_device("auto")
        place = place_of(self._name, self._runs)
        if place is not None and place.is_dir():
            loaded = load_trained(place, runs=self._runs, device=device)
        else:
            loaded = load_base(str(place) if place is not None else self._name, runs=self._runs, device=device)
        loaded.model.eval()
        return loaded

    @cached_property
    def _stop_ids(self) -> list[int]:
        declared = self.loaded.model.generation_config.eos_token_id
        return list(declared) if isinstance(declared, list) else [int(declared)]

    @cached_property
    def _compiler(self) -> Any:
        import xgrammar

        # Embeddings are often padded beyond the tokenizer: the mask must be as wide as the logits.
        width = self.loaded.model.get_output_embeddings().weight.shape[0]
        try:
            tokens = xgrammar.TokenizerInfo.from_huggingface(
                self.loaded.tokenizer, vocab_size=width, stop_token_ids=self._stop_ids
            )
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"{self._name}: its tokenizer cannot be held to a schema ({error})", "take another model"
            ) from None
        return xgrammar.GrammarCompiler(tokens)

    def _compiled(self, grammar: Grammar) -> Any:
        text = json.dumps(grammar)
        if text not in self._grammars:
            self._grammars[text] = (
                self._compiler.compile_regex(grammar)
                if isinstance(grammar, str)
                else self._compiler.compile_json_schema(grammar, any_whitespace=False, separators=(",", ":"))
            )
        return self._grammars[text]

    def mask(self, grammar: Grammar) -> Any:
        """A logits processor that only lets tokens of the grammar through. It has a state: one for each ``generate``."""
        from xgrammar.contrib.hf import LogitsProcessor

        return LogitsProcessor(self._compiled(grammar))

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        """Decode the prompts as one batch. Each row draws from its own seed, whoever is in the batch with it."""
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        options = template_options(tokenizer.chat_template)
        texts = [
            tokenizer.apply_chat_template(list(p.messages), tokenize=False, add_generation_prompt=True, **options)
            for p in prompts
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        length, grammar = batch["input_ids"].shape[1], prompts[0].grammar
        processors: list[Any] = [self.mask(grammar)] if grammar is not None else []
        if any(prompt.temperature > 0 for prompt in prompts):
            processors.append(_Draws(prompts))
        # What cannot become an answer any more need not be written to its end.
        openings = prompts[0].openings
        stopping = [] if grammar is not None else [lambda ids, _: self.hopeless(ids[:, length:], openings)]
        with torch.inference_mode():
            out = model.generate(
                **{name: tensor.to(model.device) for name, tensor in batch.items() if name != "token_type_ids"},
                max_new_tokens=prompts[0].max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=self._stop_ids,
                pad_token_id=tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=StoppingCriteriaList(stopping),
            )
        asked = batch["attention_mask"].sum(dim=1).tolist()
        return [
            self._written(ids, tokens_in, prompts[0].max_tokens)
            for ids, tokens_in in zip(out[:, length:].tolist(), asked, strict=True)
        ]

    def hopeless(self, answers: torch.Tensor, openings: Sequence[str] = JSON.openings) -> torch.Tensor:
        """Which of the answers so far, shape (rows, tokens), begin with none of the openings."""
        import torch

        beginnings = self.loaded.tokenizer.batch_decode(answers[:, :8], skip_special_tokens=True)
        hopeless = [
            not any(text.startswith(one) or one.startswith(text) for one in openings)
            for text in map(str.lstrip, beginnings)
        ]
        return torch.tensor(hopeless, device=answers.device)

    def _written(self, ids: list[int], tokens_in: int, max_tokens: int) -> Written:
        end = next((i for i, token in enumerate(ids) if token in self._stop_ids), len(ids))
        text = self.loaded.tokenizer.decode(ids[:end], skip_special_tokens=True)
        return Written(text, int(tokens_in), end, end >= max_tokens)


class _Draws:
    """Sampling as a logits processor: Gumbel noise on the tempered logits makes the likeliest token a draw.

    ``generate`` samples a batch from one stream, so that an answer would depend on its neighbours. Here each row has its own
    (Gumbel-max: argmax(log p + g) is distributed as p).
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        import torch

        self._prompts = prompts
        self._streams = [torch.Generator().manual_seed(seed_for(*_identity(prompt))) for prompt in prompts]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        rows: list[torch.Tensor] = []
        for row, prompt, stream in zip(scores, self._prompts, self._streams, strict=True):
            if prompt.temperature <= 0:
                rows.append(row)
                continue
            logits = _nucleus(row.float() / prompt.temperature, prompt.top_p)
            noise = -torch.log(torch.empty(row.shape).exponential_(generator=stream))
            rows.append(logits + noise.to(logits.device))
        return torch.stack([row.float() for row in rows])


def _identity(prompt: Prompt) -> tuple[object, ...]:
    return prompt.seed, json.dumps(list(prompt.messages), sort_keys=True)


def _nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """The logits with all but the likeliest tokens, which together have ``top_p``, at minus infinity."""
    import torch

    if top_p >= 1.0:
        return logits
    ordered, order = torch.sort(logits, descending=True)
    shares = torch.softmax(ordered, dim=-1)
    beyond = torch.cumsum(shares, dim=-1) - shares >= top_p
    return logits.masked_fill(torch.zeros_like(beyond).scatter(0, order, beyond), -torch.inf)
