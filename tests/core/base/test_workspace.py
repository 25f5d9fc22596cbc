from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentscore.files import read_whole
from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.core.base.jsonl import replace_json, replace_rows
from latentscore_data.core.base.manifest import StageFiles, stale_reasons, write_manifest
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace, dataset_slug


def stage(root: Path, **changes: object) -> StageFiles:
    values = {
        "stage": "vibes",
        "manifest": root / "manifest.json",
        "inputs": [root / "in.jsonl"],
        "settings": {"limit": 3, "model": "builtin/keywords"},
        "versions": {"prompt": "abc"},
    }
    return StageFiles(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def done(root: Path) -> Path:
    replace_rows(root / "in.jsonl", [{"a": 1}])
    replace_rows(root / "out.jsonl", [{"b": 1}])
    write_manifest(stage(root), root, [root / "out.jsonl"], Summary("vibes", done=1))
    return root


def test_a_completed_stage_is_fresh_until_something_changes(done: Path) -> None:
    assert stale_reasons(stage(done), done) == []
    changed = stage(done, settings={"limit": 4, "model": "builtin/keywords"})
    assert stale_reasons(changed, done) == ["setting limit changed from 3 to 4"]
    assert stale_reasons(stage(done, versions={"prompt": "abd"}), done) == ["prompt changed"]
    replace_rows(done / "in.jsonl", [{"a": 2}])
    assert stale_reasons(stage(done), done) == ["input in.jsonl changed"]
    (done / "out.jsonl").unlink()
    assert "output out.jsonl is missing" in stale_reasons(stage(done), done)


def test_the_new_settings_of_a_version_are_one_reason_and_none_if_they_are_not_set(done: Path) -> None:
    manifest = json.loads((done / "manifest.json").read_text())
    old = {"limit": 3, "grpo": {"beta": 0.04, "seconds": 5.0}}
    replace_json(done / "manifest.json", {**manifest, "settings": old, "lsdata_version": "0.1.0"})
    assert stale_reasons(stage(done, settings={**old, "encoding": None}), done) == []
    now = {"limit": 3, "grpo": {"beta": 0.0, "seconds": 5.0, "loss_type": "dapo"}, "exclude": [], "encoding": None}
    assert stale_reasons(stage(done, settings=now), done) == [
        "setting grpo.beta changed from 0.04 to 0.0",
        "version 0.1.0 did not have the settings exclude, grpo.loss_type",
    ]


def test_dates_decide_nothing(done: Path) -> None:
    """A clock that was wrong, before or now: files from the future, a manifest from the past."""
    for days in (-9000, 9000):
        for path in done.glob("*.json*"):
            os.utime(path, (time.time() + days * 86400,) * 2)
        manifest = json.loads((done / "manifest.json").read_text())
        replace_json(done / "manifest.json", {**manifest, "finished": f"{2026 + days // 365}-01-01T00:00:00+00:00"})
        assert stale_reasons(stage(done), done) == []


def test_a_lock_is_held_by_its_process_whatever_the_clock_says(root: Path) -> None:
    space = Workspace(root)
    root.mkdir()
    # What a run left that died under a wrong clock.
    for name in (".lock", ".lock.json"):
        (root / name).write_text("" if name == ".lock" else '{"pid": 1, "command": "vibes", "since": "2999-01-01"}')
        os.utime(root / name, (time.time() + 9000 * 86400,) * 2)
    with space.lock("configs"):
        for path in (root / ".lock", root / ".lock.json"):
            os.utime(path, (0, 0))
        code = "import sys; from pathlib import Path; from latentscore_data.core.base.workspace import Workspace\n"
        code += "with Workspace(Path(sys.argv[1])).lock('vibes'): pass"
        other = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False)
        assert "is in use by process" in other.stderr
    with space.lock("configs"):
        pass


def test_failures_that_can_be_tried_again_make_a_stage_stale(done: Path) -> None:
    summary = Summary("vibes", done=1)
    summary.failed["transient"] = 2
    write_manifest(stage(done), done, [done / "out.jsonl"], summary)
    assert stale_reasons(stage(done), done) == ["2 rows failed and can be retried"]


