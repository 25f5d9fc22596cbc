"""Rendering, scoring and local-model answers of ``configs`` and ``bench``, done on Modal in shards.

The containers run what would run here. Scores go into this machine's score cache, so that the stage itself then finds
every sound heard already and writes the same rows as always.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from latentscore_data.core.errors import InputError, StoppedError, VerificationError
from latentscore_data.core.generators.base import Generated, Generator
from latentscore_data.core.jsonl_io import read_rows
from latentscore_data.core.rows import ConfigRow, VibeRow
from latentscore_data.core.scoring.base import Score, ScorerNeeds, make_scorers
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.studio import Studio, config_of, current_renderer_version
from latentscore_data.core.settings import BenchSettings, ModalSettings, Settings
from latentscore_data.core.training.remote import check_cap, map_on_modal, require_modal, upload_model
from latentscore_data.core.training.shards import shards_of
from latentscore_data.core.workspace import Workspace

Say = Callable[[str], None]
Pair = tuple[str, Mapping[str, Any]]
"""A vibe and the config that is to be heard against it."""

REMOTE_SCORERS = ("acoustic", "clap")
"""Scorers that need neither a key nor code of this machine."""


def agree(modal: ModalSettings, gpu: str | None, containers: int, yes: bool, say: Say) -> None:
    """Show what the containers can cost at most. Raises :class:`StoppedError` unless that was agreed to before."""
    require_modal()
    cap = check_cap(modal, gpu, containers)
    say(f"Modal: up to {containers} containers, at most ${cap:.2f} (time-out x price)")
    if not yes and modal.max_cost is None:
        raise StoppedError("containers on Modal cost money", "add --yes, or set train.modal.max_cost")


def candidate_pairs(workspace: Workspace) -> Iterator[Pair]:
    """What ``configs`` will want to hear: every candidate against its row's vibe."""
    if workspace.candidates.exists():
        for row in read_rows(workspace.candidates, ConfigRow, torn="drop"):
            for candidate in row.config_candidates:
                if config := config_of(candidate):
                    yield row.vibe_original, config


def score_on_modal(pairs: Iterable[Pair], settings: Settings, workspace: Workspace, *, yes: bool, say: Say) -> int:
    """Score the pairs that the cache does not hold. Returns how many were scored there.

    Raises :class:`InputError` for scorers that must stay on this machine, and :class:`VerificationError` when the
    containers' scorers or renderer are not those of this machine.
    """
    with ScoreCache(workspace.score_cache) as cache:
        scorers = make_scorers(ScorerNeeds(settings.scoring, settings.llm, cache))
        for scorer in scorers:
            if scorer.name not in REMOTE_SCORERS:
                raise InputError(
                    f"scorer {scorer.name} uses a key or code of this machine, which Modal does not see",
                    f"take {' or '.join(REMOTE_SCORERS)}, or --on local",
                )
        with Studio(scorers, settings.scoring, cache) as studio:
            missing = [
                (vibe, config)
                for vibe, config in {(v, studio.sound_key(c)): (v, c) for v, c in pairs}.values()
                if any(cache.score(s.fingerprint, studio.sound_key(config), vibe) is None for s in scorers)
            ]
            if not missing:
                return 0
            modal = settings.train.modal
            scoring = settings.scoring.model_dump(mode="json", exclude={"workers"})
            scoring["scorers"] = [scorer.name for scorer in scorers]
            shards = shards_of(missing, modal.shard_rows, {"scoring": scoring}, "pairs")
            agree(modal, None, min(modal.max_containers, len(shards)), yes, say)
            here = {scorer.name: scorer.fingerprint for scorer in scorers}
            waiting, scored = iter(missing), 0
            for text in map_on_modal("score_shard", shards, modal):
                part = json.loads(text)
                if part["fingerprints"] != here or part["renderer"] != current_renderer_version():
                    raise VerificationError(
                        "the scorers on Modal are not those of this machine", "lsdata train check; or --on local"
                    )
                for outcomes in part["outcomes"]:
                    vibe, config = next(waiting)
                    for name, outcome in outcomes.items():
                        if "score" in outcome:
                            score = Score(outcome["score"], outcome["parts"])
                            cache.keep_score(here[name], studio.sound_key(config), vibe, score)
                            scored += 1
                say(f"Modal: {scored} of {len(missing) * len(scorers)} scores")
    return scored


class ModalGenerator:
    """A local model that answers on Modal: all rows at once, in shards, with the same code.

    ``generator`` is the same source made here; it names the answers, and its weights are not loaded.
    """

    def __init__(
        self, generator: Generator, source: str, name: str, settings: Settings, workspace: Workspace, say: Say
    ) -> None:
        self.label, self.fingerprint = generator.label, generator.fingerprint
        self.batch_size = 1_000_000
        self._source, self._name = source, name
        self._bench: BenchSettings = settings.bench
        self._modal, self._runs, self._say = settings.train.modal, workspace.train_dir, say

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        upload_model(self._name, self._runs, self._say)
        common = {"source": self._source, "bench": self._bench.model_dump(mode="json")}
        shards = shards_of([row.model_dump(mode="json") for row in rows], self._modal.shard_rows, common, "rows")
        for text in map_on_modal("generate_shard", shards, self._modal):
            for answer in json.loads(text)["generated"]:
                yield Generated(**answer)
