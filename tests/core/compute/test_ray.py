"""Work on one real Ray cluster of two CPUs: the local run's rows, dead workers, other code, the deadline, a named cluster."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import here
from factories import make_payload, make_scored
from forked import python
from latentscore.decoding import Prompt
from latentscore_data.core.base.errors import MissingError, OutputError, StoppedError, VerificationError
from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.settings import ComputeSettings, ScoringSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.ray_cluster import RayCluster
from latentscore_data.core.compute.ray_executor import RayExecutor
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.compute.remote_answers import RemoteEngine
from latentscore_data.core.compute.remote_embedding import embed_on
from latentscore_data.core.models.engines import Decoder
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.scoring.best_of import run_scoring
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.vibes.dedupe import EMBED_ROWS, EmbedderChoice, embed_stream, load_embedder
from tiny_models import tiny_sentences

pytestmark = [
    pytest.mark.long,
    # With the other tests of Ray in one worker of pytest: two clusters at a time need twice the cores and memory.
    pytest.mark.xdist_group("ray"),
    # Not importorskip: a cluster of this machine sets what Ray reads when it is imported.
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the ray extra: pip install '.[ray]'"),
]

COMPUTE = ComputeSettings(ray_cpus=2, ray_shard_rows=3, ray_retries=1)
SCORING = ScoringSettings(scorers=["acoustic"], seconds=1, workers=1)
SETTINGS = Settings(scoring=SCORING, compute=COMPUTE)
SOUND = {"config": make_payload()["config"], "vibes": ["rain"], "clip": False}
TOKEN: list[str] = []
"""The token of the cluster: no test finds a key in its environment but those it sets."""
COMMON = {"scoring": SCORING.model_dump(mode="json"), "keep_flac": False}


@pytest.fixture(scope="module")
def ray() -> Iterator[tuple[RayExecutor, list[str]]]:
    """One cluster for the tests of this file, and what it said."""
    said: list[str] = []
    executor = RayExecutor(SETTINGS, said.append)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    assert executor.at_once >= 2 * 3
    started = [one for one in psutil.Process().children(recursive=True) if one.pid not in before]
    assert any("raylet" in one.name() for one in started)
    TOKEN.append(os.environ["RAY_AUTH_TOKEN"])
    for process in started:
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), "only this machine reaches it"
    yield executor, said
    executor.close()
    assert not [one for one in started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_a_cluster_that_is_not_there_is_named() -> None:
    compute = ComputeSettings(ray_address="127.0.0.1:1")
    with pytest.raises(MissingError, match=r"the Ray cluster 127\.0\.0\.1:1 cannot be reached"):
        _ = RayExecutor(Settings(compute=compute), print).at_once


def workers() -> list[psutil.Process]:
    """The processes of the cluster that do a shard just now."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "do_shard" in " ".join(process.cmdline()):
                found.append(process)
    return found


