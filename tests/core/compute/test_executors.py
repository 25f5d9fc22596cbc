"""Where work runs, by name."""

from __future__ import annotations

import pytest

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import load_settings
from latentscore_data.core.compute.registry import make_executor


def test_the_old_name_of_this_machine_still_works_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    assert make_executor("local", load_settings(), said.append).name == "here"
    assert "--on here" in said[0]
    assert load_settings(train={"on": "local"}).train.on == "here"
    assert 'now "here"' in caplog.text


def test_an_unknown_place_names_those_there_are() -> None:
    with pytest.raises(InputError) as error:
        make_executor("moon", load_settings(), print)
    assert "--on here or --on modal or --on ray" in error.value.remedy
