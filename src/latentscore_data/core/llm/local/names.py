"""What a local model's name means, and which weights it has now."""

from __future__ import annotations

from pathlib import Path

from latentscore_data.core.base.answerers import LOCAL
from latentscore_data.core.base.seeds import digest

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf", "adapter_config.json", "config.json")


def place_of(name: str, runs: Path) -> Path | None:
    """The folder or file that the name means, or None for a hub id."""
    for place in (runs / name / "final", Path(name).expanduser()):
        if place.exists():
            return place / "final" if (place / "final").is_dir() else place
    return None


def weights_facts(place: Path | None) -> list[str]:
    """Names, sizes and times of the weight files: enough to see that a model was trained again."""
    if place is None:
        return []
    found = [place] if place.is_file() else sorted(p for pattern in WEIGHT_FILES for p in place.glob(pattern))
    return [f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in found]


def local_version(model: str, runs: Path) -> str:
    """The name ``local:NAME`` with a mark that changes when the model was trained again; a hub id stays as it is."""
    facts = weights_facts(place_of(model.removeprefix(LOCAL.prefix), runs))
    return f"{model}@{digest(*facts)[:12]}" if facts else model
