"""Write a piece as sound files and as MIDI, each to a place of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import latentscore
from latentscore import Audio, MusicConfigPrompt, write_audio
from latentscore.audio import format_for
from latentscore.errors import AudioError
from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.configs.saved import SavedPiece


def check_format(out: Path, sample_rate: int) -> None:
    """Raise :class:`InputError` for an ending without a format, and for a rate that the format cannot hold."""
    try:
        format_for(out, sample_rate)
    except AudioError as error:
        raise InputError(f"--out {error}", "or write .wav, which holds every rate") from None


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


def render_files(
    piece: SavedPiece, out: Path, seconds: float, seed: int, sample_rate: int, stems: bool, midi: Path | None
) -> tuple[list[Path], Audio]:
    """Render and write; the paths written and the sound. Stems share one gain, so that they still add up."""
    import numpy as np

    config = piece.config
    audio = latentscore.render(config, seconds, seed, sample_rate, stems=stems).tagged(
        title=piece.title, vibe=piece.vibe
    )
    with _writing("--out"):
        write_audio(out, audio)
    written = [out]
    highest = max((float(np.abs(stem.samples).max()) for stem in audio.stems.values()), default=0.0)
    for layer, stem in audio.stems.items():
        path = _stem_path(out, layer)
        share = Audio(stem.samples / np.float32(highest), sample_rate) if highest > 1.0 else stem
        with _writing("--out"):
            write_audio(path, share, {**audio.tags, "title": f"{piece.title} ({layer})", "layer": layer})
        written.append(path)
    if midi is not None:
        numbers = config.to_config() if isinstance(config, MusicConfigPrompt) else config
        with _writing("--midi"):
            latentscore.write_midi(midi, latentscore.compose(numbers, seconds, seed))
        written.append(midi)
    return written, audio
