"""The functions that run in a remote worker: they take and return JSON text and call the same functions as a local run."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from latentscore.decoding import Prompt
from latentscore.embed import MINILM, Embedder
from latentscore.installed import available_cores
from latentscore_data.core.base.errors import InputError, MissingError, StoppedError, VerificationError
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import BenchSettings, ScoringSettings
from latentscore_data.core.base.weights import fetch_model
from latentscore_data.core.compute.estimates import CPU_CORES
from latentscore_data.core.generators.local import LocalGenerator
from latentscore_data.core.models.engines import engine_for
from latentscore_data.core.models.runs import RunFolder, open_run
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clap import clap_folder
from latentscore_data.core.scoring.clips import make_clip
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorers
from latentscore_data.core.scoring.service import ScoredRender, ScoringService, current_renderer_version
from latentscore_data.core.training.launch import train_together
from latentscore_data.core.training.run import versions
from latentscore_data.core.vibes.dedupe import EmbedderChoice, load_embedder, minilm_missing

ON_A_GPU = ("generate_shard", "write_shard", "train")
"""The entry points that use a GPU."""


def train_run(run_json: str, root: Path, commit: Callable[[], None]) -> str:
    """Train the run whose folder the client has put below ``root``. Returns the content of ``run.json``.

    ``run_json`` is ``{"run_id", "spec", "deadline", "processes"}``; ``processes`` (default 1) train together. Every complete
    checkpoint is committed, so that a run that is started again resumes from it; a finished run is not changed. No run
    starts after the deadline (Unix time), so that time-outs and retries together stay within the agreed cost.
    """
    asked = json.loads(run_json)
    spec = TrainSpec.model_validate(asked["spec"])
    folder = RunFolder(root / asked["run_id"])
    if not folder.done and time.time() > asked["deadline"]:
        raise StoppedError(
            f"run {folder.run_id} has reached its time-out",
            "raise train.modal.timeout_hours (Modal) or compute.ray_timeout_hours (Ray) and start it again; it resumes",
        )
    if wrong := folder.other_rows(spec):
        raise InputError(
            f"the {' and '.join(wrong)} rows of run {folder.run_id} on the volume differ from those of its spec",
            "start it again with lsdata train ... --resume never",
        )
    open_run(folder, spec, resume=True, force=True)
    record = train_together(
        spec, folder, asked.get("processes", 1), on_checkpoint=lambda _: commit(), say=_say, deadline=asked["deadline"]
    )
    commit()
    return json.dumps(record)


def train_on_shared_files(run_json: str, runs: Path) -> str:
    """:func:`train_run` for a run whose folder this worker shares with the client. Raises :class:`InputError` if it does not."""
    shard = json.loads(run_json)
    refuse_other_code(shard)
    if not RunFolder(runs / shard["run_id"]).spec_file.exists():
        raise InputError(
            f"the worker {platform.node()} cannot read {runs / shard['run_id']}",
            "put the data root (--root) on a file system that all machines of the cluster share",
        )
    return train_run(run_json, runs, lambda: None)


def _say(message: str) -> None:
    print(message, flush=True)  # noqa: T201


def score_shard(shard_json: str) -> str:
    """Render and score ``{"scoring": {...}, "deadline": ..., "keep_flac": ..., "sounds": [{"config", "vibes", "clip"}]}``.

    Each config is rendered once, scored against each of its vibes, and encoded as a clip if ``clip`` is true. Returns
    ``{"fingerprints": {scorer: ...}, "renderer": ..., "sounds": [{vibe: scored render}], "cache": {...}}``, with scored renders
    as :func:`unpack` reads them and all entries of the score cache.
    """
    shard = json.loads(shard_json)
    refuse_other_code(shard)
    settings = ScoringSettings.model_validate(shard["scoring"])
    cores = min(shard.get("cores", CPU_CORES), available_cores())
    settings = settings.model_copy(update={"workers": cores})
    if "clap" in settings.scorers and clap_folder(settings.clap_model) is None:
        fetch_model(settings.clap_model)  # the model cache of a new container is empty
    with _scoring(settings, keep=shard.get("keep_processes", False)) as (service, cache):
        with ThreadPoolExecutor(cores) as encoding:

            def ask(sound: Mapping[str, Any]) -> dict[str, Future[ScoredRender]]:
                # One clip is enough for all vibes of a sound.
                return {
                    vibe: service.submit(vibe, sound["config"], want_audio=sound["clip"] and not number)
                    for number, vibe in enumerate(sound["vibes"])
                }

            def collect(scored_renders: dict[str, Future[ScoredRender]]) -> dict[str, Any]:
                check_deadline(shard["deadline"])
                return {
                    vibe: pack(scored_render.result(), shard["keep_flac"], vibe)
                    for vibe, scored_render in scored_renders.items()
                }

            collecting = [encoding.submit(collect, ask(sound)) for sound in shard["sounds"]]
            sounds = [one.result() for one in collecting]
        return json.dumps(
            {
                "fingerprints": {scorer.name: scorer.fingerprint for scorer in service.scorers},
                "renderer": current_renderer_version(),
                "sounds": sounds,
                "cache": cache.dump(),
            }
        )


_kept: dict[str, tuple[ScoringService, ScoreCache]] = {}
"""The scoring service that is kept for the next shard, by its settings; at most one."""


@contextmanager
def _scoring(settings: ScoringSettings, *, keep: bool) -> Iterator[tuple[ScoringService, ScoreCache]]:
    """Context manager: a scoring service with an empty cache. With ``keep``, the next shard with the same settings uses it
    again, because its processes have loaded sound loops and weights. A process that keeps one does one shard at a time."""
    if not keep:
        with ScoreCache() as cache, _service(settings, cache) as service:
            yield service, cache
        return
    key = settings.model_dump_json()
    if key not in _kept:
        _drop_kept()
        cache = ScoreCache()
        _kept[key] = _service(settings, cache), cache
    service, cache = _kept[key]
    try:
        yield service, cache
    except BaseException:
        _drop_kept()
        raise
    cache.clear()


def _service(settings: ScoringSettings, cache: ScoreCache) -> ScoringService:
    return ScoringService(make_scorers(ScorerDeps(settings, cache=cache)), settings, cache)


def _drop_kept() -> None:
    while _kept:
        _, (service, cache) = _kept.popitem()
        service.close()
        cache.close()


def pack(scored_render: ScoredRender, keep_flac: bool = False, vibe: str | None = None) -> dict[str, Any]:
    """A scored render as plain values; its audio becomes a clip, tagged with the vibe."""
    audio = scored_render.audio
    clip = make_clip(audio.tagged(vibe=vibe), keep_flac=keep_flac) if audio is not None else None
    return _AS_JSON.dump_python(replace(scored_render, audio=None, clip=clip), mode="json")


def unpack(packed: Mapping[str, Any]) -> ScoredRender:
    """The scored render that :func:`pack` was given, with a clip for its audio."""
    return _AS_JSON.validate_python(packed)


_AS_JSON = TypeAdapter(ScoredRender)


def check_deadline(deadline: float) -> None:
    """Raise :class:`StoppedError` after the deadline (Unix time)."""
    if time.time() > deadline:
        raise StoppedError(
            "the work on remote workers has reached its time-out",
            "raise train.modal.timeout_hours (Modal) or compute.ray_timeout_hours (Ray) and run the same command again; results that have arrived are kept",
        )


def generate_shard(shard_json: str, root: Path) -> str:
    """Answer ``{"source": "local:NAME", "bench": {...}, "system": ..., "deadline": ..., "rows": [...]}`` with a local model.

    ``NAME`` is a hub id, or the id of a run below ``root``. Returns ``{"generated": [...], "seconds": ...}``; the seconds
    include loading the model.
    """
    shard, started = json.loads(shard_json), time.perf_counter()
    refuse_other_code(shard)
    bench, name = BenchSettings.model_validate(shard["bench"]), shard["source"].removeprefix("local:")
    generator = LocalGenerator(
        shard["source"],
        name,
        batch_size=bench.batch_size,
        max_new_tokens=bench.max_new_tokens,
        runs=root,
        system=shard["system"],
    )
    rows = [VibeRow.model_validate(row) for row in shard["rows"]]
    generated: list[dict[str, Any]] = []
    for at in range(0, len(rows), bench.batch_size):
        check_deadline(shard["deadline"])
        generated += [asdict(answer) for answer in generator.generate(rows[at : at + bench.batch_size])]
    return json.dumps({"generated": generated, "seconds": time.perf_counter() - started})


def entry_point(function: str, runs: Path) -> Callable[[str], str]:
    """Return the entry point with this name; ``runs`` is the folder of the training runs."""
    functions: dict[str, Callable[[str], str]] = {
        "score_shard": score_shard,
        "generate_shard": partial(generate_shard, root=runs),
        "write_shard": partial(write_shard, runs=runs),
        "embed_shard": embed_shard,
        "train": partial(train_on_shared_files, runs=runs),
    }
    return functions[function]


def write_shard(shard_json: str, runs: Path) -> str:
    """Complete the prompts of ``{"model": NAME, "grammar": ..., "deadline": ..., "prompts": [...]}`` with a local model.

    ``NAME`` is a hub id, or the id of a run below ``runs``; the prompts share the grammar and ``max_tokens``. Returns
    ``{"written": [...], "seconds": ...}``; the seconds include loading the model.
    """
    shard, started = json.loads(shard_json), time.perf_counter()
    refuse_other_code(shard)
    check_deadline(shard["deadline"])
    engine = engine_for(shard["model"], runs, f"answers of {shard['model']}")
    prompts = [Prompt(grammar=shard["grammar"], **prompt) for prompt in shard["prompts"]]
    written = [asdict(one) for one in engine.write(prompts)]
    return json.dumps({"written": written, "seconds": time.perf_counter() - started})


def embed_shard(shard_json: str) -> str:
    """Embed the texts of ``{"embedder": NAME, "weights": ..., "deadline": ..., "texts": [...]}`` as unit vectors.

    Returns ``{"vectors": base64 of float32, one row per text}``. Raises :class:`MissingError` if this machine does not have
    the embedder, and :class:`VerificationError` if its weights differ.
    """
    shard = json.loads(shard_json)
    refuse_other_code(shard)
    check_deadline(shard["deadline"])
    embedder = _embedder(shard["embedder"])
    if weights_of(embedder) != shard["weights"]:
        raise VerificationError(
            f"the worker {platform.node()} has different weights of {shard['embedder']}: "
            f"{weights_of(embedder)} there and {shard['weights']} here",
            "give every machine the same weights, or leave --on out",
        )
    return json.dumps({"vectors": base64.b64encode(embedder.embed(shard["texts"]).tobytes()).decode()})


def weights_of(embedder: Embedder) -> str:
    """Return the hash of an embedder's weights, which does not depend on their path."""
    return embedder.fingerprint.rpartition(":")[2]


