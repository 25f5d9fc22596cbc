"""A base model's folder may have a name that is not UTF-8."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import here
from latentscore_data.core.base.names import model_text
from latentscore_data.core.base.settings import TrainSettings


def test_settings_with_such_a_name_have_a_text_and_others_have_pydantic_s() -> None:
    name = os.fsdecode(b"models/b\xffm")
    odd, plain = TrainSettings(base_model=name), TrainSettings(base_model="tiny-random")
    assert "b\\\\xffm" in model_text(odd)
    assert model_text(plain) == plain.model_dump_json()


@pytest.mark.ml
def test_a_run_on_such_a_folder_is_refused_or_named(tmp_path: Path, root: Path) -> None:
    from export_workspace import fill

    fill(root)
    folder = tmp_path / os.fsdecode(b"b\xffm")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    out = here("train", "sft", "--base-model", str(folder), "--root", str(root))
    assert out.returncode in (2, 3), out.stderr
    assert "b\\xffm" in out.stderr
