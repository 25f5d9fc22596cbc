"""Models that answer a text with a config: a function, a hosted model through LiteLLM, or a local model."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from latentscore.answers import Answer, Given, answer
from latentscore.errors import InvalidConfigError, ModelError
from latentscore.hosted import ask_hosted, read_payload
from latentscore.local_model import local_model

Reply = Given | str
"""What a model may return: a payload, a config, a mapping, or JSON text."""

Model = str | Callable[[str], Reply | Awaitable[Reply]]


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
    reply = await asyncio.to_thread(function, text)
    return _answered(await reply if inspect.isawaitable(reply) else reply, model, text)


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
    try:
        found = answer(read_payload(reply) if isinstance(reply, str) else reply)
    except InvalidConfigError as error:
        raise ModelError(f"{name} gave no usable answer: {error}") from error
    return replace(found, answered_by=name, text=text)
