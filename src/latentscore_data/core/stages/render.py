"""One text, payload or config to sound files: the answer, the places of the files, and what is written."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import latentscore
from latentscore import Answer, Audio, MusicConfigPrompt, convert_config, write_audio
from latentscore.errors import AudioError, InvalidConfigError, MapError
from latentscore.meaning.offline import OFFLINE_MODEL
from latentscore_data.core.base.display import say
from latentscore_data.core.base.errors import InputError, MissingError, OutputError
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages.configs import answer_vibes, for_typed, model_name

ENDINGS = (".wav", ".flac", ".ogg")
MAX_PAYLOAD_CHARS = 8 * 2**20
"""A longer file is no payload: reading it would only fill the memory."""


@dataclass(frozen=True)
class RenderFiles:
    """Where the sound goes, and its form."""

    out: Path
    midi: Path | None = None
    seconds: float = 30.0
    seed: int = 0
    sample_rate: int = 48_000
    stems: bool = False


def answer_text(vibe: str, settings: Settings, workspace: Workspace, *, map_path: str | None, yes: bool) -> Answer:
    """The answer to a text: that of the map, or the one that ``lsdata configs`` gives with the same settings.

    Raises :class:`InputError`, and :class:`MissingError` where the model gave none.
    """
    if not vibe.strip():
        raise InputError("the vibe is empty", 'lsdata render "rain on a tin roof"')
    try:
        if map_path is not None:
            return latentscore.answer(vibe, map_path)
        settings = for_typed(settings)
        if model_name(settings) == OFFLINE_MODEL and settings.configs.n == 1 and not settings.configs.temperature:
            # What lsdata configs would choose of one, without a scorer.
            return latentscore.answer(vibe)
    except (MapError, InvalidConfigError) as error:
        raise InputError(f"--map {map_path}: {error}", "lsdata export map writes one") from error
    summary = answer_vibes([vibe], settings, workspace, audio=None, trusted=frozenset(), yes=yes)
    found = summary.details["answers"][0]
    if found["config_payload"] is None:
        raise MissingError(f"no config for this vibe ({found['failure']})", "try again, or another --model")
    return replace(latentscore.answer(found["config_payload"]), answered_by=summary.details["model"], text=vibe)


def check_places(wanted: RenderFiles) -> None:
    """Before any work: every file has a place of its own that can be written.

    Raises :class:`InputError` where one would overwrite another, :class:`OutputError` for a place that takes no file.
    """
    out, midi = wanted.out, wanted.midi
    if out.suffix.lower() not in ENDINGS:
        raise InputError(f"--out {out}: the ending decides the format", f"endings: {', '.join(ENDINGS)}")
    sounds = [out, *(_stem_path(out, layer) for layer in latentscore.LAYERS)] if wanted.stems else [out]
    if midi is not None and midi.resolve() in (path.resolve() for path in sounds):
        raise InputError(f"--midi {midi}: the sound would be written there, too", "choose another place with --midi")
    for option, path in (("--out", out), ("--midi", midi)):
        if path is not None:
            with _writing(option):
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    raise IsADirectoryError(21, "it is a folder", str(path))
                if not os.access(path.parent, os.W_OK):
                    raise PermissionError(13, "Permission denied", str(path))


@contextlib.contextmanager
def _writing(option: str) -> Iterator[None]:
    """What goes wrong while a file is written names the option that chose its place."""
    try:
        yield
    except (AudioError, OSError) as error:
        reason = f"{error.filename}: cannot be written ({error.strerror})" if isinstance(error, OSError) else error
        raise OutputError(str(reason), f"choose another place with {option}") from error


def _stem_path(out: Path, layer: str) -> Path:
    return out.with_name(f"{out.stem}.{layer}{out.suffix}")


def read_answer(path: Path) -> Answer:
    """The answer in a JSON file that holds a payload, a row with one, or a config; ``-`` is stdin. Raises :class:`InputError`."""
    try:
        if str(path) == "-":
            text = sys.stdin.read(MAX_PAYLOAD_CHARS + 1)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.read(MAX_PAYLOAD_CHARS + 1)
        if len(text) > MAX_PAYLOAD_CHARS:
            raise ValueError(f"it is longer than {MAX_PAYLOAD_CHARS // 2**20} MiB")
        data: Any = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not a readable JSON file ({error})", "give the JSON of a payload or a config"
        ) from error
    if isinstance(data, dict) and isinstance(data.get("config_payload"), dict):
        data = data["config_payload"]
    payload: dict[str, Any] = data if isinstance(data, dict) and "config" in data else {"config": data}
    try:
        config, notes = convert_config(payload["config"])
    except InvalidConfigError as error:
        raise InputError(
            f"{path}: {_at_fault(error)}",
            'fields and labels: docs/sound.md; a whole config to start from: lsdata configs "slow rain" --json',
        ) from error
    for note in notes:
        say(f"render: {path}: {note}")
    return Answer(config, str(payload.get("title") or "untitled"), str(payload.get("thinking") or ""))


def _at_fault(error: InvalidConfigError) -> str:
    """The first three faults of a config, in one line."""
    return "; ".join(f"{field}: {reason}" for field, reason in error.problems[:3])


def render_files(answer: Answer, wanted: RenderFiles) -> tuple[list[Path], Audio]:
    """Render and write; the paths written and the sound. Stems share one gain, so that they still add up."""
    import numpy as np

    out = wanted.out
    audio = latentscore.render(answer, wanted.seconds, wanted.seed, wanted.sample_rate, stems=wanted.stems)
    with _writing("--out"):
        written = [audio.save(out)]
    highest = max((float(np.abs(stem.samples).max()) for stem in audio.stems.values()), default=0.0)
    tags = audio.metadata.tags() if audio.metadata else {}
    for layer, stem in audio.stems.items():
        path = _stem_path(out, layer)
        share = Audio(stem.samples / np.float32(highest), wanted.sample_rate) if highest > 1.0 else stem
        with _writing("--out"):
            write_audio(path, share, {**tags, "title": f"{answer.title} ({layer})"})
        written.append(path)
    if wanted.midi is not None:
        config = answer.config
        numbers = config.to_config() if isinstance(config, MusicConfigPrompt) else config
        with _writing("--midi"):
            latentscore.write_midi(wanted.midi, latentscore.compose(numbers, wanted.seconds, wanted.seed))
        written.append(wanted.midi)
    return written, audio
