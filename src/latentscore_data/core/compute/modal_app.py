"""The Modal app: image, volumes, and thin functions that call what also runs here.

Only Modal's containers and the client that starts them import this module. Both exchange JSON text only, so that they may
run different versions of Python.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import modal

from latentscore_data.core.compute import entrypoints
from latentscore_data.core.compute.entrypoints import train_run
from latentscore_data.core.compute.estimates import CPU_CORES, MEMORY_GIB

APP_NAME = "latentscore-data"
OUTPUTS, MODELS = Path("/outputs"), Path("/models")
PYTHON_VERSION = "3.11"

# Package data (prompts, presets, lexicons) must be mounted as well; by default only .py files are.
NOT_MOUNTED = ["**/__pycache__/**", "**/*.pyc"]


def pins() -> list[str]:
    """The exact versions that containers run with; a test compares them with constraints.txt."""
    text = (files("latentscore_data.core.compute") / "modal_pins.txt").read_text(encoding="utf-8")
    return text.split()


app = modal.App(APP_NAME, include_source=False)
outputs = modal.Volume.from_name(f"{APP_NAME}-outputs", create_if_missing=True)
models = modal.Volume.from_name(f"{APP_NAME}-models", create_if_missing=True)
image = (
    modal.Image.debian_slim(python_version=PYTHON_VERSION)
    .uv_pip_install(*pins())
    .env({"HF_HOME": str(MODELS / "huggingface"), "TOKENIZERS_PARALLELISM": "false"})
    .add_local_python_source("latentscore", "latentscore_data", ignore=NOT_MOUNTED)
)
_common = {"image": image, "cpu": float(CPU_CORES), "memory": MEMORY_GIB * 1024}
_again = modal.Retries(max_retries=2, initial_delay=10.0)


@app.function(**_common, volumes={str(OUTPUTS): outputs, str(MODELS): models}, retries=_again, timeout=4 * 3600)
def train(run_json: str) -> str:
    """One training run; see :func:`latentscore_data.core.compute.entrypoints.train_run`."""
    # A reused container, or a run that starts again after a preemption, must see the newest checkpoint.
    outputs.reload()
    return train_run(run_json, OUTPUTS, outputs.commit)


@app.function(**_common, volumes={str(MODELS): models}, retries=_again, timeout=3600)
def score_shard(shard_json: str) -> str:
    """Render and score a shard of (vibe, config) pairs."""
    return entrypoints.score_shard(shard_json)


@app.function(**_common, volumes={str(OUTPUTS): outputs, str(MODELS): models}, retries=_again, timeout=3600, gpu="L4")
def generate_shard(shard_json: str) -> str:
    """Answer a shard of rows with a local model."""
    return entrypoints.generate_shard(shard_json, OUTPUTS)


@app.function(**_common, volumes={str(OUTPUTS): outputs, str(MODELS): models}, retries=_again, timeout=3600, gpu="L4")
def write_shard(shard_json: str) -> str:
    """Complete a shard of prompts with a local model."""
    return entrypoints.write_shard(shard_json, OUTPUTS)


@app.function(image=image, timeout=300)
def check(question: str) -> str:
    """Return the versions and the digest of the code in a container."""
    return json.dumps({"asked": question, **entrypoints.what_is_here()})
