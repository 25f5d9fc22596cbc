"""The question before money is spent: which model is called, what a run would cost, and whether that is agreed to."""

from __future__ import annotations

from collections.abc import Sequence

from latentscore_data.core.base.answerers import kind_of
from latentscore_data.core.base.display import interactive, money, say
from latentscore_data.core.base.errors import InputError, StoppedError
from latentscore_data.core.base.secrets import grant
from latentscore_data.core.base.settings import LLMSettings, ModalSettings
from latentscore_data.core.compute.estimates import RemoteJobEstimate
from latentscore_data.core.compute.modal import require_modal, within_cap
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.llm.routes import BASE_PROVIDERS, check_route, route_to


def announce(stage: str, model: str, settings: LLMSettings) -> None:
    """The first line of a run: which model answers, and where calls and key go when it is not the provider's own place."""
    kind = kind_of(model)
    where = kind.said
    if not kind.here and settings.api_base:
        from urllib.parse import urlsplit

        parts = urlsplit(settings.api_base)
        host = (parts.hostname or settings.api_base) + (f":{parts.port}" if parts.port else "")
        key = f"the key in {settings.api_key_env}" if settings.api_key_env else "no key"
        where = f" at {host} (sent there: {key})"
    say(f"{stage}: {model} answers{where}")


def trust_key_to(settings: LLMSettings, api_key_env: str | None) -> None:
    """``--api-key-env`` allows this variable's key to go to the address of the settings.

    Raises :class:`InputError` when only a settings file wants a key sent to another machine.
    """
    if api_key_env:
        grant(api_key_env)
    if settings.api_base and settings.api_key_env:
        route_to(f"{BASE_PROVIDERS[0]}/any", settings)


def confirm_spending(plan: Plan, settings: LLMSettings, yes: bool) -> None:
    """Ask before money is spent, unless it was allowed with ``--yes`` or bounded with ``--max-cost``.

    Raises :class:`InputError` where nobody can be asked or no provider is known, :class:`MissingError` for a key that is
    not there, :class:`StoppedError` when the answer is no or a cap was given for a model whose price is unknown.
    """
    if not plan.spends:
        return
    check_route(plan.model, settings)  # nobody should agree to what cannot be asked
    if settings.max_cost is not None:
        if plan.cost_usd is None:
            raise StoppedError(
                f"the price of {plan.model} is unknown, so --max-cost {settings.max_cost:g} cannot be kept",
                "leave the cap out and say --yes, or take a model whose price is known",
            )
        return
    if yes:
        return
    calls = f"{plan.calls:,} calls, {plan.tokens_in:,} tokens in, about {plan.tokens_out:,} out"
    cost = "at an unknown price" if plan.cost_usd is None else f"about {money(plan.cost_usd)}"
    if not interactive():
        raise InputError(
            f"{plan.model} costs money ({calls}, {cost}) and nobody can be asked", "say --yes or --max-cost USD"
        )
    import typer

    say(f"{plan.model}: {calls}, {cost} ({plan.basis})")
    if not typer.confirm("Go on?", err=True):
        raise StoppedError("nothing was spent", "a hard stop can be set with --max-cost USD")


def confirm_remote_jobs(remote_estimates: Sequence[RemoteJobEstimate], modal: ModalSettings, yes: bool) -> None:
    """Show what is mapped over Modal, what it takes and what it can cost at most, and ask.

    Raises :class:`MissingError` without Modal, and :class:`StoppedError` above the cap or when the answer is no.
    """
    require_modal()
    for remote_estimate in remote_estimates:
        say(remote_estimate.in_words(modal))
    within_cap(modal, sum(remote_estimate.cap_usd(modal) for remote_estimate in remote_estimates), "this work")
    confirm_remote(modal, yes)


def confirm_remote(modal: ModalSettings, yes: bool) -> None:
    """Ask before containers are hired, unless it was allowed with ``--yes`` or bounded by ``train.modal.max_cost``.

    Raises :class:`StoppedError` where nobody can be asked or the answer is no.
    """
    if yes or modal.max_cost is not None:
        return
    if not interactive():
        raise StoppedError("containers on Modal cost money", "add --yes, or set a cap: train.modal.max_cost")
    import typer

    if not typer.confirm("Start?", err=True):
        raise StoppedError("nothing was started", "")
