"""lsdata export --push, with the real client and a loopback hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Lsdata
from export_workspace import fill
from upload_hub import Repository, UploadHub

pytestmark = pytest.mark.long  # each call is a process of its own: the hub's client reads its environment once

Push = Callable[..., Any]


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with UploadHub() as hub:
        yield hub


@pytest.fixture
def push(lsdata: Lsdata, hub: UploadHub, root: Path, tmp_path: Path) -> Push:
    def run(*args: str, code: int = 0, **env: str) -> str:
        known = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "hf"),
            "LSDATA_EXPORT__PARQUET": "always",
        }
        out = lsdata("export", *args, "--root", str(root), env={**known, **env}, code=code)
        assert hub.token not in out.stdout + out.stderr
        return out.stdout + out.stderr

    return run


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_data_set_arrives_whole_in_a_private_repository(push: Push, hub: UploadHub, root: Path) -> None:
    fill(root)
    assert f"{hub.url}/datasets/me/vibes" in push("dataset", "--push", "me/vibes")
    repo = hub.repos["datasets/me/vibes"]
    assert repo.private
    assert repo.files == files_of(root / ".exports" / "dataset")
    assert {"data/test-00000-of-00001.parquet", "README.md", "ATTRIBUTION.md"} <= repo.files.keys()


def test_nothing_is_pushed_unasked(push: Push, hub: UploadHub, root: Path) -> None:
    fill(root)
    push("dataset")
    push("map", "--embedder", "words")
    assert hub.repos == {}


def test_public_only_when_told(push: Push, hub: UploadHub, root: Path) -> None:
    fill(root)
    hub.repos["datasets/me/open"] = Repository(private=False)
    assert "me/open is public" in push("chat", "--push", "me/open", code=2)
    assert hub.repos["datasets/me/open"].files == {}
    push("chat", "--push", "me/open", "--public")
    assert "sft/grpo.jsonl" in hub.repos["datasets/me/open"].files
    push("map", "--embedder", "words", "--push", "me/new-open", "--public")
    assert not hub.repos["datasets/me/new-open"].private


def test_an_interrupted_push_goes_on_and_sends_nothing_twice(push: Push, hub: UploadHub, root: Path) -> None:
    fill(root)
    hub.refuse_after = 2
    assert "run the same command again" in push("dataset", "--push", "me/vibes", code=4)
    arrived = set(hub.large)
    assert len(arrived) == 2
    assert hub.repos["datasets/me/vibes"].commits == 0
    before = files_of(root / ".exports" / "dataset")
    hub.refuse_after = None
    push("dataset", "--push", "me/vibes")
    assert hub.repos["datasets/me/vibes"].files == before
    assert set(hub.puts.values()) == {1}
    parquet = {hashlib.sha256(data).hexdigest() for name, data in before.items() if name.endswith(".parquet")}
    assert set(hub.puts) == parquet


def test_a_push_brings_what_was_exported_and_takes_away_what_no_longer_is(
    push: Push, hub: UploadHub, root: Path
) -> None:
    fill(root)
    push("dataset", "--push", "me/vibes")
    repo = hub.repos["datasets/me/vibes"]
    assert "data/grpo-00000-of-00001.parquet" in repo.files
    repo.files |= {".gitattributes": b"*.parquet", "mine.txt": b"put there by hand"}
    push("dataset", "--split", "TEST", "--overwrite")
    folder = root / ".exports" / "dataset"
    exported = files_of(folder)
    (folder / ".env").write_text("SECRET=1")
    push("dataset", "--push", "me/vibes")
    assert "data/grpo-00000-of-00001.parquet" not in exported
    assert repo.files == {**exported, ".gitattributes": b"*.parquet", "mine.txt": b"put there by hand"}
    assert repo.commits == 2
    (folder / "README.md").unlink()
    assert "README.md is missing from the export" in push("dataset", "--push", "me/vibes", code=2)
    assert "README.md" in repo.files


def test_a_record_of_somebody_else_deletes_nothing(push: Push, hub: UploadHub, root: Path) -> None:
    fill(root)
    theirs = {"notes.txt": b"theirs", "export.json": b'{"files": {"notes.txt": {}}}'}
    hub.repos["datasets/me/vibes"] = Repository(private=True, files=theirs)
    push("dataset", "--push", "me/vibes")
    assert hub.repos["datasets/me/vibes"].files["notes.txt"] == b"theirs"


@pytest.mark.parametrize(
    ("args", "env", "code", "message"),
    [
        ((), {"HF_TOKEN": ""}, 3, "HF_TOKEN is not set"),
        ((), {"HF_TOKEN": "hf_wrong_token_of_a_test"}, 3, "the hub refuses me/vibes (401"),
        ((), {"HF_HUB_OFFLINE": "1"}, 3, "HF_HUB_OFFLINE is set"),
        ((), {"HF_ENDPOINT": "http://127.0.0.1:9"}, 4, "pushing to me/vibes stopped"),
        (("--push", "no-owner"), {}, 2, "write --push OWNER/NAME"),
        (("--push", "me/vibes--2"), {}, 2, "not a name that the hub accepts (Cannot have -- or .."),
        (("--push", "me/vibes.git"), {}, 2, "not a name that the hub accepts"),
        (("--push", "me/vïbes"), {}, 2, "write --push OWNER/NAME"),
        (("--license", "cc-by-4"), {}, 2, "write cc-by-4.0"),
        (("--license", "my very own"), {}, 2, "LicenseRef-NAME"),
    ],
)
def test_what_stops_a_push(
    push: Push, root: Path, args: tuple[str, ...], env: dict[str, str], code: int, message: str
) -> None:
    fill(root)
    assert message in push("dataset", "--push", "me/vibes", *args, code=code, **env)
    assert code != 2 or not (root / ".exports" / "dataset").exists(), "refused before the export"


BAD_CARD = {"errors": [{"message": '"license" must be one of [apache-2.0, mit]'}], "warnings": []}
NO_ROOM = {"error": "Private repository storage limit reached, please upgrade your plan"}


@pytest.mark.parametrize(
    ("place", "answer", "code", "message"),
    [
        ("validate-yaml", (400, BAD_CARD), 2, "must be one of"),
        ("commit/main", (400, {"error": "README.md: no such language"}), 2, "no such language"),
        ("commit/main", (413, {"error": "too large"}), 2, "does not accept this export"),
        ("commit/main", (402, NO_ROOM), 6, "storage limit reached"),
        ("objects/batch", (402, NO_ROOM), 6, "storage limit reached"),
        ("repos/create", (402, NO_ROOM), 6, "storage limit reached"),
        ("repos/create", (403, {"error": "you may not create one there"}), 3, "may write there"),
        ("preupload/main", (404, {"error": "no such repository"}), 3, "may write there"),
        ("commit/main", (412, {"error": "a commit has happened since"}), 4, "run the same command again"),
        ("commit/main", (503, b"<html>the hub is being mended</html>"), 4, "run the same command again"),
        ("validate-yaml", (200, ["not what was expected"]), 4, "run the same command again"),
        ("validate-yaml", (200, b"<html>a page of a proxy</html>"), 4, "run the same command again"),
    ],
)
def test_only_what_can_succeed_is_to_be_tried_again(
    push: Push, hub: UploadHub, root: Path, place: str, answer: tuple[int, Any], code: int, message: str
) -> None:
    fill(root)
    hub.refusals[place] = answer
    said = push("dataset", "--push", "me/vibes", code=code)
    assert message in said
    assert ("run the same command again" in said) == (code == 4)
    hub.refusals.clear()
    push("dataset", "--push", "me/vibes")


def test_a_licence_of_ones_own_has_a_name_that_the_hub_takes(push: Push, hub: UploadHub, root: Path) -> None:
    fill(root)
    push("dataset", "--push", "me/vibes", "--license", "LicenseRef-My Own 2")
    card = hub.repos["datasets/me/vibes"].files["README.md"].decode()
    assert {"license: other", "license_name: my-own-2"} <= set(card.splitlines())
    push("dataset", "--license", "CC-BY-4.0", "--overwrite")
    assert "license: cc-by-4.0\n" in (root / ".exports" / "dataset" / "README.md").read_text()


def test_a_missing_licence_or_notice_stops_a_push(push: Push, hub: UploadHub, root: Path) -> None:
    fill(root, license="")
    said = push("dataset", "--push", "me/vibes", code=3)
    assert "the licence of the texts of moby-dick is unknown" in said
    assert hub.repos == {}
    push(
        "dataset",
        "--push",
        "me/vibes",
        "--overwrite",
        LSDATA_EXPORT__SOURCE_LICENSES=json.dumps(["moby-dick=public domain"]),
    )
    assert b"public domain" in hub.repos["datasets/me/vibes"].files["ATTRIBUTION.md"]


def test_attribution_needs_somebody_to_attribute_to(push: Push, hub: UploadHub, root: Path) -> None:
    fill(root, license="CC BY 4.0", author="")
    assert "neither author nor address" in push("chat", "--push", "me/chat", code=3)
    fill(root, license="CC BY 4.0", author="A. Poet")
    push("chat", "--push", "me/chat", "--overwrite")
    assert b"license: cc-by-4.0" in hub.repos["datasets/me/chat"].files["README.md"]
