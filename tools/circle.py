"""One whole circle on a small model, and the table of ``docs/results.md``: SFT, rounds of improve, bench against look-up.

    python tools/circle.py --work FOLDER [--base-model tiny-random] [--method dpo|sft] [--rounds 2] [--steps 120] [--write]

Pairs of the starter set, which people wrote, are dealt into SFT-Train, SFT-Val, GRPO (whose configs are not used) and TEST.
The guide is ``acoustic``. The judge is *reference*: how alike (cosine of the standardised descriptors) the sound is to that of the
config that was written for the vibe; nothing in training or in the choice of answers sees it. Everything runs through the program, so a
command that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import latentscore
from latentscore import MusicConfigPrompt, starter_pairs
from latentscore_data.core.base.jsonl import replace_json, replace_rows
from latentscore_data.core.base.rows import SPLITS, ScoredRow, Split, vibe_row_id
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.scoring.acoustic import TYPICAL, asked_for
from latentscore_data.core.scoring.descriptors import describe

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results.md"
BEGIN, END = "<!-- circle: made by tools/circle.py -->", "<!-- end of circle -->"
SECONDS = 5.0
NOTE = """\
`written` is the config that a person wrote for the vibe: it is the judge's reference, rendered with another seed. `baseline:keywords` uses the
starter set, which contains these vibes, so its row is not a fair comparison. Look-up, SFT and the last round use only SFT-Train."""

EAR = '''"""How alike a sound is to that of the config that was written for the vibe: the cosine of standardised descriptors."""
import json
from pathlib import Path

import numpy as np
from latentscore_data.core.scoring.acoustic import TYPICAL
from latentscore_data.core.scoring.descriptors import describe

WRITTEN = json.loads((Path(__file__).parent / "written.json").read_text())
MEAN, SPREAD = np.array(list(TYPICAL.values())).T


def score(vibe, audio):
    ours = np.clip((describe(audio) - MEAN) / SPREAD, -3, 3)
    theirs = np.array(WRITTEN[vibe])
    return float(ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs)))
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the workspace, which can be used again")
    parser.add_argument("--base-model", default="tiny-random")
    parser.add_argument("--method", choices=("dpo", "sft"), default="dpo")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120, help="steps of SFT")
    parser.add_argument("--round-steps", type=int, default=12, help="steps of training in a round")
    parser.add_argument("--n", type=int, default=4, help="answers to a vibe in a round")
    parser.add_argument("--sizes", type=int, nargs=4, default=(160, 16, 24, 40), metavar="ROWS",
                        help="rows of SFT-Train, SFT-Val, GRPO and TEST")  # fmt: skip
    parser.add_argument("--limits", type=int, nargs=3, default=None, metavar="ROWS",
                        help="use at most this many rows of SFT-Val, GRPO and TEST after SFT")  # fmt: skip
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    options = parser.parse_args()
    options.limits = options.limits or options.sizes[1:]
    os.environ["LSDATA_IMPROVE__VALIDATION"] = str(options.limits[0])
    os.environ["LSDATA_CONFIGS__MAX_TOKENS"] = "1200"
    options.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    deal(options.work, options.sizes)
    summary, rounds = circle(options)
    text = words(options, summary, rounds, time.monotonic() - started)
    print(text)
    if options.write:
        page = RESULTS.read_text(encoding="utf-8")
        head, tail = page[: page.index(BEGIN)], page[page.index(END) :]
        RESULTS.write_text(f"{head}{BEGIN}\n\n{text}\n{tail}", encoding="utf-8")


def deal(work: Path, sizes: tuple[int, ...]) -> None:
    """Write the rows of all splits, the judge, and what it compares with."""
    workspace = Workspace(work / "data")
    pairs: list[Any] = [pair for pair in starter_pairs() if asked_for(pair["vibe"])[0]]
    order = np.random.default_rng(0).permutation(len(pairs)).tolist()
    if len(pairs) < sum(sizes):
        raise SystemExit(
            f"{sum(sizes)} rows are asked for, and the starter set has {len(pairs)} with words that are read"
        )
    mean, spread = np.array(list(TYPICAL.values())).T
    written: dict[str, list[float]] = {}
    for split, size in zip(SPLITS, sizes, strict=True):
        rows = [row_of(pairs[order.pop()], split, number) for number in range(size)]
        replace_rows(workspace.vibes(split), rows)
        if split != "GRPO":
            replace_rows(workspace.scored(split), rows)
        if split in ("SFT-Val", "TEST"):
            for row in rows:
                config = MusicConfigPrompt.model_validate((row.config_payload or {})["config"])
                sound = latentscore.render(config, SECONDS, 1)
                written[row.vibe_original] = np.clip((describe(sound) - mean) / spread, -3, 3).tolist()
    replace_json(work / "written.json", written)
    (work / "reference.py").write_text(EAR, encoding="utf-8")


def row_of(pair: Any, split: Split, number: int) -> ScoredRow:
    payload = {name: pair[name] for name in ("thinking", "title", "config", "palettes")}
    source = f"starter/{split}-{number:04d}"
    return ScoredRow(
        row_id=vibe_row_id(source, 0, "scene", "0", "m"), dataset="starter", id_in_dataset=f"{split}-{number:04d}",
        vibe_original=pair["vibe"], split=split, config_payload=None if split == "GRPO" else payload,
        config_candidates=[] if split == "GRPO" else [payload], best_index=None if split == "GRPO" else 0,
    )  # fmt: skip


def circle(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, improve, compare. Returns the benchmark's summary and the rounds."""
    scorers = ("--scorer", "acoustic")
    seconds = ("--seconds", str(SECONDS))
    lsdata(
        options.work,
        "train",
        "sft",
        "--run-id",
        "first",
        "--base-model",
        options.base_model,
        "--max-steps",
        options.steps,
    )
    lsdata(
        options.work, "improve", "--name", "circle", "--model", "first", "--base-model", options.base_model,
        "--method", options.method, "--rounds", options.rounds, "--n", options.n, *scorers, "--judge", "reference.py:score",
        "--limit", options.limits[1], "--set", f"optim.max_steps={options.round_steps}", *seconds, ok=(0, 1),
    )  # fmt: skip
    rounds = json.loads((options.work / "data/.improve/circle/rounds.json").read_text())
    last = rounds["rounds"][-1]["model"]
    lsdata(
        options.work, "bench", "--name", "circle", "--limit", options.limits[2], *scorers, "--scorer", "reference.py:score", *seconds,
        "--source", "dataset:config_payload=written", "--source", "baseline:lookup", "--source", "baseline:random",
        "--source", "baseline:keywords", "--source", "local:first=SFT", "--source", f"local:{last}=last round", ok=(0, 1),
    )  # fmt: skip
    return json.loads((options.work / "data/.benchmarks/circle/summary.json").read_text()), rounds


