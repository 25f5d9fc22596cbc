"""The kinds of models: how each is checked, its version for cache keys, and its transport."""

from __future__ import annotations

from pathlib import Path

from latentscore_data.core.base.answerers import BUILTIN, HOSTED, LOCAL, kind_of
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.proxies import call_directly
from latentscore_data.core.base.settings import LLMSettings
from latentscore_data.core.llm import builtin
from latentscore_data.core.llm.builtin import BuiltinLLM
from latentscore_data.core.llm.labels_transport import LabelsTransport
from latentscore_data.core.llm.local_transport import LocalTransport
from latentscore_data.core.llm.parameters import Parameters, TakesAll
from latentscore_data.core.llm.routes import check_route, route_to
from latentscore_data.core.llm.transport import Transport, transport_for
from latentscore_data.core.models.engines import Engine, check_local
from latentscore_data.core.models.local_names import local_version

Opened = tuple[Transport, TakesAll]
"""The transport of a client, and the sampling parameters that the model accepts."""


class Answerer:
    """A kind of model. ``runs`` is the folder of the training runs, whose ids are also model names."""

    def check(self, model: str, settings: LLMSettings, runs: Path) -> None:
        """Raise the error that would prevent the first answer. Loads, downloads and asks nothing."""
        raise NotImplementedError

    def version(self, model: str, runs: Path) -> str:
        """Return a string that changes if the model changes; the name itself if the version is unknown."""
        return model

    def open(self, model: str, settings: LLMSettings, runs: Path, engine: Engine | None = None) -> Opened:
        """Return the transport to the model; ``engine`` runs a local model on another machine."""
        raise NotImplementedError


class BuiltinAnswerer(Answerer):
    """The offline model, which has its own client without transport, cache and price."""

    def check(self, model: str, settings: LLMSettings, runs: Path) -> None:
        BuiltinLLM(model)

    def version(self, model: str, runs: Path) -> str:
        return builtin.version_of(model)


class LocalAnswerer(Answerer):
    """A model that is loaded here, or by an engine on another machine."""

    def check(self, model: str, settings: LLMSettings, runs: Path) -> None:
        check_local(model, runs)

    def version(self, model: str, runs: Path) -> str:
        return local_version(model, runs)

    def open(self, model: str, settings: LLMSettings, runs: Path, engine: Engine | None = None) -> Opened:
        return LocalTransport(model, runs, settings.max_concurrency, engine), TakesAll()


class HostedAnswerer(Answerer):
    """A model behind an address."""

    def check(self, model: str, settings: LLMSettings, runs: Path) -> None:
        check_route(model, settings)
        if settings.batch and model in settings.labels:
            raise InputError(
                f"{model} answers with labels (llm.labels), which cannot be requested in batches", "leave --batch out"
            )

    def open(self, model: str, settings: LLMSettings, runs: Path, engine: Engine | None = None) -> Opened:
        route = route_to(model, settings)
        call_directly(route.api_base)
        marks = "claude" in model or model.startswith("anthropic/")
        transport = transport_for(
            route, marks_prompt=marks, timeout_seconds=settings.timeout_seconds, connections=settings.max_concurrency
        )
        if model in settings.labels:
            transport = LabelsTransport(model, transport)
        return transport, Parameters(model, route)


ANSWERERS: dict[str, Answerer] = {
    BUILTIN.name: BuiltinAnswerer(),
    LOCAL.name: LocalAnswerer(),
    HOSTED.name: HostedAnswerer(),
}


def answerer(model: str) -> Answerer:
    """The answerer of a model's name."""
    return ANSWERERS[kind_of(model).name]


def version_of(model: str, runs: Path) -> str:
    """Which version of a model would answer: see :meth:`Answerer.version`."""
    return answerer(model).version(model, runs)