def test_a_manifest_of_a_newer_format_is_refused(done: Path) -> None:
    manifest = json.loads((done / "manifest.json").read_text())
    replace_json(done / "manifest.json", {**manifest, "row_format_version": 99})
    with pytest.raises(InputError, match="newer lsdata"):
        stale_reasons(stage(done), done)


def test_the_lock_says_who_holds_it_and_dies_with_its_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, time; from pathlib import Path; from latentscore_data.core.base.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).lock('vibes'):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match=f"by process {holder.pid} \\(lsdata vibes"), Workspace(root).lock("configs"):
        pass
    read: list[Path] = []
    monkeypatch.setattr(
        "latentscore_data.core.base.workspace.read_whole", lambda path: read.append(path) or read_whole(path)
    )
    assert f"by process {holder.pid} (lsdata vibes" in str(Workspace(root).holder())
    assert read == [root / ".lock.json"], "read once: the holder may change between two"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert Workspace(root).holder() is None
    with Workspace(root).lock("configs"):
        assert json.loads((root / ".lock.json").read_text())["command"] == "configs"
    assert not (root / ".lock.json").exists()


def test_a_root_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), Workspace(tmp_path / "file" / "below").lock("vibes"):
        pass


def test_a_refused_command_leaves_no_new_root_and_an_older_one_keeps_its_log(tmp_path: Path) -> None:
    root = tmp_path / "new"
    with pytest.raises(InputError), Workspace(root).lock("vibes"):
        raise InputError("no texts", "run lsdata download first")
    assert not root.exists()
    with pytest.raises(InputError), Workspace(root).lock("configs"):
        (root / "rows.jsonl").write_text("")
        raise InputError("the second row is none", "mend it")
    assert len(list((root / ".logs").iterdir())) == 1
    with pytest.raises(InputError), Workspace(root).lock("bench"):
        raise InputError("no texts", "run lsdata download first")
    assert len(list((root / ".logs").iterdir())) == 2


def test_data_set_names_become_distinct_file_names() -> None:
    names = ["a/b", "a-b", "a:b", "a/b:c", "ü/ö", "../../etc/passwd", "a b", "." * 80]
    slugs = [dataset_slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert all("/" not in slug and not slug.startswith(".") for slug in slugs)
    assert dataset_slug("moby-dick") == "moby-dick"


def test_each_run_leaves_a_log_without_keys(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "topsecretvalue")
    logging.getLogger("latentscore_data").setLevel(logging.INFO)
    with pytest.raises(RuntimeError), Workspace(root).lock("train sft"):
        logging.getLogger("latentscore_data.test").warning("sent %s", "topsecretvalue")
        raise RuntimeError("topsecretvalue was refused")
    (path,) = (root / ".logs").glob("*-train-sft.log")
    text = path.read_text()
    assert "ended by RuntimeError" in text
    assert "topsecret" not in text


def test_a_log_on_a_full_disk_neither_ends_the_run_nor_prints_a_traceback(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("latentscore_data").setLevel(logging.INFO)
    monkeypatch.setattr("latentscore_data.core.base.workspace.stamp", lambda: "now")
    (root / ".logs").mkdir(parents=True)
    (root / ".logs/now-vibes.log").symlink_to("/dev/full")
    with Workspace(root).lock("vibes"):
        logging.getLogger("latentscore_data.test").warning("a line that does not fit")
    err = capsys.readouterr().err
    assert "Logging error" not in err
    assert "Traceback" not in err


def test_the_next_run_sweeps_the_drafts_of_a_killed_one(root: Path) -> None:
    replace_rows(root / ".vibes/TEST.jsonl", [{"a": 1}])
    (root / ".vibes/.TEST.jsonl.0badf00d.lsdata-draft").write_text("half")
    (root / ".exports/.map-text.0badf00d.lsdata-draft").mkdir(parents=True)
    for below in (
        ".benchmarks/b/audio",
        ".benchmarks/b/human/audio",
        ".modal_outputs/r",
        ".improve/i/round-1/judged/.processed",
    ):
        (root / below).mkdir(parents=True)
        (root / below / ".x.mp3.0badf00d.lsdata-draft").write_text("half")
    with Workspace(root).lock("vibes"):
        pass
    assert [path.name for path in root.rglob("*.lsdata-draft")] == []
    assert (root / ".vibes/TEST.jsonl").exists()
