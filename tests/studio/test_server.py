"""The studio's server: who may ask, what it answers, and that nothing stays behind."""

from __future__ import annotations

import io
import json
import random
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import here
from factories import make_config, make_payload
from latentscore.labels import FIELDS
from latentscore_data.core.base.errors import InputError, OutputError
from latentscore_data.studio.api import GROUPS, ROUTES
from latentscore_data.studio.app import Access, static_files
from latentscore_data.studio.server import choose_access, listen
from studio_server import StudioProcess, run_studio


@pytest.fixture(scope="module")
def studio() -> Iterator[StudioProcess]:
    with tempfile.TemporaryDirectory() as folder, run_studio(Path(folder) / "data") as running:
        yield running


def test_every_field_is_in_one_group():
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(FIELDS)


def test_other_machines_are_served_only_with_a_token_of_ones_own():
    refused = here("studio", "--host", "0.0.0.0", code=2)
    assert "--token" in refused.stderr
    with pytest.raises(InputError, match="at least 16"):
        choose_access(None, "short")
    assert choose_access(None, None).token != choose_access(None, None).token


class TestAccess:
    """A page of another site can reach a loopback port, but gets nothing."""

    own = Access(token="t" * 20)

    def test_a_foreign_name_for_this_machine_is_refused(self):
        assert self.own.refusal({"host": "evil.example:8765"}) is not None
        assert self.own.refusal({"host": ""}) is not None
        assert self.own.refusal({"host": "192.168.0.7:8765"}) is not None
        assert Access("t" * 20, "0.0.0.0").refusal({"host": "192.168.0.7:8765"}) is None
        assert Access("t" * 20, "0.0.0.0").refusal({"host": "evil.example"}) is not None

    def test_a_foreign_origin_is_refused(self):
        host = {"host": "localhost:8765"}
        assert self.own.refusal({**host, "origin": "http://localhost:8765"}) is None
        for origin in ("null", "http://evil.example", "http://localhost:9999", "https://localhost:8765"):
            assert self.own.refusal({**host, "origin": origin}) is not None

    def test_the_token_is_compared_whole(self):
        assert self.own.accepts({"authorization": "Bearer " + "t" * 20})
        assert not self.own.accepts({"authorization": "Bearer " + "t" * 19})
        assert not self.own.accepts({})


class TestServer:
    def test_the_api_needs_host_origin_and_token(self, studio: StudioProcess):
        assert studio.ask("/api/setup")[0] == 200
        assert studio.ask("/api/setup", token="wrong")[0] == 401
        assert studio.ask("/api/setup", headers={"Host": "evil.example"})[0] == 403
        assert studio.ask("/api/answer", {"vibe": "x"}, {"Origin": "http://evil.example"})[0] == 403
        assert studio.ask("/api/answer", {"vibe": "x"}, {"Content-Type": "text/plain"})[0] == 400

    def test_an_address_is_a_key_and_never_a_path(self, studio: StudioProcess):
        assert studio.ask("/")[0] == studio.ask("/static/main.js")[0] == 200
        for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/../../etc/passwd", "//etc/passwd", "/static/"):
            assert studio.ask(path)[0] in (400, 404), path
        assert set(static_files()) >= {"/", "/static/studio.css", "/static/main.js"}

    def test_the_page_may_run_only_its_own_scripts(self, studio: StudioProcess):
        _, body, headers = studio.ask("/")
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert b"<script>" not in body
        assert b"style=" not in body

    def test_candidates_come_scored_and_the_best_first(self, studio: StudioProcess):
        asked = {"vibe": "a bright fast morning", "model": "builtin/keywords", "n": 4}
        found = studio.json("/api/answer", asked)["candidates"]
        scores = [one["score"] for one in found]
        assert scores == sorted(scores, reverse=True)
        assert len(found) == 4
        assert found[0]["payload"]["config"].keys() == FIELDS.keys()
        assert studio.json("/api/answer", asked)["candidates"] == found

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"vibe": "  "}, "empty"),
            ({"vibe": "x" * 5000}, "4,000"),
            ({"vibe": 3}, "vibe"),
            ({"vibe": "x", "n": 99}, "1 to 8"),
            ({"vibe": "x", "model": "local:../../etc"}, "no model"),
            ({"vibe": "x", "model": "map:../x"}, "no model"),
        ],
    )
    def test_a_wrong_question_is_refused_with_the_reason(self, studio: StudioProcess, wrong: Any, named: str):
        status, body, _ = studio.ask("/api/answer", {"model": "builtin/keywords", **wrong})
        assert status == 400
        assert named in json.loads(body)["error"]

    def test_no_question_of_any_shape_is_more_than_refused(self, studio: StudioProcess):
        draw = random.Random(0)
        names = ("vibe", "n", "seed", "model", "payload", "config", "locked", "renders", "search", "format", "seconds",
                 "stream", "row_id", "verdict", "note", "better", "worse", "name", "items", "cap_usd")  # fmt: skip
        values = (
            None,
            True,
            -1,
            1e308,
            10**40,
            "",
            "x" * 5000,
            "\ud800",
            "../../etc/passwd",
            [],
            [1, None],
            {"a": {}},
            [[[]]],
        )
        for method, path in ROUTES:
            for turn in range(5):
                data = [{}, ["x"], *({name: draw.choice(values) for name in draw.sample(names, 12)} for _ in range(3))][
                    turn
                ]
                query = "?" + "&".join(f"{name}={draw.choice(('-1', '9' * 30, '%00', '..%2f'))}" for name in names[:6])
                asked = (path + query, None) if method == "GET" else (path, data)
                status, body, _ = studio.ask(*asked)
                assert status in (200, 400), (path, data, body[:200])
        assert studio.process.poll() is None

    @pytest.mark.parametrize(
        ("format", "start"),
        [
            ("pcm", b"RIFF"),
            ("wav", b"RIFF"),
            ("flac-16", b"fLaC"),
            ("flac", b"fLaC"),
            ("mp3", b""),
            ("stems", b"PK"),
            ("midi", b"MThd"),
        ],
    )
    def test_a_piece_comes_in_every_format(self, studio: StudioProcess, format: str, start: bytes):
        asked = {"config": make_config(), "seed": 3, "seconds": 2.0, "format": format, "title": "A <b>title</b>"}
        status, body, _ = studio.ask("/api/sound", asked)
        assert status == 200
        assert body.startswith(start)
        assert len(body) > 100
        if format == "stems":
            assert len(zipfile.ZipFile(io.BytesIO(body)).namelist()) == 6

    def test_variations_leave_locked_fields_alone(self, studio: StudioProcess):
        payload = make_payload()
        asked = {"payload": payload, "vibe": "calm rain", "n": 5, "locked": ["tempo", "pad"], "seed": 1}
        found = [one["payload"]["config"] for one in studio.json("/api/near", asked)["candidates"]]
        assert payload["config"] in found
        assert len({json.dumps(config) for config in found}) == 5
        assert all(config["tempo"] == payload["config"]["tempo"] for config in found)
        assert all(sum(config[n] != payload["config"][n] for n in FIELDS) <= 5 for config in found)

    def test_why_names_fields_that_are_not_at_their_default(self, studio: StudioProcess):
        config = make_config(brightness="very_bright", tempo="very_fast", density=6)
        found = studio.json("/api/why", {"vibe": "a bright fast morning", "config": config})
        assert {"brightness", "tempo"} <= found["fields"].keys() <= FIELDS.keys()
        assert found["fields"]["tempo"] > 0


