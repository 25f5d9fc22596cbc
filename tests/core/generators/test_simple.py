"""Generators without a model, the lookups, and the way from kind:name=label to one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from factories import make_payload, make_scored, make_vibe
from latentscore import parse_payload, starter_pairs
from latentscore.embed import WordVectorEmbedder
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.settings import BenchSettings, ConfigsSettings
from latentscore_data.core.generators.lookup import TextLookup
from latentscore_data.core.generators.registry import kind_of, make_generator, parse_source, parse_sources
from latentscore_data.core.generators.simple import (
    DatasetGenerator,
    KeywordsGenerator,
    MostCommonGenerator,
    RandomGenerator,
    most_common_payload,
)
from latentscore_data.core.generators.types import GeneratorDeps, KnownRows, SourceName


def test_sources_are_taken_apart():
    assert parse_source("baseline:random") == SourceName("baseline", "random", "baseline:random")
    assert parse_source("litellm:openai/gpt-4o:x=Big") == SourceName("litellm", "openai/gpt-4o:x", "Big")
    assert parse_source("dataset:config_payload=our data").label == "our data"


@pytest.mark.parametrize("text", ["", "random", "baseline:", "nothing:random", "=x"])
def test_an_unknown_source_is_one_line_and_a_remedy(text: str):
    with pytest.raises(InputError, match="unknown source") as error:
        parse_source(text)
    assert "KIND:NAME" in error.value.remedy


def test_a_label_used_twice_is_refused():
    with pytest.raises(InputError, match="label a is used more than once"):
        parse_sources(["baseline:random=a", "baseline:keywords=a"])
    with pytest.raises(InputError, match="no source"):
        parse_sources([])


def test_random_configs_are_valid_differ_by_row_and_stay_the_same():
    rows = [make_vibe(number) for number in range(30)]
    first = list(RandomGenerator("r", 0).generate(rows))
    again = list(RandomGenerator("r", 0).generate(rows[::-1]))[::-1]
    assert [answer.payload for answer in first] == [answer.payload for answer in again]
    assert all(parse_payload(answer.payload) for answer in first)
    assert len({str(answer.payload["config"]) for answer in first if answer.payload}) == 30
    assert next(RandomGenerator("r", 1).generate(rows)).payload != first[0].payload


def test_keywords_read_the_vibe():
    rows = [make_vibe(vibe="a very slow, dark piece"), make_vibe(vibe="a very fast, bright piece")]
    slow, fast = (answer.payload for answer in KeywordsGenerator("k", 0).generate(rows))
    assert slow is not None
    assert fast is not None
    assert (slow["config"]["tempo"], fast["config"]["tempo"]) == ("very_slow", "very_fast")
    assert slow["config"]["brightness"] == "dark"


def test_the_data_set_gives_what_its_rows_hold_and_checks_it():
    good, bad, none = make_scored(1), make_scored(2, config_payload={"title": "x"}), make_scored(3, config_payload=None)
    answers = list(DatasetGenerator("d", "config_payload", [good, bad, none]).generate([good, bad, none]))
    assert answers[0].payload == parse_payload(good.config_payload).model_dump(mode="json")
    assert "not a valid payload" in str(answers[1].failure)
    assert answers[2].failure == "the row has no config_payload"
    with pytest.raises(InputError, match="no row has a payload in other"):
        DatasetGenerator("d", "other", [good])


def test_the_first_valid_candidate_is_the_answer_at_n_1():
    row = make_scored(1, config_candidates=[None, make_payload("Second"), make_payload("Third")])
    (answer,) = DatasetGenerator("d", "first_valid", [row]).generate([row])
    assert answer.payload is not None
    assert answer.payload["title"] == "Second"


def test_the_most_common_config_takes_each_field_by_itself():
    payloads = [make_payload(tempo="slow", mode="major"), make_payload(tempo="slow"), make_payload(tempo="fast")]
    config = most_common_payload(payloads)["config"]
    assert (config["tempo"], config["mode"]) == ("slow", "minor")
    crossing = [
        make_payload(register_min_oct=6, register_max_oct=6),
        make_payload(register_min_oct=6, register_max_oct=7),
        make_payload(register_min_oct=2, register_max_oct=3),
        make_payload(register_min_oct=1, register_max_oct=3),
    ]
    assert parse_payload(most_common_payload(crossing)).config.register_max_oct == 6
    with pytest.raises(MissingError, match="SFT-Train contains no configs"):
        MostCommonGenerator("m", [make_scored(1, config_payload=None)])


def test_lookup_without_training_rows_takes_the_starter_set():
    pair = starter_pairs()[7]
    deps = GeneratorDeps(
        BenchSettings(),
        ConfigsSettings(),
        WordVectorEmbedder,
        sounds=pytest.fail,
        connect=pytest.fail,
        training_rows=list,
    )
    generator = make_generator("baseline:lookup", deps)
    assert isinstance(generator, TextLookup)
    (found,) = generator.generate([make_vibe(1, vibe=pair["vibe"])])
    assert found.payload is not None
    assert (found.payload["title"], found.payload["config"]) == (pair["title"], pair["config"])
    kind = kind_of(parse_source("baseline:lookup"))
    note = kind.describe(parse_source("baseline:lookup"), KnownRows([], [], Path()))
    assert f"{len(starter_pairs())} pairs of the starter set" in note.text


def test_lookup_takes_the_nearest_vibe_but_never_the_row_itself():
    known = [
        make_scored(1, vibe_original="rain on a tin roof at night", config_payload=make_payload("Rain")),
        make_scored(2, vibe_original="a brass band in the noon sun", config_payload=make_payload("Brass")),
    ]
    generator = TextLookup("lookup", known, WordVectorEmbedder())
    other, itself = generator.generate([make_vibe(9, vibe="night rain on the roof"), known[0]])
    assert other.payload is not None
    assert other.payload["title"] == "Rain"
    assert itself.payload is not None
    assert itself.payload["title"] == "Brass"
    (alone,) = TextLookup("lookup", known[:1], WordVectorEmbedder()).generate([known[0]])
    assert alone.failure == "there is no other row to look up"
    with pytest.raises(MissingError, match="lookup has no rows to use"):
        TextLookup("lookup", [], WordVectorEmbedder())
