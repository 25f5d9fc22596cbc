"""A scoring service without processes, a generator that counts its calls, and benchmark rows and results with known numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from factories import make_payload, make_scored
from latentscore import Audio
from latentscore.seeds import digest, unit_hash
from latentscore_data.core.base.rows import BenchRow, ScoredRow, VibeRow
from latentscore_data.core.generators.types import Generated
from latentscore_data.core.scoring.service import ScoredRender
from latentscore_data.core.scoring.types import Score, Unscored

BRIGHTNESS = {"very_dark": 0.1, "dark": 0.3, "medium": 0.5, "bright": 0.7, "very_bright": 0.9}


class BrightScorer:
    """The brighter the config, the better, whatever the vibe; an embedding scorer by its shape."""

    name = "bright"
    fingerprint = "bright-1"
    embedding_fingerprint = "bright-ear-1"
    embed_in_worker = None

    def score(self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Any] = ()) -> Sequence[Score]:
        raise AssertionError("the fake service scores by itself")

    def score_answers(self, audios: Sequence[Audio]) -> np.ndarray:
        raise AssertionError("the fake service scores by itself")

    def compare(self, vibes: Sequence[str], vectors: np.ndarray) -> Sequence[Score]:
        raise AssertionError("the fake service scores by itself")


class FakeScoringService:
    """Scores by the config's brightness plus 1 where the vibe holds the title; root d cannot be played."""

    def __init__(self) -> None:
        self.scorers: list[Any] = [BrightScorer()]
        self.heard: list[tuple[str, str]] = []

    def submit(self, vibe: str, payload: Mapping[str, Any] | None, *, want_audio: bool = False) -> Future[ScoredRender]:
        assert payload is not None
        config = payload["config"]
        self.heard.append((vibe, payload["title"]))
        future: Future[ScoredRender] = Future()
        if config["root"] == "d":
            silent = Unscored("sound", "the audio is silent")
            future.set_result(ScoredRender({"bright": silent}, 0.1, failure=silent))
            return future
        score = BRIGHTNESS[config["brightness"]] + float(payload["title"].lower() in vibe.lower())
        audio = None
        if want_audio:
            tone = np.sin(np.arange(4800) / 20).astype(np.float32) * 0.3
            audio = Audio(np.stack([tone, tone], axis=1), 48_000)
        future.set_result(ScoredRender({"bright": Score(score, {"warmth": 0.5})}, 0.1, 0.01, audio=audio))
        return future

    def sound_key(self, config: Mapping[str, Any]) -> str:
        return digest(sorted(config.items()))

    def drain(self) -> None: ...

    def __enter__(self) -> FakeScoringService:
        return self

    def __exit__(self, *_: object) -> None: ...


class CountingGenerator:
    """Answers with one config and remembers the batches it was asked in; fails where the vibe says so."""

    batch_size = 4

    def __init__(self, label: str = "counting", fingerprint: str = "1", **config: Any) -> None:
        self.label, self.fingerprint = label, fingerprint
        self.config = config
        self.batches: list[list[str]] = []

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        self.batches.append([row.vibe_original for row in rows])
        for row in rows:
            if "unspeakable" in row.vibe_original:
                yield Generated(failure="no words for it", seconds=0.2)
            else:
                yield Generated(make_payload("Rain On Tin", **self.config), seconds=0.2)


def make_rows(documents: int = 10, per_document: int = 2) -> list[ScoredRow]:
    """Scored rows of several documents, with two candidates each of which a scorer called other chose the first."""
    return [
        make_scored(
            number,
            row_id=f"moby-dick:chapter-{number:03d}:0:scene:0:{level}",
            vibe_level=level,
            vibe_original=f"rain number {number}, {level}",
            split="TEST",
            candidate_scores={"other": [0.4, 0.2]},
        )
        for number in range(1, documents + 1)
        for level in ("m", "xs", "lg", "sm", "xl")[:per_document]
    ]


def make_result(row: VibeRow, source: str, score: float | None, **changes: Any) -> BenchRow:
    """A finished sample; without a score it is a failure."""
    payload = make_payload("Rain On Tin") if score is not None else None
    values: dict[str, Any] = {
        "row_id": row.row_id,
        "source": source,
        "dataset": row.dataset,
        "id_in_dataset": row.id_in_dataset,
        "vibe_original": row.vibe_original,
        "vibe_level": row.vibe_level,
        "valid": score is not None,
        "failure": None if score is not None else "not a valid payload: config.tempo",
        "config_payload": payload,
        "scores": {} if score is None else {"bright": {"final_score": score}},
        "shuffled_scores": {} if score is None else {"bright": score - 0.5},
        "generate_seconds": 0.2,
    }
    return BenchRow.model_validate({**values, **changes})


def noise(*parts: object) -> float:
    """A number around zero that depends on the parts alone."""
    return unit_hash(*parts) - 0.5
