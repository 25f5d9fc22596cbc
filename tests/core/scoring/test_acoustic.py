"""The acoustic scorer: what it measures in synthetic sounds, and what it prefers in rendered ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentscore import Audio, MusicConfig, random_config
from latentscore.meaning.reading import axes
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.scoring import descriptors
from latentscore_data.core.scoring.acoustic import (
    AXES,
    TYPICAL,
    AcousticScorer,
    asked_for,
    nothing_asked,
)
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.scoring.types import Score

HERE = Path(__file__).parent
RATE = 48_000


def describe(left: Any, right: Any = None) -> dict[str, float]:
    left = np.asarray(left, dtype=np.float32)
    audio = Audio(np.stack([left, left if right is None else np.asarray(right, dtype=np.float32)], axis=1), RATE)
    return dict(zip(descriptors.NAMES, map(float, descriptors.describe(audio)), strict=True))


@pytest.mark.parametrize("frames", [2, 101, 8192, 30_000])
def test_the_mean_spectrum_is_that_of_scipy(frames: int):
    from scipy.signal import welch

    wave = np.random.default_rng(3).standard_normal(frames).astype(np.float32)
    frequencies, power = descriptors._mean_spectrum(wave, 12_000.0)
    wanted_frequencies, wanted = welch(wave, 12_000.0, nperseg=min(8192, frames))
    np.testing.assert_allclose(frequencies, wanted_frequencies, rtol=1e-6)
    np.testing.assert_allclose(power[1:-1], wanted[1:-1], rtol=1e-4)


def tone(hertz: float, seconds: float = 6.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


def noise(seconds: float = 6.0, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


def plucks(per_second: float, fade_seconds: float, hertz: float = 440.0, seconds: float = 6.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    since = time % (1 / per_second)
    return 0.5 * np.sin(2 * np.pi * hertz * since) * np.exp(-since / fade_seconds)


def chord(*semitones: int) -> np.ndarray:
    tonic = sum(tone(261.63 * 2 ** (s / 12)) for s in semitones)
    return np.asarray(tonic) / 4 + tone(130.81) / 3 + tone(196.0) / 5


class TestDescriptors:
    def test_a_higher_tone_has_a_higher_centroid_by_octaves(self) -> None:
        assert describe(tone(880))["centroid"] - describe(tone(440))["centroid"] == pytest.approx(1.0, abs=0.1)

    def test_noise_is_flat_wide_and_full_and_a_tone_is_not(self) -> None:
        hiss, beep = describe(noise()), describe(tone(440))
        assert hiss["flatness"] > beep["flatness"] + 20
        assert hiss["fullness"] > beep["fullness"] + 1
        assert hiss["filled"] > beep["filled"] + 0.5
        assert hiss["bandwidth"] > beep["bandwidth"]
        assert hiss["high_share"] > -3 > beep["high_share"]

    def test_low_notes_are_in_the_low_share(self) -> None:
        assert describe(tone(60))["low_share"] == pytest.approx(0, abs=0.1)
        assert describe(tone(440))["low_share"] < -25

    def test_width(self) -> None:
        assert describe(noise())["width"] == pytest.approx(-50, abs=1)
        assert describe(noise(), noise(seed=1))["width"] == pytest.approx(0, abs=0.5)
        assert describe(noise(), -noise())["width"] > 20

    def test_faster_plucks_are_more_active_and_move_faster(self) -> None:
        slow, fast = describe(plucks(1, 0.1)), describe(plucks(6, 0.1))
        assert fast["activity"] > slow["activity"] + 0.5
        assert fast["mod_rate"] > slow["mod_rate"] + 0.5

    def test_short_notes_fall_faster_and_leave_gaps(self) -> None:
        short, long = describe(plucks(1, 0.05)), describe(plucks(1, 0.6))
        assert short["decay"] > long["decay"] + 1
        assert short["drop"] > long["drop"] + 5
        assert short["gaps"] > long["gaps"] + 0.3
        assert short["loudness_range"] > long["loudness_range"]

    def test_plucks_have_a_pulse_and_noise_has_none(self) -> None:
        assert describe(plucks(2, 0.1))["pulse"] > describe(noise())["pulse"] + 0.3

    def test_the_strongest_onsets(self) -> None:
        assert describe(plucks(2, 0.1))["attack"] > describe(noise())["attack"] + 3

    def test_major_and_minor(self) -> None:
        assert describe(chord(0, 4, 7, 12, 16))["majorness"] > 0.1
        assert describe(chord(0, 3, 7, 12, 15))["majorness"] < -0.1

    def test_a_spectrum_that_changes_is_movement(self) -> None:
        pieces = [tone(hertz, 1.0) for hertz in (200, 3000, 200, 3000, 200, 3000)]
        assert describe(np.concatenate(pieces))["movement"] > describe(tone(200))["movement"] + 1

    @pytest.mark.parametrize("frames", [1, 100, 2048, 5000, 48_000])
    def test_any_length_gives_finite_numbers(self, frames: int) -> None:
        assert np.isfinite(list(describe(noise(1.0)[:frames]).values())).all()

    def test_extreme_sounds_give_finite_numbers(self) -> None:
        click = np.zeros(RATE)
        click[100] = 1.0
        for samples in (click, np.ones(RATE), np.zeros(RATE), np.sign(noise(1.0)), 1e-9 * noise(1.0)):
            assert np.isfinite(list(describe(samples).values())).all()


class TestWords:
    @pytest.mark.parametrize(
        ("vibe", "axis", "sign"),
        [
            ("a FASTER and faster run", "speed", 1),
            ("glacially slow", "speed", -1),
            ("it is not bright", "light", -1),
            ("without any darkness", "light", 1),
            ("dry and close", "room", -1),
            ("vast", "room", 1),
        ],
    )
    def test_what_words_ask_for(self, vibe: str, axis: str, sign: int) -> None:
        assert np.sign(asked_for(vibe)[0][axis]) == sign

    def test_very_is_more_and_slightly_is_less(self) -> None:
        amounts = [asked_for(f"{word} bright")[0]["light"] for word in ("slightly", "", "very")]
        assert amounts == sorted(amounts)
        assert len(set(amounts)) == 3

    @pytest.mark.parametrize("vibe", ["bright and dark", "dark, bright", "bright, then dark"])
    def test_opposites_cancel(self, vibe: str) -> None:
        assert "light" not in asked_for(vibe)[0]

    @pytest.mark.parametrize(
        ("vibe", "axis", "sign"),
        [
            ("melancholy but at 150 bpm", "speed", 1),
            ("F sharp minor, largo", "speed", -1),
            ("no reverb, nothing spacious", "room", -1),
            ("a happy tune in a minor key", "mood", -1),
            ("never in a hurry", "speed", -1),
        ],
    )
    def test_terms_outrank_moods(self, vibe: str, axis: str, sign: int) -> None:
        assert np.sign(asked_for(vibe)[0][axis]) == sign

    def test_not_reaches_only_the_next_few_words(self) -> None:
        assert asked_for("not where the old house stood but somewhere bright")[0]["light"] > 0

    @given(st.text(max_size=200))
    def test_any_text_is_read(self, vibe: str) -> None:
        asked, _ = asked_for(vibe)
        assert set(asked) <= set(AXES)
        assert all(-1 <= value <= 1 for value in asked.values())

    def test_a_vibe_without_a_known_word_says_so(self) -> None:
        (outcome,) = AcousticScorer().score(["42 + 17"], [Audio(np.stack([noise(1.0)] * 2, 1).astype("f4"), RATE)])
        assert outcome == Score(0.0, {"words": 0.0})

    def test_every_axis_is_read_and_every_descriptor_is_known(self) -> None:
        assert set(AXES) <= {axis.name for axis in axes()}
        assert set(TYPICAL) == set(descriptors.NAMES)
        assert {name for weights in AXES.values() for name in weights} <= set(descriptors.NAMES)

    def test_another_language_is_said_not_guessed(self) -> None:
        vibe = "der Geruch von Regen auf heißem Asphalt"
        assert asked_for(vibe) == ({}, [])
        assert "it is not in English" in str(nothing_asked(vibe))

    def test_where_nothing_is_asked_for_the_reason_and_a_remedy_are_said(self) -> None:
        assert nothing_asked("a slow morning") is None
        assert "knows none of its words" in str(nothing_asked("42 + 17"))
        said = str(nothing_asked("sad, not sad"))
        assert "cancel out (sad)" in said
        assert "--scorer clap" in said
        (outcome,) = AcousticScorer().score(["sad, not sad"], [Audio(np.zeros((RATE, 2), np.float32), RATE)])
        assert outcome == Score(0.0, {"words": 1.0})


def vibes(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def service() -> Iterator[ScoringService]:
    with ScoringService([AcousticScorer()], ScoringSettings(seconds=8)) as service:
        yield service


def final(outcome: Any) -> float:
    assert isinstance(outcome, Score)
    return outcome.final_score


@pytest.mark.long
@pytest.mark.parametrize("file", ["vibes_held_out", "vibes_development"])
def test_a_config_that_matches_beats_one_that_contradicts(service: ScoringService, file: str) -> None:
    """On twenty vibes put aside before the lexicon was written (and on those that were looked at), for two bases."""
    rows = vibes(file)
    plain = MusicConfig().to_prompt().model_dump()
    for base in (plain, random_config(np.random.default_rng(5)).model_dump()):
        pairs = [(row["vibe"], {**base, **row[side]}) for row in rows for side in ("match", "contradict")]
        scores = [final(scored_render.outcomes["acoustic"]) for scored_render in service.score_all(pairs)]
        matching, contradicting = np.array(scores[::2]), np.array(scores[1::2])
        wins = int((matching > contradicting).sum())
        print(f"\n{file}: the matching config wins {wins} of {len(rows)}")
        for row, match, contradict in zip(rows, matching, contradicting, strict=True):
            if match <= contradict:
                print(f"  lost: {row['vibe']} ({match:.2f} against {contradict:.2f})")
        assert wins >= 0.9 * len(rows)


@pytest.mark.long
def test_the_best_of_eight_has_more_of_the_intended_fields_than_a_random_one(service: ScoringService) -> None:
    """Counted on the fields that the vibes intend, which the scorer does not see."""
    rng = np.random.default_rng(0)
    configs = [random_config(rng).model_dump() for _ in range(96)]
    rows = vibes("vibes_held_out")
    table = np.array(
        [
            [
                final(scored_render.outcomes["acoustic"])
                for scored_render in service.score_all((row["vibe"], c) for c in configs)
            ]
            for row in rows
        ]
    )
    share = np.array([[np.mean([c[f] == v for f, v in row["match"].items()]) for c in configs] for row in rows])
    winners, everyone = [], []
    for _ in range(200):
        eight = rng.choice(len(configs), 8, replace=False)
        best = eight[table[:, eight].argmax(axis=1)]
        winners.append(share[np.arange(len(rows)), best].mean())
        everyone.append(share[:, eight].mean())
    print(f"\nintended fields: best of 8 {np.mean(winners):.3f}, random {np.mean(everyone):.3f}")
    assert np.mean(winners) > np.mean(everyone) + 0.01
