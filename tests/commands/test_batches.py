"""The real program with provider batches: submit, collect, mix with direct calls, cap, cancel, and what the lines may hold."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_servers import AnthropicBatchServer, AzureBatchServer, Body, OpenAIBatchServer, TogetherBatchServer
from conftest import here
from factories import make_text, make_vibe
from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.ledger import Usage, totals
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.batch_state import FILE_NAME
from latentscore_data.core.llm.batches import remote
from latentscore_data.core.vibes.excerpts import vibes_for
from servers import config_reply

MODEL, CLAUDE = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"
PRICES = {"LSDATA_LLM__PRICES": json.dumps({"*": {"input": 1.0, "output": 4.0}})}
ENV = {**PRICES, "OPENAI_API_KEY": "sk-loopback", "ANTHROPIC_API_KEY": "sk-ant-loopback"}
N = 2


def write_rows(root: Path, count: int) -> Workspace:
    workspace = Workspace(root)
    replace_rows(workspace.vibes("SFT-Train"), [make_vibe(n, vibe=f"rain on house {n}") for n in range(count)])
    return workspace


def generate(root: Path, model: str, *options: str) -> tuple[str, ...]:
    command = ("configs", "--root", str(root), "--only", "generate", "--n", str(N), "--model", model, "--json")
    return (*command, *options)


class Provider(OpenAIBatchServer):
    """A server with batches, and ``configs`` that asks it."""

    def __init__(self, root: Path) -> None:
        super().__init__(config_reply())
        self.root = root

    def configs(self, *options: str, code: int = 0, root: Path | None = None) -> dict[str, Any]:
        """The JSON document of a run (with ``--batch``, unless ``options`` are given), and what it ``said``."""
        asked = generate(root or self.root, MODEL, "--api-base", self.address, "--yes", *(options or ("--batch",)))
        out = here(*asked, env=ENV, code=code)
        return {**out.json(), "said": out.stderr}


@pytest.fixture
def server(root: Path) -> Iterator[Provider]:
    with Provider(root) as running:
        yield running


def done(workspace: Workspace) -> int:
    return sum(1 for _ in read_lines(workspace.candidates)) if workspace.candidates.exists() else 0


def spent(workspace: Workspace) -> Usage:
    total = Usage()
    for usage in totals(workspace.ledger).values():
        total.add(usage)
    return total


def test_the_same_command_submits_then_collects_and_a_direct_run_finds_the_answers_in_the_cache(
    server: Provider, root: Path
) -> None:
    workspace = write_rows(root, 3)
    first = server.configs()
    assert (first["pending"], first["done"], first["calls"]) == (6, 0, 0)
    assert "6 questions to openai/gpt-4o-mini, at most $0." in first["said"]
    assert "same command again" in first["next_step"]
    waiting = server.configs()
    assert waiting["pending"] == 6
    assert len(server.batches) == 1, "what waits is not asked again"
    assert server.direct == []

    server.finish()
    last = server.configs()
    assert (last["pending"], last["done"], last["calls"], last["cached"]) == (0, 3, 6, 0)
    assert last["cost_usd"] == pytest.approx(spent(workspace).cost_usd)
    assert spent(workspace).calls == 6
    answers = [line["config_candidates"] for _, line in read_lines(workspace.candidates)]
    # Another workspace, asked directly, has the same keys; this one finds every answer.
    workspace.candidates.unlink()
    direct = server.configs("--yes")
    assert (direct["cached"], direct["calls"]) == (6, 0)
    assert [line["config_candidates"] for _, line in read_lines(workspace.candidates)] == answers
    assert server.direct == []


@pytest.mark.long
def test_a_batch_costs_half_of_what_the_same_answers_cost_directly(
    server: Provider, root: Path, tmp_path: Path
) -> None:
    workspace = write_rows(root, 2)
    server.ends = True
    plan = server.configs("--batch", "--dry-run")
    assert "batch price (50%), your price" in plan["price"]
    server.configs()
    server.configs()
    elsewhere = write_rows(tmp_path / "direct", 2)
    server.configs("--yes", root=elsewhere.root)
    assert spent(workspace).cost_usd == pytest.approx(spent(elsewhere).cost_usd / 2)
    asked = [
        {name: value for name, value in body.items() if name != "custom_id"}
        for body in server.batches["batch_1"].requests
    ]
    assert sorted(map(json.dumps, asked), key=str) == sorted(
        (json.dumps({name: body[name] for name in asked[0]}) for body in server.direct), key=str
    ), "a line of a batch is what a direct call sends"


def test_wait_stays_through_the_rounds_and_bad_answers_go_into_the_next_one(server: Provider, root: Path) -> None:
    workspace = write_rows(root, 3)
    server.ends = True
    good, seen = config_reply(), set[str]()

    def reply(body: Body) -> str:
        user = body["messages"][1]["content"]
        if "house 1" in user and len(body["messages"]) == 2:
            return '{"surprise": true}'
        seen.add(str(len(body["messages"])))
        return str(good(body))

    server.reply_to = reply
    found = server.configs("--batch", "--wait")
    assert (found["pending"], found["done"], found["calls"]) == (0, 3, 8)
    assert len(server.batches) == 2
    assert "4" in seen, "the question is asked again with the answer and what was wrong with it"
    assert spent(workspace).calls == 8


@pytest.mark.long
def test_an_answer_that_stays_bad_fails_its_row_and_a_later_run_asks_it_anew(server: Provider, root: Path) -> None:
    workspace = write_rows(root, 2)
    server.ends = True
    good = config_reply()
    server.reply_to = lambda body: "" if "house 1" in body["messages"][1]["content"] else str(good(body))
    found = server.configs("--batch", "--wait", code=1)
    assert (found["done"], found["failed"]) == (1, {"answer": 1})
    assert len(server.batches) == 3, "three rounds, as with direct calls"
    server.reply_to = good
    again = server.configs("--batch", "--wait")
    assert (again["done"], again["skipped"]) == (1, 1)
    assert done(workspace) == 2


def test_what_is_overwritten_over_several_rounds_is_replaced_once_and_all_else_stays(
    server: Provider, root: Path
) -> None:
    workspace = write_rows(root, 3)
    server.configs("--yes")
    old = [{**line, "config_error": "old"} for _, line in read_lines(workspace.candidates)]
    replace_rows(workspace.candidates, old)
    workspace.llm_cache.unlink()
    server.ends = True
    found = server.configs("--batch", "--wait", "--overwrite", "--limit", "2")
    assert (found["done"], found["skipped"], found["calls"]) == (2, 0, 4)
    assert [line["config_error"] for _, line in read_lines(workspace.candidates)] == [None, None, "old"]


def shuffled_twice(lines: list[Body]) -> list[Body]:
    lines = [*lines, *lines]
    random.Random(1).shuffle(lines)
    return [*lines, {"custom_id": "somebody-else-7", "response": {"status_code": 200, "body": {}}}, {"rubbish": 1}]


def with_errors(lines: list[Body]) -> list[Body]:
    """One question busy, one refused for good, the others answered."""
    busy = {**lines[0], "response": {"status_code": 500, "body": {"error": {"message": "oops"}}}}
    refused = {
        **lines[1],
        "response": {"status_code": 400, "body": {"error": {"message": "not this one", "type": "x"}}},
    }
    return [busy, refused, *lines[2:]]


def test_results_out_of_order_and_twice_are_read_once(server: Provider, root: Path) -> None:
    workspace = write_rows(root, 4)
    server.ends, server.change = True, shuffled_twice
    server.configs()
    assert server.configs()["done"] == 4
    assert spent(workspace).calls == 8


def test_an_error_per_line_is_asked_again_or_fails_its_candidate(server: Provider, root: Path) -> None:
    write_rows(root, 3)
    server.ends, server.change = True, lambda lines: with_errors(lines) if len(lines) > 2 else lines
    found = server.configs("--batch", "--wait", code=1)
    assert (found["done"], found["short"]) == (3, 1)
    assert [len(sold.requests) for sold in server.batches.values()] == [6, 1]


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_a_batch_that_ends_in_part_keeps_what_was_answered_and_asks_for_the_rest(
    status: str, server: Provider, root: Path
) -> None:
    write_rows(root, 3)
    server.configs()
    code = f"batch_{status}"
    server.change = lambda lines: [
        *lines[:4], *({**line, "response": None, "error": {"code": code, "message": code}} for line in lines[4:])
    ] if len(lines) > 2 else lines  # fmt: skip
    server.finish(status)
    server.ends = True
    assert server.configs()["pending"] == 2
    assert server.configs()["pending"] == 0
    assert [len(sold.requests) for sold in server.batches.values()] == [6, 2]
    assert max(server.asked.values()) == 2


def test_a_parameter_that_the_model_refuses_is_left_out_in_the_next_round(server: Provider, root: Path) -> None:
    write_rows(root, 1)
    refusal = {"message": "Unsupported value: 'temperature' does not support 0.9", "param": "temperature"}

    def change(lines: list[Body]) -> list[Body]:
        asked = {body["custom_id"]: body for sold in server.batches.values() for body in sold.requests}
        answer = {"status_code": 400, "body": {"error": refusal}}
        return [{**one, "response": answer} if "temperature" in asked[one["custom_id"]] else one for one in lines]

    server.ends, server.change = True, change
    assert server.configs("--batch", "--wait")["done"] == 1
    assert [["temperature" in body for body in sold.requests] for sold in server.batches.values()] == [
        [True, True],
        [False, False],
    ]


def test_the_cap_holds_over_all_commands_of_a_run(server: Provider, root: Path) -> None:
    workspace = write_rows(root, 4)
    plan = server.configs("--batch", "--dry-run")
    one = plan["worst_usd"] / 8
    cap = ("--batch", "--max-cost", f"{4.5 * one:.6f}")
    first = server.configs(*cap)
    assert first["pending"] == 8
    assert len(server.batches["batch_1"].requests) < 8
    assert "whose maximum cost reaches --max-cost" in first["said"]
    for _ in range(8):
        server.finish()
        found = server.configs(*cap)
        if not found["pending"]:
            break
    assert done(workspace) == 4
    assert spent(workspace).cost_usd <= 4.5 * one
    tiny = write_rows(root / "tiny", 1)
    out = server.configs("--batch", "--max-cost", "0.000001", root=tiny.root, code=4)
    assert "above --max-cost" in out["error"]


def test_a_direct_run_leaves_alone_what_waits_in_a_batch(server: Provider, root: Path) -> None:
    workspace = write_rows(root, 2)
    server.configs()
    write_rows(root, 4)
    mixed = server.configs("--yes")
    assert (mixed["done"], mixed["pending"]) == (2, 4)
    assert len(server.direct) == 4
    server.finish()
    assert server.configs("--yes")["pending"] == 0
    assert done(workspace) == 4
    assert len(server.direct) == 4
    assert set(server.asked.values()) == {1}


def test_status_lists_what_is_open_and_batches_cancels_it(server: Provider, root: Path) -> None:
    write_rows(root, 2)
    assert here("status", "--root", str(root), "--json").json()["batches"] == []
    server.configs()
    (batch,) = here("status", "--root", str(root), "--json").json()["batches"]
    assert (batch["stage"], batch["questions"], batch["state"]) == ("configs", 4, "open")
    assert batch["worst_usd"] > 0
    table = here("status", "--root", str(root)).stdout
    assert all(shown in table for shown in (batch["tag"], "0 of 4", "0 min", f"${batch['worst_usd']:.4f}")), table
    env = {**ENV, "LSDATA_LLM__API_BASE": server.address}
    unknown = here("batches", "--root", str(root), "--cancel", "nothing", env=env)
    assert (unknown.returncode, "nothing is open" in unknown.stderr) == (2, True)
    out = here("batches", "--root", str(root), "--cancel", batch["tag"], "--json", env=env, code=0)
    assert [one["remote_status"] for one in out.json()] == ["cancelling"]
    assert server.batches["batch_1"].status == "cancelling"


def test_a_refused_submission_is_forgotten_and_a_batch_that_failed_whole_says_why(server: Provider, root: Path) -> None:
    write_rows(root, 1)
    server.refuse = (401, {"error": {"message": "bad key", "code": "invalid_api_key"}})
    assert "bad key" in server.configs(code=3)["error"]
    server.refuse = None
    server.end_status, server.ends = "failed", True
    server.configs()
    assert "model not allowed in batches" in server.configs(code=2)["error"]
    server.end_status = "completed"
    server.configs()
    assert server.configs()["done"] == 1


@pytest.mark.parametrize(
    ("status", "kind", "code"), [(401, "authentication_error", 3), (400, "invalid_request_error", 2)]
)
def test_a_submission_that_anthropic_refuses_says_why(status: int, kind: str, code: int, root: Path) -> None:
    write_rows(root, 1)
    with AnthropicBatchServer(config_reply()) as server:
        server.refuse = (status, {"type": "error", "error": {"type": kind, "message": "not like this"}})
        env = {"ANTHROPIC_API_KEY": "sk-ant-loopback", "ANTHROPIC_BASE_URL": server.url}
        out = here(*generate(root, CLAUDE, "--batch", "--max-cost", "5"), env=env, code=code)
    assert f"({status})" in out.json()["error"]
    assert "not like this" in out.json()["error"]


def test_a_model_without_batches_is_refused_before_anything_is_sent(root: Path) -> None:
    write_rows(root, 1)
    ask = ("configs", "--root", str(root), "--model", "gemini/gemini-2.5-flash", "--batch", "--max-cost", "1")
    for options in ((), ("--dry-run",)):
        assert "no batch API" in here(*ask, *options, env={"GEMINI_API_KEY": "k"}, code=2).stderr
    typed = here("configs", "grey rain", "--batch")
    assert (typed.returncode, "cannot be answered in batches" in typed.stderr) == (2, True)


def test_anthropics_message_batches_carry_the_same_question_and_their_own_price(root: Path) -> None:
    workspace = write_rows(root, 2)
    with AnthropicBatchServer(config_reply(), ends=True) as server:
        env = {"ANTHROPIC_API_KEY": "sk-ant-loopback", "ANTHROPIC_BASE_URL": server.url}
        ask = generate(root, CLAUDE, "--batch", "--max-cost", "5")
        assert here(*ask, env=env, code=0).json()["pending"] == 4
        last = here(*ask, env=env).json()
        assert (last["pending"], last["done"], last["calls"]) == (0, 2, 4)
        assert server.headers[0]["x-api-key"] == "sk-ant-loopback"
        (sold,) = server.batches.values()
        assert "custom_id" in sold.requests[0]
        assert sold.requests[0]["max_tokens"] == 3000
        assert "json_mode" not in sold.requests[0]
        write_rows(root, 3)
        assert here(*ask, env=env).json()["pending"] == 2
        betas = [one.get("anthropic-beta", "") for one in server.headers if one.get("content-type")]
        assert len(betas) == 2
        assert all("structured-outputs" in beta for beta in betas)
    # 1000 tokens in and 500 out, at half of $1 and $5 per million.
    assert spent(workspace).cost_usd == pytest.approx(4 * (1000 * 0.5e-6 + 500 * 2.5e-6))


def test_lines_of_message_batches_may_fail_one_by_one(root: Path) -> None:
    """One busy, one refused for good, one expired, one cancelled; the two others are kept, in another order and twice."""
    workspace = write_rows(root, 3)
    with AnthropicBatchServer(config_reply(), ends=True) as server:
        env = {"ANTHROPIC_API_KEY": "sk-ant-loopback", "ANTHROPIC_BASE_URL": server.url}
        ask = generate(root, CLAUDE, "--batch", "--wait", "--max-cost", "5")
        ends: list[Body] = [
            {"type": "errored", "error": {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}},
            {
                "type": "errored",
                "error": {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}},
            },
            {"type": "expired"},
            {"type": "canceled"},
        ]

        def change(lines: list[Body]) -> list[Body]:
            if len(lines) < 6:
                return lines
            return [
                *lines[:3:-1],
                *lines[4:],
                *({**line, "result": end} for line, end in zip(lines, ends, strict=False)),
            ]

        server.change = change
        said = here(*ask, env=env, code=1).json()
        assert (said["pending"], said["done"], said["short"]) == (0, 3, 1)
    assert [len(sold.requests) for sold in server.batches.values()] == [6, 3]
    assert spent(workspace).calls == 5


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "model", "key", "address"),
    [
        (OpenAIBatchServer, "groq/llama-3.3-70b-versatile", "GROQ_API_KEY", "GROQ_API_BASE"),
        (AzureBatchServer, "azure/my-deployment", "AZURE_API_KEY", "AZURE_API_BASE"),
        (TogetherBatchServer, "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo", "TOGETHERAI_API_KEY", "TOGETHER_AI_API_BASE"),
    ],
)  # fmt: skip
def test_groq_azure_and_together_are_asked_at_their_own_address(
    kind: type[OpenAIBatchServer], model: str, key: str, address: str, root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    workspace = write_rows(root, 3)
    monkeypatch.setattr(remote, "FILE_POLL_SECONDS", 0.01)
    with kind(config_reply()) as server:
        place = server.url if kind is AzureBatchServer else server.address
        env = {**PRICES, address: place, key: "sk-loopback", "AZURE_API_VERSION": "2024-10-21"}
        ask = generate(root, model, "--batch", "--max-cost", "5")
        without_key = here(*ask, "--dry-run", env={name: value for name, value in env.items() if name != key})
        assert (without_key.returncode, key.partition("_")[0] in without_key.stderr) == (3, True), without_key.stderr
        assert here(*ask, env=env, code=0).json()["pending"] == 6
        (sold,) = server.batches.values()
        of_openai = {"custom_id", "model", "messages", "temperature", "top_p", "max_tokens", "seed", "response_format"}
        of_openai |= {"tools", "tool_choice"}  # how a model is asked that takes no schema
        assert all(body.keys() <= of_openai for body in sold.requests), sold.requests[0].keys()
        assert {body["model"] for body in sold.requests} == {model.partition("/")[2]}
        cancelled = here("batches", "--root", str(root), "--cancel", "all", "--json", env=env)
        said = "in_progress, 50 %" if kind is TogetherBatchServer else "cancelling"
        assert [one["remote_status"] for one in cancelled.json()] == [said]
        assert [sold.status for sold in server.batches.values()] == ["cancelling"]
        # Four lines were answered before it was cancelled.
        server.change = lambda lines: lines[:4] if len(lines) > 2 else lines
        server.finish("cancelled")
        server.ends = True
        assert here(*ask, env=env).json()["pending"] == 2
        last = here(*ask, env=env).json()
        assert (last["pending"], done(workspace), spent(workspace).calls) == (0, 3, 6)
        assert sorted(server.asked.values()) == [1, 1, 1, 1, 2, 2], (
            "what was not answered is asked again, and nothing else"
        )
        assert server.direct == []


def test_what_an_interrupted_run_has_uploaded_is_deleted_at_the_provider(server: Provider, root: Path) -> None:
    write_rows(root, 1)
    server.refuse = (400, {"error": {"message": "not now"}})
    server.configs(code=2)
    assert server.files == {}


def test_vibes_and_run_all_wait_for_their_batches(server: Provider, root: Path) -> None:
    workspace = Workspace(root)
    replace_rows(workspace.texts("moby-dick"), [make_text(n, text=f"Rain fell on house {n}. " * 30) for n in range(3)])
    config = config_reply()

    def reply(body: Body) -> str:
        if body["response_format"]["json_schema"]["name"] == "TextVibes":
            return vibes_for(str(body["messages"][1]["content"]), max_vibes=1).model_dump_json()
        return str(config(body))

    server.reply_to = reply
    env = {
        **ENV,
        "LSDATA_LLM__API_BASE": server.address,
        "LSDATA_LLM__MODEL": MODEL,
        "LSDATA_LLM__BATCH": "true",
        "LSDATA_CONFIGS__N": "1",
        "LSDATA_SCORING__SECONDS": "0.5",
        "LSDATA_SCORING__SCORERS": '["acoustic"]',
    }
    run_all = ("run-all", "--root", str(root), "--from", "vibes", "--until", "configs", "--yes", "--json")
    first = here(*run_all, env=env).json()
    assert [(one["stage"], one["pending"]) for one in first["stages"]] == [("vibes", 3)]
    assert not workspace.vibe_files(), "nothing goes on before the answers are there"
    alone = here("vibes", "--root", str(root), "--yes", "--json", env=env).json()
    assert (alone["pending"], len(server.batches)) == (3, 1)

    server.finish()
    asked_for_configs = here(*run_all, env=env).json()
    stages = [(one["stage"], bool(one["pending"])) for one in asked_for_configs["stages"]]
    assert stages == [("vibes", False), ("configs", True)]


@pytest.mark.long
def test_bench_waits_for_its_hosted_sources_and_compares_when_all_have_answered(server: Provider, root: Path) -> None:
    ask = (
        "bench", "--root", str(root), "--suite", "short", "--limit", "3", "--source", f"litellm:{MODEL}=mini",
        "--source", "baseline:random", "--scorer", "acoustic", "--seconds", "0.5", "--api-base", server.address,
        "--batch", "--yes", "--json",
    )  # fmt: skip
    assert here(*ask, env=ENV, code=0).json()["pending"] == 3
    assert not list(root.rglob("report.html"))
    server.finish()
    found = here(*ask, env=ENV, code=0).json()
    assert (found["pending"], found["calls"]) == (0, 3)
    assert found["cost_usd"] == pytest.approx(spent(Workspace(root)).cost_usd)
    assert len(list(root.rglob("report.html"))) == 1
    assert len(server.batches) == 1


def test_a_damaged_record_keeps_what_it_can(server: Provider, root: Path) -> None:
    workspace = write_rows(root, 2)
    server.configs()
    record = workspace.llm_cache.with_name(FILE_NAME)
    with sqlite3.connect(record) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("DROP TABLE refusals")
        db.execute("CREATE TABLE refusals (other TEXT)")
    db.close()
    server.finish()
    found = server.configs()
    assert (found["pending"], found["done"], len(server.batches)) == (0, 2, 1)


def test_a_batch_that_the_provider_no_longer_knows_is_asked_again(server: Provider, root: Path) -> None:
    write_rows(root, 1)
    server.configs()
    server.batches.clear()
    server.ends = True
    again = server.configs()
    assert "no longer has" in again["said"]
    assert again["pending"] == 2
    assert server.configs()["done"] == 1


def test_waiting_goes_on_when_the_provider_is_busy_for_a_moment(
    server: Provider, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(root, 1)
    monkeypatch.setattr(remote, "RETRIES", 0)
    monkeypatch.setenv("LSDATA_LLM__BATCH_POLL_SECONDS", "0.05")
    polls = iter(range(100))

    def busy_then_done() -> bool:
        number = next(polls)
        if number == 3:
            server.finish()
        return number in (0, 1)

    server.busy = busy_then_done
    found = server.configs("--batch", "--wait")
    assert (found["done"], found["pending"]) == (1, 0)
    assert found["said"].count("asking again") == 2
