"""Checks that saved models and checkpoints are complete, and repair of the trainer's record of the best checkpoint."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentscore.files import read_whole
from latentscore_data.core.base.errors import one_line
from latentscore_data.core.base.jsonl import replace_json

STATE = "trainer_state.json"
NEEDED = (STATE, "optimizer.pt", "scheduler.pt")
"""Files that resuming needs. The trainer silently replaces a missing optimizer or random state."""


def step_of(checkpoint: Path) -> int:
    """Return the step N of ``checkpoint-N``."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders named ``checkpoint-N``, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d{1,18}", path.name)]
    return sorted(found, key=step_of, reverse=True)


def newest_whole(folder: Path, say: Callable[[str], None]) -> Path | None:
    """Return the newest checkpoint that training can resume from; report newer ones that are damaged."""
    found = checkpoints(folder)
    for checkpoint in found:
        if (reason := damage(checkpoint)) is None:
            return checkpoint
        say(f"{checkpoint.name} is skipped: {reason}")
    if found:
        say("no checkpoint is complete: training starts at its first step")
    return None


def damage(checkpoint: Path) -> str | None:
    """Return why training cannot resume from a checkpoint, or None: a file is missing, empty, truncated or overwritten.

    Verifies the checksums in the optimizer's file; of weights only the header and the length.
    """
    # One for each process of the run.
    random_states = sorted(checkpoint.glob("rng_state*.pth")) or [checkpoint / "rng_state.pth"]
    needed = [*map(checkpoint.joinpath, NEEDED), *random_states]
    for path in needed:
        if not path.is_file():
            return f"{path.name} is missing"
    return _weights_damage(checkpoint) or next(
        (f"{path.name} is damaged ({reason})" for path in needed if (reason := _file_damage(path))),
        None,
    )


def mend_best(checkpoint: Path, say: Callable[[str], None]) -> None:
    """Correct the best checkpoint's path in the trainer's state; remove it if it is missing or damaged.

    The trainer loads the best checkpoint when training ends, and silently keeps the last weights if it is missing.
    """
    state = _json(checkpoint / STATE)
    best = state.get("best_model_checkpoint")
    if not isinstance(best, str):
        return
    here = checkpoint.parent / Path(best).name
    reason = _weights_damage(here) if here.is_dir() else "it is missing"
    if reason is None:
        state["best_model_checkpoint"] = str(here)
    else:
        say(f"the best checkpoint so far, {here.name}, is lost ({reason}); the best of the following steps is kept")
        state.update(best_model_checkpoint=None, best_metric=None, best_global_step=None)
    replace_json(checkpoint / STATE, state)


def damaged_file(folder: Path) -> tuple[str, str] | None:
    """Return (name, reason) of the first damaged file of a saved model, or None."""
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors") and path.is_file())
    return next(((path.name, reason) for path in files if (reason := _file_damage(path))), None)


def _weights_damage(checkpoint: Path) -> str | None:
    weights = sorted(checkpoint.glob("**/*.safetensors"))
    index = checkpoint / "model.safetensors.index.json"
    if index.is_file():
        if reason := _file_damage(index):
            return f"{index.name} is damaged ({reason})"
        shards = _json(index).get("weight_map", {})
        weights = [checkpoint / name for name in sorted(set(shards.values()))]
    if not weights:
        return "its weights are missing"
    for path in weights:
        if not path.is_file():
            return f"{path.name} is missing"
        if reason := _file_damage(path):
            return f"{path.name} is damaged ({reason})"
    return None


def _file_damage(path: Path) -> str | None:
    if path.stat().st_size == 0:
        return "it is empty"
    try:
        _CHECKS[path.suffix](path)
    except Exception as error:  # torch, zipfile, safetensors and the operating system raise many types
        return one_line(error, 120)
    return None


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(read_whole(path))
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _check_json(path: Path) -> None:
    value = _json(path)
    if path.name == STATE:
        from transformers import TrainerState

        TrainerState(**value)
        if value.get("global_step") != step_of(path.parent):
            raise ValueError("it is the state of another step")


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as parts:
        if (damaged := parts.testzip()) is not None:
            raise ValueError(f"{damaged} does not match its checksum")


def _check_safetensors(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        file.keys()


_CHECKS: dict[str, Callable[[Path], None]] = {
    ".json": _check_json,
    ".pt": _check_zip,
    ".pth": _check_zip,
    ".safetensors": _check_safetensors,
}
