"""What runs inside a remote container: JSON text in, JSON text out, around the functions that also run here."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from latentscore_data.core.errors import InputError, StoppedError
from latentscore_data.core.rows import VibeRow
from latentscore_data.core.settings import ScoringSettings


def train_run(run_json: str, root: Path, commit: Callable[[], None]) -> str:
    """Train the run whose folder the client has put below ``root``. Returns what ``run.json`` holds.

    ``run_json`` is ``{"run_id", "spec", "deadline"}``. Every complete checkpoint is committed, so that an input that is
    started again goes on from there; a finished run is left as it is. After the deadline (Unix time) nothing is started
    any more: time-outs and retries together stay within what the user agreed to pay.
    """
    from latentscore_data.core.training.run import run_training
    from latentscore_data.core.training.runs import RunFolder, open_run
    from latentscore_data.core.training.spec import TrainSpec

    asked = json.loads(run_json)
    spec = TrainSpec.model_validate(asked["spec"])
    folder = RunFolder(root / asked["run_id"])
    if not folder.done and time.time() > asked["deadline"]:
        raise StoppedError(
            f"run {folder.run_id} is out of time", "raise train.modal.timeout_hours and start it again; it goes on"
        )
    if not folder.data("train").exists():
        raise InputError(f"run {folder.run_id} has no rows on the volume", "start it again with lsdata train")
    open_run(folder, spec, resume=True, force=True)
    record = run_training(spec, folder.path, lambda _: commit(), say=_say, deadline=asked["deadline"])
    commit()
    return json.dumps(record)


def _say(message: str) -> None:
    print(message, flush=True)  # noqa: T201


def score_shard(shard_json: str) -> str:
    """Render and score ``{"scoring": {...}, "pairs": [[vibe, config], ...]}``.

    Returns ``{"fingerprints": {scorer: ...}, "renderer": ..., "outcomes": [{scorer: {"score": ..., "parts": ...} or
    {"kind": ..., "reason": ...}}]}``.
    """
    from latentscore_data.core.scoring.base import Score, ScorerNeeds, make_scorers
    from latentscore_data.core.scoring.studio import Studio, current_renderer_version

    shard = json.loads(shard_json)
    settings = ScoringSettings.model_validate(shard["scoring"])
    scorers = make_scorers(ScorerNeeds(settings))
    with Studio(scorers, settings) as studio:
        hearings = studio.hear_all([(vibe, config) for vibe, config in shard["pairs"]])
    outcomes = [
        {
            name: {"score": outcome.final_score, "parts": outcome.parts}
            if isinstance(outcome, Score)
            else {"kind": outcome.kind, "reason": outcome.reason}
            for name, outcome in hearing.outcomes.items()
        }
        for hearing in hearings
    ]
    return json.dumps(
        {
            "fingerprints": {scorer.name: scorer.fingerprint for scorer in scorers},
            "renderer": current_renderer_version(),
            "outcomes": outcomes,
        }
    )


def generate_shard(shard_json: str, root: Path) -> str:
    """Answers of a local model to ``{"source": "local:NAME", "bench": {...}, "rows": [...]}``.

    ``NAME`` is a hub id, or the id of a run below ``root``. Returns ``{"fingerprint": ..., "generated": [...]}``.
    """
    from dataclasses import asdict

    from latentscore_data.core.generators.base import parse_source
    from latentscore_data.core.generators.local import LocalGenerator
    from latentscore_data.core.settings import BenchSettings

    shard = json.loads(shard_json)
    source, bench = parse_source(shard["source"]), BenchSettings.model_validate(shard["bench"])
    generator = LocalGenerator(
        source.label, source.name, batch_size=bench.batch_size, max_new_tokens=bench.max_new_tokens, runs=root
    )
    rows = [VibeRow.model_validate(row) for row in shard["rows"]]
    return json.dumps(
        {"fingerprint": generator.fingerprint, "generated": [asdict(answer) for answer in generator.generate(rows)]}
    )


def what_is_here() -> dict[str, Any]:
    """Versions, and a digest of every file of both packages: equal digests mean equal code and data files."""
    from latentscore_data.core.training.run import versions

    return {"python": platform.python_version(), "versions": versions(), "code": code_digest()}


def code_digest() -> str:
    """SHA-256 over the names and bytes of the packages' files."""
    sha = hashlib.sha256()
    for package in ("latentscore", "latentscore_data"):
        for name, content in sorted(_package_files(files(package), package)):
            sha.update(f"{name}:{len(content)}:".encode())
            sha.update(content)
    return sha.hexdigest()


def _package_files(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__" and not entry.name.startswith("."):
                found += _package_files(entry, name)
        elif not entry.name.endswith(".pyc") and not entry.name.startswith("."):
            found.append((name, entry.read_bytes()))
    return found


def shards_of(items: Sequence[Any], size: int, common: Mapping[str, Any], name: str) -> list[str]:
    """Pieces of work as JSON texts: ``common`` with up to ``size`` of the items under ``name``."""
    return [json.dumps({**common, name: list(items[i : i + size])}) for i in range(0, len(items), size)]
