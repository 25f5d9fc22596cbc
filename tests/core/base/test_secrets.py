"""Keys from .env: only those, and a file that is no UTF-8 is refused by file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import Lsdata
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.secrets import read_dotenv

GOOD = "# a caf\xe9\nMY_API_KEY=one\nAPI_BASE=http://elsewhere\n"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "")
    monkeypatch.delenv("MY_API_KEY")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_keys_and_nothing_else_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, ends: str):
    path = tmp_path / ".env"
    path.write_bytes(f"{ends}".join(GOOD.split("\n")).encode(encoding))
    monkeypatch.delenv("API_BASE", raising=False)
    assert read_dotenv(path) == ["MY_API_KEY"]
    assert os.environ["MY_API_KEY"] == "one"
    assert "API_BASE" not in os.environ


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (GOOD.encode("utf-16"), 1),
        (GOOD.encode("utf-16-le"), 1),
        (b"A_KEY=x\n\n" + GOOD.encode("latin-1"), 3),
        (b"A_KEY=x\nB_KEY=\x00y\n", 2),
        (b"A_KEY=x\n" * 9 + b"C_KEY=\xff", 10),
    ],
)
def test_a_file_of_another_encoding_is_refused_with_its_line(tmp_path: Path, content: bytes, line: int):
    path = tmp_path / ".env"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"\.env:{line}: ") as caught:
        read_dotenv(path)
    assert "UTF-8" in caught.value.remedy
    assert "one" not in str(caught.value)


@pytest.mark.parametrize("command", [("status",), ("download", "--dataset", "builtin"), ("doctor",), ("vibes",)])
def test_every_command_names_it(lsdata: Lsdata, root: Path, tmp_path: Path, command: tuple[str, ...]):
    (tmp_path / ".env").write_bytes(GOOD.encode("utf-16"))
    done = lsdata(*command, "--root", str(root), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert ".env:1: not UTF-8" in done.stderr
