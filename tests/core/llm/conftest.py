"""The two ways to a model server, so that one set of tests holds for both."""

from __future__ import annotations

import pytest

from latentscore_data.core.llm import client
from latentscore_data.core.llm.routes import Route
from latentscore_data.core.llm.transport import LiteLLMTransport, Transport


@pytest.fixture(params=["session", "litellm"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """``session``: what the route gets by itself; ``litellm``: everything through LiteLLM."""

    def only_litellm(route: Route, *, marks_prompt: bool, timeout_seconds: float, connections: int) -> Transport:
        return LiteLLMTransport(route, marks_prompt, timeout_seconds)

    if request.param == "litellm":
        monkeypatch.setattr(client, "transport_for", only_litellm)
    return request.param
