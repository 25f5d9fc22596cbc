"""All vibe rows of a workspace: thinned out, split, made noisy, written. Rows are streamed, never all held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from latentscore.embed import Embedder
from latentscore.json_search import JsonObject
from latentscore_data.core.base.display import SlowStep
from latentscore_data.core.base.jsonl import replace_several
from latentscore_data.core.base.rows import SPLITS, Split, VibeRow
from latentscore_data.core.base.settings import DedupeSettings, NoiseSettings, SplitsSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.vibes.dedupe import (
    EmbedBatches,
    embed_stream,
    near_duplicates,
    require_index,
    threshold_of,
)
from latentscore_data.core.vibes.noise import noise_draw, with_noise
from latentscore_data.core.vibes.splits import Leakage, draw_splits, leakage, mean_vectors

Rows = Callable[[], Iterable[VibeRow]]
"""Gives the rows anew each time, in the same order."""


@dataclass
class Arranged:
    """What became of the rows."""

    rows_in: int = 0
    near_duplicates: int = 0
    threshold: float = 0.0
    dedupe_method: str = "exact"
    dedupe_recall: float = 1.0
    """Share of the near-duplicates in a sample that the method found."""
    dedupe_sampled: int = 0
    """Near-duplicates in that sample."""
    sources: int = 0
    rows: dict[str, int] = field(default_factory=lambda: {})
    put_there: int = 0
    """Rows that somebody put into the files, which stay as they are."""
    sources_by_split: dict[str, int] = field(default_factory=lambda: {})
    noisy: dict[str, int] = field(default_factory=lambda: {})
    filled: dict[str, Split] = field(default_factory=lambda: {})
    leakage: Leakage | None = None
    leakage_by_row: Leakage | None = None
    """The same for splits drawn by row, to compare."""

    def to_dict(self) -> JsonObject:
        return {
            "rows_in": self.rows_in,
            "near_duplicates": self.near_duplicates,
            "dedupe_threshold": self.threshold,
            "dedupe_method": self.dedupe_method,
            "dedupe_recall": self.dedupe_recall,
            "dedupe_recall_near_duplicates": self.dedupe_sampled,
            "sources": self.sources,
            "rows": self.rows,
            **({"from_elsewhere": self.put_there} if self.put_there else {}),
            "sources_by_split": self.sources_by_split,
            "noisy": self.noisy,
            "filled": self.filled,
            "leakage": asdict(self.leakage) if self.leakage else None,
            "leakage_if_split_by_row": asdict(self.leakage_by_row) if self.leakage_by_row else None,
        }


def arrange(
    rows: Rows,
    workspace: Workspace,
    embedder: Embedder,
    *,
    dedupe: DedupeSettings,
    splits: SplitsSettings,
    noise: NoiseSettings,
    filled: Mapping[str, Split] | None = None,
    embed_by: EmbedBatches | None = None,
    put_there: Iterable[tuple[Split, VibeRow]] = (),
) -> Arranged:
    """Write ``.vibes/<SPLIT>.jsonl``. The rows are read once to decide and once to write.

    ``put_there`` are rows of these files that no stage made; they stay behind the others. ``embed_by`` does the work of ``embedder`` elsewhere.
    """
    facts = _Facts(noise)
    texts = _no_more_than_can_be_compared(facts.note(rows()), dedupe.exact_up_to)
    vectors = embed_stream(texts, embedder, SlowStep("vibes: embedding"), embed_by)
    threshold = threshold_of(dedupe, embedder)
    found = near_duplicates(vectors, threshold, dedupe.exact_up_to)
    stays = found.stays
    result = Arranged(
        rows_in=len(stays),
        near_duplicates=int((~stays).sum()),
        threshold=threshold,
        dedupe_method=found.method,
        dedupe_recall=found.recall,
        dedupe_sampled=found.sampled,
        sources=len(facts.source_numbers),
    )

    kept, places = vectors[stays], np.flatnonzero(stays)
    del vectors
    sources = np.array(facts.sources, dtype=np.intp)[stays]
    names = _split_of_rows(facts, kept, sources, places, splits, result, filled)
    result.leakage = leakage(kept, names, sources, threshold, splits.seed)
    if splits.split_by == "source":
        # GRPO and SFT-Train are both trained on, so the comparison need not tell them apart (which would take long).
        by_row = splits.model_copy(update={"split_by": "row", "grpo": 0.0})
        other = _split_of_rows(facts, kept, sources, places, by_row, Arranged(), None)
        result.leakage_by_row = leakage(kept, other, sources, threshold, splits.seed)

    split_at = dict(zip(places.tolist(), names.tolist(), strict=True))
    noisy = _noisy_rows(np.array(facts.draws)[stays], places, names, noise.rate)
    files: dict[Split, Path] = {split: workspace.vibes(split) for split in SPLITS}
    step = SlowStep("vibes: writing", len(stays))
    made = _rows_to_write(rows(), files, split_at, noisy, noise, step)
    kept_rows = [(files[split], row) for split, row in put_there]
    result.put_there = len(kept_rows)
    written = replace_several(chain(made, kept_rows), files.values())
    for split, path in files.items():
        result.rows[split] = written[path]
        result.noisy[split] = sum(1 for place in noisy if split_at[place] == split)
    return result


def _no_more_than_can_be_compared(texts: Iterable[str], exact_up_to: int) -> Iterator[str]:
    """The texts. Raises :class:`MissingError` at the first one for which an index is needed that is not installed."""
    for number, text in enumerate(texts):
        if number == exact_up_to:
            require_index()
        yield text


class _Facts:
    """The little that is remembered of each row."""

    def __init__(self, noise: NoiseSettings) -> None:
        self.noise = noise
        self.source_numbers: dict[str, int] = {}
        self.sources: list[int] = []
        self.row_ids: list[str] = []
        self.draws: list[float] = []

    def note(self, rows: Iterable[VibeRow]) -> Iterator[str]:
        for row in rows:
            self.sources.append(self.source_numbers.setdefault(row.source_id, len(self.source_numbers)))
            self.row_ids.append(row.row_id)
            self.draws.append(noise_draw(row.row_id, self.noise))
            yield row.vibe_original


def _split_of_rows(
    facts: _Facts,
    kept: np.ndarray[Any, np.dtype[np.float32]],
    sources: np.ndarray[Any, np.dtype[np.intp]],
    places: np.ndarray[Any, np.dtype[np.intp]],
    settings: SplitsSettings,
    result: Arranged,
    filled: Mapping[str, Split] | None,
) -> np.ndarray[Any, np.dtype[np.str_]]:
    """The split of each kept row; notes in ``result`` how many sources each split has."""
    if settings.split_by == "row":
        units = [facts.row_ids[place] for place in places]
        draw = draw_splits(units, kept, settings, filled)
        names = np.array([draw.splits[unit] for unit in units], dtype=np.str_)
    else:
        # Numbered anew: a source whose every row was dropped has nothing to be drawn for.
        present, number = np.unique(sources, return_inverse=True)
        all_units = list(facts.source_numbers)
        units = [all_units[i] for i in present]
        draw = draw_splits(units, mean_vectors(kept, number, len(units)), settings, filled)
        names = np.array([draw.splits[unit] for unit in units], dtype=np.str_)[number]
    result.filled = draw.filled
    for split in SPLITS:
        result.sources_by_split[split] = len(np.unique(sources[names == split]))
    return names


def _noisy_rows(draws: Any, places: Any, names: Any, rate: float) -> set[int]:
    """Places of the rows that get noise: those drawn, and at least one in each split."""
    noisy = {int(place) for place in places[draws < rate]}
    for split in SPLITS:
        mine = names == split
        if rate > 0 and mine.any() and not (draws[mine] < rate).any():
            noisy.add(int(places[mine][np.argmin(draws[mine])]))
    return noisy


def _rows_to_write(
    rows: Iterable[VibeRow],
    files: Mapping[Split, Path],
    split_at: Mapping[int, Split],
    noisy: set[int],
    noise: NoiseSettings,
    step: SlowStep,
) -> Iterator[tuple[Path, VibeRow]]:
    """Each row that stays, with its split and noise, and the file it goes to."""
    for place, row in enumerate(rows):
        step.at(place)
        if (split := split_at.get(place)) is not None:
            yield files[split], with_noise(row.model_copy(update={"split": split}), place in noisy, noise)
