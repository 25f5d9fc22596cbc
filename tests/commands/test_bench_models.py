"""lsdata bench with hosted models, through the real client and a loopback server."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench_fakes import make_rows
from conftest import here
from factories import make_vibe
from forked import begin, kill, wait_until
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.ledger import totals
from latentscore_data.core.base.rows import BenchRow
from latentscore_data.core.base.workspace import Workspace
from servers import Body, ChatServer, config_reply

pytestmark = pytest.mark.long  # the client alone takes seconds to import

MODEL = "openai/gpt-4o-mini"
QUICK = ("--scorer", "acoustic", "--seconds", "1", "--workers", "1")


def write_rows(root: Path, count: int) -> None:
    """TEST rows, the third of which is a vibe that no model answers as it should."""
    rows = make_rows(count, 1)
    vibes = [f"bright rain, number {i}" if i != 2 else "unspeakable rain" for i in range(count)]
    changed = [row.model_copy(update={"vibe_original": vibe}) for row, vibe in zip(rows, vibes, strict=True)]
    replace_rows(Workspace(root).scored("TEST"), [row.model_dump(mode="json") for row in changed])


def reply(body: Body) -> str:
    return "I would rather not." if "unspeakable" in json.dumps(body["messages"]) else answers(body)


answers = config_reply()


def command(root: Path, url: str, name: str) -> list[str]:
    sources = ["--source", f"litellm:{MODEL}=mini", "--source", "baseline:random"]
    # Every address of this machine leads to the server; one that is not a loopback address costs what the list says.
    base = url.replace("127.0.0.1", "0.0.0.0")
    return ["bench", "--root", str(root), *QUICK, *sources, "--api-base", base, "--name", name, "--yes", "--json"]


def bench(root: Path, server: ChatServer, name: str, *more: str) -> dict[str, Any]:
    out = here(*command(root, server.url, name), *more)
    assert out.returncode in (0, 1), out.output
    return out.json()


def results(root: Path, name: str) -> dict[str, BenchRow]:
    """The model's results by vibe."""
    path = Workspace(root).bench_dir / name / "results.jsonl"
    rows = [BenchRow.model_validate_json(line) for line in path.read_text("utf-8").splitlines()]
    return {row.vibe_original: row for row in rows if row.source == "mini"}


def test_a_hosted_model_s_answers_failures_tokens_and_cost(root: Path) -> None:
    write_rows(root, 4)
    with ChatServer(reply) as server:
        messages = bench(root, server, "first")
        found = results(root, "first")
        assert [row.valid for row in found.values()] == [True, True, False, True]
        spoilt = found.pop("unspeakable rain")
        assert str(spoilt.failure).startswith("no valid answer: ")
        assert spoilt.scores == {}
        for row in found.values():
            assert row.scores["acoustic"]
            assert (row.tokens_in or 0) > 100
            assert (row.tokens_out or 0) > 100
            assert row.cost_usd == pytest.approx(0.15e-6 * (row.tokens_in or 0) + 0.6e-6 * (row.tokens_out or 0))
            assert (row.generate_seconds or 0) > 0

        table = json.loads((Workspace(root).bench_dir / "first" / "summary.json").read_text())
        mini = next(source for source in table["sources"] if source["label"] == "mini")
        assert (mini["valid"], mini["success_rate"]) == (3, 0.75)
        assert list(mini["failures"].values()) == [1]
        assert mini["cost_usd"] == pytest.approx(sum(row.cost_usd or 0 for row in found.values()))
        # The answers that could not be used were paid for, too: the run and the ledger know of them.
        booked = totals(Workspace(root).ledger)["bench", MODEL]
        assert booked.calls == messages["calls"] == len(server.received) > 4
        assert messages["cost_usd"] == pytest.approx(booked.cost_usd)
        assert booked.cost_usd > mini["cost_usd"]

        asked = len(server.received)
        again = bench(root, server, "first")
        assert (again["calls"], again["skipped"], len(server.received)) == (0, 8, asked)

        anew = bench(root, server, "second")
        assert anew["cached"] == 3
        assert {vibe_of(r.body) for r in server.received[asked:]} <= {"unspeakable rain"}
        assert [row.scores for row in results(root, "second").values() if row.valid] == [
            r.scores for r in found.values()
        ]


def test_another_server_answers_the_same_comparison_anew(root: Path) -> None:
    write_rows(root, 2)
    with ChatServer(reply) as one, ChatServer(reply) as other:
        for server in (one, other, one):
            bench(root, server, "where")
        assert (len(one.received), len(other.received)) == (2, 2)


def test_what_a_judge_says_is_scored_booked_and_not_asked_twice(root: Path) -> None:
    def judged(body: Body) -> str:
        return json.dumps({"reasoning": "rain", "vibe_match": 0.5, "audio_quality": 1.0})

    write_rows(root, 3)
    options = ["bench", "--root", str(root), "--seconds", "1", "--workers", "1", "--source", "baseline:random"]
    options += ["--scorer", "judge:openai/gpt-4o", "--yes", "--json"]
    with ChatServer(judged) as server:
        base = server.url.replace("127.0.0.1", "0.0.0.0")
        messages = []
        for name in ("one", "two"):
            out = here(*options, "--api-base", base, "--name", name, code=0)
            messages.append(out.json())
            asked = len(server.received)
    booked = totals(Workspace(root).ledger)["judge", "openai/gpt-4o"]
    # Each answer against its own vibe and another's, and each row's candidates.
    assert asked == booked.calls == messages[0]["calls"] > 6
    assert messages[0]["cost_usd"] == pytest.approx(booked.cost_usd)
    assert booked.cost_usd > 0
    assert (messages[1]["calls"], messages[1]["cost_usd"]) == (0, 0.0)
    table = json.loads((Workspace(root).bench_dir / "one" / "summary.json").read_text())
    (source,) = table["sources"]
    assert source["scores"]["judge:openai/gpt-4o"]["mean"] == pytest.approx(2 / 3)


