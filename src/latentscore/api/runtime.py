"""``answer``, ``render`` and ``arender``: a config or audio from a text, a payload or a config."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentscore.api.answers import Answer, Given, to_answer
from latentscore.api.models import Model, ask, ask_async, in_own_threads
from latentscore.audio import Audio, Metadata
from latentscore.config import MusicConfigUpdate
from latentscore.errors import InvalidConfigError
from latentscore.installed import available_cores
from latentscore.synth.render import render as render_config
from latentscore.vibe_map import VibeMap

DEFAULT_SECONDS = 30.0


def render(
    what: Given | Answer,
    seconds: float = DEFAULT_SECONDS,
    seed: int = 0,
    sample_rate: int = 48_000,
    stems: bool = False,
    loop: bool = False,
    *,
    update: MusicConfigUpdate | Mapping[str, Any] | None = None,
    map: VibeMap | str | Path | None = None,
    model: Model | None = None,
    threads: int = 2,
) -> Audio:
    """Render a text, a payload, a config (labels or numbers) or a mapping of fields.

    ``seconds`` is 0.5 to 600, ``seed`` has up to 64 bits, ``sample_rate`` is 8,000 to 192,000 Hz. The same config and
    arguments always give the same bytes. The result is stereo, at -16 LUFS with a true peak below -1 dBFS. With
    ``stems``, ``Audio.stems`` holds each layer with its echo and reverb; they add up to the mix before tone, drive,
    loudness and limiter, and have another level. With ``loop``, the result has whole bars, with
    a length as close to ``seconds`` as possible, and repeats without a seam. ``audio.metadata`` names the source of the
    config and the reasons.

    A text is answered by the offline model. ``map`` looks it up in an exported map instead (or in "starter", the pairs
    of the package). ``model`` calls a model: "litellm:PROVIDER/MODEL", "local:FOLDER" or a function from a text to an
    answer. ``update`` changes the config. ``threads`` (1 or 2) changes the speed, not the bytes.

    Raises :class:`InvalidConfigError`, which names the argument or the field, :class:`MapError` and
    :class:`ModelError`.
    """
    return render_answer(answer(what, map, model, update), seconds, seed, sample_rate, stems, loop, threads)


async def arender(
    what: Given | Answer,
    seconds: float = DEFAULT_SECONDS,
    seed: int = 0,
    sample_rate: int = 48_000,
    stems: bool = False,
    loop: bool = False,
    *,
    update: MusicConfigUpdate | Mapping[str, Any] | None = None,
    map: VibeMap | str | Path | None = None,
    model: Model | None = None,
    threads: int = 2,
) -> Audio:
    """Run :func:`render` without blocking the event loop. A model that is an async function is awaited in that loop.

    A process renders as many pieces at once as it has cores; further calls wait. A call that is cancelled while it
    waits is not rendered; a render that has begun continues in its thread.
    """
    _one_of(map, model)
    found = await ask_async(what, model) if model is not None else await asyncio.to_thread(to_answer, what, map)
    piece = found.updated(update), seconds, seed, sample_rate, stems, loop, threads
    return await in_own_threads("latentscore-render", available_cores, render_answer, *piece)


def answer(
    what: Given | Answer,
    map: VibeMap | str | Path | None = None,
    model: Model | None = None,
    update: MusicConfigUpdate | Mapping[str, Any] | None = None,
) -> Answer:
    """Return the answer (config, title, reasons and palettes) that :func:`render` renders for the same arguments."""
    _one_of(map, model)
    found = ask(what, model) if model is not None else to_answer(what, map)
    return found.updated(update)


def render_answer(
    found: Answer, seconds: float, seed: int, sample_rate: int, stems: bool, loop: bool, threads: int
) -> Audio:
    """Render an answer; the audio has its metadata and tags."""
    audio = render_config(found.config, seconds, seed, sample_rate, stems, loop, threads)
    metadata = Metadata(**vars(found), seed=int(seed), seconds=float(seconds))
    return replace(audio.tagged(title=found.title, vibe=found.text), metadata=metadata)


def _one_of(vibe_map: object, model: object) -> None:
    if vibe_map is not None and model is not None:
        raise InvalidConfigError("map", "map and model cannot both be given")
