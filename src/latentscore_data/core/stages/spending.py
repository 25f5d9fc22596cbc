"""The confirmation before money is spent: the model, the estimated cost, and the user's consent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from latentscore_data.core.base.answerers import LOCAL, VERBATIM, kind_of
from latentscore_data.core.base.display import interactive, money, say
from latentscore_data.core.base.errors import InputError, StoppedError
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.secrets import grant
from latentscore_data.core.base.settings import LLMSettings, ModalSettings, Settings
from latentscore_data.core.compute.modal import within_cap
from latentscore_data.core.llm.batches.wording import check_batch
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.llm.prices import unknown_price
from latentscore_data.core.llm.routes import BASE_PROVIDERS, check_route, route_to
from latentscore_data.core.scoring.executor import Executor, RemoteJobEstimate
from latentscore_data.core.stages.base import RunContext


def announce(stage: str, model: str, settings: LLMSettings, on: Executor | None = None) -> None:
    """Print the first line of a run: the model, and the address for calls and key if it is not the provider's."""
    kind = kind_of(model)
    where = f" (on {on.name})" if on is not None and on.remote and kind is LOCAL else kind.said
    if model == VERBATIM:
        where = " (each text is one vibe, as it stands)"
    if not kind.here and settings.api_base:
        parts = urlsplit(settings.api_base)
        host = (parts.hostname or settings.api_base) + (f":{parts.port}" if parts.port else "")
        key = f"the key in {settings.api_key_env}" if settings.api_key_env else "no key"
        where = f" at {host} (sent there: {key})"
    say(f"{stage}: model: {model}{where}")


def trust_key_to(settings: LLMSettings, api_key_env: str | None) -> None:
    """Allow sending the key of ``--api-key-env`` to the address in the settings.

    Raises :class:`InputError` if only a settings file requests sending a key to another machine.
    """
    if api_key_env:
        grant(api_key_env)
    if settings.api_base and settings.api_key_env:
        route_to(f"{BASE_PROVIDERS[0]}/any", settings)


def check_spending(plan: Plan, settings: LLMSettings) -> None:
    """Raise the errors for which a plan is refused before any call; a dry run ends with the same error as the run.

    Raises :class:`InputError` where no provider is known, :class:`MissingError` for a key that is not there, and
    :class:`StoppedError` for a cap on a model whose price is unknown.
    """
    if plan.batch:
        check_batch(plan.model, settings)
    if not plan.spends:
        return
    check_route(plan.model, settings)  # before the cost question: this model cannot be called
    if settings.max_cost is not None and plan.cost_usd is None:
        raise unknown_price(plan.model, settings.max_cost)


@dataclass(frozen=True)
class RunPlan:
    """The model calls of a run, and its work on a remote executor."""

    asked: Sequence[Plan]
    remote: Sequence[RemoteJobEstimate]
    executor: Executor

    def check(self, settings: Settings, spend: SpendTracker) -> None:
        """Raise the errors that would prevent the run's start: a remote executor that cannot be used, a refused plan
        (:func:`check_spending`), a cap. The maximum cost of remote jobs is counted in ``spend``, as in the run."""
        if self.remote:
            self.executor.require()
            count_remote_jobs(self.remote, settings, spend)
        for plan in self.asked:
            check_spending(plan, settings.llm)


def confirm_spending(plan: Plan, settings: LLMSettings, yes: bool) -> None:
    """Ask before money is spent, unless it was allowed with ``--yes`` or bounded with ``--max-cost``.

    Raises what :func:`check_spending` raises, :class:`InputError` without a terminal, and :class:`StoppedError` when
    the answer is no.
    """
    check_spending(plan, settings)
    if not plan.spends or settings.max_cost is not None or yes:
        return
    calls = f"{plan.calls:,} calls, {plan.tokens_in:,} tokens in, about {plan.tokens_out:,} out"
    cost = "at an unknown price" if plan.cost_usd is None else f"about {money(plan.cost_usd)}"
    line = f"{plan.model}: {calls}, {cost} ({plan.basis})"
    agree_to_spend(f"{plan.model} costs money ({calls}, {cost})", [line], "Continue?")


def agree_to_spend(what: str, lines: Iterable[str], question: str) -> None:
    """Show these lines and ask the question. Raises :class:`InputError`, which begins with ``what``, without a terminal, and
    :class:`StoppedError` if the answer is no."""
    if not interactive():
        raise InputError(f"{what} and there is no terminal to confirm it", "pass --yes or --max-cost USD")
    import typer

    for line in lines:
        say(line)
    if not typer.confirm(question, err=True):
        raise StoppedError("nothing was spent", "set a cap with --max-cost USD")


def confirm_remote_jobs(
    remote_estimates: Sequence[RemoteJobEstimate], executor: Executor, settings: Settings, context: RunContext
) -> None:
    """Show the remote work with its estimated time, cost and cap, and ask for confirmation if it costs money.

    Raises :class:`MissingError` where the executor cannot be used, and :class:`StoppedError` above the cap or when the
    answer is no.
    """
    executor.require()
    for remote_estimate in remote_estimates:
        say(remote_estimate.in_words())
    if count_remote_jobs(remote_estimates, settings, context.spend):
        confirm_remote(settings.train.modal, context.yes or settings.llm.max_cost is not None)


def count_remote_jobs(remote_estimates: Sequence[RemoteJobEstimate], settings: Settings, spend: SpendTracker) -> float:
    """Return the maximum cost of remote jobs in US dollars. Costs that are not booked during the run are added to
    ``spend`` now.

    Raises :class:`StoppedError` above a cap.
    """
    most = within_cap(settings.train.modal, sum(one.cap_usd for one in remote_estimates), "this work")
    _within_run(settings, most, spend)
    reserve_remote(settings, sum(one.cap_usd for one in remote_estimates if not one.booked), spend)
    return most


def reserve_remote(settings: Settings, most: float, spend: SpendTracker) -> None:
    """Count remote containers at their maximum cost (time-out x price) towards the cap on the whole run.

    They cannot be stopped at an amount, so :class:`StoppedError` is raised if they could exceed the cap.
    """
    _within_run(settings, most, spend)
    spend.spent += most


def _within_run(settings: Settings, most: float, spend: SpendTracker) -> None:
    cap, spent = settings.llm.max_cost, spend.spent
    if cap is not None and spent + most > cap + 1e-12:
        raise StoppedError(
            f"containers on Modal could cost up to ${most:.2f} (time-out x price), and ${max(0.0, cap - spent):.2f} of "
            f"--max-cost {cap:g} are left",
            "raise --max-cost, or lower train.modal.timeout_hours",
        )


def confirm_remote(modal: ModalSettings, yes: bool) -> None:
    """Ask before paid containers are started, unless ``--yes`` or ``train.modal.max_cost`` is given.

    Raises :class:`StoppedError` without a terminal, or if the answer is no.
    """
    if yes or modal.max_cost is not None:
        return
    if not interactive():
        raise StoppedError("containers on Modal cost money", "add --yes, or set a cap: train.modal.max_cost")
    import typer

    if not typer.confirm("Start?", err=True):
        raise StoppedError("nothing was started", "")
