"""Asking the hub for a base model: a short answer instead of minutes of retries."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.models import base_models


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    base_models._only_cached.cache_clear()


@pytest.fixture
def hub_without_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that has nothing, and the paths it was asked for."""
    asked: list[str] = []

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        yield asked
        server.shutdown()


def test_a_model_that_the_hub_does_not_have_is_refused(hub_without_models: list[str]) -> None:
    with pytest.raises(MissingError, match="the hub has no model no/such-model") as error:
        base_models.unreachable_hub("no/such-model")
    assert "HF_TOKEN" in error.value.remedy
    assert hub_without_models[-1] == "/api/models/no/such-model"


def test_a_hub_that_does_not_answer_costs_no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    assert base_models.unreachable_hub("some/model")
    with pytest.raises(MissingError, match="it is not on this machine, and the hub cannot be reached"):
        base_models._only_cached("some/model")
    # The libraries' own retries would take 23 s for each file.
    assert time.monotonic() - started < 18


def test_a_run_that_is_not_finished_is_no_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_without_models: list[str]
) -> None:
    final = tmp_path / "half" / "final"
    final.mkdir(parents=True)
    base_models.check_base("half", runs=tmp_path)
    (final.parent / "spec.json").write_text("{}")
    monkeypatch.chdir(final.parent)
    for name, runs in (("half", tmp_path), (str(final), None), ("final", None)):
        with pytest.raises(InputError, match="run half is not finished"):
            base_models.check_base(name, runs=runs)
    for mark in ("UPLOADED", "DONE"):
        (final.parent / mark).write_text("{}")
        base_models.check_base("half", runs=tmp_path)
        base_models.check_base("final")
        (final.parent / mark).unlink()


def test_a_base_model_is_here_or_to_be_had_or_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub_without_models: list[str]
) -> None:
    (tmp_path / "gemma").mkdir()
    base_models.check_base(str(tmp_path / "gemma"))
    base_models.check_base("tiny-random")
    assert hub_without_models == []
    with pytest.raises(MissingError, match="the hub has no model no/such-model"):
        base_models.check_base("no/such-model")
    for path in ("./no/such/folder", str(tmp_path / "none")):
        with pytest.raises(MissingError, match="there is no such file or folder"):
            base_models.check_base(path)


@pytest.mark.ml
def test_what_was_fetched_before_is_loaded_without_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    cached = tmp_path / "models--some--model"
    snapshot = cached / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    base_models.model_config("tiny-random").save_pretrained(snapshot)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    assert base_models.model_config("some/model").num_hidden_layers == 2
    assert time.monotonic() - started < 20
