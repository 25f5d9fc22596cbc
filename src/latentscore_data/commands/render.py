"""lsdata render: one vibe or one config to a sound file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import latentscore
from latentscore import (
    RENDERER_VERSION,
    Audio,
    MusicConfig,
    MusicConfigPrompt,
    convert_config,
    parse_payload,
    write_audio,
)
from latentscore.errors import AudioError, InvalidConfigError
from latentscore_data.commands._options import load
from latentscore_data.core.base.display import OUTPUT, clean, print_json, say
from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.offline.builtin import MODEL, payload_for
from latentscore_data.core.stages.configs import answer_vibes

ENDINGS = (".wav", ".flac", ".ogg")
RENDERS = 64
"""Configs that --search renders where search.renders is not set."""
MAX_PAYLOAD_CHARS = 8 * 2**20
"""A longer file is no payload: reading it would only fill the memory."""


def render(
    vibe: Annotated[str | None, typer.Argument(help="A text, answered by the builtin model.")] = None,
    payload: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON of a payload or a config, in words or numbers; - is stdin."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write: .wav, .flac or .ogg.")
    ] = Path("vibe.flac"),
    seconds: Annotated[float, typer.Option(help="Length, 0.5 to 600.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Another seed is another piece of the same config.", min=0)] = 0,
    sample_rate: Annotated[int, typer.Option(help="Hertz, 8000 to 192000.")] = 48_000,
    stems: Annotated[bool, typer.Option("--stems", help="Also one file for each layer, before the bus.")] = False,
    midi: Annotated[Path | None, typer.Option(metavar="FILE", help="Also the notes, as a MIDI file.")] = None,
    search: Annotated[
        bool, typer.Option("--search", help="With VIBE: search for a better config than the first answer.")
    ] = False,
) -> None:
    """Render one config to WAV or FLAC (24 bit), with the config, the seed and the renderer's version in its tags.

    Examples:

        lsdata render "rain on a tin roof" --out rain.flac
        lsdata render "rain on a tin roof" --search
        lsdata render --payload winner.json --seconds 60 --stems --midi notes.mid
    """
    if (vibe is None) == (payload is None):
        raise InputError("render needs a vibe or --payload FILE, one of them", 'lsdata render "rain on a tin roof"')
    if out.suffix.lower() not in ENDINGS:
        raise InputError(f"--out {out}: the ending decides the format", f"endings: {', '.join(ENDINGS)}")
    if search and vibe is None:
        raise InputError("--search goes with a vibe", 'lsdata render "rain on a tin roof" --search')
    check_places(out, midi, stems)
    if vibe is None:
        title, config = read_config(payload)  # type: ignore[arg-type]
    else:
        title, config = searched_answer(vibe) if search else answer(vibe, seed)
    try:
        written, audio = render_files(config, title, out, seconds, seed, sample_rate, stems, midi)
    except InvalidConfigError as error:
        raise InputError(str(error), "lsdata render --help lists what is allowed") from error
    facts = {
        "title": title, "files": [str(path) for path in written], "seconds": round(audio.seconds, 3), "seed": seed,
        "loudness_lufs": round(audio.loudness_lufs(), 2), "true_peak_dbfs": round(audio.true_peak_dbfs(), 2),
    }  # fmt: skip
    for finding in config.lint():
        say(f"render: {finding.field}: {finding.reason}")
    if OUTPUT.json:
        print_json(facts)
        return
    say(f"render: {title}, {audio.seconds:.1f} s, {facts['loudness_lufs']} LUFS")
    for path in written:
        typer.echo(clean(path))


def check_places(out: Path, midi: Path | None, stems: bool) -> None:
    """Before any work: every file has a place of its own that can be written.

    Raises :class:`InputError` where one would overwrite another, :class:`OutputError` for a place that takes no file.
    """
    sounds = [out, *(_stem_path(out, layer) for layer in latentscore.LAYERS)] if stems else [out]
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


def answer(vibe: str, seed: int) -> tuple[str, MusicConfigPrompt]:
    """The builtin model's title and config for a vibe."""
    if not vibe.strip():
        raise InputError("the vibe is empty", 'lsdata render "rain on a tin roof"')
    answered = payload_for(vibe, temperature=0.0, seed=seed, sample_idx=0)
    return answered.title, answered.config


def searched_answer(vibe: str) -> tuple[str, MusicConfigPrompt]:
    """Title and config of the best of the builtin model's answers and what a search from them finds."""
    settings = load(configs={"model": MODEL})
    if settings.search.renders is None:
        settings = load(configs={"model": MODEL}, search={"renders": RENDERS})
    summary = answer_vibes([vibe], settings, Workspace(settings.paths.root), audio=None, trusted=frozenset(), yes=False)
    (found,) = summary.details["answers"]
    if found["config_payload"] is None:
        raise OutputError(f"the search has no result: {found['failure']}", "leave --search out")
    payload = parse_payload(found["config_payload"])
    return payload.title, payload.config


def read_config(path: Path) -> tuple[str, MusicConfig | MusicConfigPrompt]:
    """Title and config from a JSON file that holds a payload, a row with one, or a config."""
    import json
    import sys

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
    title = "untitled"
    if isinstance(data, dict) and "config" in data:
        title, data = str(data.get("title", title)), data["config"]
    try:
        config, notes = convert_config(data)
    except InvalidConfigError as error:
        raise InputError(
            f"{path}: {_at_fault(error)}",
            'fields and labels: docs/sound.md; a whole config to start from: lsdata configs "slow rain" --json',
        ) from error
    for note in notes:
        say(f"render: {path}: {note}")
    return title, config


def _at_fault(error: InvalidConfigError) -> str:
    """The first three faults of a config, in one line."""
    said = [
        f"no field is called {field}" if reason == "Extra inputs are not permitted" else f"{field}: {reason}"
        for field, reason in error.problems[:3]
    ]
    return "; ".join(said)


def render_files(
    config: MusicConfig | MusicConfigPrompt, title: str, out: Path, seconds: float, seed: int, sample_rate: int,
    stems: bool, midi: Path | None,
) -> tuple[list[Path], Audio]:  # fmt: skip
    """Render and write; the paths written and the sound. Stems share one gain, so that they still add up."""
    import numpy as np

    audio = latentscore.render(config, seconds, seed, sample_rate, stems=stems)
    tags = {
        "title": title,
        "software": f"latentscore {RENDERER_VERSION}",
        "comment": {"config": config.model_dump(), "seed": seed, "seconds": seconds, "renderer": RENDERER_VERSION},
    }
    with _writing("--out"):
        write_audio(out, audio, tags)
    written = [out]
    highest = max((float(np.abs(stem.samples).max()) for stem in audio.stems.values()), default=0.0)
    for layer, stem in audio.stems.items():
        path = _stem_path(out, layer)
        share = Audio(stem.samples / np.float32(highest), sample_rate) if highest > 1.0 else stem
        with _writing("--out"):
            write_audio(path, share, {**tags, "title": f"{title} ({layer})"})
        written.append(path)
    if midi is not None:
        numbers = config.to_config() if isinstance(config, MusicConfigPrompt) else config
        with _writing("--midi"):
            latentscore.write_midi(midi, latentscore.compose(numbers, seconds, seed))
        written.append(midi)
    return written, audio
