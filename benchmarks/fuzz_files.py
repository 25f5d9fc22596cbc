"""Fuzzing targets of the family "damaged files": files after a power cut, on a full disk, or copied in part.

Used by ``fuzz.py``. Each takes a whole file with pieces of it overwritten, cut out or cut off. Readers refuse it with one
line or read what is left; caches count it as missing.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path

import atheris
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from latentscore.compiling import SealedFiles
from latentscore_data.core.base.errors import LsdataError
from latentscore_data.core.base.jsonl import dump_line
from latentscore_data.core.base.manifest import StageFiles, stale_reasons
from latentscore_data.core.llm.cache import AnswerCache, Stored
from latentscore_data.core.models import checkpoints
from latentscore_data.core.models.base_models import adapter_base
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.types import Score
from latentscore_data.core.texts.corpus import find_source, sample_local

FOLDER = Path(tempfile.mkdtemp(prefix="lsdata-fuzz-files-"))
ROWS = 100
STORED = Stored('{"a": 1}', "m", "stop", 1, 2, 0.25, 0.5, "then", "1", "Word")
JSON_FILES = {
    "state": '{"global_step": 2, "best_model_checkpoint": null, "log_history": []}',
    "adapter": '{"base_model_name_or_path": "tiny-random", "r": 4}',
    "record": '{"status": "finished", "files": {"final/model.safetensors": {"sha256": "0"}}}',
    "manifest": '{"row_format_version": 1, "settings": {"a": 1}, "inputs": {"x": {"sha256": "0"}}, "outputs": {}}',
}

logging.disable(logging.WARNING)


@cache
def whole(kind: str) -> bytes:
    """The bytes of a whole file of this kind, made once."""
    path = FOLDER / f"whole-{kind}"
    if kind == "answers":
        answers = AnswerCache(path)
        answers.put([(key(number), STORED) for number in range(ROWS)])
        answers.close()
    elif kind == "scores":
        with ScoreCache(path) as scores:
            for number in range(ROWS):
                scores.keep_score("clap", key(number), "rain", Score(0.5, {"fit": 0.25}))
                scores.keep_vector("clap", key(number), np.ones(64, np.float32))
    elif kind == "parquet":
        pq.write_table(pa.table({"id": ["a", "b"], "text": ["rain", "snow"], "stars": [1, 2]}), path)
    elif kind == "safetensors":
        save_file({"weight": np.ones((8, 8), np.float32)}, path)
    elif kind == "torch":
        with zipfile.ZipFile(path, "w") as parts:
            parts.writestr("state/data.pkl", b"state" * 50)
    else:
        path.write_text(JSON_FILES[kind])
    return path.read_bytes()


def key(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def damage(content: bytes, data: bytes) -> bytes:
    """The content with one to four pieces overwritten, cut out or cut off, as the fuzzer says."""
    provider = atheris.FuzzedDataProvider(data)
    damaged = bytearray(content)
    for _ in range(provider.ConsumeIntInRange(1, 4)):
        at = provider.ConsumeIntInRange(0, len(damaged))
        how = provider.PickValueInList(["zeros", "overwrite", "cut out", "cut off"])
        length = min(provider.ConsumeIntInRange(0, 4096), len(damaged) - at)
        if how == "zeros":
            damaged[at : at + length] = bytes(length)
        elif how == "overwrite":
            piece = provider.ConsumeBytes(length)
            damaged[at : at + len(piece)] = piece
        elif how == "cut out":
            del damaged[at : at + length]
        else:
            del damaged[at:]
    return bytes(damaged)


def fresh(name: str) -> Path:
    """An empty folder."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def one_error(work: Callable[[], object]) -> None:
    """Do the work; only a refusal of one line may come of it."""
    try:
        work()
    except LsdataError as error:
        assert "\n" not in error.message


def answer_cache(data: bytes) -> None:
    path = fresh("answers") / "llm.sqlite"
    path.write_bytes(damage(whole("answers"), data))

    def use() -> None:
        answers = AnswerCache(path)
        try:
            for number in range(ROWS):
                found = answers.get(key(number))
                assert found is None or isinstance(found.answer, str)
            answers.facts()
            answers.put([(key(1), STORED)])
        finally:
            answers.close()

    one_error(use)
    use()  # what was met the first time has been set aside


def score_cache(data: bytes) -> None:
    path = fresh("scores") / "scores.sqlite"
    path.write_bytes(damage(whole("scores"), data))

    def use() -> None:
        with ScoreCache(path) as scores:
            for number in range(ROWS):
                scores.score("clap", key(number), "rain")
                scores.vector("clap", key(number))
            scores.keep_score("clap", key(1), "rain", Score(0.5, {}))

    one_error(use)
    use()


def compiled_loops(data: bytes) -> None:
    folder = fresh("compiled")
    files = SealedFiles(str(folder), "loop", "stamp")
    code = {"code": b"machine code" * 20}
    files.save("key", code)
    path = folder / ("loop.nbi" if len(data) % 2 else "loop.1.nbc")
    path.write_bytes(damage(path.read_bytes(), data))
    assert files.load("key") in (None, code)


def checkpoint(data: bytes) -> None:
    folder = fresh("checkpoints") / "checkpoint-2"
    folder.mkdir()
    kinds = {
        "trainer_state.json": "state", "optimizer.pt": "torch", "scheduler.pt": "torch", "rng_state.pth": "torch",
        "model.safetensors": "safetensors",
    }  # fmt: skip
    for name, kind in kinds.items():
        (folder / name).write_bytes(whole(kind))
    name = [*kinds][len(data) % len(kinds)]
    (folder / name).write_bytes(damage(whole(kinds[name]), data))
    reason = checkpoints.damage(folder)
    assert reason is None or "\n" not in reason
    if reason is None:
        checkpoints.mend_best(folder, lambda _: None)


def parquet(data: bytes) -> None:
    path = fresh("parquet") / "texts.parquet"
    path.write_bytes(damage(whole("parquet"), data))
    one_error(lambda: [dump_line(text) for text in sample_local(find_source(str(path)), 10, 1, None).texts])


def adapter(data: bytes) -> None:
    folder = fresh("adapter")
    (folder / "adapter_config.json").write_bytes(damage(whole("adapter"), data))
    one_error(lambda: adapter_base(folder))


def run_record(data: bytes) -> None:
    run = RunFolder(fresh("run"))
    for path in (run.record_file, run.done_mark):
        path.write_bytes(damage(whole("record"), data))
    one_error(run.record)
    one_error(run.verify)


def manifest(data: bytes) -> None:
    root = fresh("manifest")
    (root / "manifest.json").write_bytes(damage(whole("manifest"), data))
    one_error(lambda: stale_reasons(StageFiles("x", root / "manifest.json", [], {}, {}), root))


DAMAGED_FILES = (answer_cache, score_cache, compiled_loops, checkpoint, parquet, adapter, run_record, manifest)