@contextlib.contextmanager
def killing(most: int) -> Iterator[None]:
    """Kill workers in the middle of their work, in a thread, until ``most`` are dead or the block ends."""
    over = threading.Event()

    def kill() -> None:
        killed: set[int] = set()
        while len(killed) < most and not over.wait(0.02):
            for process in workers():
                if process.pid not in killed and len(killed) < most:
                    process.kill()
                    killed.add(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_rows_scored_on_ray_are_the_rows_scored_here_though_a_worker_is_killed(
    ray: tuple[RayExecutor, list[str]], tmp_path: Path
) -> None:
    executor, said = ray
    rows = [
        make_scored(
            number,
            vibe_original=f"a bright morning {number}",
            config_candidates=[
                make_payload(
                    tempo=tempo, brightness=("very_dark", "dark", "medium", "bright", "very_bright")[number % 5]
                )
                for tempo in ("slow", "fast")
            ]
            + ([{**make_payload(), "config": {"tempo": "purple"}}] if number == 2 else [None]),
        )
        for number in range(6)
    ]
    written: dict[str, Any] = {}
    for place, one in (("here", make_executor("here", SETTINGS, print)), ("ray", executor)):
        workspace = Workspace(tmp_path / place)
        replace_rows(workspace.vibes("SFT-Train"), rows)
        replace_rows(workspace.candidates, rows)
        with killing(1 if place == "ray" else 0):
            summary = run_scoring(SETTINGS, workspace, make_renderer=one.make_renderer())
        assert summary.done == 6
        written[place] = workspace.scored("SFT-Train").read_bytes()
        with ScoreCache(workspace.score_cache) as cache:
            written[f"{place}, cache"] = cache.dump()
    assert written["ray"] == written["here"]
    assert written["ray, cache"] == written["here, cache"]
    assert [line for line in said if "a worker died" in line], said
    assert len([line for _, line in read_lines(workspace.scored("SFT-Train"))]) == 6


def test_results_come_in_order_and_the_driver_holds_no_more_than_what_is_on_its_way(
    ray: tuple[RayExecutor, list[str]],
) -> None:
    executor, _ = ray
    read = 0

    def sounds(count: int) -> Iterator[dict[str, Any]]:
        """Configs that cannot be played: they come back at once."""
        nonlocal read
        for number in range(count):
            read += 1
            yield {"config": {"tempo": "purple"}, "vibes": [f"vibe {number}"], "clip": False}

    peaks: list[int] = []
    for count in (60, 60, 600):
        read = seen = 0
        tracemalloc.start()
        for part in executor.map("score_shard", "sounds", sounds(count), COMMON):
            for sound in part["sounds"]:
                assert list(sound) == [f"vibe {seen}"]
                seen += 1
            assert read - seen <= executor.at_once + executor.shard_rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert seen == count
    assert peaks[2] < 1.3 * peaks[1], "ten times the rows take no more memory"


def test_a_worker_with_another_renderer_is_refused(
    ray: tuple[RayExecutor, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, _ = ray
    monkeypatch.setattr(
        "latentscore_data.core.compute.remote.made_by", lambda: {"renderer version": "0.0", "code": "abc"}
    )
    with pytest.raises(VerificationError) as error:
        list(executor.map("score_shard", "sounds", [SOUND], COMMON))
    assert "renderer version is" in error.value.message
    assert "and 0.0 here" in error.value.message
    assert "code is" in error.value.message


@pytest.mark.ml
def test_a_local_model_writes_on_ray_what_it_writes_here(
    ray: tuple[RayExecutor, list[str]], tmp_path: Path, one_thread: None
) -> None:
    executor, _ = ray
    schema = {"type": "object", "properties": {"word": {"type": "string", "maxLength": 12}}, "required": ["word"]}
    prompts = [Prompt([{"role": "user", "content": f"say {n}"}], 40, schema, 1.0, 1.0, n) for n in range(3)]
    there = RemoteEngine("tiny-random", executor, tmp_path).write(prompts)
    assert there == Decoder("tiny-random", tmp_path, "a test").write(prompts)


@pytest.mark.ml
def test_a_large_run_is_embedded_on_ray_to_the_bit_and_read_only_as_it_is_sent(
    ray: tuple[RayExecutor, list[str]], tmp_path: Path, one_thread: None
) -> None:
    executor, _ = ray
    name = str(tiny_sentences(tmp_path))
    embedder = load_embedder(EmbedderChoice(name, "asked for"))
    count = 5 * EMBED_ROWS + 7
    texts = [f"a vibe of number {number}" for number in range(count)]
    read: list[int] = []

    def reading(texts: list[str]) -> Iterator[str]:
        for number, text in enumerate(texts):
            read.append(number)
            yield text

    said: list[str] = []
    elsewhere = embed_on(executor, name, embedder, said.append, at_least=2 * EMBED_ROWS)
    assert elsewhere is not None
    there = embed_stream(texts, embedder, by=elsewhere)
    assert said == ["vibes: embedding on Ray"]
    assert there.tobytes() == embed_stream(texts, embedder).tobytes()

    # A consumer that takes one batch has made it read what is on its way, and no more.
    many = [f"vibe {number}" for number in range(30 * EMBED_ROWS)]
    batches = (many[start : start + EMBED_ROWS] for start in range(0, len(many), EMBED_ROWS))
    next(iter(elsewhere(list(reading(one)) for one in batches)))
    assert len(read) <= (executor.maps_at_once + 3) * EMBED_ROWS

    few = embed_stream(texts[:3], embedder, by=elsewhere)
    assert "fewer than 1,024 rows are embedded here" in said[-1]
    assert few.tobytes() == embed_stream(texts[:3], embedder).tobytes()


JOINED = """
import sys
from latentscore_data.core.base.settings import ComputeSettings, Settings
from latentscore_data.core.compute.ray_executor import RayExecutor

executor = RayExecutor(Settings(compute=ComputeSettings(ray_address=sys.argv[1])), print)
sound = {"config": {"tempo": "purple"}, "vibes": ["rain"], "clip": False}
scoring = {"scorers": ["acoustic"], "seconds": 1}
(part,) = executor.map("score_shard", "sounds", [sound], {"scoring": scoring, "keep_flac": False})
print("an answer:", part["sounds"][0]["rain"]["failure"] is not None)
executor.close()
"""


def test_another_command_works_on_the_cluster_whose_address_it_is_given(ray: tuple[RayExecutor, list[str]]) -> None:
    from ray import get_runtime_context

    address = get_runtime_context().gcs_address
    out = python("-c", JOINED, address, env={"RAY_AUTH_TOKEN": TOKEN[0]})
    assert f"Ray: cluster {address}, 2 CPUs\nan answer: True\n" in out.output
    executor, _ = ray
    assert executor.workers == 2, "the cluster lives on"


@pytest.mark.ml
def test_training_on_ray_leaves_a_finished_run_in_the_workspace(
    ray: tuple[RayExecutor, list[str]], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program in this process, and in the place of a cluster of its own the one that is there."""
    started = iter([import_module("ray")])
    monkeypatch.setattr(RayCluster, "_start", lambda self: next(started))
    monkeypatch.setattr(RayCluster, "_end", lambda self, ray: None)
    quick = ("--base-model", "tiny-random", "--max-steps", "1", "--limit", "4", "--on", "ray", "--json")
    out = here("train", "sft", *quick, "--root", str(workspace.root), code=0)
    assert "on Ray" in out.stderr
    folder = RunFolder(workspace.train_dir / out.json()["details"]["run"])
    folder.verify()
    assert folder.metrics.exists()
    assert next(started, None) is None
    again = here("train", "sft", *quick, "--root", str(workspace.root))
    assert again.json()["skipped"] == 1, "and no cluster is started"


def test_nothing_is_done_after_the_deadline(ray: tuple[RayExecutor, list[str]]) -> None:
    executor, _ = ray
    shard = json.dumps({**COMMON, "sounds": [SOUND], "deadline": time.time() - 1})
    with pytest.raises(StoppedError, match="time-out") as error:
        list(executor.run_shards("score_shard", [shard], time.time() - 1))
    assert "compute.ray_timeout_hours" in error.value.remedy
    assert RayExecutor(SETTINGS.model_copy(update={"compute": ComputeSettings(ray_timeout_hours=2)}), print).hours == 2


def test_a_shard_that_kills_its_workers_is_given_up(ray: tuple[RayExecutor, list[str]]) -> None:
    executor, _ = ray
    # A minute of sound, because a second's is done before its worker is found.
    common = {**COMMON, "scoring": SCORING.model_copy(update={"seconds": 60}).model_dump(mode="json")}
    with (
        killing(100),
        pytest.raises(OutputError, match="2 workers on Ray died while working on the same shard") as error,
    ):
        list(executor.map("score_shard", "sounds", [SOUND], common))
    assert "--on here" in error.value.remedy
