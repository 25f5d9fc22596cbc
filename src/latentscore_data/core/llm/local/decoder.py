"""An engine for a local model by its name, with :class:`latentscore.decoding.SchemaDecoder`; loaded at the first answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from latentscore.decoding import SchemaDecoder
from latentscore.errors import ModelError
from latentscore_data.core.base.errors import InputError, require
from latentscore_data.core.llm.local.names import place_of
from latentscore_data.core.llm.local.types import Prompt, Written
from latentscore_data.core.training.base_models import load_base, load_trained, pick_device


class Decoder:
    """A folder, an adapter, a training run, a GGUF file, a hub id or ``tiny-random``.

    Raises :class:`MissingError` without the ml extra or the weights, :class:`InputError` for a tokenizer that no schema can
    be compiled for.
    """

    def __init__(self, name: str, runs: Path, what: str) -> None:
        for module in ("torch", "transformers", "xgrammar"):
            require(module, "ml", what)
        self._name, self._runs = name, runs

    @cached_property
    def _model(self) -> SchemaDecoder:
        device = pick_device("auto")
        place = place_of(self._name, self._runs)
        if place is not None and place.is_dir():
            loaded = load_trained(place, runs=self._runs, device=device)
        else:
            loaded = load_base(str(place) if place is not None else self._name, runs=self._runs, device=device)
        return SchemaDecoder(loaded.model.eval(), loaded.tokenizer, self._name)

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        """One answer per prompt, decoded as one batch."""
        try:
            return self._model.write(prompts)
        except ModelError as error:
            raise InputError(str(error), "use another model") from None
