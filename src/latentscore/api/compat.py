"""The interface of the public package ``latentscore``, so that code written for it runs unchanged.

The functions are those of ``runtime`` and ``streaming``. This module also accepts the public package's names of
arguments (``duration``, ``transition_seconds``, ``chunk_seconds``, ``hooks``) and of models ("fast",
"external:PROVIDER/MODEL").
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from latentscore.api import runtime, streaming
from latentscore.api.models import make_model
from latentscore.audio import Audio
from latentscore.config import MusicConfigUpdate
from latentscore.errors import InvalidConfigError, ModelError
from latentscore.json_search import JsonObject
from latentscore.labels import FIELDS

SAMPLE_RATE = streaming.RATE
"""Default sample rate in hertz."""

_REGISTERS = ("register_min_oct", "register_max_oct")
"""Fields whose labels cannot be combined freely."""

Verb = TypeVar("Verb", bound=Callable[..., Any])

_NAMES = {"duration": "seconds", "transition_seconds": "transition", "transition_duration": "transition"}
_OF_THEIR_ENGINE = ("pattern_seconds", "queue_maxsize")
"""Arguments for the other engine's patterns and buffers; they have no effect here."""
_NOT_HERE = {
    "fast_heavy": "export a map of sounds with lsdata export map and pass map=FOLDER",
    "expressive": 'use your own model: model="local:FOLDER"',
    "local": 'use its folder: model="local:FOLDER"',
}


class _Hooks:
    """Optional functions by name."""

    def call(self, name: str, *given: Any) -> None:
        """Call the hook if it was given."""
        hook = getattr(self, name)
        if hook is not None:
            hook(*given)


@dataclass(frozen=True)
class RenderHooks(_Hooks):
    """Optional functions that ``render(hooks=...)`` calls at its steps."""

    on_start: Callable[[], None] | None = None
    on_model_start: Callable[[Any], None] | None = None
    on_model_end: Callable[[Any], None] | None = None
    on_synth_start: Callable[[], None] | None = None
    on_synth_end: Callable[[], None] | None = None
    on_end: Callable[[], None] | None = None
    on_error: Callable[[Exception], None] | None = None


@dataclass(frozen=True)
class StreamHooks(_Hooks):
    """Optional functions that ``stream(hooks=...)`` calls at its steps. Items are numbered from 0."""

    on_stream_start: Callable[[], None] | None = None
    on_item_resolve_start: Callable[[int, Any], None] | None = None
    on_item_resolve_success: Callable[[int, Any], None] | None = None
    on_item_resolve_error: Callable[[int, Any, Exception, None], None] | None = None
    on_first_config_ready: Callable[[int, Any], None] | None = None
    on_first_audio_chunk: Callable[[], None] | None = None
    on_stream_end: Callable[[], None] | None = None
    on_error: Callable[[Exception], None] | None = None


def translated(given: JsonObject) -> JsonObject:
    """Return the arguments under this package's names.

    Raises :class:`ModelError` for a model that only the public package has, and :class:`InvalidConfigError` for an
    argument that is given under both names.
    """
    if twice := [name for name, ours in _NAMES.items() if name in given and ours in given]:
        raise InvalidConfigError(twice[0], f"is another name of {_NAMES[twice[0]]}; give one of them")
    named = {_NAMES.get(name, name): value for name, value in given.items() if name not in _OF_THEIR_ENGINE}
    if "chunk_seconds" in named:
        rate = named.get("sample_rate", SAMPLE_RATE)
        named["block_frames"] = max(round(named.pop("chunk_seconds") * rate), 1)
    model = named.get("model")
    if isinstance(model, str):
        if model in _NOT_HERE:
            raise ModelError(f"the model {model} is not part of this package; {_NOT_HERE[model]}")
        kind, _, name = model.partition(":")
        named["model"] = None if model == "fast" else f"litellm:{name}" if kind == "external" else model
    return named


def _public(verb: Verb) -> Verb:
    @functools.wraps(verb)
    def call(*what: Any, **given: Any) -> Any:
        return verb(*what, **translated(given))

    return call  # type: ignore[return-value]


