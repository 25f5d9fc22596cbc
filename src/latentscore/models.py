"""Models that answer a text with a config: any function, a hosted model through LiteLLM, a local one."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from latentscore.answers import Answer, Given, answer
from latentscore.config import MusicConfigPromptPayload, parse_payload
from latentscore.decoding import Prompt, SchemaDecoder
from latentscore.errors import InvalidConfigError, ModelError
from latentscore.forms import form_of, prompt_messages
from latentscore.installed import install
from latentscore.json_search import search

Reply = Given | str
"""What a model answers: a payload, a config, a mapping, or the JSON text of one."""

Model = str | Callable[[str], Reply | Awaitable[Reply]]


def ask(what: Given | Answer, model: Model) -> Answer:
    """The model's answer to a text. Raises :class:`ModelError` where there is none, and for something else than a text."""
    text = _text(what, model)
    reply = make_model(model)(text)
    if inspect.isawaitable(reply):
        reply = _run(reply)
    return _answered(reply, model, text)


async def ask_async(what: Given | Answer, model: Model) -> Answer:
    """:func:`ask` without blocking the event loop."""
    text = _text(what, model)
    function = make_model(model)
    if inspect.iscoroutinefunction(function):
        return _answered(await function(text), model, text)
    reply = await asyncio.to_thread(function, text)
    return _answered(await reply if inspect.isawaitable(reply) else reply, model, text)


def make_model(model: Model) -> Callable[[str], Any]:
    """The function that a model stands for. Raises :class:`ModelError` for a name that stands for none."""
    if callable(model):
        return model
    if not isinstance(model, str):
        raise ModelError(f"a model is a name or a function, not {type(model).__name__}")
    kind, _, name = model.partition(":")
    if kind == "litellm" and name:
        return lambda text: ask_hosted(name, text)
    if kind == "local" and name:
        return lambda text: local_model(name).answer(text)
    raise ModelError(f"there is no model {model!r}; models are litellm:PROVIDER/MODEL, local:FOLDER or a function")


def name_of(model: Model) -> str:
    """How metadata names a model."""
    return model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)


def _text(what: Given | Answer, model: Model) -> str:
    if not isinstance(what, str) or not what.strip():
        shown = "an empty text" if isinstance(what, str) else type(what).__name__
        raise InvalidConfigError("model", f"{name_of(model)} answers texts, and {shown} was given; leave model= out")
    return what


def _run(reply: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await reply

    # In a thread of its own, because a notebook's loop is running already.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, wait()).result()


def _answered(reply: Any, model: Model, text: str) -> Answer:
    name = name_of(model)
    try:
        found = answer(read_payload(reply) if isinstance(reply, str) else reply)
    except InvalidConfigError as error:
        raise ModelError(f"{name} gave no usable answer: {error}") from error
    return replace(found, answered_by=name, text=text)


ATTEMPTS = 2
"""A second question, which names the fault, goes to a model whose first answer cannot be used."""
TIMEOUT_SECONDS = 120
REASON_CHARS = 300


def ask_hosted(name: str, text: str) -> MusicConfigPromptPayload:
    """The payload with which a LiteLLM model answers a text. Raises :class:`ModelError`."""
    # Otherwise LiteLLM fetches its price list when it is imported.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError:
        raise ModelError(f"asking {name} needs litellm: pip install litellm") from None
    litellm.suppress_debug_info = True
    messages = prompt_messages(text)
    fault = "it said nothing"
    for _ in range(ATTEMPTS):
        try:
            reply: Any = litellm.completion(name, messages, timeout=TIMEOUT_SECONDS, max_retries=2, drop_params=True)
        except Exception as error:  # each provider has its own kinds
            raise ModelError(f"{name} could not be asked: {_shown(error)}") from None
        said = str(reply.choices[0].message.content or "") if reply.choices else ""
        try:
            return read_payload(said)
        except InvalidConfigError as error:
            fault = str(error)
        messages += [
            {"role": "assistant", "content": said},
            {
                "role": "user",
                "content": f"This cannot be used ({fault}). Answer with the whole JSON object, corrected.",
            },
        ]
    raise ModelError(f"{name} gave no usable answer: {fault}")


def read_payload(said: str) -> MusicConfigPromptPayload:
    """The likeliest payload in what a model said. Raises :class:`InvalidConfigError` with the fault of the likeliest object."""
    fault: InvalidConfigError | None = None
    found = search(said)
    for one in (*found.said, *found.thoughts):
        try:
            return parse_payload(one.value)
        except InvalidConfigError as error:
            fault = fault or error
    raise fault or InvalidConfigError("answer", "it holds no JSON object")


def _shown(error: Exception) -> str:
    """The error in one line, without the values of variables that hold keys."""
    line = f"{type(error).__name__}: {' '.join(str(error).split())}"
    for name, value in os.environ.items():
        if name.endswith(("_KEY", "_TOKEN", "_SECRET")) and len(value) > 3:
            line = line.replace(value, f"${name}")
    return line[:REASON_CHARS]


MAX_NEW_TOKENS = 2048
NEEDED = ("torch", "transformers", "xgrammar")


class LocalModel:
    """A causal language model from a folder, decoded greedily and held to the grammar of its answers.

    The folder holds a whole model, or an adapter (then ``peft`` loads its base, from a folder or the hub's local cache). Its
    ``latentscore.json`` says in which form it answers, and which system message it was trained with. Nothing is downloaded. Raises :class:`ModelError` without the ml extra, and for a folder that cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise ModelError(f"local:{folder}: there is no such folder; name one that lsdata export model wrote")
        self._form = form_of(folder)
        try:
            import torch
            import transformers
            import xgrammar  # noqa: F401  # looked for here, where the error can name the extra
        except ImportError as error:
            raise ModelError(
                f"local:{folder} needs {', '.join(NEEDED)}, and {error.name} is not installed: {install('ml')}"
            ) from None
        transformers.logging.disable_progress_bar()
        try:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            # With an adapter's folder this loads the base and puts the adapter on it.
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32
            )
            model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        except Exception as error:  # damaged and foreign folders raise many kinds, a bare Exception among them
            raise ModelError(f"local:{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        self._decoder = SchemaDecoder(model, tokenizer, f"local:{folder}")

    def answer(self, text: str) -> MusicConfigPromptPayload:
        """The payload for a text; the same text always gets the same. Raises :class:`ModelError` for one that was cut."""
        form = self._form
        (written,) = self._decoder.write([Prompt(prompt_messages(text, form=form), MAX_NEW_TOKENS, form.grammar())])
        try:
            return parse_payload(json.loads(form.to_json(written.text, text), strict=False))
        except ValueError as error:
            raise ModelError(f"local:{self.folder} gave no usable answer: {error}") from None


@lru_cache(maxsize=1)
def local_model(folder: str) -> LocalModel:
    """The model of a folder; the last one stays in memory."""
    return LocalModel(Path(folder).expanduser())