def lsdata(work: Path, *words: Any, ok: tuple[int, ...] = (0,)) -> None:
    """Run the program in the work folder; its progress goes to this terminal."""
    command = [sys.executable, "-m", "latentscore_data", *map(str, words), "--root", "data"]
    print("$ lsdata", *words, file=sys.stderr)
    left = subprocess.run(command, cwd=work, check=False).returncode
    if left not in ok:
        raise SystemExit(f"lsdata {words[0]} left with {left}")


def words(options: argparse.Namespace, summary: dict[str, Any], rounds: dict[str, Any], seconds: float) -> str:
    """The two tables and who wins."""
    sizes = ", ".join(
        f"{size} {split}" for size, split in zip([options.sizes[0], *options.limits], SPLITS, strict=True)
    )
    numbers = " ".join(f"--{name} {' '.join(map(str, getattr(options, name)))}" for name in ("sizes", "limits"))
    lines = [
        f"`python tools/circle.py --base-model {options.base_model} --method {options.method} --rounds {options.rounds} "
        f"--steps {options.steps} --round-steps {options.round_steps} --n {options.n} {numbers}` ({sizes} rows; {seconds / 60:.0f} min on "
        f"{os.cpu_count()} cores that other programs used, too).", "",
        "| round | guide: `acoustic` | judge: reference | against round 0 | label entropy | answered | learned from |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for line in rounds["rounds"]:
        lines.append(
            f"| {line['round']} | {number(line['acoustic'])} | {number(line['reference.py:score'])} | "
            f"{difference(line['against_round_0'], line)} | "
            f"{line['entropy']:.2f} | {line['answered']:.0%} | {line['learned'] or ''} |"
        )
    lines += [
        "",
        f"End of the rounds: {rounds['stopped'] or 'all were made'}. The best model is `{rounds['best']}`.",
        "",
    ]
    lines += ["| source, TEST | reference [95 %] | acoustic [95 %] | reference against look-up |", "|---|---|---|---|"]
    sources = {one["label"]: one for one in summary["sources"]}
    for label, one in sorted(sources.items(), key=lambda item: -item[1]["scores"]["reference.py:score"]["mean"]):
        cells = [interval(one["scores"][name]) for name in ("reference.py:score", "acoustic")]
        lines.append(f"| {label} | {cells[0]} | {cells[1]} | {against(options.work, label)} |")
    return "\n".join([*lines, "", NOTE]) + "\n"


def against(work: Path, label: str) -> str:
    """The paired difference of the judge's scores to those of look-up, with a bootstrap interval over rows."""
    found: dict[str, dict[str, float]] = {}
    for line in (work / "data/.benchmarks/circle/results.jsonl").read_text().splitlines():
        row = json.loads(line)
        score = (row["scores"].get("reference.py:score") or {}).get("final_score")
        found.setdefault(row["source"], {})[row["row_id"]] = -1.0 if score is None else score
    lookup = next(name for name in found if "lookup" in name)
    if label == lookup:
        return ""
    apart = np.array([found[label][row] - found[lookup][row] for row in found[lookup]])
    drawn = apart[np.random.default_rng(0).integers(len(apart), size=(4000, len(apart)))].mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return difference(apart.mean(), {"low": low, "high": high})


def interval(estimate: dict[str, Any]) -> str:
    return f"{estimate['mean']:.3f}{_bounds(estimate, '.3f')}"


def difference(mean: float | None, bounds: dict[str, Any]) -> str:
    """A signed difference with its interval (``low``, ``high``), where there are any."""
    return ("" if mean is None else f"{mean:+.3f}") + _bounds(bounds, "+.3f")


def _bounds(of: dict[str, Any], form: str) -> str:
    return "" if of["low"] is None else f" [{of['low']:{form}}, {of['high']:{form}}]"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
