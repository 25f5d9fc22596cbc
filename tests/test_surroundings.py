"""The program in different environments: narrow and dumb terminals, pipes, old locales, odd folders; and one
JSON document with ``--json``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import Lsdata, command_paths, here
from forked import begin, python

ESCAPE = "\x1b"
VIBE = ("configs", "naïve café ☕ at dusk", "--n", "1", "--seconds", "0.5", "--scorer", "acoustic")


@pytest.mark.long
def test_help_fits_sixty_columns_and_has_no_colour_where_none_is_wanted(lsdata: Lsdata) -> None:
    for path in command_paths():
        out = lsdata(*path, "--help", env={"COLUMNS": "60", "NO_COLOR": "1", "TERM": "dumb"}, code=0)
        assert ESCAPE not in out.stdout
        assert max(map(len, out.stdout.splitlines())) <= 60, path


@pytest.mark.long
def test_a_locale_that_is_not_utf8_and_a_folder_with_spaces_and_accents(tmp_path: Path) -> None:
    root = tmp_path / "a spaced földer" / "data"
    locale = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    python("-m", "latentscore_data", *VIBE, "--root", root, "--audio", root / "öut", env=locale)
    assert len(list((root / "öut").glob("*.flac"))) == 1


@pytest.mark.long
def test_piped_output_has_no_colour_and_a_reader_that_leaves_is_no_error(lsdata: Lsdata, root: Path) -> None:
    assert ESCAPE not in lsdata(*VIBE, "--root", str(root)).stdout
    program = begin(*VIBE, "--root", root)
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    errors = program.stderr.read()
    program.stderr.close()
    assert program.wait(timeout=120) == 0, errors
    assert "Traceback" not in errors


AT_WORK = (
    ("download", "--dataset", "builtin", "--sample-size", "3"),
    VIBE,
    ("configs", "--dry-run"),
    ("run-all", "--sample", "--dry-run"),
    ("render", "a dark drone", "--seconds", "0.5", "--out", "x.wav"),
    ("doctor",),
    ("doctor", "--settings"),
    ("status",),
    ("batches",),
    ("train", "status"),
)
"""Commands that do something in an empty folder."""

REFUSED = (
    ("vibes",),  # there are no texts yet, no rows, no runs, no account: an error is one document, too
    ("bench",),
    ("train", "sft", "--base-model", "tiny-random"),
    ("train", "grpo", "--base-model", "tiny-random"),
    ("train", "dpo", "--base-model", "tiny-random"),
    ("train", "sweep", "lora_rank", "--base-model", "tiny-random"),
    ("improve", "--base-model", "tiny-random"),
    ("train", "attach", "some-run"),
    ("train", "fetch", "some-run"),
    ("train", "check"),
    ("export", "model", "some-run"),
    ("export", "map"),
    ("export", "dataset"),
    ("export", "chat"),
    ("export", "report"),
    ("check",),
    ("studio", "--bundle", "copy"),
)
"""Commands that need something an empty folder does not have."""


def test_the_lists_above_name_every_command() -> None:
    for path in command_paths(leaves_only=True):
        known = any(command[: len(path)] == path for command in (*AT_WORK, *REFUSED))
        assert known, f"add a call of lsdata {' '.join(path)} to AT_WORK or REFUSED, above"


@pytest.mark.long
@pytest.mark.parametrize("command", AT_WORK, ids=" ".join)
def test_json_is_one_valid_document(command: tuple[str, ...]) -> None:
    assert isinstance(here(*command, "--json", code=0).json(), dict | list)


@pytest.mark.long
@pytest.mark.parametrize("command", REFUSED, ids=" ".join)
def test_an_error_in_json_is_one_valid_document(tmp_path: Path, command: tuple[str, ...]) -> None:
    out = here(*command, "--json", env={"MODAL_CONFIG_PATH": str(tmp_path / "none")})
    document = out.json()
    assert document["exit_code"] == out.returncode, out.stderr
    assert out.returncode in (2, 3), out.stderr
    assert document["error"]
    assert document["remedy"]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("configs --n 0", "0 is not in the range"),
        ("configs --nope", "No such option: --nope"),
        ("configs --batch-size 4", "the option --batch-size is now --vibes-per-call"),
        ("configs --batch-size=4", "the option --batch-size is now --vibes-per-call"),
        ("vibes --dedupe-model hashing", "hashing was removed in version 0.2; use words or auto"),
        ("sing", "No such command 'sing'"),
        ("export sing", "No such command 'sing'"),
        ("download --dataset=", "the value after --dataset is empty"),
    ],
)
def test_a_usage_error_is_a_json_document_too(command: str, error: str) -> None:
    for words in (["--json", *command.split()], [*command.split(), "--json"]):
        document = here(*words, code=2).json()
        assert error in document["error"]
        assert document["remedy"].endswith("--help")
        assert document["exit_code"] == 2


@pytest.mark.parametrize("option", ["--root", "--config", "--dataset"])
def test_an_unset_shell_variable_is_not_the_current_folder(option: str) -> None:
    assert f"the value after {option} is empty" in here("download", option, "", code=2).stderr


def test_usage_errors_are_exit_code_2(lsdata: Lsdata) -> None:
    assert re.search(r"0 is not in the range|not in the range", lsdata("configs", "--n", "0", code=2).stderr)
    lsdata("sing", code=2)
