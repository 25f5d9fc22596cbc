"""Constrained decoding with a causal language model: only tokens that a grammar allows are sampled."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from latentscore.errors import ModelError
from latentscore.forms import JSON, Grammar
from latentscore.prompt import template_options
from latentscore.seeds import seed_for

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Prompt:
    """One conversation to answer. ``grammar`` None is unconstrained; a temperature of 0 is greedy decoding."""

    messages: Sequence[dict[str, Any]]
    max_tokens: int
    grammar: Grammar | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    openings: Sequence[str] = JSON.openings
    """The possible beginnings of a valid answer; an unconstrained answer that begins otherwise is stopped early."""


@dataclass(frozen=True)
class Written:
    """An answer. ``cut`` is true if it was cut at ``max_tokens``."""

    text: str
    tokens_in: int
    tokens_out: int
    cut: bool
    cost_usd: float = 0.0
    """Cost of the remote machine for this answer, in US dollars."""


class SchemaDecoder:
    """Decodes with a transformers model in memory. For batches, the tokenizer must pad on the left.

    Raises :class:`ModelError`, at the first constrained answer, if no grammar can be compiled for the tokenizer, and at the
    next token after another thread has set ``stopped``.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, stopped: threading.Event | None = None) -> None:
        self.model, self.tokenizer, self._name, self._stopped = model, tokenizer, name, stopped
        self._grammars: dict[str, Any] = {}

    @cached_property
    def _stop_ids(self) -> list[int]:
        declared = self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id
        return list(declared) if isinstance(declared, list) else [int(declared)]

    @cached_property
    def _compiler(self) -> Any:
        import xgrammar

        # The embedding is often larger than the vocabulary, and the mask must be as wide as the logits.
        width = self.model.get_output_embeddings().weight.shape[0]
        try:
            tokens = xgrammar.TokenizerInfo.from_huggingface(
                self.tokenizer, vocab_size=width, stop_token_ids=self._stop_ids
            )
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self._name}: no grammar can be compiled for its tokenizer ({error})") from None
        return xgrammar.GrammarCompiler(tokens)

    def mask(self, grammar: Grammar) -> Any:
        """Return a logits processor that masks all tokens outside the grammar. It is stateful: use a new one for each
        ``generate``."""
        from xgrammar.contrib.hf import LogitsProcessor

        text = json.dumps(grammar)
        if text not in self._grammars:
            self._grammars[text] = (
                self._compiler.compile_regex(grammar)
                if isinstance(grammar, str)
                else self._compiler.compile_json_schema(grammar, any_whitespace=False, separators=(",", ":"))
            )
        return LogitsProcessor(self._grammars[text])

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        """Decode the prompts, which share grammar and ``max_tokens``, as one batch. Each row has its own seed, so an answer
        does not depend on the batch."""
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        options = template_options(self.tokenizer.chat_template)
        texts = [
            self.tokenizer.apply_chat_template(list(p.messages), tokenize=False, add_generation_prompt=True, **options)
            for p in prompts
        ]
        batch = self.tokenizer(texts, return_tensors="pt", padding=len(texts) > 1, add_special_tokens=False)
        length, grammar = batch["input_ids"].shape[1], prompts[0].grammar
        processors: list[Any] = [self.mask(grammar)] if grammar is not None else []
        if any(prompt.temperature > 0 for prompt in prompts):
            processors.append(_Draws(prompts))
        processors.append(self._unless_stopped)
        # Stop decoding when no answer of the batch can become valid.
        openings = prompts[0].openings
        stopping = [] if grammar is not None else [lambda ids, _: self.hopeless(ids[:, length:], openings)]
        pad = self.tokenizer.pad_token_id
        with torch.inference_mode():
            out = self.model.generate(
                **{name: tensor.to(self.model.device) for name, tensor in batch.items() if name != "token_type_ids"},
                max_new_tokens=prompts[0].max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=self._stop_ids,
                pad_token_id=self._stop_ids[0] if pad is None else pad,
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=StoppingCriteriaList(stopping),
            )
        asked = batch["attention_mask"].sum(dim=1).tolist()
        return [
            self._written(ids, tokens_in, prompts[0].max_tokens)
            for ids, tokens_in in zip(out[:, length:].tolist(), asked, strict=True)
        ]

    def _unless_stopped(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores: a logits processor is called at each token."""
        if self._stopped is not None and self._stopped.is_set():
            raise ModelError(f"{self._name}: stopped")
        return scores

    def hopeless(self, answers: torch.Tensor, openings: Sequence[str] = JSON.openings) -> torch.Tensor:
        """Return which of the answers so far, shape (rows, tokens), begin with none of the openings; shape (rows,)."""
        import torch

        beginnings = self.tokenizer.batch_decode(answers[:, :8], skip_special_tokens=True)
        hopeless = [
            not any(text.startswith(one) or one.startswith(text) for one in openings)
            for text in map(str.lstrip, beginnings)
        ]
        return torch.tensor(hopeless, device=answers.device)

    def _written(self, ids: list[int], tokens_in: int, max_tokens: int) -> Written:
        end = next((i for i, token in enumerate(ids) if token in self._stop_ids), len(ids))
        text = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
        return Written(text, int(tokens_in), end, end >= max_tokens)


class _Draws:
    """Sampling as a logits processor with the Gumbel-max trick: argmax(log p + g) is distributed as p.

    ``generate`` samples all rows of a batch from one random stream, so an answer would depend on the batch. Here each
    row has its own stream.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        import torch

        self._prompts = prompts
        seeds = [seed_for(one.seed, json.dumps(list(one.messages), sort_keys=True)) for one in prompts]
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

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


def _nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Nucleus sampling: set all logits to minus infinity except the most likely tokens with a total probability of ``top_p``."""
    import torch

    if top_p >= 1.0:
        return logits
    ordered, order = torch.sort(logits, descending=True)
    shares = torch.softmax(ordered, dim=-1)
    beyond = torch.cumsum(shares, dim=-1) - shares >= top_p
    return logits.masked_fill(torch.zeros_like(beyond).scatter(0, order, beyond), -torch.inf)
