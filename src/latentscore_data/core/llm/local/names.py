"""What a local model's name means, and which weights it has now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.answerers import LOCAL
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import read_object

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf", "adapter_config.json", "config.json")


def place_of(name: str, runs: Path) -> Path | None:
    """The folder or file that the name means, or None for a hub id."""
    for place in (runs / name / "final", Path(name).expanduser()):
        if place.exists():
            return place / "final" if (place / "final").is_dir() else place
    return None


def weights_facts(place: Path | None) -> list[str]:
    """What changes when a model is trained again: the hashes that a finished run lists of its weight files, so that a copied
    workspace keeps its answers; of any other folder or file names, sizes and times, since hashing gigabytes takes seconds."""
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
    """Name of a file of ``final/`` -> what a finished run says of it; empty where none does."""
    try:
        files = read_object(done_mark, "").get("files") if done_mark.is_file() else None
    except InputError:
        return {}
    return {name.removeprefix("final/"): fact for name, fact in files.items()} if isinstance(files, dict) else {}


def local_version(model: str, runs: Path) -> str:
    """The name ``local:NAME`` with a mark that changes when the model was trained again; a hub id stays as it is."""
    facts = weights_facts(place_of(model.removeprefix(LOCAL.prefix), runs))
    return f"{model}@{digest(*facts)[:12]}" if facts else model
