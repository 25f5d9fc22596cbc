"""Playlists: lists of pieces, one JSON file each in the workspace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentscore import parse_payload
from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import read_object, replace_json, writing

MOST_PIECES = 200
MOST_PLAYLISTS = 500
LONGEST_NAME = 80


class Playlists:
    """The playlists under ``.playlists/``. File names are hashes of the names, so that no name becomes a path."""

    def __init__(self, root: Path) -> None:
        self._folder = root / ".playlists"

    def names(self) -> list[JsonObject]:
        """Return name, number of pieces and time of each playlist, the newest first. Damaged files are left out."""
        found: list[JsonObject] = []
        for path in self._folder.glob("*.json") if self._folder.is_dir() else ():
            try:
                held = read_object(path, "")
                found.append({"name": str(held["name"]), "pieces": len(held["pieces"]), "saved": str(held["saved"])})
            except (InputError, KeyError, TypeError):
                continue
        return sorted(found, key=lambda one: one["saved"], reverse=True)

    def save(self, name: str, pieces: Sequence[Any]) -> None:
        """Write a playlist, replacing one with the same name.

        Raises :class:`InputError` for an invalid name or piece, :class:`OutputError` if the file cannot be written.
        """
        name = name.strip()
        if not name or len(name) > LONGEST_NAME:
            raise InputError(f"a playlist's name has 1 to {LONGEST_NAME} characters")
        if not 1 <= len(pieces) <= MOST_PIECES:
            raise InputError(f"a playlist has 1 to {MOST_PIECES} pieces, not {len(pieces)}")
        path = self._path(name)
        if not path.exists() and len(self.names()) >= MOST_PLAYLISTS:
            raise InputError(f"there are {MOST_PLAYLISTS} playlists already", "delete one first")
        saved = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        value = {"name": name, "saved": saved, "pieces": [_checked(piece) for piece in pieces]}
        with writing(path):
            self._folder.mkdir(parents=True, exist_ok=True)
        replace_json(path, value)

    def load(self, name: str) -> JsonObject:
        """Return a playlist with its pieces. Raises :class:`InputError` if it does not exist or is damaged."""
        path = self._path(name)
        if not path.exists():
            raise InputError(f"there is no playlist {name[:LONGEST_NAME]!r}", "reload the page")
        held = read_object(path, "save the playlist again")
        pieces = held.get("pieces")
        if not isinstance(pieces, list):
            raise InputError(f"the playlist {name[:LONGEST_NAME]!r} is damaged", "save it again")
        return {"name": name, "pieces": [_checked(piece) for piece in pieces]}

    def delete(self, name: str) -> None:
        """Delete a playlist, if it exists. Raises :class:`OutputError` if the file cannot be deleted."""
        path = self._path(name)
        with writing(path):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{digest('playlist', name.strip())[:24]}.json"


def _checked(piece: Any) -> JsonObject:
    """Return a piece as it is stored: a payload with vibe, seed and length. Raises :class:`InputError`."""
    if not isinstance(piece, Mapping):
        raise InputError("a piece of a playlist must be a JSON object")
    seed, seconds = piece.get("seed"), piece.get("seconds")
    if not isinstance(seed, int) or not 0 <= seed < 2**32 or not isinstance(seconds, int) or not 1 <= seconds <= 300:
        raise InputError("a piece of a playlist needs a seed and seconds")
    payload = {name: piece.get(name) for name in ("thinking", "title", "config", "palettes")}
    valid = parse_payload(payload).model_dump(mode="json")
    return {**valid, "vibe": str(piece.get("vibe") or "")[:4000], "seed": seed, "seconds": seconds}
