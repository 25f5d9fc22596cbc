"""Curation of vibe rows: near-duplicates, splits, noise. Rows are streamed; they are never all in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentscore.embed import Embedder
from latentscore.json_search import JsonObject
from latentscore_data.core.base.display import SlowStep
from latentscore_data.core.base.jsonl import replace_several
from latentscore_data.core.base.rows import SPLITS, Split, VibeRow
from latentscore_data.core.base.settings import DedupeSettings, NoiseSettings, SplitsSettings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.vibes.dedupe import EmbedBatches, embed_stream, near_duplicates, require_index, threshold_of
from latentscore_data.core.vibes.noise import noise_draw, with_noise
from latentscore_data.core.vibes.splits import Leakage, draw_splits, leakage, mean_vectors

Rows = Callable[[], Iterable[VibeRow]]
"""Reads the rows again at each call, in the same order."""


@dataclass
class Arranged:
    """The result of :func:`arrange`."""

    rows_in: int = 0
    near_duplicates: int = 0
    dedupe_threshold: float = 0.0
    dedupe_method: str = "exact"
    dedupe_recall: float = 1.0
    """Share of the near-duplicates in a sample that the method found."""
    dedupe_recall_near_duplicates: int = 0
    """Number of near-duplicates in that sample."""
    sources: int = 0
    rows: dict[str, int] = field(default_factory=lambda: {})
    """Written rows by split."""
    from_elsewhere: int = 0
    """Rows that no stage made; they stay in the files."""
    sources_by_split: dict[str, int] = field(default_factory=lambda: {})
    noisy: dict[str, int] = field(default_factory=lambda: {})
    """Rows with typing noise by split."""
    filled: Mapping[str, Split] = field(default_factory=lambda: {})
    """Units in splits that would have been empty (:class:`Draw`)."""
    leakage: Leakage | None = None
    leakage_if_split_by_row: Leakage | None = None
    """The leakage of splits drawn by row, for comparison."""

    def to_dict(self) -> JsonObject:
        return {name: value for name, value in asdict(self).items() if value or name != "from_elsewhere"}


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
    from_elsewhere: Iterable[tuple[Split, VibeRow]] = (),
) -> Arranged:
    """Drop near-duplicates, draw splits, add noise, and write ``.vibes/<SPLIT>.jsonl``. The rows are read twice.

    ``filled`` are the units that an earlier run put into splits that would have been empty. ``embed_by`` embeds instead
    of this process. ``from_elsewhere`` are rows in these files that no stage made; they are appended to the others.
    Raises :class:`MissingError` for more than ``dedupe.exact_up_to`` rows without the library of the index.
    """
    facts = _Facts(noise)
    texts = _require_index_above(facts.note(rows()), dedupe.exact_up_to)
    vectors = embed_stream(texts, embedder, SlowStep("vibes: embedding"), embed_by)
    threshold = threshold_of(dedupe, embedder)
    found = near_duplicates(vectors, threshold, dedupe.exact_up_to)
    stays = found.stays
    result = Arranged(
        rows_in=len(stays),
        near_duplicates=int((~stays).sum()),
        dedupe_threshold=threshold,
        dedupe_method=found.method,
        dedupe_recall=found.recall,
        dedupe_recall_near_duplicates=found.sampled,
        sources=len(facts.source_numbers),
    )

    kept, places = vectors[stays], np.flatnonzero(stays)
    del vectors
    sources = np.array(facts.sources, dtype=np.intp)[stays]
    names, result.filled = _split_of_rows(facts, kept, sources, places, splits, filled)
    result.sources_by_split = {split: len(np.unique(sources[names == split])) for split in SPLITS}
    result.leakage = leakage(kept, names, sources, threshold, splits.seed)
    if splits.split_by == "source":
        # Models are trained on GRPO and SFT-Train, so the comparison skips GRPO, whose draw is slow.
        by_row = splits.model_copy(update={"split_by": "row", "grpo": 0.0})
        other, _ = _split_of_rows(facts, kept, sources, places, by_row, None)
        result.leakage_if_split_by_row = leakage(kept, other, sources, threshold, splits.seed)

    split_at = dict(zip(places.tolist(), names.tolist(), strict=True))
    noisy = _noisy_rows(np.array(facts.draws)[stays], places, names, noise.rate)
    files: dict[Split, Path] = {split: workspace.vibes(split) for split in SPLITS}
    step = SlowStep("vibes: writing", len(stays))
    made = _rows_to_write(rows(), files, split_at, noisy, noise, step)
    others = [(files[split], row) for split, row in from_elsewhere]
    result.from_elsewhere = len(others)
    written = replace_several(chain(made, others), files.values())
    for split, path in files.items():
        result.rows[split] = written[path]
        result.noisy[split] = sum(1 for place in noisy if split_at[place] == split)
    return result


def _require_index_above(texts: Iterable[str], exact_up_to: int) -> Iterator[str]:
    """Yield the texts. Raises :class:`MissingError` as soon as an index is needed that is not installed."""
    for number, text in enumerate(texts):
        if number == exact_up_to:
            require_index()
        yield text


class _Facts:
    """The facts of each row that stay in memory between the two passes."""

    def __init__(self, noise: NoiseSettings) -> None:
        self.noise = noise
        self.source_numbers: dict[str, int] = {}
        self.sources: list[int] = []
        self.row_ids: list[str] = []
        self.draws: list[float] = []

    def note(self, rows: Iterable[VibeRow]) -> Iterator[str]:
        """Yield the vibe of each row, and store the row's facts."""
        for row in rows:
            self.sources.append(self.source_numbers.setdefault(row.source_id, len(self.source_numbers)))
            self.row_ids.append(row.row_id)
            self.draws.append(noise_draw(row.row_id, self.noise))
            yield row.vibe_original


def _split_of_rows(
    facts: _Facts,
    kept: NDArray[np.float32],
    sources: NDArray[np.intp],
    places: NDArray[np.intp],
    settings: SplitsSettings,
    filled: Mapping[str, Split] | None,
) -> tuple[NDArray[np.str_], Mapping[str, Split]]:
    """Return the split of each kept row, and the units in splits that would have been empty."""
    if settings.split_by == "row":
        units = [facts.row_ids[place] for place in places]
        draw = draw_splits(units, kept, settings, filled)
        names = np.array([draw.splits[unit] for unit in units], dtype=np.str_)
    else:
        # Only sources with rows are drawn: all rows of a source may have been dropped.
        present, number = np.unique(sources, return_inverse=True)
        all_units = list(facts.source_numbers)
        units = [all_units[i] for i in present]
        draw = draw_splits(units, mean_vectors(kept, number, len(units)), settings, filled)
        names = np.array([draw.splits[unit] for unit in units], dtype=np.str_)[number]
    return names, draw.filled


def _noisy_rows(draws: NDArray[np.float64], places: NDArray[np.intp], names: NDArray[np.str_], rate: float) -> set[int]:
    """Return the positions of the rows that get noise: those that were drawn, and at least one in each split."""
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
    """Yield (file, row) for each row that stays, with its split and noise."""
    for place, row in enumerate(rows):
        step.at(place)
        if (split := split_at.get(place)) is not None:
            yield files[split], with_noise(row.model_copy(update={"split": split}), place in noisy, noise)