def test_a_stream_is_read_in_blocks_and_ends_when_others_take_its_place(studio: StudioProcess):
    asked = {"config": make_config(), "seed": 1}
    first = studio.json("/api/stream", asked)["stream"]
    status, body, _ = studio.ask("/api/stream/read", {"stream": first, "seconds": 0.5})
    assert (status, len(body)) == (200, 24_000 * 4)
    assert studio.json("/api/stream/update", {"stream": first, "config": make_config(tempo="fast")})
    for _ in range(4):
        studio.json("/api/stream", asked)
    assert studio.ask("/api/stream/read", {"stream": first})[0] == 400


@pytest.mark.long
def test_ctrl_c_leaves_no_process(tmp_path: Path):
    with run_studio(tmp_path) as studio:
        studio.json("/api/answer", {"vibe": "rain", "model": "builtin/keywords", "n": 2})
        below = psutil.Process(studio.process.pid).children(recursive=True)
        assert below
    assert studio.process.returncode == 0
    end = time.monotonic() + 20
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in below):
        assert time.monotonic() < end, below
        time.sleep(0.1)


@pytest.mark.long
def test_a_search_goes_on_batch_by_batch_and_keeps_locked_fields(studio: StudioProcess):
    # What was answered to another vibe: there is something better, whatever the scorer and the renderer come to be.
    other = {"vibe": "a slow dark drone in a cathedral", "model": "builtin/keywords", "n": 1}
    (first,) = studio.json("/api/answer", other)["candidates"]
    begin = {"vibe": "kids laughing", "payload": first["payload"], "locked": ["root", "texture"], "renders": 40}
    name = studio.json("/api/better", begin)["search"]
    spent, best = [0], []
    while True:
        step = studio.json("/api/better/step", {"search": name})
        assert step["spent"] > spent[-1]
        spent.append(step["spent"])
        best.append(step["score"])
        if step["done"]:
            break
    assert spent[-1] == 40
    assert step["improved"]
    assert best == sorted(best)
    for field in ("root", "texture"):
        assert step["payload"]["config"][field] == first["payload"]["config"][field]
    status, body, _ = studio.ask("/api/better/step", {"search": name})
    assert status == 400, body
    assert b"has ended" in body


def test_an_address_or_a_port_that_cannot_be_served_has_its_own_remedy() -> None:
    with listen(Access(), 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError) as caught:
            listen(Access(), port)
        assert caught.value.remedy == "choose another port with --port"
    for host in ("nowhere.invalid", "192.0.2.1"):
        with pytest.raises(OutputError) as caught:
            listen(Access(host=host, token="a" * 20), 0)
        assert caught.value.remedy == "name an address of this machine with --host"
