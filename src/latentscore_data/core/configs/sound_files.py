"""Rendering of pieces to sound files and MIDI files."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

import latentscore
from latentscore import Answer, Audio, MusicConfigPrompt, write_audio
from latentscore.audio import format_for, make_folder
from latentscore.errors import AudioError, InvalidConfigError
from latentscore.json_search import JsonObject
from latentscore.synth.engine import checked_rate, checked_seconds, checked_seed
from latentscore_data.core.base.display import OUTPUT, clean, fields_in_lines, print_json, say
from latentscore_data.core.base.errors import InputError, MissingError, OutputError
from latentscore_data.core.configs.saved import SavedPiece


def check_format(out: Path, sample_rate: int) -> None:
    """Raise :class:`InputError` for an unknown extension, and for a sample rate (Hz) that its format lacks."""
    try:
        format_for(out, sample_rate)
    except AudioError as error:
        raise InputError(
            f"--out {error}", f"such as --out {out.stem or 'sound'}.wav; WAV supports every rate"
        ) from None


def check_numbers(seconds: float, seed: int, sample_rate: int) -> None:
    """Raise :class:`InputError` for a length (seconds), a seed or a sample rate (Hz) that cannot be rendered."""
    with _rendering():
        checked_seconds(seconds)
        checked_seed(seed)
        checked_rate(sample_rate)


def check_places(out: Path, midi: Path | None, stems: bool) -> None:
    """Check the paths of all files before any work.

    Raises :class:`InputError` for two equal paths, and :class:`OutputError` for a path that cannot be written.
    """
    sounds = [out, *(_stem_path(out, layer) for layer in latentscore.LAYERS)] if stems else [out]
    if midi is not None and os.path.realpath(midi) in map(os.path.realpath, sounds):
        raise InputError(
            f"--midi {midi}: the sound would be written to the same file", "choose another place with --midi"
        )
    for option, path in (("--out", out), ("--midi", midi)):
        if path is not None:
            with _writing(option):
                check_place(path)


def check_place(path: Path) -> None:
    """Raise :class:`OSError` if a file cannot be written at ``path``, whose folder need not exist. Creates nothing."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file", str(path))
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))


@contextlib.contextmanager
def _writing(option: str) -> Iterator[None]:
    """Convert errors while writing a file to :class:`OutputError`, with the option that sets its path."""
    try:
        yield
    except (AudioError, OSError) as error:
        reason = f"{error.filename}: cannot be written ({error.strerror})" if isinstance(error, OSError) else error
        raise OutputError(str(reason), f"choose another place with {option}") from error


@contextlib.contextmanager
def _rendering() -> Iterator[None]:
    """Convert the error for an invalid length, seed or sample rate to :class:`InputError`."""
    try:
        yield
    except InvalidConfigError as error:
        flag = f"--{error.field.replace('_', '-')}"
        raise InputError(f"{flag}: {error.reason}", "lsdata render --help lists what is allowed") from error


def _stem_path(out: Path, layer: str) -> Path:
    return out.with_name(f"{out.stem}.{layer}{out.suffix}")


def render_files(
    piece: SavedPiece,
    out: Path,
    seconds: float,
    seed: int,
    sample_rate: int,
    stems: bool,
    loop: bool,
    midi: Path | None,
) -> tuple[list[Path], Audio]:
    """Render a piece and write it; return the written paths and the sound.

    ``seconds`` is the length; that of a loop is the nearest number of whole bars. ``sample_rate`` is in Hz. All stems
    have the same gain, so that their sum is the mix. A loop has no stems and no MIDI file.
    Raises :class:`InputError` for a length, seed or rate that cannot be rendered, and :class:`OutputError` for a file
    that cannot be written.
    """
    config = piece.config
    for note in piece.notes:
        say(f"render: {note}")
    with _rendering():
        audio = latentscore.render(config, seconds, seed, sample_rate, stems=stems, loop=loop)
    audio = audio.tagged(title=piece.title, vibe=piece.vibe)
    with _writing("--out"):
        audio.save(out)
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
        with _writing("--midi"), _rendering():
            make_folder(midi)
            latentscore.write_midi(midi, latentscore.compose(numbers, seconds, seed))
        written.append(midi)
    return written, audio


