"""Reading of a config from a payload, a row, a file of rows, a ``--json`` document or a sound file."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from latentscore import RENDERER_VERSION, InvalidConfigError, MusicConfig, MusicConfigPrompt, convert_config
from latentscore.audio import read_tags
from latentscore.errors import AudioError
from latentscore.files import open_file
from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import read_lines
from latentscore_data.core.base.payloads import mapping_in

MAX_DOCUMENT_BYTES = 8 * 2**20
"""Maximum size of a JSON document. A longer file is read line by line, as a file of rows."""

SOUND_BEGINNINGS = (b"fLaC", b"RIFF", b"RF64", b"OggS", b"ID3")
GZIP_BEGINNING = b"\x1f\x8b"

WHAT_IS_READ = "give a payload, a row, a file of rows, what configs --json writes, or a sound file of lsdata"


@dataclass(frozen=True)
class SavedPiece:
    """A config, and the values that the file states for the piece; None for values that it does not state.

    ``loop`` is True for the sound file of a loop.
    """

    config: MusicConfig | MusicConfigPrompt
    title: str = "untitled"
    vibe: str | None = None
    seed: int | None = None
    seconds: float | None = None
    sample_rate: int | None = None
    loop: bool = False
    notes: tuple[str, ...] = ()
    """Messages about choices and conversions while reading."""


def read_piece(path: Path, pick: int | None = None) -> SavedPiece:
    """Return the config in a file; ``-`` is standard input. ``pick`` is the number of a row, from 1.

    Raises :class:`InputError` for a file that cannot be read, that contains no config, or several without ``pick``, and
    for a config with an unknown field or value.
    """
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)
        else:
            with open_file(path) as file:
                content = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", "check the path and its permissions") from None
    if content.startswith(SOUND_BEGINNINGS):
        where, piece = _pick(path, iter([(str(path), _tags(path))]), pick)
        return _piece_of_sound(where, piece)
    where, value = _pick(path, _entries(path, content), pick)
    return _piece(where, value)


def _pick(path: Path, entries: Iterator[tuple[str, Any]], pick: int | None) -> tuple[str, Any]:
    """Return entry number ``pick``, or without a number the only entry."""
    wanted = pick or 1
    last = deque(enumerate(islice(entries, wanted), start=1), maxlen=1)
    if not last:
        raise InputError(f"{path} contains no config", WHAT_IS_READ)
    count, chosen = last.pop()
    if count < wanted:
        raise InputError(f"--pick {pick}: {path} holds {count} configs", f"choose one from 1 to {count}")
    if pick is None and next(entries, None) is not None:
        raise InputError(f"{path} contains more than one config", "choose one with --pick: --pick 1 is the first")
    return chosen


def _entries(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of everything in the file that may hold a config."""
    value: Any = None
    error: Exception | None = None
    is_long = len(content) > MAX_DOCUMENT_BYTES
    if not is_long and not content.startswith(GZIP_BEGINNING):
        try:
            value = json.loads(content)  # UTF-8, UTF-16 or UTF-32, with or without a byte-order mark
        except (ValueError, RecursionError) as failed:
            error = failed
    if value is not None:
        yield from _answers(path, value)
    elif content.startswith(GZIP_BEGINNING) or _begins_with_row(content):
        # Standard input cannot be read twice; a file is read again, as a stream.
        held = content if str(path) == "-" else None
        yield from ((f"{path}:{number}", row) for number, row in read_lines(path, content=held))
    elif not content.strip():
        raise InputError(f"{path} is empty", WHAT_IS_READ)
    else:
        reason = error or (f"it is longer than {MAX_DOCUMENT_BYTES // 2**20} MiB" if is_long else "it holds null")
        raise InputError(f"{path}: not a readable JSON file ({reason})", WHAT_IS_READ)


def _begins_with_row(content: bytes) -> bool:
    first = content.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _answers(path: Path, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the answers of ``configs VIBE --json``, the items of a list, or the single value."""
    details = value.get("details") if isinstance(value, dict) else None
    several = details.get("answers") if isinstance(details, dict) else value
    if not isinstance(several, list):
        yield str(path), value
        return
    for number, one in enumerate(several, start=1):
        yield f"{path}, {'answer' if several is not value else 'item'} {number}", one


def _piece(where: str, value: Any) -> SavedPiece:
    """Return the piece of a payload, of a row with a payload, or of a config alone."""
    row = mapping_in(value)
    if row is None:
        raise InputError(f"{where}: must be a JSON object, not {type(value).__name__}", WHAT_IS_READ)
    payload, notes = _payload(where, row)
    config = mapping_in(payload["config"]) if "config" in payload else payload
    title = payload.get("title") if "config" in payload else None
    vibe = row.get("vibe_original") or row.get("vibe")
    piece = _converted(where, config)
    return replace(
        piece,
        title=str(title or "untitled"),
        vibe=vibe if isinstance(vibe, str) else None,
        notes=tuple(f"{where}: {note}" for note in (*notes, *piece.notes)),
    )


def _payload(where: str, row: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return the part of a row that holds its config, with a note if it is not the winner."""
    if (payload := mapping_in(row.get("config_payload"))) is not None:
        return payload, ()
    candidates = row.get("config_candidates")
    if isinstance(candidates, list):
        for number, one in enumerate(cast("list[Any]", candidates), start=1):
            if (candidate := mapping_in(one)) is not None:
                return candidate, (f"it has no winner; this is candidate {number} of {len(candidates)}",)
    if "config_payload" in row or candidates is not None:
        reason = row.get("failure") or row.get("config_error") or "no valid answer"
        raise InputError(f"{where} contains no config ({reason})", "choose another one with --pick")
    return row, ()


def _converted(where: str, config: Mapping[str, Any] | None) -> SavedPiece:
    try:
        read, notes = convert_config(config)
    except InvalidConfigError as error:
        faults = "; ".join(f"{field}: {reason}" for field, reason in error.problems[:3])
        raise InputError(
            f"{where}: {faults}",
            'fields and labels: docs/sound.md; a whole config to start from: lsdata configs "slow rain" --json',
        ) from error
    return SavedPiece(read, notes=notes)


def _tags(path: Path) -> JsonObject:
    if str(path) == "-":
        raise InputError("a sound file cannot be read from standard input", "name it: --payload FILE")
    try:
        return read_tags(path)
    except AudioError as error:
        raise InputError(str(error), WHAT_IS_READ) from None


def _piece_of_sound(where: str, tags: Mapping[str, Any]) -> SavedPiece:
    """Return the piece in the tags of a sound file."""
    if not isinstance(tags.get("config"), Mapping):
        raise InputError(
            f"{where}: its tags contain no config",
            "sound files of lsdata and latentscore contain one, except those of configs --audio and bench in version 0.1; "
            "for these name the file of rows instead, with --pick",
        )
    piece = _converted(where, tags["config"])
    title, notes = str(tags.get("title", "untitled")), list(piece.notes)
    if (renderer := tags.get("renderer")) != RENDERER_VERSION:
        notes.append(f"it was rendered by version {renderer}; version {RENDERER_VERSION} may sound different")
    if layer := tags.get("layer"):
        title = title.removesuffix(f" ({layer})")
        notes.append(f"it contains only the layer {layer}; the whole piece is rendered")
    return replace(
        piece,
        title=title,
        vibe=tags.get("vibe"),
        seed=tags.get("seed"),
        seconds=tags.get("seconds"),
        sample_rate=tags["sample_rate"],
        loop=tags.get("loop") is True,
        notes=tuple(f"{where}: {note}" for note in notes),
    )
