"""The real program with prices: the recipe of the README, the cap on a whole run, and what a dry run ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import here
from factories import make_vibe
from latentscore_data.core.base.errors import StoppedError
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.ledger import SpendTracker, totals
from latentscore_data.core.base.settings import load_settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages.spending import reserve_remote
from price_lists import FLASH, ModelList
from servers import Body, ChatServer, completion, config_reply

UNKNOWN = "openrouter/nobody/knows"


def write_rows(root: Path, count: int) -> Workspace:
    workspace = Workspace(root)
    replace_rows(workspace.vibes("SFT-Train"), [make_vibe(n, vibe=f"rain on house {n}") for n in range(count)])
    return workspace


@pytest.mark.parametrize(
    ("options", "env", "code"),
    [
        (("--model", FLASH, "--max-cost", "1"), {"OPENROUTER_API_KEY": "k"}, 0),
        (("--model", FLASH, "--max-cost", "1"), {}, 3),
        (("--model", UNKNOWN, "--max-cost", "1"), {"OPENROUTER_API_KEY": "k"}, 4),
        (("--model", "rubbish/model", "--max-cost", "1"), {}, 2),
        (("--model", FLASH, "--scorer", f"judge:{UNKNOWN}", "--max-cost", "1"), {"OPENROUTER_API_KEY": "k"}, 4),
    ],
)
def test_a_dry_run_shows_the_plan_and_exits_as_the_run_would(
    root: Path, options: tuple[str, ...], env: dict[str, str], code: int
) -> None:
    write_rows(root, 2)
    plan = here("configs", "--root", str(root), *options, "--dry-run", "--json", env=env, code=code).json()
    assert plan["dry_run"]
    assert plan["calls"] == 10
    assert plan.get("exit_code", 0) == code
    if code:
        assert plan["error"] in here("configs", "--root", str(root), *options, env=env, code=code).stderr


def test_a_dry_run_of_a_search_plans_its_judge_as_the_run_does_and_says_that_judges_are_asked_directly(
    root: Path,
) -> None:
    write_rows(root, 2)
    prices = {"*": {"input": 1.0, "output": 4.0}}
    env = {"OPENAI_API_KEY": "k", "LSDATA_LLM__PRICES": json.dumps(prices)}
    ask = (
        "configs", "--root", str(root), "--n", "2", "--scorer", "acoustic", "--search", "40", "--judge",
        "judge:openai/gpt-audio", "--batch",
    )  # fmt: skip
    (judge,) = here(*ask, "--dry-run", "--json", env=env).json()["judges"]
    assert f"openai/gpt-audio costs money ({judge['calls']} calls" in here(*ask, env=env, code=2).stderr
    assert judge["calls"] > 2 * 2
    assert "judges are called directly, at the full price; your price" in judge["basis"]


def test_a_fetched_list_prices_the_plan_with_its_date(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(root, 1)
    with ModelList() as listing:
        monkeypatch.setenv("OPENROUTER_API_BASE", f"{listing.url}/api/v1")
        said = here("doctor", "--root", str(root), "--fetch", "prices", code=0)
    assert "2 models" in said.stderr
    ask = ("configs", "--root", str(root), "--model", FLASH, "--max-cost", "1", "--dry-run", "--json")
    plan = here(*ask, env={"OPENROUTER_API_KEY": "k"}).json()
    assert "$0.5 in, $3 out per million tokens (OpenRouter's model list, 20" in plan["price"]
    monkeypatch.setenv("OPENROUTER_API_BASE", "http://127.0.0.1:9/api/v1")
    here("doctor", "--root", str(root), "--fetch", "prices", code=3)


def test_the_cost_that_the_provider_reports_is_what_the_ledger_books_and_the_cap_counts(root: Path) -> None:
    workspace = write_rows(root, 12)
    answer = config_reply()

    def reply(body: Body) -> Body:
        found = completion(str(answer(body)), body)
        found["usage"]["cost"] = 0.30
        return found

    with ChatServer(reply) as server:
        out = here(
            "configs", "--root", str(root), "--only", "generate", "--n", "1", "--model", "openrouter/google/gemini-2.5-flash",
            "--max-cost", "1", "--max-concurrency", "1",
            env={"OPENROUTER_API_BASE": server.url, "OPENROUTER_API_KEY": "k"}, code=4
        )  # fmt: skip
    assert "--max-cost 1" in out.stderr
    (usage,) = totals(workspace.ledger).values()
    assert usage.cost_usd == pytest.approx(0.30 * len(server.received))
    assert len(server.received) == 4, "three answers fit, and a fourth one, whose report was not foreseen"


def test_one_cap_holds_for_models_and_containers_together() -> None:
    settings = load_settings(llm={"max_cost": 5.0})
    spend = SpendTracker()
    reserve_remote(settings, 3.0, spend)
    spend.spent += 1.5
    with pytest.raises(StoppedError, match=r"up to \$1\.00 .* \$0\.50 of --max-cost 5"):
        reserve_remote(settings, 1.0, spend)


def test_run_all_plans_with_the_same_cap_and_the_same_error(root: Path) -> None:
    write_rows(root, 1)
    ask = (
        "run-all", "--root", str(root), "--from", "configs", "--until", "configs", "--max-cost", "1", "--dry-run", "--json",
    )  # fmt: skip
    env = {"OPENROUTER_API_KEY": "k", "LSDATA_SCORING__SCORERS": '["acoustic"]'}
    assert "llm.prices" in here(*ask, env={**env, "LSDATA_LLM__MODEL": UNKNOWN}, code=4).json()["missing"][0]
    here(*ask, env={**env, "LSDATA_LLM__MODEL": FLASH}, code=0)
