"""The program as a whole: exit codes, streams, untrusted text."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from pathlib import Path

import pytest
import typer

from conftest import Lsdata, here
from latentscore.installed import install
from latentscore_data.cli import with_errors_shown
from latentscore_data.core.base.display import (
    RedactingFormatter,
    clean,
    duration,
    histogram,
    money,
    print_summary,
    redact,
    shorten,
)
from latentscore_data.core.base.summary import Summary


def test_global_options_work_on_both_sides_of_the_command() -> None:
    before = here("--json", "--root", "here", "doctor", "--settings")
    after = here("doctor", "--settings", "--json", "--root", "here")
    assert before.returncode == after.returncode == 0
    assert before.stdout == after.stdout
    values = {row["name"]: row for row in before.json()}
    assert values["paths.root"] == {"name": "paths.root", "value": "here", "from": "flag"}


def test_without_a_command_it_shows_its_help(lsdata: Lsdata) -> None:
    out = lsdata()
    assert "Usage: lsdata" in out.stdout
    assert "bug" not in out.stderr


def test_an_error_is_one_line_and_its_remedy_on_stderr(lsdata: Lsdata) -> None:
    out = lsdata("doctor", "--config", "nope.toml", code=2)
    assert out.stdout == ""
    assert out.stderr.splitlines() == ["lsdata: settings file nope.toml does not exist", "  -> check --config"]


def test_an_error_in_json_is_one_document() -> None:
    assert here("doctor", "--config", "nope.toml", "--json").json() == {
        "error": "settings file nope.toml does not exist",
        "remedy": "check --config",
        "exit_code": 2,
    }


def test_a_bug_exits_70_with_a_traceback_without_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecretvalue")

    def broken() -> None:
        raise KeyError(os.environ["OPENAI_API_KEY"])

    with pytest.raises(typer.Exit) as caught:
        with_errors_shown(broken, "test")
    assert caught.value.exit_code == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "verysecret" not in err


def test_a_full_disk_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        with open("/dev/full", "w") as file:
            file.write("a line")

    with pytest.raises(typer.Exit) as caught:
        with_errors_shown(full, "test")
    assert caught.value.exit_code == 6
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert "free some disk space" in err
    assert "Traceback" not in err


def test_a_deleted_working_folder_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(typer.Exit) as caught:
        with_errors_shown(lambda: print(Path.cwd()), "test")
    assert caught.value.exit_code == 6
    assert "the working folder was deleted" in capsys.readouterr().err


def test_no_folder_for_temporary_files_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    with pytest.raises(typer.Exit) as caught:
        with_errors_shown(lambda: print(tempfile.mkdtemp()), "test")
    assert caught.value.exit_code == 6
    err = capsys.readouterr().err
    assert "no folder for temporary files is writable" in err
    assert "set TMPDIR" in err


def test_log_lines_carry_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdef123456")
    record = logging.LogRecord("x", logging.INFO, "f", 1, "sent %s", ("abcdef123456",), None)
    assert "abcdef" not in RedactingFormatter().format(record)
    assert redact("Authorization: Bearer abcdefghijkl") == "Authorization: Bearer [redacted]"


@pytest.mark.parametrize(
    "attack",
    [
        "\x1b[2Jgone",
        "\x1b]0;title\x07",
        "\x1b]8;;http://x\x1b\\link",
        "a\x08b",
        "\x9b31m",
        "\u202eevil",
        "\rcovered",
        "\x00",
    ],
)
def test_untrusted_text_cannot_control_the_terminal(attack: str) -> None:
    cleaned = clean(attack)
    assert all(character.isprintable() or character == "\n" for character in cleaned)


def test_small_formats() -> None:
    assert shorten("a  b\nc" * 10, 8) == "a b ca …"
    assert [duration(s) for s in (3.21, 65, 7500)] == ["3.2 s", "1 min 05 s", "2 h 05 min"]
    assert [money(m) for m in (None, 0.0, 0.00123, 2.5)] == ["unknown price", "$0.00", "$0.0012", "$2.50"]
    assert histogram([0.0, 0.0, 1.0]).startswith("0.000 █")
    assert histogram([1.0, 1.0]) == "1.000 (all 2)"


def test_doctor_tells_what_is_there_and_never_a_key(lsdata: Lsdata) -> None:
    out = lsdata("doctor", "--json", env={"OPENROUTER_API_KEY": "sk-or-topsecretvalue"}, code=0)
    findings = {(finding["subject"], finding["name"]): finding for finding in out.json()}
    assert "OPENROUTER_API_KEY set" in findings["keys", "environment and .env"]["detail"]
    assert "topsecret" not in out.stdout + out.stderr
    assert findings["weights", "clap"]["state"] == "absent"
    assert all(finding["fix"] for finding in findings.values() if finding["state"] == "missing")


def test_doctor_for_a_stage_fails_when_it_cannot_run() -> None:
    out = here("doctor", "--for", "configs", env={"LSDATA_LLM__MODEL": "openrouter/some/model"}, code=3)
    assert "OPENROUTER_API_KEY" in out.stdout
    here("doctor", "--for", "configs", code=0)
    out = here("doctor", "--for", "train", env={"HF_HUB_OFFLINE": "1"}, code=3)
    ready = here("doctor", "--for", "train", env={"LSDATA_TRAIN__BASE_MODEL": "tiny-random"})
    assert ready.returncode in (0, 3)
    assert "base model" not in ready.stdout
    here("doctor", "--for", "singing", code=2)


def test_doctor_tells_the_same_kind_of_fix_in_the_same_words() -> None:
    found = {finding["name"]: finding for finding in here("doctor", "--json").json()}
    for name in ("clap", "minilm"):
        assert found[name]["fix"] in (f"lsdata doctor --fetch {name}", install("ml"))
        assert found[name]["fix"] not in found[name]["detail"]


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "'latentscore-data[ml]'"),
        ({"url": "file:///home/me/my%20code", "dir_info": {"editable": True}}, "'/home/me/my code[ml]'"),
        (
            {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "requested_revision": "v1"}},
            "'latentscore-data[ml] @ git+https://example.org/x.git@v1'",
        ),
        ({"url": "file:///tmp/x.whl", "archive_info": {}}, "'latentscore-data[ml] @ file:///tmp/x.whl'"),
    ],
)
def test_an_extra_comes_from_where_the_program_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict | None, requirement: str
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            return json.dumps(origin) if origin else None

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert install("ml") == f"pip install {requirement}"
    with monkeypatch.context() as uv_environment:
        uv_environment.setattr("latentscore.installed.find_spec", lambda name: None)  # no pip in it
        assert install("ml") == f"uv pip install {requirement}"
    (tmp_path / "uv-receipt.toml").touch()
    assert install("ml") == f"uv pip install --python {tmp_path} {requirement}"
    (tmp_path / "pipx_metadata.json").touch()
    assert install("ml") == f"pipx runpip latentscore-data install {requirement}"


def test_in_the_repository_an_extra_is_named_as_the_readme_does(monkeypatch: pytest.MonkeyPatch) -> None:
    origin = json.dumps({"url": Path.cwd().as_uri(), "dir_info": {}})

    class Installed:
        def read_text(self, name: str) -> str:
            return origin

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    assert install("ml").endswith("install '.[ml]'")


def test_doctor_warns_of_a_readable_dotenv() -> None:
    Path(".env").write_text("SOME_API_KEY=abcdef\n")
    Path(".env").chmod(0o644)
    assert "chmod 600 .env" in here("doctor").stdout


def test_status_of_an_empty_folder() -> None:
    assert {stage["state"] for stage in here("status", "--json", code=0).json()["stages"]} == {"not run"}
    assert not Path("data_work").exists()


def test_a_folder_named_like_a_command_is_no_command() -> None:
    assert here("--root", "configs", "status", "--json", code=0).json()["root"] == "configs"


def test_a_training_run_that_was_finished_by_hand_is_not_begun(root: Path) -> None:
    def train() -> dict[str, object]:
        stages = here("status", "--root", str(root), "--json").json()["stages"]
        return next(stage for stage in stages if stage["stage"] == "train")

    for run in ("one", "two"):
        (root / ".modal_outputs" / run).mkdir(parents=True)
    assert train()["state"] == "begun"
    (root / ".modal_outputs" / "one" / "DONE").touch()
    assert (train()["state"], train()["why"]) == (
        "begun", ["1 finished, none by run-all", "1 started: run the same command again to continue"],
    )  # fmt: skip
    (root / ".modal_outputs" / "two" / "DONE").touch()
    assert (train()["state"], train()["why"]) == ("finished", ["2 finished, none by run-all"])
    assert "finished" in here("status", "--root", str(root)).stdout


def test_a_source_s_label_is_shown_as_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(Summary("bench", details={"dataset:config_payload": "0.2", "my_model": "0.1"}))
    print_summary(Summary("configs", details={"best_of": 4, "cached_scores": 0, "lift": 0.0}))
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("dataset:config_payload", "my_model", "best of", "lift"))
    assert "cached scores" not in shown, "a count of nothing says nothing"


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        (Summary("improve", unit="round", skipped=2, fresh=True), "improve: all 2 rounds are done already"),
        (Summary("train sft", unit="run", skipped=1, fresh=True), "train sft: the run is done already"),
        (Summary("configs", skipped=1200, fresh=True), "configs: all 1,200 rows are done already"),
        (Summary("export", fresh=True), "export: fresh, nothing to do"),
    ],
)
def test_what_is_done_already_is_called_by_its_name(
    capsys: pytest.CaptureFixture[str], summary: Summary, said: str
) -> None:
    print_summary(summary)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["configs", "--split", "TRAIN"], "--split: input should be"),
        (["bench", "--source", "oracle:me"], "unknown source oracle:me"),
        pytest.param(["export", "map", "--embedder", "glove"], "glove", marks=pytest.mark.ml),
    ],
)
def test_the_first_error_is_about_what_was_typed(root: Path, typed: list[str], said: str) -> None:
    (root / ".exports" / "map-text").mkdir(parents=True)
    (root / ".exports" / "map-text" / "mine.txt").write_text("x")
    result = here(*typed, "--root", str(root))
    assert result.returncode in (2, 3)
    assert said in result.stderr.splitlines()[-2]


@pytest.mark.parametrize("command", [[], ["configs"], ["export"], ["export", "dataset"], ["train", "sft"]])
def test_help_on_a_narrow_terminal_cuts_nothing_off(lsdata: Lsdata, command: list[str]) -> None:
    shown = lsdata(*command, "--help", env={"COLUMNS": "50"}).stdout
    assert "…" not in shown
    assert not any(re.search(r"\w\.\.\.$", line) for line in shown.splitlines() if not line.startswith("Usage"))
