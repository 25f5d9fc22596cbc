"""lsdata download: local files in this process; the hub through the real client and a loopback server."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import here
from hub_server import HubServer, jsonl_gz
from latentscore_data.commands.download import show_plan
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.jsonl import read_rows
from latentscore_data.core.base.manifest import stale_reasons
from latentscore_data.core.base.rows import SourceText
from latentscore_data.core.base.settings import Settings, load_settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages import download
from latentscore_data.core.stages.base import RunContext


def settings_for(root: Path, *names: str, **more: Any) -> Settings:
    return load_settings(None, paths={"root": root}, download={"datasets": list(names), **more})


def texts_of(root: Path, name: str) -> list[SourceText]:
    return list(read_rows(Workspace(root).texts(name), SourceText))


def test_the_bundled_passages_and_a_folder_become_files_with_a_manifest(root: Path, tmp_path: Path):
    (tmp_path / "books").mkdir()
    for i in range(5):
        (tmp_path / "books" / f"{i}.txt").write_text(f"A storm of the number {i}", encoding="utf-8")
    settings = settings_for(root, "builtin", str(tmp_path / "books"), sample_size=3)
    summary = download.run_download(settings)
    assert (summary.done, summary.exit_code) == (6, 0)
    assert len(texts_of(root, "builtin")) == len(texts_of(root, "books")) == 3
    manifest = json.loads((root / ".outputs" / "manifest.json").read_text())
    assert "uniform: 3 of 5 texts" in manifest["details"]["datasets"]["books"]["how"]
    files = download.stage_files(settings, Workspace(root))[0]
    assert stale_reasons(files, root) == []
    (tmp_path / "books" / "0.txt").write_text("changed", encoding="utf-8")
    assert any(
        "0.txt changed" in why for why in stale_reasons(download.stage_files(settings, Workspace(root))[0], root)
    )


def test_what_is_there_is_not_drawn_again_unless_it_would_come_out_differently(root: Path):
    download.run_download(settings_for(root, "builtin", sample_size=4))
    again = download.run_download(settings_for(root, "builtin", sample_size=4))
    assert (again.done, again.skipped) == (0, 4)
    more = download.run_download(settings_for(root, "builtin", sample_size=6))
    assert (more.done, more.skipped) == (6, 0)
    forced = download.run_download(settings_for(root, "builtin", sample_size=6), RunContext(overwrite=True))
    assert forced.done == 6


def test_a_file_that_was_cut_off_is_drawn_anew(root: Path, capsys: pytest.CaptureFixture[str]):
    settings = settings_for(root, "builtin", sample_size=4)
    download.run_download(settings)
    file = Workspace(root).texts("builtin")
    whole = file.read_bytes()
    for damaged in (whole[:-40], b"".join(whole.splitlines(keepends=True)[:-1]), b""):
        file.write_bytes(damaged)
        assert download.run_download(settings).done == 4
        assert file.read_bytes() == whole
        assert "download: builtin again: its file holds" in capsys.readouterr().err
    corrected = whole.replace(b"the", b"THE")
    file.write_bytes(corrected)
    assert download.run_download(settings).skipped == 4
    assert file.read_bytes() == corrected


def test_texts_that_no_setting_names_are_told_of_and_stay(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "one.txt").write_text("A storm", encoding="utf-8")
    download.run_download(settings_for(root, "builtin", sample_size=4))
    assert "not named" not in capsys.readouterr().err
    download.run_download(settings_for(root, str(tmp_path / "one.txt")))
    (messages,) = [line for line in capsys.readouterr().err.splitlines() if "not named" in line]
    assert f"builtin.jsonl (to drop: rm {Workspace(root).texts('builtin')})" in messages
    assert "one.txt" not in messages
    assert len(texts_of(root, "builtin")) == 4


def test_a_jsonl_file_keeps_its_name_and_shares_it_with_nothing(root: Path, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "A storm"}\n', encoding="utf-8")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.txt").write_text("A calm", encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.jsonl holds the texts of"):
        download.run_download(settings_for(root, str(rows), str(tmp_path / "rows")))
    download.run_download(settings_for(root, str(rows)))
    assert [path.name for path in Workspace(root).text_files()] == ["rows.jsonl"]
    with pytest.raises(InputError, match=r"rows\.jsonl holds the texts of rows\.jsonl, not of rows"):
        download.run_download(settings_for(root, str(tmp_path / "rows")))
    assert [text.text for text in texts_of(root, "rows.jsonl")] == ["A storm"]


def test_a_file_that_an_older_version_named_twice_is_still_that_data_set_s(root: Path, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "A storm"}\n', encoding="utf-8")
    (root / ".outputs").mkdir(parents=True)
    (root / ".outputs" / "rows.jsonl.jsonl").touch()
    download.run_download(settings_for(root, str(rows)))
    assert [path.name for path in Workspace(root).text_files()] == ["rows.jsonl.jsonl"]


def test_no_data_set_is_an_error_that_names_the_setting(root: Path):
    nothing = settings_for(root)
    for refused in (download.run_download, lambda it: show_plan(it, Workspace(root))):
        with pytest.raises(InputError, match=r"download\.datasets is empty"):
            refused(nothing)
    assert [type(problem) for problem in download.preflight(nothing)] == [InputError]


def test_a_data_set_without_texts_is_an_error(root: Path, tmp_path: Path):
    (tmp_path / "x.jsonl").write_text('{"text": " "}\n', encoding="utf-8")
    with pytest.raises(MissingError, match="contains no texts"):
        download.run_download(settings_for(root, str(tmp_path / "x.jsonl")))
    with pytest.raises(InputError, match="contains no texts"):
        (tmp_path / "empty").mkdir()
        download.run_download(settings_for(root, str(tmp_path / "empty")))


def test_what_is_not_read_is_said_with_the_option_that_reads_it(root: Path, tmp_path: Path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "poem.txt").write_text("rain")
    (folder / "old.txt").write_bytes("un caf\xe9".encode("latin-1"))
    (folder / "table.tsv").write_text("body\tn\nsnow\t1\n")
    (folder / "notes").write_text("no extension")
    draw = ("download", "--dataset", str(folder), "--root", str(root))
    done = here(*draw, code=0)
    assert "not read: notes (its name has no extension); old.txt (" in done.stderr
    assert "pass --encoding latin-1" in done.stderr
    assert len(list(read_rows(root / ".outputs/texts.jsonl", SourceText))) == 2
    facts = here(*draw, "--encoding", "latin-1", "--json").json()["details"]["datasets"]["texts"]
    assert (facts["texts"], facts["unread"]) == (3, {"notes": "its name has no extension"})
    for wrong in ("klingon", "rot13", "base64", "undefined", "lat\x00in"):
        with pytest.raises(InputError, match="encoding"):
            load_settings(download={"encoding": wrong})


def test_preflight_names_a_path_that_is_not_there(root: Path):
    assert [type(p) for p in download.preflight(settings_for(root, "./gone"))] == [InputError]
    assert download.preflight(settings_for(root, "builtin")) == []


# --- the hub ---------------------------------------------------------------------------------------------------------

README = b"---\nlicense: cc0-1.0\n---\n# small\n"


def small_repo(shards: int = 6, rows: int = 60) -> dict[str, bytes]:
    files = {"README.md": README}
    for k in range(shards):
        lines = [
            {"id": f"{k}-{i}", "text": f"Text {i} of part {k}: rain.", "metadata": {"part": k}} for i in range(rows)
        ]
        files[f"data/part-{k:03d}.jsonl.gz"] = jsonl_gz(lines)
    return files


class Hub:
    """Runs ``lsdata download`` in a process of its own against a loopback hub."""

    def __init__(self, server: HubServer, tmp_path: Path) -> None:
        self.env = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        self.root = tmp_path / "data"

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "latentscore_data", "--root", str(self.root), "download", *args]

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*args), env={**self.env, **env}, capture_output=True, text=True, timeout=200, check=False
        )

    def texts(self) -> list[str]:
        return [text.id_in_dataset for text in texts_of(self.root, "owner/small")]


ASK = ("--dataset", "owner/small", "--sample-size", "40")


@pytest.mark.ml
@pytest.mark.long
def test_a_sample_is_streamed_from_the_hub_after_the_plan_was_agreed_to(tmp_path: Path):
    noise = random.Random(0)
    words = [f"{noise.getrandbits(40):x}" for _ in range(4000)]
    big = [{"id": f"big-{i}", "text": " ".join(noise.choices(words, k=600))} for i in range(9000)]
    with HubServer("owner/small", {"README.md": README, "big.jsonl": jsonl(big)}) as server:
        hub = Hub(server, tmp_path)
        refused = hub.run(*ASK)
        assert refused.returncode == 2
        assert "pass --yes" in refused.stderr
        assert re.search(r"1 files, \d\d\.\d MB", refused.stderr)
        assert server.bytes_sent < 10_000
        fetched = hub.run(*ASK, "--yes")
        assert fetched.returncode == 0, fetched.stderr
        assert len(hub.texts()) == 40
        # 40 texts need the first 160 of 9000; the client reads ahead by a few megabytes, not the whole file.
        assert server.bytes_sent < len(server.files["big.jsonl"]) / 2
        manifest = json.loads((hub.root / ".outputs" / "manifest.json").read_text())
        described = manifest["details"]["datasets"]["owner/small"]
        assert "first 160 texts" in described["how"]
        assert "not over the whole data set" in described["how"]
        assert described["revision"]
        before = server.bytes_sent
        again = hub.run(*ASK)
        assert again.returncode == 0, again.stderr
        assert server.bytes_sent == before


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.ml
@pytest.mark.long
def test_a_hub_that_drops_refuses_and_fails_gives_the_same_sample(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with HubServer("owner/small", small_repo()) as server:
        good = Hub(server, tmp_path / "a")
        assert good.run(*ASK, "--yes").returncode == 0
    with HubServer("owner/small", small_repo(), faults=["drop", "429", "500", "", "drop"]) as server:
        bad = Hub(server, tmp_path / "b")
        result = bad.run(*ASK, "--yes")
        assert result.returncode == 0, result.stderr
        assert server.faults == []
    assert good.texts() == bad.texts()
    assert len(set(bad.texts())) == 40
    assert {name.split("-")[0] for name in bad.texts()} == {str(k) for k in range(6)}


@pytest.mark.ml
@pytest.mark.long
def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with HubServer("owner/small", small_repo()) as server:
        whole = Hub(server, tmp_path / "a")
        assert whole.run(*ASK, "--yes").returncode == 0
    with HubServer("owner/small", small_repo(), slow_after=4) as server:
        hub = Hub(server, tmp_path / "b")
        process = subprocess.Popen(hub.command(*ASK, "--yes"), env=hub.env, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 60
        while server.data_requests() < 5 and time.monotonic() < give_up:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        first = {name for name, count in server.requests.items() if name.startswith("data/") and count}
        assert not Workspace(hub.root).texts("owner/small").exists()
        server.slow_after = None
        server.requests.clear()
        result = hub.run(*ASK, "--yes")
        assert result.returncode == 0, result.stderr
        second = {name for name, count in server.requests.items() if name.startswith("data/") and count}
        # The client looks into the first file for the columns; the other finished ones are not asked for again.
        assert len(first & second) <= 2
        assert first | second == {name for name in server.files if name.startswith("data/")}
    assert hub.texts() == whole.texts()
    assert list((hub.root / ".outputs" / ".partial").iterdir()) == []


@pytest.mark.ml
@pytest.mark.long
def test_a_gated_set_needs_the_token_which_appears_nowhere(tmp_path: Path):
    token = "hf_loopbackloopbackloopback"
    with HubServer("owner/small", small_repo(2), token=token, gated=True) as server:
        hub = Hub(server, tmp_path)
        refused = hub.run(*ASK, "--yes")
        assert refused.returncode == 3
        assert "gated" in refused.stderr
        assert "HF_TOKEN" in refused.stderr
        opened = hub.run(*ASK, "--yes", HF_TOKEN=token)
        assert opened.returncode == 0, opened.stderr
        assert len(hub.texts()) == 40
        assert token not in opened.stderr + opened.stdout
        written = [path for path in tmp_path.rglob("*") if path.is_file() and "hf/" not in path.as_posix()]
        assert not any(token.encode() in path.read_bytes() for path in written)


@pytest.mark.ml
@pytest.mark.long
def test_a_name_that_is_not_on_the_hub(tmp_path: Path):
    with HubServer("owner/small", small_repo(1)) as server:
        missing = Hub(server, tmp_path).run("--dataset", "owner/other", "--yes")
    assert missing.returncode == 3
    assert "there is no data set owner/other" in missing.stderr
    assert "Traceback" not in missing.stderr


def gz(*lines: bytes) -> bytes:
    return gzip.compress(b"\n".join(lines) + b"\n", mtime=0)


WHOLE = jsonl_gz([{"id": str(i), "text": f"Text {i}: rain."} for i in range(60)])
FEATURES = b"---\ndataset_info:\n  features:\n  - name: text\n    dtype: int64\n---\n"
DAMAGED_SETS: dict[str, tuple[dict[str, bytes], int, str]] = {
    "a cut .gz": ({"data/a.jsonl.gz": WHOLE[: len(WHOLE) // 2]}, 2, "data/a.jsonl.gz"),
    "an empty .gz": ({"data/a.jsonl.gz": b""}, 2, ""),
    "no .gz at all": ({"data/a.jsonl.gz": b"<html>moved</html>"}, 2, "data/a.jsonl.gz"),
    "a hole in a .gz": ({"data/a.jsonl.gz": WHOLE[:60] + bytes(60) + WHOLE[120:]}, 2, "data/a.jsonl.gz"),
    "torn JSON": ({"data/a.jsonl.gz": gz(b'{"text": "rain"}', b'{"text": "ra')}, 2, "data/a.jsonl.gz"),
    "no JSON": ({"data/a.jsonl": b"\x00\xff\xfe nothing"}, 2, "data/a.jsonl"),
    "features that do not fit": ({"README.md": FEATURES, "data/a.jsonl.gz": WHOLE}, 2, "data/a.jsonl.gz"),
    "a broken card": ({"README.md": b"---\nlicense: [\n: {\n---\n", "data/a.jsonl.gz": WHOLE}, 2, "owner/small"),
    "a card of another form": ({"README.md": b"---\nconfigs: 7\n---\n", "data/a.jsonl.gz": WHOLE}, 2, "owner/small"),
    "a null text": ({"data/a.jsonl.gz": gz(b'{"text": null, "id": "1"}', b'{"text": "rain", "id": "2"}')}, 0, ""),
    "only null texts": ({"data/a.jsonl.gz": gz(b'{"text": null, "id": "1"}')}, 3, "contains no texts"),
    "cut parquet": ({"data/a.parquet": b"PAR1 and nothing more"}, 2, "owner/small"),
}


@pytest.mark.ml
@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGED_SETS)
def test_a_damaged_set_on_the_hub_is_refused_with_the_file(tmp_path: Path, damage: str):
    pytest.importorskip("datasets")
    files, code, place = DAMAGED_SETS[damage]
    with HubServer("owner/small", {"README.md": README, **files}) as server:
        result = Hub(server, tmp_path).run(*ASK, "--yes")
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert place in result.stderr
