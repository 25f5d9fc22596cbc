"""Local models' names: their files, and a version of their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentscore.files import user_path
from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.answerers import LOCAL
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import read_object

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf", "adapter_config.json", "config.json")


def place_of(name: str, runs: Path) -> Path | None:
    """Return the folder or file of a name, or None for a hub id."""
    for place in (runs / name / "final", user_path(name)):
        if place.exists():
            return place / "final" if (place / "final").is_dir() else place
    return None


def weights_facts(place: Path | None) -> list[str]:
    """Return facts that identify a model's weights: the hashes of the weight files of a finished run, so that a copied
    workspace keeps its answers; for other folders and files their names, sizes and times, because hashing gigabytes is
    slow."""
    if place is None:
        return []
    found = [place] if place.is_file() else sorted(p for pattern in WEIGHT_FILES for p in place.glob(pattern))
    listed = _listed(place.parent / "DONE") if place.name == "final" else {}
    return [f"{path.name}:{_fact(path, listed.get(path.name))}" for path in found]


def _fact(path: Path, listed: Any) -> str:
    stat = path.stat()
    if isinstance(listed, dict) and listed.get("bytes") == stat.st_size:
        return str(listed.get("sha256"))
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _listed(done_mark: Path) -> JsonObject:
    """Return the entries for files of ``final/`` in the list of a finished run; empty if there is no list."""
    try:
        files = read_object(done_mark, "").get("files") if done_mark.is_file() else None
    except InputError:
        return {}
    return {name.removeprefix("final/"): fact for name, fact in files.items()} if isinstance(files, dict) else {}


def local_version(model: str, runs: Path) -> str:
    """Return ``local:NAME`` with a suffix that changes if the model is trained again; a hub id has no suffix."""
    facts = weights_facts(place_of(model.removeprefix(LOCAL.prefix), runs))
    return f"{model}@{digest(*facts)[:12]}" if facts else model
