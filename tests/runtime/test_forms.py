"""Answers as a line of labels: what is written, what it is held to, and the payload that is made of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from factories import make_config, make_payload
from latentscore import forms
from latentscore.api.answers import line_to_json
from latentscore.config import parse_payload, random_config
from latentscore.errors import ModelError
from latentscore.labels import FIELDS
from latentscore.prompt import vibe_message, vibe_of
from latentscore.seeds import rng_for

VIBE = "slow rain on a tin roof"


@pytest.mark.parametrize("seed", range(5))
def test_any_config_comes_back_from_its_line_with_a_title_and_colours_of_the_vibe(seed: int) -> None:
    config = random_config(rng_for("line", seed))
    line = forms.labels_line({"config": config.model_dump()})
    assert re.fullmatch(forms.labels_pattern(), line)
    payload = parse_payload(line_to_json(line, VIBE))
    assert payload.config == config
    assert (payload.title, payload.thinking) == ("Slow Rain Tin Roof", "")
    assert len({palette.colors[0].hex for palette in payload.palettes}) == 3
    assert line_to_json(line, VIBE) == line_to_json(line, VIBE)


def test_the_grammar_takes_no_label_of_another_field_and_no_crossed_registers() -> None:
    line = forms.labels_line(make_payload())
    first, *rest = line.split(" ")
    at = list(FIELDS).index("register_min_oct")
    crossed = [*line.split(" ")]
    crossed[at : at + 2] = ["6", "5"]
    for wrong in (" ".join(["c", *rest]), " ".join(rest), f"{line} ", f"{line} {first}", " ".join(crossed)):
        assert not re.fullmatch(forms.labels_pattern(), wrong)
        if wrong.strip() != line:
            assert line_to_json(wrong, VIBE) == wrong, "what is not whole is not mended"


def test_the_openings_are_those_of_real_lines() -> None:
    lines = [forms.labels_line({"config": make_config(tempo=tempo)}) for tempo in FIELDS["tempo"].labels]
    assert tuple(line.split(" ")[0] for line in lines) == forms.LABELS.openings


def test_the_vibe_is_found_in_the_message_that_holds_it() -> None:
    assert vibe_of(vibe_message("two\nlines")) == "two\nlines"
    assert vibe_of("no marks") == "no marks"


def test_a_folder_says_how_its_model_answers_also_beside_a_gguf(tmp_path: Path) -> None:
    assert forms.form_of(None).name == forms.form_of(tmp_path).name == "json"
    (tmp_path / forms.FORM_FILE).write_text(json.dumps({"answer": "labels", "system": "Answer calmly."}))
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "m.gguf").touch()
    for place in (tmp_path, tmp_path / "gguf" / "m.gguf"):
        found = forms.form_of(place)
        assert (found.name, found.system()) == ("labels", "Answer calmly.")
    (tmp_path / forms.FORM_FILE).write_text('{"answer": "verse"}')
    with pytest.raises(ModelError, match="does not name the model's answer format"):
        forms.form_of(tmp_path)


def test_llama_cpp_gets_the_same_labels() -> None:
    words = re.findall(r'"([^"]+)"', forms.labels_gbnf())
    assert {word for part in words for word in part.split()} == {
        forms.spell(label) for spec in FIELDS.values() for label in spec.labels
    }