@functools.wraps(runtime.render)
def render(what: Any, *places: Any, hooks: RenderHooks | None = None, **given: Any) -> Audio:
    named = translated(given)
    if hooks is None:
        return runtime.render(what, *places, **named)
    model = given.get("model", "fast")
    try:
        hooks.call("on_start")
        hooks.call("on_model_start", model)
        found = runtime.answer(what, **{name: named.pop(name, None) for name in ("update", "map", "model")})
        hooks.call("on_model_end", model)
        hooks.call("on_synth_start")
        audio = runtime.render(found, *places, **named)
        hooks.call("on_synth_end")
        hooks.call("on_end")
    except Exception as error:
        hooks.call("on_error", error)
        raise
    return audio


answer = _public(runtime.answer)
arender = _public(runtime.arender)


@functools.wraps(streaming.stream)
def stream(*items: Any, hooks: StreamHooks | None = None, **given: Any) -> streaming.AudioStream:
    named = translated(given)
    if hooks is None:
        return streaming.stream(*items, **named)
    how = {name: named.pop(name, None) for name in ("update", "map", "model")}
    hooks.call("on_stream_start")
    flat = [one for item in items for one in (item if isinstance(item, list | tuple) else [item])]
    playing = streaming.stream(*(_resolved(at, item, how, hooks) for at, item in enumerate(flat)), **named)
    playing.read = _watched(playing.read, hooks)  # type: ignore[method-assign]
    return playing


def _resolved(at: int, item: Any, how: JsonObject, hooks: StreamHooks) -> Any:
    """Return the item with its answer instead of its text; a change of the previous config is returned unchanged."""
    content = item.content if isinstance(item, streaming.Track) else item
    hooks.call("on_item_resolve_start", at, item)
    try:
        found = content if isinstance(content, MusicConfigUpdate) else runtime.answer(content, **how)
    except Exception as error:
        hooks.call("on_item_resolve_error", at, item, error, None)
        hooks.call("on_error", error)
        raise
    hooks.call("on_item_resolve_success", at, item)
    if at == 0:
        hooks.call("on_first_config_ready", at, item)
    return replace(item, content=found) if isinstance(item, streaming.Track) else found


def _watched(read: Callable[[int], streaming.Block], hooks: StreamHooks) -> Callable[[int], streaming.Block]:
    """Wrap ``read`` so that the hooks for the first block and the end are called."""
    told: set[str] = set()

    def once(name: str) -> None:
        if name not in told:
            told.add(name)
            hooks.call(name)

    def watched(frames: int) -> streaming.Block:
        block = read(frames)
        once("on_first_audio_chunk" if len(block) else "on_stream_end")
        return block

    return watched


astream = _public(streaming.astream)
live = _public(streaming.live)


class Track(streaming.Track):
    """A part of a stream; ``duration`` is an alias of ``seconds``."""

    def __init__(self, content: Any, *places: Any, **given: Any) -> None:
        super().__init__(content, *places, **translated(given))


Streamable = Track


def prefetch(*models: str) -> None:
    """Load all data and code of the offline model and the synthesizer, so that no later render or stream waits for it.

    Takes about two seconds, and about ten seconds more when it compiles the synthesizer, once per machine. A process
    that forks workers calls it before the fork. Nothing is downloaded. Raises :class:`ModelError` for an unknown model.
    """
    for model in models or ("fast",):
        if (named := translated({"model": model})["model"]) is not None:
            make_model(named)
    runtime.answer("rain")
    # Loops are loaded at their first call, and each is called by some label of some field.
    for at in range(max(len(spec.labels) for spec in FIELDS.values())):
        labels = {name: spec.labels[at % len(spec.labels)] for name, spec in FIELDS.items() if name not in _REGISTERS}
        runtime.render(labels, 10.0, sample_rate=8_000)
    streaming.stream({"bass": "drone"}).read(1)


def save_wav(path: Path | str, audio: Audio) -> str:
    """Write a sound file and return its path."""
    return str(audio.save(path))
