"""clap-lookup with a tiny random CLAP: the real path from payloads to vectors, and the nearest of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from factories import make_payload, make_scored, make_vibe
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.generators.lookup import SoundLookup
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clap_index import ClapIndex
from scoring_fakes import render_by_root
from tiny_clap import save_clap


class FixedIndex:
    """Three sounds in a plane; a text points where its first letter says."""

    fingerprint = "fixed"

    def texts(self, vibes: list) -> np.ndarray:
        return np.array([{"x": [1.0, 0.0], "y": [0.0, 1.0]}[vibe[0]] for vibe in vibes], dtype=np.float32)

    def sounds(self, payloads: list) -> np.ndarray:
        return np.array([{"X": [1.0, 0.0], "Y": [0.0, 1.0], "Z": [0.6, 0.8]}[p["title"]] for p in payloads])


def test_the_nearest_sound_wins_but_never_the_row_itself():
    known = [make_scored(i, config_payload=make_payload(title)) for i, title in enumerate("XYZ")]
    generator = SoundLookup("clap", known, FixedIndex())
    found = generator.generate(
        [make_vibe(9, vibe="x"), make_vibe(8, vibe="y"), known[1].model_copy(update={"vibe_original": "y"})]
    )
    assert [answer.payload["title"] for answer in found if answer.payload] == ["X", "Y", "Z"]


@pytest.mark.ml
def test_payloads_are_rendered_once_and_become_unit_vectors(tmp_path: Path):
    settings = ScoringSettings(clap_model=str(save_clap(tmp_path / "clap")), seconds=1.0, workers=1)
    payloads = [make_payload("A"), make_payload("B", echo="heavy"), make_payload("Silent", root="d")]
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        index = ClapIndex(settings, cache, render=render_by_root)
        sounds = index.sounds(payloads)
        assert np.linalg.norm(sounds, axis=1) == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)
        texts = index.texts(["rain", "sun"])
        assert texts.shape == (2, sounds.shape[1])
        again = ClapIndex(settings, cache, render=None)
        assert np.array_equal(again.sounds(payloads[:2]), sounds[:2])
