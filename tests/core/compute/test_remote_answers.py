"""A local model that answers on Modal: the answers, keys and bookings of the run here, and what stops it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field

from conftest import needs
from factories import make_text, make_vibe
from latentscore_data.core.base.errors import InputError, StoppedError
from latentscore_data.core.base.jsonl import read_lines, replace_rows
from latentscore_data.core.base.ledger import Ledger, SpendTracker
from latentscore_data.core.base.row_files import RowFiles
from latentscore_data.core.base.settings import LLMSettings, Settings, VibesSettings, load_settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.compute.remote_answers import answers_estimates, engine_elsewhere
from latentscore_data.core.llm.client import connect
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.llm.types import Question
from latentscore_data.core.stages.base import RunContext
from latentscore_data.core.stages.configs import remote_estimates
from latentscore_data.core.stages.spending import confirm_remote_jobs
from latentscore_data.core.stages.vibes import run_vibes

if TYPE_CHECKING:
    from modal_loopback import LoopbackModal

pytestmark = needs("modal")

TINY = "local:tiny-random"


class Word(BaseModel):
    word: str = Field(max_length=12)


def modal_settings(**changes: Any) -> Settings:
    return load_settings(train={"modal": {"shard_rows": 2, "price_per_hour": 36.0, **changes}})


def ask(cache: Path, ledger: Path, *, on: str) -> list[Any]:
    executor = make_executor(on, modal_settings(), print)
    engine = engine_elsewhere(TINY, executor, cache.parent)
    assert (engine is None) == (on == "here")

    async def run() -> list[Any]:
        llm = connect(
            TINY, LLMSettings(), cache_path=cache, ledger=Ledger(ledger), stage="test", runs=cache.parent, engine=engine
        )
        questions = [Question("Answer.", f"say {n}", temperature=1.0, max_tokens=60, seed=n) for n in range(3)]
        try:
            return await asyncio.gather(*(llm.ask(question, Word) for question in questions))
        finally:
            await llm.aclose()

    return asyncio.run(run())


@pytest.mark.ml
@pytest.mark.long
def test_answers_from_modal_are_those_of_this_machine_under_the_same_keys(
    modal: LoopbackModal, tmp_path: Path, one_thread: None
) -> None:
    here = ask(tmp_path / "here.sqlite", tmp_path / "here.jsonl", on="here")
    there = ask(tmp_path / "there.sqlite", tmp_path / "there.jsonl", on="modal")
    assert [answer.value for answer in there] == [answer.value for answer in here]
    assert len({answer.value.word for answer in there}) > 1
    shards = [json.loads(text) for name, (text,) in modal.sent if name == "write_shard"]
    assert [len(shard["prompts"]) for shard in shards] == [2, 1], "one batch of three"
    assert shards[0]["grammar"]["properties"].keys() == {"word"}
    # A container of $36 an hour costs a cent a second; each answer has its share of that, and the ledger has the sum.
    costs = [answer.cost_usd for answer in there]
    assert all(cost > 0 for cost in costs)
    booked = [line for _, line in read_lines(tmp_path / "there.jsonl")]
    assert sum(line["cost_usd"] for line in booked) == pytest.approx(sum(costs))
    # What was answered there is known here.
    again = ask(tmp_path / "there.sqlite", tmp_path / "again.jsonl", on="here")
    assert all(answer.cached for answer in again)
    assert len(modal.sent) == len(shards)


def test_the_answers_are_estimated_and_capped_before_anything_is_sent(modal: LoopbackModal, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rows = [make_vibe(n, vibe=f"slow rain {n}") for n in range(5)]
    settings = load_settings(configs={"model": TINY, "n": 2}, train={"modal": {"shard_rows": 2, "max_cost": 1.0}})
    executor = make_executor("modal", settings, print)
    answers, sounds = remote_estimates(rows, settings, RowFiles(workspace), executor)
    assert (answers.what, answers.items, answers.gpu) == (f"answers of {TINY}", 10, "L4")
    assert (sounds.what, sounds.items, sounds.gpu) == ("sounds", 10, None)
    with pytest.raises(StoppedError, match="this work could cost up to"):
        confirm_remote_jobs([answers, sounds], executor, settings, RunContext(yes=True))
    generous = load_settings(configs={"model": TINY}, llm={"max_cost": 1000.0})
    spend = SpendTracker()
    confirm_remote_jobs([answers], executor, generous, RunContext(spend=spend))
    assert spend.spent == 0, "its cost is booked as it arises"
    assert answers_estimates(Plan("openai/gpt-4o", 5, 5), 16, executor) == []
    assert modal.sent == []


def test_a_hosted_model_does_not_go_to_modal(modal: LoopbackModal, tmp_path: Path) -> None:
    settings = Settings(vibes=VibesSettings(model="builtin/keywords"), paths={"root": tmp_path})  # type: ignore[arg-type]
    replace_rows(Workspace(tmp_path).texts("moby-dick"), [make_text(1)])
    with pytest.raises(InputError, match="builtin/keywords answers and words embeds here") as error:
        run_vibes(settings, RunContext(executor=make_executor("modal", settings, print)))
    assert "--model local:NAME" in error.value.remedy


def test_a_folder_of_this_machine_is_refused(modal: LoopbackModal, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which Modal cannot read"):
        engine_elsewhere(f"local:{tmp_path}", make_executor("modal", modal_settings(), print), tmp_path / "runs")
