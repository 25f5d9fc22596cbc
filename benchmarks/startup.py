"""Time help and completion, compared with a Typer app with two commands in the same run: best of ten each.

    python benchmarks/startup.py [COMMAND ...]

Prints a table and one JSON line: the CPU seconds and the ratio for ``lsdata --help``, and for the help of every command (or the
named ones) and the completion of its options. CPU seconds, because other processes on the machine do not change them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from latentscore_data.cli import whole_program

RUNS = 10

TWO_COMMANDS = """
import typer

app = typer.Typer()


@app.command()
def one(name: str = "x", count: int = 3) -> None:
    print(name, count)


@app.command()
def two(path: str = ".") -> None:
    print(path)


app()
"""


def once(command: list[str], env: dict[str, str] | None = None) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env={**os.environ, **(env or {})})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def paths(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, sub in getattr(command, "commands", {}).items():
        found += paths(sub, (*path, name))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "two.py"
        small.write_text(TWO_COMMANDS)
        # main() as the installed script calls it; `-m` would add its own look-up.
        start = [sys.executable, "-c", "from latentscore_data.cli import main; main()"]
        commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        for path in paths(whole_program()):
            if not sys.argv[1:] or not path or path[0] in sys.argv[1:]:
                typed = " ".join(("lsdata", *path))
                commands[f"{typed} --help"] = [*start, *path, "--help"], {}
                words = {"COMP_WORDS": f"{typed} --", "COMP_CWORD": str(len(path) + 1)}
                commands[f"{typed} --<TAB>"] = start, {"_LSDATA_COMPLETE": "complete_bash", **words}
        yardstick = [sys.executable, str(small), "--help"]
        best = dict.fromkeys(commands, float("inf"))
        base = float("inf")
        for _ in range(RUNS):
            base = min(base, once(yardstick))
            for name, (command, env) in commands.items():
                best[name] = min(best[name], once(command, env))
    print(f"{'two-command Typer app':32} {base:.3f} s")
    for name, seconds in best.items():
        print(f"{name:32} {seconds:.3f} s  x {seconds / base:.2f}")
    ratios = {name: round(seconds / base, 3) for name, seconds in best.items()}
    print(json.dumps({"benchmark": "startup", "yardstick_s": round(base, 4), "ratios": ratios}))


if __name__ == "__main__":
    main()
