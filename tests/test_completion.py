"""The Tab key, in a real bash."""

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


def completions(shell: Path, words: str) -> list[str]:
    """What bash offers after the words; a trailing space starts a new one."""
    script = f"""
        export PATH="{shell}:$PATH" {BY_NAME}=1
        source <(lsdata --show-completion bash)
        COMP_WORDS=({words}{" ''" if words.endswith(" ") else ""})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        COMP_LINE="{words}"
        $(complete -p lsdata | sed -E 's/.*-F ([^ ]+).*/\\1/') lsdata
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    out = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return out.stdout.split("\n")[:-1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_knows_commands_and_values_of_settings_and_workspace(shell: Path) -> None:
    assert {"run-all", "doctor"} <= set(completions(shell, "lsdata "))
    assert completions(shell, "lsdata run-") == ["run-all"]
    assert "--sample" in completions(shell, "lsdata run-all --sa")
    assert completions(shell, "lsdata doctor --fetch ") == ["clap", "minilm", "prices"]
    assert completions(shell, "lsdata configs --split S") == ["SFT-Train", "SFT-Val"]
    assert "acoustic" in completions(shell, "lsdata configs --scorer ")
    assert "builtin/keywords" in completions(shell, "lsdata configs --model ")
    assert "lora_rank:r32" in completions(shell, "lsdata train sft --preset ")
    assert "baseline:random" in completions(shell, "lsdata bench --source ")
    assert completions(shell, "lsdata train sft --on m") == ["modal"]


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
