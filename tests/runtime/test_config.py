"""The schema: one table, two shapes, one conversion."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from factories import make_config, make_palette, make_payload
from latentscore.config import (
    FIELDS_LEFT_OUT,
    REGISTERS_SWAPPED,
    MusicConfig,
    MusicConfigPrompt,
    MusicConfigPromptPayload,
    Palette,
    convert_config,
    parse_config,
    parse_payload,
    random_config,
    schema_hash,
    schema_text,
)
from latentscore.errors import InvalidConfigError
from latentscore.labels import FIELDS, ORDERED_FIELDS, beats_per_minute


@st.composite
def prompt_configs(draw: st.DrawFn) -> MusicConfigPrompt:
    words = {name: draw(st.sampled_from(spec.labels)) for name, spec in FIELDS.items()}
    low, high = sorted((words["register_min_oct"], words["register_max_oct"]))
    return MusicConfigPrompt(**{**words, "register_min_oct": low, "register_max_oct": high})


def test_numbers_of_the_ordered_words() -> None:
    words = make_config(tempo="slow", melody_density="very_sparse", chord_change_bars="fast")
    config = MusicConfigPrompt(**words).to_config()
    assert (config.tempo, config.melody_density, config.chord_change_bars) == (0.30, 0.15, 0.5)
    assert beats_per_minute(config.tempo) == pytest.approx(88.0)
    for spec in FIELDS.values():
        if spec.kind == "scale":
            assert len(set(spec.numbers)) == len(spec.labels)
            assert list(spec.numbers) in (sorted(spec.numbers), sorted(spec.numbers, reverse=True))


def test_the_runtime_defaults_are_the_published_ones() -> None:
    config = MusicConfig()
    assert (config.tempo, config.space, config.density, config.melody_density) == (0.35, 0.6, 5, 0.45)
    assert (config.register_min_oct, config.register_max_oct, config.cadence_strength) == (4, 6, 0.65)


@given(prompt_configs())
def test_words_survive_numbers_and_text(config: MusicConfigPrompt) -> None:
    numbers = config.to_config()
    assert numbers.to_prompt() == config
    assert MusicConfigPrompt.model_validate_json(config.model_dump_json()) == config
    assert MusicConfig.model_validate_json(numbers.model_dump_json()) == numbers
    assert pickle.loads(pickle.dumps(config)) == config
    assert parse_config(config.model_dump()) == config
    assert parse_config(numbers.model_dump()) == numbers


@given(prompt_configs(), st.sampled_from(ORDERED_FIELDS), st.integers(-9, 9))
def test_a_step_moves_one_field_and_stops_at_the_ends(config: MusicConfigPrompt, name: str, move: int) -> None:
    labels = FIELDS[name].labels
    before, after = labels.index(getattr(config, name)), labels.index(getattr(config.step(**{name: move}), name))
    assert after == min(max(before + move, 0), len(labels) - 1)


def test_a_step_of_a_field_without_order_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="root: has no ordered labels"):
        MusicConfigPrompt(**make_config()).step(root=1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tempo": "allegro"}, "config.tempo"),
        ({"density": 7}, "config.density"),
        ({"density": 3.0}, "config.density"),
        ({"phrase_len_bars": 3}, "config.phrase_len_bars"),
        ({"phrase_len_bars": True}, "config.phrase_len_bars"),
        ({"depth": "yes"}, "config.depth"),
        ({"register_max_oct": 9}, "config.register_max_oct"),
        ({"reverb": "vast"}, "config.reverb"),
    ],
)
def test_a_wrong_field_is_named(change: dict, field: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse_payload(make_payload(**change))
    assert caught.value.field == field


def test_a_missing_field_and_several_faults_are_all_named() -> None:
    payload = make_payload(space="huge")
    del payload["config"]["tempo"]
    payload["palettes"].pop()
    with pytest.raises(InvalidConfigError) as caught:
        parse_payload(json.dumps(payload))
    assert [field for field, _ in caught.value.problems] == ["config.tempo", "config.space", "palettes"]


def test_numbers_outside_their_range_and_nan_are_refused() -> None:
    for bad in (1.5, -0.1, float("nan")):
        with pytest.raises(InvalidConfigError, match="tempo"):
            MusicConfig(tempo=bad)
    with pytest.raises(InvalidConfigError, match="swap them"):
        parse_config({"register_min_oct": 5, "register_max_oct": 2})


def test_registers_are_in_order_where_only_one_is_given() -> None:
    for alone in ({"register_min_oct": 7}, {"register_max_oct": 3}):
        with pytest.raises(InvalidConfigError, match="swap them") as caught:
            parse_config(alone)
        assert caught.value.field == "register_max_oct"
    with pytest.raises(InvalidConfigError, match="swap them"):
        MusicConfig(register_min_oct=7)
    with pytest.raises(InvalidConfigError, match="swap them"):
        MusicConfig.model_construct(register_min_oct=7).to_prompt()


def test_labels_and_numbers_mix_and_what_is_left_out_has_its_default() -> None:
    config = parse_config({"tempo": "slow", "space": 0.95, "bass": "drone", "density": 4.0, "depth": 1})
    assert config == MusicConfig(tempo=0.30, space=0.95, bass="drone", density=4, depth=True)
    with pytest.raises(InvalidConfigError, match="'allegro' is none of very_slow") as caught:
        parse_config({"tempo": "allegro", "space": 0.95, "echo": "loud"})
    assert [field for field, _ in caught.value.problems] == ["tempo", "echo"]


def test_layers_are_fields_and_a_field_of_its_own_comes_first() -> None:
    config = parse_config({"layers": {"bass": "walking", "pad": "cinematic"}, "pad": "thin_high", "schema_version": 1})
    assert (config.bass, config.pad) == ("walking", "thin_high")
    for odd in ({"layers": ["bass"]}, {"layers": {"strings": "warm"}}, {"schema_version": 2}):
        with pytest.raises(InvalidConfigError):
            parse_config(odd)


@given(prompt_configs())
def test_a_valid_config_is_converted_without_a_change(config: MusicConfigPrompt) -> None:
    assert convert_config(config.model_dump()) == (config, ())
    assert convert_config(config.to_config().model_dump()) == (config.to_config(), ())


@given(prompt_configs(), st.sets(st.sampled_from(list(FIELDS)), min_size=1))
def test_any_part_of_a_config_is_converted_with_a_note(config: MusicConfigPrompt, names: set[str]) -> None:
    part = {name: getattr(config, name) for name in names}
    converted, notes = convert_config(part)
    assert notes == (() if names == set(FIELDS) else (FIELDS_LEFT_OUT,))
    numbers = converted.to_config() if isinstance(converted, MusicConfigPrompt) else converted
    assert {name: getattr(numbers, name) for name in names} == {n: FIELDS[n].number(part[n]) for n in names}


def test_registers_in_the_wrong_order_are_swapped_with_a_note() -> None:
    crossed = make_config(register_min_oct=6, register_max_oct=4)
    converted, notes = convert_config(crossed)
    assert converted == MusicConfigPrompt(**make_config(register_min_oct=4, register_max_oct=6))
    assert notes == (REGISTERS_SWAPPED,)


@pytest.mark.parametrize("value", [{}, {"tempo": None}, {"reverb": "vast"}, {"tempo": "allegro"}, [], "slow", None])
def test_a_config_whose_meaning_is_not_clear_is_refused(value: object) -> None:
    with pytest.raises(InvalidConfigError):
        convert_config(value)


def test_long_thinking_is_cut_and_titles_are_tidied_and_bounded() -> None:
    payload = parse_payload(make_payload(thinking="x" * 5000, title="  Rain \n on  Tin "))
    assert len(payload.thinking) == 1000
    assert payload.title == "Rain on Tin"
    with pytest.raises(InvalidConfigError, match="title"):
        parse_payload(make_payload(title=""))


@pytest.mark.parametrize(
    ("title", "cut"),
    [
        ("one two three four five six", "one two three four five six"),
        ("one two three four five, six, seven", "one two three four five, six…"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        (f"rain {'x' * 60}", "rain…"),
        (f"{'x' * 29} {'y' * 30} z", f"{'x' * 29}…"),
    ],
)
def test_a_title_that_is_too_long_is_cut_between_words(title: str, cut: str) -> None:
    payload = parse_payload(make_payload(title=title))
    assert payload.title == cut
    assert parse_payload(payload.model_dump()) == payload


def test_palettes_are_sorted_counted_and_repaired() -> None:
    same = Palette(colors=[{"hex": "#ffffff", "weight": weight} for weight in ("xs", "xxl", "md", "md", "sm")])
    assert [color.weight for color in same.colors] == ["xxl", "md", "md", "sm", "xs"]
    assert same.duplicate_count() == 4
    repaired = same.repair()
    assert repaired.duplicate_count() == 0
    assert repaired.colors[0].hex == "#FFFFFF"
    assert repaired == same.repair()
    for bad in (
        {"hex": "white", "weight": "md"},
        {"hex": "#FFF", "weight": "md"},
        {"hex": "#FFFFFF", "weight": "huge"},
    ):
        with pytest.raises(ValidationError):
            Palette(colors=[*make_palette()["colors"][:4], bad])
    with pytest.raises(ValidationError):
        Palette(colors=make_palette()["colors"][:4])


@given(st.lists(st.sampled_from(["#000000", "#FFFFFF", "#808080", "#070605", "#FA0000"]), min_size=5, max_size=5))
def test_a_repaired_palette_never_repeats(codes: list[str]) -> None:
    palette = Palette(colors=[{"hex": code, "weight": "md"} for code in codes])
    assert palette.repair().duplicate_count() == 0


def test_the_schema_for_providers_is_closed_and_complete() -> None:
    schema = MusicConfigPromptPayload.model_json_schema()
    config = schema["$defs"]["MusicConfigPrompt"]
    assert sorted(config["required"]) == sorted(FIELDS)
    assert config["additionalProperties"] is False
    assert schema["additionalProperties"] is False
    assert schema["properties"]["palettes"]["minItems"] == schema["properties"]["palettes"]["maxItems"] == 3
    assert config["properties"]["tempo"]["enum"] == ["very_slow", "slow", "medium", "fast", "very_fast"]
    assert len(schema_text().splitlines()) == len(FIELDS)


def test_answers_to_the_schema_of_0_1_stay_valid() -> None:
    """The hash changes only with fields, labels and bounds: a new wording would ask for every paid answer again."""
    assert schema_hash() == "22070f46073b4ec99aea9d7aa750c20d2abde593e069b9ed9782c2693a52c47e"


def test_random_configs_cover_every_label_and_depend_on_the_seed_alone() -> None:
    rng = np.random.default_rng(3)
    configs = [random_config(rng) for _ in range(300)]
    for name, spec in FIELDS.items():
        assert {getattr(config, name) for config in configs} == set(spec.labels)
    assert random_config(np.random.default_rng(3)) == configs[0]


KEYS = ["config", "title", "thinking", "palettes", *FIELDS, "colors"]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(ANY_JSON)
def test_any_value_is_a_payload_or_one_error(value: object) -> None:
    for parse in (parse_payload, parse_config, convert_config):
        try:
            parse(value)
        except InvalidConfigError as error:
            assert error.field  # noqa: PT017