def test_the_chain_s_plan_knows_what_sources_and_judges_cost_and_that_it_cannot_know_yet(root: Path) -> None:
    from latentscore_data.core.base.settings import load_settings
    from latentscore_data.core.stages.bench import estimate

    settings = load_settings(
        bench={"sources": ["baseline:random", "litellm:openai/gpt-4o-mini"]},
        scoring={"scorers": ["judge:openai/gpt-4o"]},
    )
    early = estimate(settings, Workspace(root))
    assert (early.cost_usd, early.calls) == (None, 0)
    assert "there are no TEST rows" in early.basis
    write_rows(root, 4)
    known = estimate(settings, Workspace(root))
    assert known.calls == 4 + (4 * 3 + 8)
    assert known.cost_usd is not None
    assert known.cost_usd > 0.01
    free = load_settings(bench={"sources": ["baseline:random"]}, scoring={"scorers": ["acoustic"]})
    assert estimate(free, Workspace(root / "nowhere")).cost_usd == 0


def test_the_chain_s_plan_counts_the_judge_of_configs_too(root: Path) -> None:
    from latentscore_data.core.base.settings import load_settings
    from latentscore_data.core.stages.configs import estimate

    replace_rows(Workspace(root).vibes("TEST"), [make_vibe(n, vibe=f"vibe {n}", split="TEST") for n in range(3)])
    hosted = {"model": "openai/gpt-4o-mini", "n": 2}
    asked = estimate(load_settings(configs=hosted, scoring={"scorers": ["acoustic"]}), Workspace(root))
    judged = estimate(load_settings(configs=hosted, scoring={"scorers": ["judge:openai/gpt-4o"]}), Workspace(root))
    assert (asked.calls, judged.calls) == (3 * 2, 3 * 2 + 3 * 2)
    assert judged.cost_usd is not None
    assert asked.cost_usd is not None
    assert judged.cost_usd > asked.cost_usd > 0


def test_one_cap_holds_for_every_source_and_the_judge(root: Path) -> None:
    write_rows(root, 3)
    with ChatServer(answers) as server:
        base = server.url.replace("127.0.0.1", "0.0.0.0")
        sources = [f"--source=litellm:openai/{model}" for model in ("gpt-4o", "gpt-4o-2024-11-20")]
        options = ["bench", "--root", str(root), *QUICK, *sources, "--api-base", base, "--name", "capped"]
        assert "over --max-cost 0.054" in here(*options, "--max-cost", "0.054", "--max-concurrency", "1", code=4).output
        booked = totals(Workspace(root).ledger)
        assert booked["bench", "openai/gpt-4o"].calls == 3
        assert sum(usage.cost_usd for usage in booked.values()) <= 0.054


def vibe_of(body: Body) -> str:
    """The vibe that a request asks about."""
    text = json.dumps(body["messages"])
    return next(
        (v for v in ("unspeakable rain", *(f"bright rain, number {i}" for i in range(40))) if f">{v}<" in text), text
    )


def test_a_run_that_was_killed_asks_only_what_it_has_no_answer_to(root: Path) -> None:
    write_rows(root, 10)
    with ChatServer(answers, delay_seconds=0.3) as server:
        options = [*command(root, server.url, "killed"), "--max-concurrency", "2"]
        process = begin(*options)
        wait_until(lambda: len(server.received) >= 5, process)
        kill(process)
        assert process.returncode == -signal.SIGKILL
        stored = Workspace(root).bench_dir / "killed" / "answers" / "mini.jsonl"
        kept = [json.loads(line)["row_id"] for line in stored.read_text().splitlines() if line.endswith("}")]
        assert 2 <= len(kept) < 10
        before = len(server.received)
        messages = bench(root, server, "killed", "--max-concurrency", "2")
        assert messages["done"] == 20
        counts = Counter(vibe_of(request.body) for request in server.received)
    # Two were under way when it died.
    assert len(counts) == 10
    assert counts.total() <= 12
    assert len(server.received) - before <= 10 - len(kept)
    assert all(row.valid and row.scores for row in results(root, "killed").values())


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (("--source", "litellm:openai/gpt-4o-mini"), 4),
        # Four answers of one source, the same against other vibes, and two candidates of each row.
        (("--source", "baseline:random", "--scorer", "judge:openai/gpt-4o"), 4 + 4 + 8),
    ],
)
def test_a_model_that_costs_money_is_not_asked_unless_somebody_said_so(
    root: Path, options: tuple[str, ...], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(root, 4)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    out = here("bench", "--root", str(root), *QUICK, *options, code=2)
    assert f"costs money ({calls} calls" in out.output
    assert "no terminal to confirm it" in out.output
    assert len(out.output.strip().splitlines()) == 2
    assert not Workspace(root).ledger.exists()
