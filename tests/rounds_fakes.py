"""Rounds without weights: a model whose answers are louder in each round, a training that makes a folder, scorers that hear
loudness. ``python rounds_fakes.py ROOT [PHASE]`` makes rounds in a process of its own, which is killed in that phase."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from factories import make_payload, make_vibe
from latentscore.decoding import Prompt, Written
from latentscore.labels import FIELDS
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.llm import local_transport
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.scoring import registry, renderer
from latentscore_data.core.scoring.deps import ScorerDeps, ScorerKind
from latentscore_data.core.scoring.renderer import make_worker
from latentscore_data.core.stages import improve, train
from latentscore_data.core.stages.improve import Rounds, run_improve
from scoring_fakes import LoudnessScorer, render_by_echo

ECHOES = FIELDS["echo"].labels
ROOTS = FIELDS["root"].labels


class Kind(ScorerKind):
    """A scorer by loudness; one whose name begins with "quiet" likes the opposite."""

    def make(self, name: str, deps: ScorerDeps) -> Any:
        return LoudnessScorer(name, -1.0 if name.startswith("quiet") else 1.0)


class Model:
    """Answers with the echo of its round, a step more in every second answer; the root depends on the vibe, unless it ``bores``."""

    def __init__(self, name: str, at: Callable[[str], None], bores: bool = False) -> None:
        found = re.search(r"-round-(\d+)", name)
        self.round, self.at, self.bores = int(found[1]) if found else 0, at, bores

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        self.at(f"answer {self.round} {'judged' if prompts[0].temperature == 0 else 'learned'}")
        return [Written(self._answer(prompt), 10, 20, False) for prompt in prompts]

    def _answer(self, prompt: Prompt) -> str:
        words = str(prompt.messages[-1]["content"])
        echo = ECHOES[min(self.round + (prompt.seed % 2 if prompt.temperature else 0), len(ECHOES) - 1)]
        changes: dict[str, Any] = {} if self.bores and self.round else {"root": ROOTS[sum(words.encode()) % len(ROOTS)]}
        return json.dumps(make_payload(echo=echo, **changes))


def make_fake_worker(render: Any) -> Any:
    return make_worker(render or render_by_echo)


def install(
    setattr_: Callable[[Any, str, Any], None], *, at: Callable[[str], None] = lambda _: None, bores: bool = False
) -> None:
    """Put the fakes in their places. ``at`` is called at the beginning and in the middle of each phase."""

    def trains(spec: TrainSpec, folder: RunFolder, processes: int, **_: Any) -> dict[str, Any]:
        at(f"train {spec.run_id}")
        if not folder.done:
            folder.final.mkdir(exist_ok=True)
            (folder.final / "model.safetensors").write_bytes(b"weights")
            folder.note(kind=spec.kind, base_model=spec.base_model, metrics={}, health=[], seconds=0.0)
            at(f"save {spec.run_id}")
            folder.mark_done()
        return folder.record()

    setattr_(local_transport, "engine_for", lambda name, runs, what, stopped: Model(name, at, bores))
    setattr_(train, "train_together", trains)
    setattr_(train, "check_start", lambda spec, runs: None)
    setattr_(improve, "check_local", lambda model, runs: None)
    setattr_(renderer, "make_worker", make_fake_worker)
    setattr_(registry, "SCORERS", {"loud": Kind(), "louder": Kind(), "quiet": Kind()})


def make_rows(workspace: Workspace, validation: int = 3) -> None:
    learned = [make_vibe(n, vibe=f"a lamp, number {n}", split="GRPO") for n in range(1, 4)]
    judged = [make_vibe(n, vibe=f"a door, number {n}", split="SFT-Val") for n in range(11, 11 + validation)]
    replace_rows(workspace.vibes("GRPO"), learned)
    replace_rows(workspace.vibes("SFT-Val"), judged)


def make_rounds(root: Path, **changes: Any) -> Summary:
    settings = Settings.model_validate(
        {
            "paths": {"root": root},
            "scoring": {"scorers": ["loud"], "seconds": 0.5, "workers": 1},
            "improve": {"judge": "louder", "n": 2, "rounds": 2, "method": "sft", "name": "r", **changes},
            "train": {"base_model": "tiny-random"},
        }
    )
    return run_improve(Rounds(settings), make_executor("here", settings, print))


ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def small_rounds(root: Path, place: str) -> tuple[str, ...]:
    """The command of one real round of a tiny model, which answers in labels; its rows, its model and its judge are made."""
    from latentscore.forms import FORM_FILE
    from tiny_models import trained_run

    workspace = Workspace(root)
    for split, count in (("GRPO", 2), ("SFT-Val", 1)):
        rows = [make_vibe(n, vibe=f"a dark slow night, {split} {n}", split=split) for n in range(count)]
        replace_rows(workspace.vibes(split), rows)
    run = trained_run(workspace.train_dir, "tiny", method="full")
    (run.final / FORM_FILE).write_text(json.dumps({"answer": "labels", "system": None}))
    Path("ear.py").write_text("def score(vibe, audio):\n    return float(abs(audio.samples).mean())\n")
    quick = ("--scorer", "acoustic", "--judge", "ear.py:score", "--seconds", "1", "--workers", "1", "--rounds", "1")
    run_of = ("--model", "tiny", "--base-model", "tiny-random", "--method", "sft", "--n", "2", "--name", "r")
    short = ("answer=labels", "optim.max_steps=1", "batch.size=2", "choose_by=eval_loss")
    return ("improve", "--root", str(root), *quick, *run_of, *(f"--set={one}" for one in short), "--on", place)


def main() -> None:
    root, *phases = sys.argv[1:]

    def at(phase: str) -> None:
        print(phase, flush=True)
        if phase in phases:
            os.kill(os.getpid(), signal.SIGKILL)

    install(setattr, at=at)
    make_rounds(Path(root))


if __name__ == "__main__":
    # Through the module's own name, under which the rendering processes find its functions.
    import rounds_fakes

    rounds_fakes.main()
