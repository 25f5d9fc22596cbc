"""The models in the page's menu, their candidates for a vibe, and their prices."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from latentscore import MapError, VibeMap, load_map, parse_payload
from latentscore.config import MusicConfigPromptPayload
from latentscore.labels import FIELDS, Label
from latentscore.meaning.offline import payload_for
from latentscore.seeds import digest, rng_for
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.ledger import Ledger
from latentscore_data.core.base.loop import RowFailure
from latentscore_data.core.base.payloads import Payload
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import BUILTIN_MODEL, LLMSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.prepare import generator_deps, training_rows
from latentscore_data.core.configs.candidate_generation import ask_for_candidates, questions
from latentscore_data.core.generators.registry import make_generator
from latentscore_data.core.generators.types import AskingGenerator, Generator
from latentscore_data.core.llm.client import connect
from latentscore_data.core.llm.plan import Plan, example_answer, make_plan
from latentscore_data.core.llm.prices import costs_nothing
from latentscore_data.core.llm.routes import check_route
from latentscore_data.core.llm.types import Question
from latentscore_data.core.models.runs import find_runs
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.search.vibe_search import payload_of
from latentscore_data.core.vibes.dedupe import choose_embedder, load_embedder

STATIONARY = ("root", "mode", "register_min_oct", "register_max_oct")
"""Fields that a variation does not change, so that its key and range stay."""

CHANGED_FIELDS = 5
"""Number of fields that a variation changes."""


@dataclass(frozen=True)
class Source:
    """A line of the menu. ``most`` is the largest number of candidates; a ``paid`` model needs a confirmed cost cap."""

    id: str
    label: str
    note: str = ""
    most: int = 8
    paid: bool = False


class Answers:
    """The candidates of vibes. Methods except :meth:`ask_hosted` block: call them in a thread."""

    def __init__(self, settings: Settings, workspace: Workspace, cache: ScoreCache) -> None:
        self._settings, self._workspace, self._cache = settings, workspace, cache
        self._maps: dict[str, VibeMap] = {}
        self._generators: dict[str, Generator | AskingGenerator] = {}
        self._lock = threading.Lock()

    def sources(self) -> list[Source]:
        """Return the models of this workspace, the offline model first."""
        found = [Source(BUILTIN_MODEL, "Offline model", "English, free")]
        found += [
            Source(f"map:{name}", f"Map {name}", "nearest vibes of an exported map") for name in self._map_paths()
        ]
        if self._workspace.scored("SFT-Train").exists():
            found.append(Source("lookup", "Look-up", "nearest training rows of this workspace"))
        found += [Source(f"local:{run}", f"Run {run}", "trained here; may take a while", 1) for run in self._runs()]
        model = self._settings.model_of("configs")
        if not model.startswith("builtin/"):
            free = costs_nothing(model, self._settings.llm)
            found.append(Source(f"hosted:{model}", model, "" if free else "costs money", paid=not free))
        return found

    def warm(self) -> None:
        """Load the tables of the offline model, so that the first vibe does not wait for them."""
        payload_for("rain", temperature=0.0, seed=0, sample_idx=0)

    def source(self, wanted: str) -> Source:
        """Return the model with this id. Raises :class:`InputError` for an unknown one."""
        for source in self.sources():
            if source.id == wanted:
                return source
        raise InputError(f"there is no model {wanted[:100]!r} in this workspace", "reload the page for the new list")

    def answer(self, vibe: str, source: Source, n: int, seed: int) -> list[Payload]:
        """Return up to ``n`` payloads for a vibe, from a model that is not hosted.

        Raises :class:`InputError` if the model gives no valid answer, :class:`MissingError` for a missing or damaged
        map.
        """
        kind = source.id.partition(":")[0]
        answer = {"builtin/keywords": self._offline, "map": self._mapped, "lookup": self._mapped, "local": self._local}
        with self._lock if kind == "local" else nullcontext():
            return answer[kind](vibe, source, min(n, source.most), seed)

    def _offline(self, vibe: str, source: Source, n: int, seed: int) -> list[Payload]:
        drawn = (
            payload_for(vibe, temperature=0.9 if number else 0.0, seed=seed, sample_idx=number) for number in range(n)
        )
        return [payload.model_dump(mode="json") for payload in drawn]

    def _mapped(self, vibe: str, source: Source, n: int, seed: int) -> list[Payload]:
        vibe_map = self._map(source.id)
        vector = vibe_map.embed(vibe) if source.id != "lookup" else self._embedder().embed([vibe])[0]
        found: dict[str, Payload] = {}
        for match in vibe_map.nearest(vector, 3 * n):
            payload = payload_of(match, f"nearest: “{match.vibe[:160]}” (cosine {match.similarity:.2f})")
            found.setdefault(digest(sorted(payload["config"].items())), payload)
        return list(found.values())[:n]

    def _local(self, vibe: str, source: Source, n: int, seed: int) -> list[Payload]:
        generator = self._generators.get(source.id)
        if generator is None:
            needs = generator_deps(self._settings, self._workspace, [], self._cache)
            generator = self._generators[source.id] = make_generator(source.id, needs)
        if isinstance(generator, AskingGenerator):
            raise InputError(f"{source.label} is a hosted model")
        (answer,) = generator.generate([typed_row(vibe)])
        if answer.payload is None:
            raise InputError(f"{source.label} gave no valid answer ({answer.failure})", "use another model")
        return [answer.payload]

    def price(self, vibe: str, source: Source, n: int) -> Plan:
        """Return the calls and the cost of asking a hosted model for ``n`` candidates."""
        model = source.id.partition(":")[2]
        return make_plan(
            model, [self._questions(vibe, n)], MusicConfigPromptPayload, example_answer(), self._settings.llm,
            self._workspace,
        )  # fmt: skip

    def _questions(self, vibe: str, n: int) -> list[Question]:
        return questions(typed_row(vibe), self._settings.configs.model_copy(update={"n": n}))

    async def ask_hosted(self, vibe: str, source: Source, n: int, cap_usd: float | None) -> list[Payload]:
        """Return the candidates of a hosted model, for at most ``cap_usd``.

        Raises :class:`InputError` for a paid model without a cap, :class:`StoppedError` at the cap, and
        :class:`MissingError` if the call fails or no answer is valid.
        """
        model = source.id.partition(":")[2]
        if source.paid and cap_usd is None:
            raise InputError(f"{model} costs money and no cap was agreed to", "click the price on the page")
        check_route(model, self._settings.llm)
        capped = LLMSettings(**{**self._settings.llm.model_dump(), "max_cost": cap_usd if source.paid else None})
        llm = connect(
            model, capped, cache_path=self._workspace.llm_cache, ledger=Ledger(self._workspace.ledger), stage="studio",
            runs=self._workspace.train_dir,
        )  # fmt: skip
        try:
            payloads, errors = await ask_for_candidates(self._questions(vibe, n), llm)
        except RowFailure as failure:
            raise MissingError(f"{model} failed: {failure.message}") from None
        finally:
            await llm.aclose()
        found = [payload for payload in payloads if payload]
        if not found:
            raise MissingError(f"{model} gave no valid answer ({'; '.join(sorted(set(errors)))[:200]})")
        return found

    def _map_paths(self) -> dict[str, Path]:
        """Return the exported text maps by the names of their folders."""
        folder = self._workspace.export_dir
        files = sorted(folder.glob("*/map.safetensors")) if folder.is_dir() else []
        return {path.parent.name: path.parent for path in files}

    def _runs(self) -> list[str]:
        """Return the ids of finished training runs, the newest first; none without the ml extra."""
        if find_spec("torch") is None:
            return []
        return [run.run_id for run in find_runs(self._workspace.train_dir) if run.done][:20]

    def _embedder(self) -> Any:
        with self._lock:
            if not hasattr(self, "_loaded"):
                self._loaded = load_embedder(choose_embedder(self._settings.dedupe))
            return self._loaded

    def _map(self, source_id: str) -> VibeMap:
        if source_id in self._maps:
            return self._maps[source_id]
        if source_id == "lookup":
            opened = self._training_map()
        else:
            try:
                opened = load_map(self._map_paths()[source_id.partition(":")[2]])
            except MapError as error:
                raise MissingError(str(error)) from None
        self._maps[source_id] = opened
        return opened

    def _training_map(self) -> VibeMap:
        rows = training_rows(self._workspace)
        if not rows:
            raise MissingError("SFT-Train contains no configs", "run lsdata configs --split SFT-Train")
        lines = [{"vibe_original": row.vibe_original, **(row.config_payload or {})} for row in rows]
        vectors = self._embedder().embed([row.vibe_original for row in rows])
        return VibeMap(self._workspace.scored("SFT-Train"), "text", vectors, lines, None)


def typed_row(vibe: str) -> VibeRow:
    """Return a vibe as a row."""
    return VibeRow(row_id=vibe, dataset="typed", id_in_dataset=vibe, vibe_original=vibe)


def variations(payload: Mapping[str, Any], n: int, locked: Sequence[str], seed: int) -> list[Payload]:
    """Return the payload and ``n - 1`` variations, each with a few changed fields; ``locked`` fields do not change.

    Raises :class:`InvalidConfigError` for an invalid payload.
    """
    valid = parse_payload(payload)
    config = valid.config.model_dump()
    free = [name for name in FIELDS if name not in locked and name not in STATIONARY]
    found = [valid.model_dump(mode="json")]
    for number in range(1, n):
        rng = rng_for("studio variations", digest(sorted(config.items())), seed, number)
        changed = dict(config)
        for at in rng.permutation(len(free))[:CHANGED_FIELDS]:
            changed[free[at]] = _neighbour(free[at], config[free[at]], rng)
        found.append({**found[0], "config": changed})
    return found


def _neighbour(name: str, label: Label, rng: np.random.Generator) -> Label:
    """Return a random other label; on an ordered field, the next one up or down."""
    spec = FIELDS[name]
    at = spec.labels.index(label)
    if spec.ordered:
        places = [place for place in (at - 1, at + 1) if 0 <= place < len(spec.labels)]
    else:
        places = [place for place in range(len(spec.labels)) if place != at]
    return spec.labels[places[int(rng.integers(len(places)))]]