LONGEST_TRACK_SECONDS = 600.0
CROSSFADE_SECONDS = 5.0


def check_mix(count: int, seconds: float | None, crossfade: float | None) -> None:
    """Raise :class:`InputError` for a cross-fade (seconds) of one text, and for lengths that are out of range."""
    example = 'lsdata render "rain" "fog" --crossfade 4 --seconds 60'
    if count < 2:
        if crossfade is not None:
            raise InputError("--crossfade needs several vibes", example)
        return
    each = 30.0 if seconds is None else seconds / count
    if not 1.0 <= each <= LONGEST_TRACK_SECONDS:
        raise InputError(
            f"--seconds {seconds:g} gives each of {count} vibes {each:g} s; it must be 1 to {LONGEST_TRACK_SECONDS:g} s",
            example,
        )
    if crossfade is not None and not 0.0 <= crossfade <= each:
        raise InputError(f"--crossfade {crossfade:g}: must be from 0 to {each:g} s, the length of each vibe", example)


def mix_files(
    answers: Sequence[Answer], out: Path, seconds: float, crossfade: float | None, seed: int, sample_rate: int
) -> tuple[list[Path], Audio]:
    """Render the answers in sequence, cross-faded at bar lines, and write the mix; return its path and the sound.

    ``seconds`` is the total length, ``sample_rate`` is in Hz. See :func:`check_mix` for the lengths.
    """
    each = seconds / len(answers)
    fade = min(CROSSFADE_SECONDS, each) if crossfade is None else crossfade
    playlist = latentscore.Playlist(latentscore.Track(answer, each, fade) for answer in answers)
    with _rendering():
        mixed = playlist.render(seconds=seconds, seed=seed, sample_rate=sample_rate)
    texts = [answer.text for answer in answers if answer.text]
    audio = Audio(mixed.samples, sample_rate, tags={**mixed.tags, "vibe": " / ".join(texts)})
    with _writing("--out"):
        audio.save(out)
    return [out], audio


def report_files(
    audio: Audio, pieces: Sequence[SavedPiece], written: Sequence[Path], seed: int, answers: Sequence[Answer]
) -> None:
    """Print what was read from each text, its config, the fields without audible effect, and the written files."""
    for piece, found in zip_longest(pieces, answers):
        if found is not None:
            say(f"render: {found.answered_by} read: {found.reasons}")
            say("\n".join(f"render: {line}" for line in fields_in_lines(piece.config.model_dump(), 8).splitlines()))
        for finding in piece.config.lint():
            say(f"render: {finding.field}: {finding.reason}")
    title = " / ".join(piece.title for piece in pieces)
    facts: JsonObject = {
        "title": title, "files": [str(path) for path in written], "seconds": round(audio.seconds, 3), "seed": seed,
        "loudness_lufs": round(audio.loudness_lufs(), 2), "true_peak_dbfs": round(audio.true_peak_dbfs(), 2),
    }  # fmt: skip
    found_facts = [
        {"answered_by": found.answered_by, "reasons": found.reasons, "config": found.config.model_dump()}
        for found in answers
    ]
    if OUTPUT.json:
        print_json(facts | (found_facts[0] if len(found_facts) == 1 else {"answers": found_facts} if answers else {}))
    else:
        say(f"render: {title}, {audio.seconds:.1f} s, {facts['loudness_lufs']} LUFS")
        for path in written:
            sys.stdout.write(f"{clean(path)}\n")


def play_sound(audio: Audio, out: Path) -> None:
    """Play the sound. Raises :class:`MissingError` without the extra ``play`` or an audio device."""
    try:
        audio.play()
    except AudioError as error:
        raise MissingError(f"--play: {error}", f"the sound is in {out}") from error
