"""The reward's parts as functions, and the order that they must put answers into."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import make_palette, make_payload
from latentscore import FIELDS
from latentscore.embed import WordVectorEmbedder
from latentscore_data.core.base.settings import GrpoSettings
from latentscore_data.core.scoring.rewards import (
    PARTS,
    Calibration,
    RewardBook,
    audio_part,
    calibrate,
    copied_share,
    finite_rewards,
    part_weights,
    penalty_part,
    read_answer,
    schema_part,
    title_part,
    total,
)

VIBE = "rain drumming softly on an old tin roof at night"
SETTINGS = GrpoSettings()


def answer(**changes: Any) -> str:
    return json.dumps({**make_payload(title="Quiet Night Rain"), **changes})


class FakeScorer:
    """Gives each brightness a score of its own; one config cannot be played. Counts what it scored."""

    def __init__(self) -> None:
        self.scored = 0

    def __call__(self, pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[float | None]:
        self.scored += len(pairs)
        scores = {"very_dark": None, "dark": 0.0, "medium": 0.5, "bright": 1.0, "very_bright": math.nan}
        return [scores[config["brightness"]] for _, config in pairs]


def embedded(pairs: Sequence[tuple[str, str]]) -> list[float]:
    embedder = WordVectorEmbedder()
    titles, vibes = zip(*pairs, strict=True)
    return (embedder.embed(titles) * embedder.embed(vibes)).sum(axis=1).tolist()


def book(scorer: FakeScorer | None = None) -> RewardBook:
    return RewardBook(Calibration("fake", 0.0, 1.0, 2000), embedded, scorer or FakeScorer())


def rewards(*answers: str, vibe: str = VIBE) -> list[float]:
    return [total(parts, SETTINGS) for parts in book().score([vibe] * len(answers), answers)]


def with_brightness(label: str, **changes: Any) -> str:
    return json.dumps({**make_payload(title="Quiet Night Rain", brightness=label), **changes})


def test_the_weights_are_those_of_the_docs() -> None:
    assert part_weights(SETTINGS) == {"format": 0.15, "schema": 0.30, "audio": 0.45, "title": 0.10, "penalty": -0.10}


def test_better_answers_earn_more() -> None:
    no_json = "I would play a slow and dark drone for this."
    wrong_shape = json.dumps({"mood": "dark", "tempo": "slow"})
    half = json.dumps({"config": {"tempo": "slow", "mode": "minor", "brightness": "dark"}})
    silent = with_brightness("very_dark")
    poor = with_brightness("dark")
    better = with_brightness("medium")
    good = with_brightness("bright")
    earned = rewards(no_json, wrong_shape, half, silent, poor, better, good)
    assert earned == sorted(earned)
    assert len(set(earned)) == len(earned)


def test_broken_json_earns_less_than_any_json_and_more_the_further_it_comes() -> None:
    whole = answer()
    cut = [whole[: len(whole) * i // 10] for i in range(10)]
    forms = [read_answer(text).format for text in cut]
    assert forms == sorted(set(forms))
    assert max(rewards(*cut)) < rewards(json.dumps({"mood": "dark"}))[0] < rewards(whole)[0]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ('{"a": 1}', 1, 1),
        ('  {"a": 1}\n', 1, 1),
        ('```json\n{"a": 1}\n```', 0.6, 0.6),
        ('```\n{"a": 1}\n```', 0.6, 0.6),
        ('```JSON \r\n\n{"a": "`` ```"}```', 0.6, 0.6),
        ('```json {"a": 1}```', 0, 0),
        ('```json5\n{"a": 1}\n```', 0, 0),
        ('```json\n{"a": 1}', 0, 0),
        ('Here it is: {"a": 1}', 0, 0),
        ('{"a": 1} and more', 0.001, 0.3),
        ("[1, 2]", 0, 0),
        ("", 0, 0),
        ('{"a": NaN}', 0, 0),
        ("{" * 100_000, 0, 0.3),
        ('{"a":' * 100_000, 0, 0.3),
    ],
)
def test_format_by_how_far_the_parser_came(text: str, low: float, high: float) -> None:
    assert low <= read_answer(text).format <= high


@pytest.mark.timeout(20)
@pytest.mark.parametrize("filling", ["\n", " ", " \n", "a\n", "```\n"])
def test_an_answer_that_wanders_is_read_at_once(filling: str) -> None:
    assert read_answer("```" + filling * 20_000 + "x") == (0, None)
    assert read_answer("```json\n" + filling * 20_000 + "```") == (0, None)


COUNTED = len(FIELDS) + 3


def test_schema_counts_fields_and_palettes() -> None:
    payload = make_payload()
    assert schema_part(payload) == 1.0
    fewer = {name: value for name, value in payload["config"].items() if name not in ("tempo", "root")}
    assert schema_part({**payload, "config": fewer}) == pytest.approx((COUNTED - 2) / COUNTED)
    assert schema_part({**payload, "config": {**payload["config"], "tempo": "presto"}}) == pytest.approx(
        (COUNTED - 1) / COUNTED
    )
    assert schema_part({**payload, "palettes": [make_palette()]}) == pytest.approx((COUNTED - 2) / COUNTED)
    assert schema_part({**payload, "mood": 1}) == pytest.approx(0.95)
    assert schema_part({**payload, "palettes": [make_palette()] * 5}) == pytest.approx(0.9)
    assert schema_part({str(i): i for i in range(100)}) == 0.0


@pytest.mark.parametrize(
    ("field", "value"), [("depth", 1), ("density", True), ("density", 4.0), ("density", "4"), ("register_min_oct", 7)]
)
def test_schema_knows_types_and_the_order_of_registers(field: str, value: object) -> None:
    payload = make_payload()
    assert schema_part({**payload, "config": {**payload["config"], field: value}}) == pytest.approx(
        (COUNTED - 1) / COUNTED
    )


def test_audio_maps_the_middle_of_the_data_to_the_whole_range() -> None:
    assert audio_part(None, 0, 1) == 0
    assert [audio_part(score, 0.2, 0.6) for score in (-9, 0.2, 0.4, 0.6, 9)] == pytest.approx([0.05, 0.05, 0.525, 1, 1])
    assert audio_part(math.nan, 0, 1) == 0.05
    assert audio_part(0.3, 0.3, 0.3) == 1
    assert audio_part(0.2, 0.3, 0.3) == 0.05


def test_calibration_is_the_5th_to_the_95th_percentile_of_what_is_finite() -> None:
    found = calibrate("acoustic", [*range(101), math.nan], ["x" * 100, "x" * 80])
    assert (found.low, found.high, found.longest_chars, found.values) == (5, 95, 125, 101)


def test_copying_the_vibe_as_title_does_not_pay() -> None:
    vibe = "rain on a tin roof"
    scorer = FakeScorer()

    def title(text: str) -> float:
        return book(scorer).part("title", [vibe], [answer(title=text)])[0]

    assert title("rain on a tin roof") == 0
    assert title("on a tin roof") == 0
    assert title("rain") == 0
    assert title("Rain, Softly") > 0
    assert title("Rain, Softly") > title("Marching Robots")
    assert title("one two three four five six seven") == 0
    assert title("") == 0


def test_title_part_is_likeness_times_what_is_its_own() -> None:
    assert title_part("tin roof lullaby", "a tin roof", 0.8) == pytest.approx(0.4)
    assert copied_share("TIN ROOF", "on the tin roof") == 1
    assert title_part("quiet", "rain", math.nan) == 0
    assert title_part("quiet", "rain", -1) == 0


def test_penalties_are_told_apart_and_stay_within_one() -> None:
    data = make_payload()
    text = json.dumps(data)
    assert penalty_part(text, data, 5000) == 0
    colors = [{"hex": "#000000", "weight": "xl"}] * 5
    equal = {**data, "palettes": [{"colors": colors}] * 3}
    assert penalty_part(json.dumps(equal), equal, 5000) == pytest.approx(0.8)
    assert penalty_part("x" * 150, None, 100) == pytest.approx(0.5)
    assert penalty_part("la " * 50, None, 5000) == pytest.approx(1 - 1 / 48)
    assert penalty_part("la " * 5000, None, 100) == 1


def test_each_answer_is_scored_once() -> None:
    scorer = FakeScorer()
    rewards_ = book(scorer)
    answers = [with_brightness("dark"), with_brightness("bright"), with_brightness("dark"), "no json"]
    for name in PARTS:
        rewards_.part(name, [VIBE] * 4, answers)
    assert scorer.scored == 2


def test_without_an_ear_the_audio_part_is_nothing() -> None:
    silent = RewardBook(Calibration("none", 0, 1, 2000), embedded)
    assert silent.part("audio", [VIBE], [answer()]) == [0.0]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
objects = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("thinking", "title", "config", "palettes", "mood"), anything)
)
damaged = st.builds(
    lambda name, value: json.dumps({**make_payload(), name: value}),
    st.sampled_from(["thinking", "title", "config", "palettes"]),
    anything,
)


@given(answer=st.text() | objects.map(json.dumps) | anything.map(json.dumps) | damaged, vibe=st.text(max_size=50))
def test_no_answer_makes_a_reward_that_is_no_number(answer: str, vibe: str) -> None:
    parts = book().score([vibe], [answer])[0]
    assert set(parts) == set(PARTS)
    assert all(0 <= value <= 1 for value in parts.values())
    assert -0.1 <= total(parts, SETTINGS) <= 1


def test_rewards_of_others_are_made_finite_with_a_floor_below_all() -> None:
    assert finite_rewards([0.5, None, math.nan, "2", "x"]) == [0.5, -0.5, -0.5, 2.0, -0.5]
    assert finite_rewards([None]) == [-1.0]
    assert finite_rewards([0.5, 10**400, -(10**400), 1e300]) == [0.5, 1e15, -1e15, 1e15]
