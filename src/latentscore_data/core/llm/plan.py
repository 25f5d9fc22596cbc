"""The plan of a run: its calls, tokens and cost, estimated without calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache

import orjson
from pydantic import BaseModel

from latentscore import MusicConfig
from latentscore.config import PALETTE_COUNT
from latentscore.json_search import JsonObject
from latentscore.labels import PALETTE_WEIGHTS
from latentscore_data.core.base.answerers import BUILTIN, HOSTED, kind_of
from latentscore_data.core.base.rows import LEVELS
from latentscore_data.core.base.settings import LLMSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.batch_state import questions_in_flight
from latentscore_data.core.llm.cache import AnswerCache
from latentscore_data.core.llm.client import ModelClient
from latentscore_data.core.llm.extraction import read_texts
from latentscore_data.core.llm.prices import Price, price_of
from latentscore_data.core.llm.routes import load_litellm
from latentscore_data.core.llm.types import Question


def example_answer() -> str:
    """Return a config answer of typical length, for estimates without previous answers."""
    colors = [{"hex": "#1B2A41", "weight": weight} for weight in PALETTE_WEIGHTS[1:]]
    answer = {
        "thinking": "The vibe is damp and slow, so the pulse is faint, the room is large and the light is low. " * 3,
        "title": "Rain On A Tin Roof",
        "config": MusicConfig().to_prompt().model_dump(),
        "palettes": [{"colors": colors}] * PALETTE_COUNT,
    }
    return orjson.dumps(answer).decode()


@dataclass
class Plan:
    """Calls and money of a run. ``cost_usd`` is None when the price of the model is unknown."""

    model: str
    rows: int = 0
    calls: int = 0
    cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0
    worst_usd: float | None = 0.0
    basis: str = ""
    in_batches: int = 0
    """Number of questions in open provider batches, which are already paid for."""
    batch: bool = False
    """True when the calls go to the provider's batch API."""
    price: str = ""
    """Price per million tokens with its source and date; empty for an unknown one."""

    @property
    def spends(self) -> bool:
        """True if the run would make calls that cost money or may cost money."""
        return self.calls > 0 and self.cost_usd != 0.0

    def times(self, count: int, basis: str) -> Plan:
        """Return this plan multiplied by ``count``; ``basis`` describes the source of the count."""
        cost, worst = (None if usd is None else usd * count for usd in (self.cost_usd, self.worst_usd))
        return Plan(
            self.model, count, self.calls * count, 0, self.tokens_in * count, self.tokens_out * count, cost, worst,
            f"{basis}; {self.basis}", 0, self.batch, self.price,
        )  # fmt: skip

    def to_dict(self) -> JsonObject:
        return asdict(self)


def make_plan(
    model: str,
    rows: Iterable[list[Question]],
    answer_type: type[BaseModel],
    example: str,
    settings: LLMSettings,
    workspace: Workspace,
    per_call: int = 1,
) -> Plan:
    """The plan for rows of questions.

    Tokens in are measured in the prompts with the model's tokenizer (or the nearest one litellm has). Tokens out are the
    mean of this model's answers of that type in the cache; where there are none, those of ``example``.
    """
    plan = Plan(model, batch=settings.batch and kind_of(model) is HOSTED)
    if kind_of(model) is BUILTIN:
        for questions in rows:
            plan.rows += 1
            plan.calls += len(questions)
        plan.basis = "runs on this machine"
        return plan
    answers = AnswerCache(workspace.llm_cache) if workspace.llm_cache.exists() else None
    llm = ModelClient(model, settings, cache=answers, runs=workspace.train_dir)

    @cache
    def tokens(text: str) -> int:
        return int(load_litellm().token_counter(model=model, text=text))

    longest = 0
    asked: set[str] = set()
    in_batches = questions_in_flight(workspace.llm_cache)
    per_call = 1 if plan.batch else per_call
    for questions in rows:
        plan.rows += 1
        for question in questions:
            key = llm.key(question, answer_type)
            if key in in_batches:
                plan.in_batches += 1
                continue
            if key in asked or (answers is not None and answers.has(key)):
                plan.cached += 1
                continue
            asked.add(key)
            plan.calls += 1
            # A packed call contains the system message once.
            plan.tokens_in += tokens(question.system) // per_call + tokens(str(question.user))
            longest += question.max_tokens or 4096
    known = answers.mean_tokens_out(model, answer_type.__name__) if answers is not None else None
    if answers is not None:
        answers.close()
    if not plan.calls:
        plan.basis = "all answers are in the cache" + (" or in open batches" if plan.in_batches else "")
        return plan
    plan.tokens_out = round((known if known is not None else tokens(example)) * plan.calls)
    out = "mean of this model's answers so far" if known is not None else "a typical answer"
    _put_price(plan, price_of(model, settings, batch=plan.batch), longest, out)
    return plan


def _put_price(plan: Plan, price: Price | None, longest: int, out: str) -> None:
    """Set the cost of a plan with known tokens; ``longest`` is the maximum answer tokens, ``out`` the basis of the estimate."""
    if price is None:
        plan.cost_usd = plan.worst_usd = None
        plan.basis = f"the price of {plan.model} is unknown; tokens measured in the prompts, answers as {out}"
    else:
        plan.cost_usd = price.of(plan.tokens_in, plan.tokens_out)
        plan.worst_usd = price.of(plan.tokens_in, longest)
        plan.price = price.in_words()
        plan.basis = f"{price.source}; tokens measured in the prompts, answers as {out}"


def expected_texts(settings: Settings, workspace: Workspace, *, new_texts: bool) -> tuple[int, str]:
    """Return the number of texts that ``vibes`` will read, and the basis: the existing ones, or the number that
    ``download`` will fetch if there are none or if ``new_texts`` are expected."""
    there = 0 if new_texts else sum(1 for _ in read_texts(workspace.text_files(), settings.vibes.limit))
    if there:
        return there, f"{there:,} texts"
    wanted = len(settings.download.datasets) * settings.download.sample_size
    wanted = min(wanted, settings.vibes.limit or wanted)
    return wanted, f"{wanted:,} texts by the settings of download, each with vibes.max_input_words words"


def expected_vibes(settings: Settings, workspace: Workspace, *, new_texts: bool) -> tuple[int, str]:
    """Return the maximum number of rows that ``configs`` will get from vibes that do not exist yet, and the basis."""
    texts, basis = expected_texts(settings, workspace, new_texts=new_texts)
    each = settings.vibes.max_vibes * len(LEVELS) * (2 if settings.vibes.characters else 1)
    rows = min(texts * each, settings.configs.limit or texts * each)
    return rows, f"at most {rows:,} vibes, before near-duplicates are dropped ({basis})"


def added_up(plans: Sequence[Plan]) -> Plan:
    """Return the sum of several plans, with the model and rows of the first; the cost is None if one is unknown."""
    if not plans:
        return Plan("")
    return replace(
        plans[0],
        calls=sum(plan.calls for plan in plans),
        cached=sum(plan.cached for plan in plans),
        tokens_in=sum(plan.tokens_in for plan in plans),
        tokens_out=sum(plan.tokens_out for plan in plans),
        cost_usd=_sum([plan.cost_usd for plan in plans]),
        worst_usd=_sum([plan.worst_usd for plan in plans]),
        basis="; ".join(plan.basis for plan in plans),
        in_batches=sum(plan.in_batches for plan in plans),
    )


def _sum(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
