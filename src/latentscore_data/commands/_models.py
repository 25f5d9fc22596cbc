"""Shared by the commands that call models: the plan of a dry run, and the exit code that the run would have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from latentscore.json_search import JsonObject
from latentscore_data.commands._options import end_dry_run, load
from latentscore_data.core.base.display import OUTPUT, money, print_facts, print_json, print_rows, say
from latentscore_data.core.base.errors import InputError, raised_by
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.llm.batch_state import Batch, age_in_words
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.stages.spending import RunPlan, trust_key_to


def show_dry_run(plan: RunPlan, check: Callable[[], object], *, document: JsonObject | None = None) -> None:
    """Show the plan, then exit as the run would: with the error that ``check`` raises, or with 0.

    ``document`` is the JSON document; by default it is the plan of the only model.
    """
    problem = next(raised_by(check), None)
    if OUTPUT.json:
        found = {"dry_run": True, **(document if document is not None else plan.asked[0].to_dict())}
        if problem is not None:
            found |= {"error": problem.message, "remedy": problem.remedy, "exit_code": problem.exit_code}
        print_json(found)
    else:
        for asked in plan.asked:
            show_plan(asked)
        for job in plan.remote:
            say(job.in_words())
    end_dry_run(problem)


def load_to_ask(calls: Values, asked: Callable[[Settings], Iterable[str]], **given: Values) -> Settings:
    """The settings of a command that calls models; the key that ``--api-key-env`` names may go to the address in them.

    ``asked`` are the names of the models that the command asks. Raises :class:`InputError` where ``--labels`` names another
    one: its answers would be asked for as JSON, and paid for.
    """
    settings = load(**given, llm=calls)
    trust_key_to(settings.llm, calls.get("api_key_env"))
    if typed := calls.get("labels"):
        models = list(dict.fromkeys(asked(settings)))
        if unknown := [name for name in typed if name not in models]:
            whom = ", ".join(models) or "no model behind a server"
            raise InputError(
                f"--labels {unknown[0]}: this command asks {whom}",
                "spell it as the model is spelled in --model or --source",
            )
    return settings


def trusted_scorers(settings: Settings, given: Values, trust_settings: bool) -> frozenset[str]:
    """The scorers whose code may run: those of the flags, and with ``--trust-settings`` those of the settings file."""
    typed = [*given.get("scoring", {}).get("scorers", ())]
    typed += [given.get(section, {}).get("judge") for section in ("search", "improve")]
    of_settings = [*settings.scoring.scorers, settings.search.judge, settings.improve.judge] if trust_settings else []
    return frozenset(name for name in (*typed, *of_settings) if name is not None)


def show_plan(plan: Plan) -> None:
    """The plan of one model as a table."""
    waiting = f", {plan.in_batches:,} in open batches" if plan.in_batches else ""
    facts = {
        "model": plan.model,
        "rows": f"{plan.rows:,}",
        "calls": f"{plan.calls:,} ({plan.cached:,} more in the cache)" + waiting,
        "tokens": f"{plan.tokens_in:,} in, about {plan.tokens_out:,} out",
        "price": plan.price,
        "cost": money(plan.cost_usd) + (f", {money(plan.worst_usd)} at most" if plan.worst_usd else ""),
        "basis": plan.basis,
    }
    print_facts("dry run: nothing is asked, nothing is spent", (fact for fact in facts.items() if fact[1]))


def show_batches(batches: Sequence[Batch]) -> None:
    """Print the open batches, one line each, with the state of the last query."""
    if not batches:
        return
    rows = [
        (
            batch.tag,
            batch.stage,
            batch.model,
            batch.remote_status or batch.state,
            f"{batch.done:,} of {batch.questions:,}",
            f"{batch.failed:,}",
            age_in_words(batch),
            money(batch.worst_usd),
        )
        for batch in batches
    ]
    print_rows(("batch", "stage", "model", "state", "answered", "failed", "age", "at most"), rows, whole=1)