@cache
def _embedder(name: str) -> Embedder:
    if name == "minilm" and minilm_missing():
        fetch_model(MINILM)
    try:
        return load_embedder(EmbedderChoice(name, "asked for"))
    except MissingError as error:
        raise MissingError(
            f"the worker {platform.node()} does not have the embedder {name}: {error.message}",
            "install it at the same path on every machine, or leave --on out",
        ) from None


def made_by() -> dict[str, str]:
    """Return what determines results on this machine, by name: the renderer's version and a digest of the packages' files."""
    return {"renderer version": current_renderer_version(), "code": code_digest()[:12]}


def refuse_other_code(shard: Mapping[str, Any]) -> None:
    """Raise :class:`VerificationError` if the client of a shard has other code or another renderer than this machine."""
    here = made_by() if "made_by" in shard else {}
    differing = [
        f"{name} is {here.get(name, 'unknown')} there and {wanted} here"
        for name, wanted in shard.get("made_by", {}).items()
        if here.get(name) != wanted
    ]
    if differing:
        raise VerificationError(
            f"the worker {platform.node()} has another version of lsdata: {', '.join(differing)}",
            "install the same version of lsdata on every machine, or use --on here",
        )


def what_is_here() -> dict[str, Any]:
    """Return versions, and a digest of all files of both packages: equal digests mean equal code and data files."""
    return {"python": platform.python_version(), "versions": versions(), "code": code_digest()}


@cache
def code_digest() -> str:
    """Return the SHA-256 of the names and bytes of the packages' files."""
    sha = hashlib.sha256()
    packages = Path(__file__).parents[3]
    for package in ("latentscore", "latentscore_data"):
        found = {path.relative_to(packages): path for path in (packages / package).rglob("*") if path.is_file()}
        for name, path in sorted((name.as_posix(), path) for name, path in found.items() if not _is_left_out(name)):
            content = path.read_bytes()
            sha.update(f"{name}:{len(content)}:".encode())
            sha.update(content)
    return sha.hexdigest()


def _is_left_out(path: Path) -> bool:
    return path.suffix == ".pyc" or any(part == "__pycache__" or part.startswith(".") for part in path.parts)
