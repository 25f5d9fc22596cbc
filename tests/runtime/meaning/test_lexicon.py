"""What the offline model hears: every label by its name, plain English for all of them, typos, negations."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentscore.labels import FIELDS
from latentscore.meaning.lexicon import lexicon, parse_vibe
from latentscore.meaning.offline import payload_for

SPOKEN = [
    tuple(line.split(" | "))
    for line in (Path(__file__).parent / "spoken_fields.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def spelled(label: object) -> str:
    return str(label).lower()


@pytest.mark.parametrize("field", list(FIELDS))
def test_every_label_is_heard_by_its_own_name_and_comes_out_at_any_temperature(field: str):
    for label in FIELDS[field].labels:
        vibe = f"rain at night, {field}: {spelled(label)}, and a storm"
        assert parse_vibe(vibe).fields.get(field) == label, vibe
        config = payload_for(vibe, temperature=2.0, seed=1, sample_idx=3).config
        assert getattr(config, field) == label


def test_plain_english_names_fields():
    wrong: list[str] = []
    total = 0
    for vibe, wanted in SPOKEN:
        parsed = parse_vibe(vibe).fields
        for pair in wanted.split():
            field, label = pair.split("=")
            total += 1
            if spelled(parsed.get(field)) != label:
                wrong.append(f"{vibe!r}: {field} is {parsed.get(field)}, not {label}")
    assert total > 400
    assert len(wrong) <= 0.02 * total, "\n".join(wrong)


def test_the_spoken_list_covers_every_field():
    named = {pair.split("=")[0] for _, wanted in SPOKEN for pair in wanted.split()}
    assert named == set(FIELDS), f"tests/runtime/meaning/spoken_fields.txt: {named ^ set(FIELDS)}"


@pytest.mark.parametrize(
    ("typed", "field", "label"),
    [
        ("a vrey slow tempo", "tempo", "very_slow"),
        ("walkign bass", "bass", "walking"),
        ("no percusion", "rhythm", "none"),
        ("a spasre melody", "melody_density", "sparse"),
        ("in a vast catheddral", "space", "vast"),
    ],
)
def test_small_typos_are_forgiven(typed: str, field: str, label: str):
    assert parse_vibe(typed).fields.get(field) == label


def test_words_that_are_only_near_to_known_ones_stay_themselves():
    assert parse_vibe("a note not fast").fields["tempo"] == "slow"


def test_what_is_denied_does_not_happen():
    for i in range(30):
        config = payload_for("a storm without drums, no bells, not fast", temperature=1.5, seed=0, sample_idx=i).config
        assert config.rhythm == "none"
        assert config.accent == "none"
        assert config.tempo in ("slow", "very_slow")


def test_the_tables_name_only_fields_and_labels_that_exist_and_each_label_has_words():
    tables = lexicon()
    said = {(s.field, s.label) for senses in tables.senses.values() for s in senses}
    for name, spec in FIELDS.items():
        if name in ("root", "register_min_oct", "register_max_oct"):
            continue  # keys and octaves are read as numbers and note names
        assert {label for field, label in said if field == name} == set(spec.labels), name
