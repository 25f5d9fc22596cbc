"""``kill -9`` at every moment in the life of a provider batch: nothing is lost, and nothing is bought twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_servers import AnthropicBatchServer, BatchServer, OpenAIBatchServer, TogetherBatchServer
from conftest import here
from factories import make_vibe
from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.ledger import totals
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.batch_state import FILE_NAME, BatchState
from latentscore_data.core.llm.batches import run as batch_run
from servers import config_reply

pytestmark = pytest.mark.long

ROWS, N = 3, 2

DRIVER = """
import os, signal, sys
from latentscore_data.core.base.ledger import Ledger
from latentscore_data.core.llm.batches import run
from latentscore_data.core.llm.batch_state import BatchState
from latentscore_data.core.llm.cache import AnswerCache

run.SETTLE_SECONDS = 2.0
place, moment = sys.argv.pop(1).split(":")
owner, name = {"cache": (AnswerCache, "put"), "ledger": (Ledger, "record_batch"), "record": (BatchState, "finish"),
               "file": (BatchState, "save"), "id": (BatchState, "save"), "none": (AnswerCache, "put")}[place]
real = getattr(owner, name)
stored = {"file": "uploaded", "id": "open"}.get(place)

def dying(*given, **named):
    if stored is not None and given[1].state != stored:
        return real(*given, **named)
    if moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(*given, **named)
    if moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, dying)
from latentscore_data.cli import main
main()
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_run, "SETTLE_SECONDS", 2.0)


KINDS: dict[str, type[BatchServer]] = {
    "openai": OpenAIBatchServer,
    "anthropic": AnthropicBatchServer,
    "together": TogetherBatchServer,
}


@pytest.fixture(params=["openai", "anthropic"])
def server(request: pytest.FixtureRequest) -> Iterator[BatchServer]:
    with KINDS[request.param](config_reply()) as running:
        yield running


@pytest.fixture
def workspace(root: Path) -> Workspace:
    workspace = Workspace(root)
    replace_rows(workspace.vibes("SFT-Train"), [make_vibe(n, vibe=f"rain on house {n}") for n in range(ROWS)])
    return workspace


def command(server: BatchServer, workspace: Workspace) -> list[str]:
    model = "openai/gpt-4o-mini" if isinstance(server, OpenAIBatchServer) else "anthropic/claude-haiku-4-5"
    if isinstance(server, TogetherBatchServer):
        model = "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo"
    return [
        "configs", "--root", str(workspace.root), "--only", "generate", "--n", str(N), "--batch", "--max-cost", "5",
        "--model", model, "--json",
    ]  # fmt: skip


def environment(server: BatchServer) -> dict[str, str]:
    keys = {"OPENAI_API_KEY": "sk-loopback", "ANTHROPIC_API_KEY": "sk-ant-loopback", "TOGETHERAI_API_KEY": "loopback"}
    places = {"OPENAI_BASE_URL": f"{server.url}/v1", "TOGETHER_AI_API_BASE": f"{server.url}/v1"}
    return {**keys, **places, "ANTHROPIC_BASE_URL": server.url}


def killed(server: BatchServer, workspace: Workspace, *, at: str | None = None, within: str = "none:-") -> None:
    """Run the program until it is killed: by the server at a request, or by itself around a write."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, within, *command(server, workspace)],
        env={**os.environ, **environment(server)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    server.pid, server.kill_at = process.pid, at
    _, said = process.communicate(timeout=120)
    server.pid = None
    assert process.returncode == -signal.SIGKILL, said


@pytest.fixture
def configs(server: BatchServer, workspace: Workspace) -> Callable[[], dict[str, Any]]:
    def run() -> dict[str, Any]:
        return here(*command(server, workspace), env=environment(server), code=0).json()

    return run


def all_is_well(server: BatchServer, workspace: Workspace) -> None:
    """Every row has its answers, every question was bought and booked once, and no batch is left open."""
    assert sum(1 for _ in read_lines(workspace.candidates)) == ROWS
    assert sorted(server.asked.values()) == sorted(
        [N] * ROWS if isinstance(server, AnthropicBatchServer) else [1] * N * ROWS
    )
    (usage,) = totals(workspace.ledger).values()
    assert usage.calls == ROWS * N
    state = BatchState(workspace.llm_cache.with_name(FILE_NAME))
    assert {batch.state for batch in state.batches()} == {"collected"}
    assert len(state.batches()) == 1
    state.close()


OF_OPENAI = [
    ("before:upload", "none:-"),
    ("upload", "none:-"),
    (None, "file:before"),
    (None, "file:after"),
]
OF_BOTH = [
    ("before:submit", "none:-"),
    ("late:submit", "none:-"),
    ("submit", "none:-"),
    (None, "id:before"),
    (None, "id:after"),
]


@pytest.mark.parametrize(
    ("server", "at", "within"),
    [
        *(("openai", *moment) for moment in [*OF_OPENAI, *OF_BOTH]),
        *(("anthropic", *moment) for moment in OF_BOTH),
        # Nothing but its file says which batch it is.
        *(("together", *moment) for moment in OF_BOTH[:3]),
    ],
    indirect=["server"],
)
def test_killed_while_the_batch_is_submitted(
    at: str | None, within: str, server: BatchServer, workspace: Workspace, configs: Callable[[], dict[str, Any]]
) -> None:
    killed(server, workspace, at=at, within=within)
    assert configs()["pending"] == ROWS * N
    assert len(server.batches) == 1
    server.finish()
    assert configs()["pending"] == 0
    all_is_well(server, workspace)


@pytest.mark.parametrize(
    ("at", "within"),
    [
        ("poll", "none:-"),
        ("download", "none:-"),
        (None, "cache:before"),
        (None, "cache:after"),
        (None, "ledger:before"),
        (None, "ledger:after"),
        (None, "record:before"),
        (None, "record:after"),
    ],
)
def test_killed_while_the_answers_are_collected(
    at: str | None, within: str, server: BatchServer, workspace: Workspace, configs: Callable[[], dict[str, Any]]
) -> None:
    assert configs()["pending"] == ROWS * N
    server.finish()
    killed(server, workspace, at=at, within=within)
    assert configs()["pending"] == 0
    all_is_well(server, workspace)


def test_another_batch_of_the_same_size_is_not_taken_for_an_interrupted_one(
    server: BatchServer, workspace: Workspace, configs: Callable[[], dict[str, Any]]
) -> None:
    """Somebody else's batch appears in the same minute: it is left alone, and ours is found by its lines."""
    killed(server, workspace, at="submit")
    (ours,) = server.batches.values()
    foreign = type(ours)("msgbatch_foreign", [{**body, "custom_id": f"x-{n}"} for n, body in enumerate(ours.requests)])
    server.batches[foreign.id] = foreign
    server.finish()
    assert configs()["pending"] == 0
    del server.batches[foreign.id]
    all_is_well(server, workspace)
