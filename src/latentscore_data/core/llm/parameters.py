"""The sampling parameters that a model accepts."""

from __future__ import annotations

import logging
from typing import Any

from latentscore_data.core.llm.routes import Route, load_litellm
from latentscore_data.core.llm.types import Sampling

log = logging.getLogger(__name__)


class TakesAll:
    """A local model, which accepts every parameter."""

    def taken(self, sampling: Sampling) -> Sampling:
        """The parameters to send."""
        return sampling

    def refuse(self, name: str) -> None:
        """Leave a parameter out from now on, because the server does not accept it."""
        raise AssertionError(f"{name} is never refused here")


class Parameters(TakesAll):
    """The sampling parameters that one model accepts.

    LiteLLM's table lists the accepted values (for example ``temperature`` only at 1); others are learned from the
    server's refusals. Each omitted parameter is reported once.
    """

    def __init__(self, name: str, route: Route) -> None:
        self._name = name
        self._litellm = load_litellm()
        self._model, self._provider, _, _ = self._litellm.get_llm_provider(route.model, api_base=route.api_base)
        self._known: dict[tuple[str, Any], bool] = {}
        self._refused: set[str] = set()
        self._said: set[str] = set()

    def taken(self, sampling: Sampling) -> Sampling:
        """Return the parameters to send. They always include ``max_tokens``, under the server's name."""
        sent: Sampling = {}
        for name, value in sampling.items():
            if name == "max_tokens":
                sent["max_completion_tokens" if name in self._refused else name] = value
            elif name not in self._refused and self._takes(name, value):
                sent[name] = value
            else:
                self._say(name, value)
        return sent

    def refuse(self, name: str) -> None:
        self._refused.add(name)

    def _takes(self, name: str, value: Any) -> bool:
        known = self._known.get((name, value))
        if known is None:
            try:
                self._litellm.utils.get_optional_params(
                    self._model, custom_llm_provider=self._provider, **{name: value}
                )
                known = True
            except self._litellm.UnsupportedParamsError:
                known = False
            self._known[name, value] = known
        return known

    def _say(self, name: str, value: Any) -> None:
        if name in self._said:
            return
        self._said.add(name)
        # Every question has a seed, which most providers do not support, so this is not reported.
        level = logging.INFO if name == "seed" else logging.WARNING
        log.log(level, "%s does not accept %s %s; it is left out", self._name, name, value)
