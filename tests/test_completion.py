"""Completion with the Tab key in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SRC

BY_NAME = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"
"""Makes Typer take the shell's name from the command line; otherwise it looks at its parent, which here is pytest."""


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A folder for PATH that holds `lsdata`, as an installation would."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "lsdata"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{SRC}" exec "{sys.executable}" -m latentscore_data "$@"\n')
    program.chmod(0o755)
    return folder


def completions(shell: Path, typed: list[str]) -> list[list[str]]:
    """What bash offers after each of the lines; a trailing space starts a new word."""
    script = f"""
        export PATH="{shell}:$PATH" {BY_NAME}=1
        source <(lsdata --show-completion bash)
        complete=$(complete -p lsdata | sed -E 's/.*-F ([^ ]+).*/\\1/')
        for line in "$@"; do
            COMP_LINE=$line
            read -ra COMP_WORDS <<<"$line"
            [[ $line == *" " ]] && COMP_WORDS+=("")
            COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMPREPLY=()
            $complete lsdata
            printf '%s\n' "${{COMPREPLY[@]}}" ---
        done
    """
    run = ["bash", "-c", script, "bash", *typed]
    out = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    return [offered.split() for offered in out.stdout.split("---\n")[:-1]]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_knows_commands_and_values_of_settings_and_workspace(shell: Path) -> None:
    offered_after = {
        "lsdata ": {"run-all", "doctor"},
        "lsdata run-all --sa": {"--sample"},
        "lsdata configs --scorer ": {"acoustic"},
        "lsdata configs --model ": {"builtin/keywords"},
        "lsdata train sft --preset ": {"lora_rank:r32"},
        "lsdata bench --source ": {"baseline:random"},
    }
    alone_after = {
        "lsdata run-": ["run-all"],
        "lsdata doctor --fetch ": ["clap", "minilm", "prices"],
        "lsdata configs --split S": ["SFT-Train", "SFT-Val"],
        "lsdata train sft --on m": ["modal"],
    }
    typed = [*offered_after, *alone_after]
    offered = dict(zip(typed, completions(shell, typed), strict=True))
    assert {line: offered[line] for line in alone_after} == alone_after
    for line, some in offered_after.items():
        assert some <= set(offered[line]), line


@pytest.mark.parametrize("name", ["zsh", "fish"])
def test_other_shells_get_a_script(shell: Path, name: str) -> None:
    out = subprocess.run(
        [str(shell / "lsdata"), "--show-completion", name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, BY_NAME: "1"},
    )
    assert f"complete_{name}" in out.stdout
    if shutil.which(name):
        subprocess.run([name, "-n", "/dev/stdin"], input=out.stdout, text=True, check=True, timeout=60)


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish_knows_commands_and_options(shell: Path) -> None:
    script = f"""
        set -x PATH {shell} $PATH; set -x {BY_NAME} 1
        lsdata --show-completion fish | source
        complete -C "lsdata run-"; complete -C "lsdata run-all --sa"
    """
    out = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert [line.split("\t")[0] for line in out.stdout.splitlines()] == ["run-all", "--sample"]
