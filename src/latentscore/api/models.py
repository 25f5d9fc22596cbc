"""Models that answer a text with a config: a function, a hosted model through LiteLLM, or a local model."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from latentscore.api.answers import ANSWERABLE, Answer, Given, payload_text, to_answer
from latentscore.config import MusicConfigPromptPayload, parse_payload
from latentscore.decoding import Prompt, SchemaDecoder
from latentscore.errors import InvalidConfigError, ModelError
from latentscore.files import user_path
from latentscore.forms import form_of, prompt_messages
from latentscore.installed import install
from latentscore.json_search import JsonObject, search

Reply = Given | Answer
"""What a model may return: a payload, a config, a mapping, an answer, or JSON text of one of the first three."""

Model = str | Callable[[str], Reply | Awaitable[Reply]]


Parsed = TypeVar("Parsed")
Returned = TypeVar("Returned")


def ask(what: Given | Answer, model: Model) -> Answer:
    """Return the model's answer to a text. Raises :class:`ModelError` if it has none, and :class:`InvalidConfigError` if
    ``what`` is not a text."""
    text = _text(what, model)
    reply = make_model(model)(text)
    if inspect.isawaitable(reply):
        reply = _run(reply)
    return _answered(reply, model, text)


async def ask_async(what: Given | Answer, model: Model) -> Answer:
    """Run :func:`ask` without blocking the event loop."""
    text = _text(what, model)
    function = make_model(model)
    if inspect.iscoroutinefunction(function):
        return _answered(await function(text), model, text)
    reply = await in_own_threads("latentscore-model", None, function, text)
    return _answered(await reply if inspect.isawaitable(reply) else reply, model, text)


Most = Callable[[], int] | None
"""Returns the largest number of threads; None for that of :class:`ThreadPoolExecutor`."""


async def in_own_threads(name: str, most: Most, function: Callable[..., Returned], *arguments: Any) -> Returned:
    """Call a slow function as :func:`asyncio.to_thread` does, in threads with this name; ``most`` is called once per process.

    The event loop's own threads would be occupied by slow calls, and streams would wait for them.
    """
    call = partial(contextvars.copy_context().run, function, *arguments)
    return await asyncio.get_running_loop().run_in_executor(_threads(os.getpid(), name, most), call)


@cache
def _threads(process: int, name: str, most: Most) -> ThreadPoolExecutor:
    """Return the threads of a process with this name; a forked process cannot use those of its parent."""
    return ThreadPoolExecutor(most and most(), name)


def make_model(model: Model) -> Callable[[str], Any]:
    """Return the function of a model, which may be given by name. Raises :class:`ModelError` for an unknown name."""
    if callable(model):
        return model
    if not isinstance(model, str):
        raise ModelError(f"a model must be a name or a function, not {type(model).__name__}")
    kind, _, name = model.partition(":")
    if kind == "litellm" and name:
        return lambda text: ask_hosted(name, text)
    if kind == "local" and name:
        return lambda text: local_model(name).answer(text)
    raise ModelError(f"unknown model {model!r}; a model is litellm:PROVIDER/MODEL, local:FOLDER or a function")


def name_of(model: Model) -> str:
    """Return the name of a model in metadata."""
    return model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)


def _text(what: Given | Answer, model: Model) -> str:
    if not isinstance(what, str) or not what.strip():
        shown = "an empty text" if isinstance(what, str) else type(what).__name__
        raise InvalidConfigError("model", f"{name_of(model)} needs a text, not {shown}; leave model= out")
    return what


def _run(reply: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await reply

    # In a separate thread, because a notebook already runs an event loop.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, wait()).result()


def _answered(reply: Any, model: Model, text: str) -> Answer:
    name = name_of(model)
    if not isinstance(reply, ANSWERABLE):
        raise ModelError(
            f"{name} returned {type(reply).__name__}; a model returns a payload, a config, a mapping or JSON text"
        )
    try:
        found = first_usable(reply, to_answer) if isinstance(reply, str) else to_answer(reply)
    except InvalidConfigError as error:
        raise ModelError(f"{name} gave no usable answer: {error}") from error
    return replace(found, answered_by=name, text=text)


ATTEMPTS = 2
"""If the first answer is unusable, a second question names the error."""
TIMEOUT_SECONDS = 120
REASON_CHARS = 300


def ask_hosted(name: str, text: str) -> MusicConfigPromptPayload:
    """Return the payload with which a LiteLLM model answers a text. Raises :class:`ModelError`."""
    # Prevents LiteLLM from downloading its price list when it is imported.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError:
        raise ModelError(f"{name} needs litellm: pip install litellm") from None
    litellm.suppress_debug_info = True
    messages = prompt_messages(text)
    fault = "the answer was empty"
    for _ in range(ATTEMPTS):
        try:
            reply: Any = litellm.completion(name, messages, timeout=TIMEOUT_SECONDS, max_retries=2, drop_params=True)
        except Exception as error:  # each provider has its own exception types
            raise ModelError(f"the call of {name} failed: {_shown(error)}") from None
        said = str(reply.choices[0].message.content or "") if reply.choices else ""
        try:
            return first_usable(said, parse_payload)
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


def first_usable(said: str, parse: Callable[[JsonObject], Parsed]) -> Parsed:
    """Return the most likely JSON object in a model's reply that ``parse`` accepts. Raises :class:`InvalidConfigError`
    with the error of the most likely object."""
    fault: InvalidConfigError | None = None
    found = search(said)
    for one in (*found.said, *found.thoughts):
        try:
            return parse(one.value)
        except InvalidConfigError as error:
            fault = fault or error
    raise fault or InvalidConfigError("answer", "it contains no JSON object")


def _shown(error: Exception) -> str:
    """Return the error in one line, without the values of environment variables that hold keys."""
    line = f"{type(error).__name__}: {' '.join(str(error).split())}"
    for name, value in os.environ.items():
        if name.endswith(("_KEY", "_TOKEN", "_SECRET")) and len(value) > 3:
            line = line.replace(value, f"${name}")
    return line[:REASON_CHARS]


MAX_NEW_TOKENS = 2048
NEEDED = ("torch", "transformers", "xgrammar")


class LocalModel:
    """A causal language model from a folder, decoded greedily under the grammar of its answer format.

    The folder holds a model or an adapter (``peft`` then loads its base from a folder or the hub's local cache). Its
    ``latentscore.json`` names the answer format and the system message of its training. Nothing is downloaded. Raises
    :class:`ModelError` without the ml extra, and for a folder that cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise ModelError(f"local:{folder}: the folder does not exist; name one that lsdata export model wrote")
        self._form = form_of(folder)
        try:
            import torch
            import transformers
            import xgrammar  # noqa: F401  # imported here so that the error can name the extra
        except ImportError as error:
            raise ModelError(
                f"local:{folder} needs {', '.join(NEEDED)}, and {error.name} is not installed: {install('ml')}"
            ) from None
        transformers.logging.disable_progress_bar()
        try:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            # For an adapter's folder, this loads the base and attaches the adapter.
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32
            )
            model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        except Exception as error:  # damaged folders and other formats raise many exception types, including Exception
            raise ModelError(f"local:{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        self._decoder = SchemaDecoder(model, tokenizer, f"local:{folder}")

    def answer(self, text: str) -> MusicConfigPromptPayload:
        """Return the payload for a text; deterministic. Raises :class:`ModelError` if the answer was cut."""
        form = self._form
        (written,) = self._decoder.write([Prompt(prompt_messages(text, form=form), MAX_NEW_TOKENS, form.grammar())])
        try:
            return parse_payload(json.loads(payload_text(form, written.text, text), strict=False))
        except ValueError as error:
            raise ModelError(f"local:{self.folder} gave no usable answer: {error}") from None


@lru_cache(maxsize=1)
def local_model(folder: str) -> LocalModel:
    """Return the model of a folder; the most recent one stays in memory."""
    return LocalModel(user_path(folder))
