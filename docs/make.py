"""Writes what is made from the code: the settings example, the command reference, the commands' help, the module map, and the
tables of labels.

Run with ``make docs``; a test fails when one of them is out of date.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
os.environ["COLUMNS"] = "100"  # on a narrow terminal the commands shorten their help

EXAMPLE_HEAD = """\
# Every setting of lsdata with its default. Copy what you change into latentscore.toml.
# Later wins: default, latentscore.toml, environment (LSDATA_LLM__MODEL=...), flag. Keys never go into this file:
# put them into the environment or into .env. In a path, ~ is the home folder.
"""


def settings_example() -> str:
    """``latentscore.toml.example``: each section, each setting, its default and its sentence."""
    from latentscore_data.core.base.settings import Settings

    return EXAMPLE_HEAD + "".join(_section(name, field.annotation) for name, field in Settings.model_fields.items())


def _section(name: str, model: Any) -> str:
    lines = [f"\n[{name}]"]
    tables: list[str] = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            tables.append(_section(f"{name}.{key}", field.annotation))
            continue
        named = _named_table(f"{name}.{key}", field)
        if named:
            tables.append(named)
            continue
        lines.append(f"# {' '.join((field.description or '').split())}")
        default = field.get_default(call_default_factory=True)
        lines.append(f"# {key} =" if default is None else f"{key} = {_toml(default)}")
    return "\n".join(lines) + "\n" + "".join(tables)


def _named_table(name: str, field: Any) -> str:
    """A setting with one table for each name that the user gives, as an example that is commented out; else empty."""
    arguments = get_args(field.annotation)
    if get_origin(field.annotation) is not dict or not issubclass(arguments[1], BaseModel):
        return ""
    lines = [f"\n# {' '.join((field.description or '').split())}", f'# [{name}."NAME"]']
    for key, inner in arguments[1].model_fields.items():
        lines += [f"# # {' '.join((inner.description or '').split())}", f"# {key} ="]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, list | tuple):
        one_line = "[" + ", ".join(_toml(item) for item in value) + "]"
        if len(one_line) < 100:
            return one_line
        return "[\n" + "".join(f"  {_toml(item)},\n" for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def command_outlines() -> str:
    """``commands/help.json``: what the program needs to show help and complete options without importing a command."""
    from latentscore_data.cli import COMMANDS, load_command
    from latentscore_data.commands._outline import describe

    return _json_lines({name: describe(load_command(name)) for name in COMMANDS}) + "\n"


def _json_lines(value: Any) -> str:
    """The value as JSON with a line for each item of each list, so that a difference names the option."""
    if isinstance(value, dict) and any(isinstance(one, dict | list) for one in value.values()):
        return "{\n" + ",\n".join(f"{json.dumps(name)}: {_json_lines(one)}" for name, one in value.items()) + "\n}"
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


def command_reference() -> str:
    """``docs/cli.md``: every command with its arguments and options, as the program itself describes them."""
    import typer
    from typer.cli import get_docs_for_click

    from latentscore_data.cli import whole_program

    command = whole_program()
    context = typer.Context(command, info_name="lsdata")
    text = get_docs_for_click(obj=command, ctx=context, name="lsdata", title="The command line")
    return (
        text.strip() + "\n\n## Exit codes\n\n" + "".join(f"- **{code}**: {meaning}\n" for code, meaning in EXIT_CODES)
    )


EXIT_CODES = (
    (0, "done"),
    (1, "some rows failed, or fewer than requested were made; the counts are printed"),
    (2, "invalid usage, settings or input data"),
    (3, "a required extra, key, weight or input is missing or was refused; the remedy is printed"),
    (4, "stopped by the circuit breaker or the budget; finished work is kept"),
    (5, "training did not improve, and that was required"),
    (6, "a disk, output folder or lock problem"),
    (7, "an export failed its verification, or workers have another version"),
    (8, "a measure of check exceeds its limit"),
    (70, "a bug, with its traceback"),
    (130, "interrupted; finished work is saved"),
)


def module_map() -> str:
    """A line for every module: its path and the first sentence of its docstring."""
    lines: list[str] = []
    for folder, files in _modules():
        lines.append(f"\n**`{folder}/`**\n")
        lines += [f"- `{name}`: {sentence}" for name, sentence in files]
    return "\n".join(lines) + "\n"


def _modules() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    source = ROOT / "src"
    folders = sorted({path.parent for path in source.rglob("*.py")})
    for folder in folders:
        files = []
        for path in sorted(folder.glob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if docstring:
                files.append((path.name, " ".join(docstring.split("\n\n")[0].split())))
        if files:
            yield folder.relative_to(source).as_posix(), files


MAP_START, MAP_END = "<!-- module map: made by docs/make.py -->", "<!-- end of module map -->"


def filled(page: str, start: str, end: str, text: str) -> str:
    """The page with this text between the two marks."""
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}{text}{end}{after}"


def with_module_map(page: str) -> str:
    """The architecture page with its module map as new."""
    return filled(page, MAP_START, MAP_END, f"\n{module_map()}\n")


LABELS_START, LABELS_END = "<!-- labels: made by docs/make.py -->\n", "<!-- end of labels -->"


def label_tables() -> str:
    """What each label of a layer sounds like: the docstring of its function. Those of the melody share one function."""
    from latentscore.synth.styles import STYLES

    lines: list[str] = []
    for layer, styles in STYLES.items():
        if layer != "melody":
            lines += [f"\n**{layer}**\n", "| label | what sounds |", "|---|---|"]
            lines += [
                f"| `{name}` | {' '.join((style.play.__doc__ or '').split())} |" for name, style in styles.items()
            ]
    return "\n".join(lines) + "\n\n"


def with_labels(page: str) -> str:
    """The page about the sound with its tables of labels as new."""
    return filled(page, LABELS_START, LABELS_END, label_tables())


READINGS_START, READINGS_END = "<!-- readings: made by docs/make.py -->", "<!-- end of readings -->"
READ_FIELDS = ("tempo", "mode", "brightness", "space", "density", "rhythm", "accent", "attack")


def readings() -> str:
    """What the offline model makes of the sentences of ``tests/runtime/meaning/meanings.jsonl``, and how many it reads right."""
    from latentscore.meaning.offline import payload_for

    lines = ["| sentence | " + " | ".join(READ_FIELDS) + " | misread |", "|---" * (len(READ_FIELDS) + 2) + "|"]
    counts = []
    tuned_on = ROOT / "tests/runtime/meaning/meanings.jsonl"
    for path in (tuned_on, *sorted(tuned_on.parent.glob("heldout_meanings*.jsonl"))):
        sentences = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        wrong, kinds = 0, set()
        for said in (sentence for sentence in sentences if "expect" in sentence):
            config = payload_for(said["vibe"], temperature=0.0, seed=0, sample_idx=0).config
            misread = [field for field, fit in said["expect"].items() if getattr(config, field) not in fit]
            wrong += bool(misread)
            if path == tuned_on and (misread or said["kind"] not in kinds):
                labels = (str(getattr(config, field)) for field in READ_FIELDS)
                lines.append(f"| {said['vibe']} | {' | '.join(labels)} | {', '.join(misread)} |")
            kinds.add(said.get("kind"))
        counts.append((len([sentence for sentence in sentences if "expect" in sentence]), wrong))
    (tuned, tuned_wrong), *others = counts
    held = ", ".join(f"{of - wrong} of {of}" for of, wrong in others)
    return "\n".join(lines) + (
        f"\n\nThe table shows the first sentence of each kind and every misread one. The rules were tuned on {tuned} sentences, of which "
        f"{tuned - tuned_wrong} are correct in all fields that they specify. On eight other sets of English sentences, for which "
        f"no rule was made, {held} are correct. Their errors have been read since, so these shares are not an estimate for unseen sentences. "
        "For those, count on 6 of 7: of the 248 sentences in the last four sets that were written, 215 were correct when they were "
        "first counted. `acoustic` agreed with 93 of the 109 sentences of two of these sets that it was asked about.\n"
    )


def with_readings(page: str) -> str:
    """The page about meaning with its table as new."""
    return filled(page, READINGS_START, READINGS_END, f"\n{readings()}")


LEAKAGE_START, LEAKAGE_END = "<!-- leakage of the sample: made by docs/make.py -->\n", "<!-- end -->\n"


def with_leakage(page: str) -> str:
    """The page about data with what the sample prints about the likeness of its splits."""
    with tempfile.TemporaryDirectory() as root:
        run = [sys.executable, "-m", "latentscore_data", "run-all", "--sample", "--until", "vibes", "--root", root]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
        # There, no settings file can decide anything.
        said = subprocess.run(run, capture_output=True, text=True, env=env, cwd=root, check=True).stderr
    lines = [f"{line.rstrip()}\n" for line in said.splitlines() if line.startswith("vibes: leakage")]
    return filled(page, LEAKAGE_START, LEAKAGE_END, f"```text\n{''.join(lines)}```\n")


def documents() -> dict[Path, str]:
    """Path and text of what follows from settings, commands and docstrings."""
    architecture, sound = (ROOT / "docs" / f"{name}.md" for name in ("architecture", "sound"))
    return {
        ROOT / "latentscore.toml.example": settings_example(),
        ROOT / "docs" / "cli.md": command_reference(),
        ROOT / "src/latentscore_data/commands/help.json": command_outlines(),
        architecture: with_module_map(architecture.read_text(encoding="utf-8")),
        sound: with_labels(sound.read_text(encoding="utf-8")),
    }


def measured() -> dict[Path, str]:
    """Path and text of the pages with what the code answers: a thousand sentences are read, the sample is run."""
    meaning, data = (ROOT / "docs" / f"{name}.md" for name in ("meaning", "data"))
    return {
        meaning: with_readings(meaning.read_text(encoding="utf-8")),
        data: with_leakage(data.read_text(encoding="utf-8")),
    }


if __name__ == "__main__":
    for path, text in {**documents(), **measured()}.items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
