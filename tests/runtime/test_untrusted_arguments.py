"""Arguments of the runtime that are no texts, times or numbers: refused at once, with the name of the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import latentscore as ls
from latentscore.errors import InvalidConfigError, LatentScoreError

NO_SECONDS = [True, "5", float("nan"), float("inf"), -1.0, 1e300, 10**400, [1], None]
NO_FRAMES = [True, "5", 1.5, -1, 2**62, 10**400, None]

Call = Callable[[Any], Any]

SECONDS: dict[str, Call] = {
    "seconds of a track": lambda value: ls.Track("fog", value),
    "transition of a track": lambda value: ls.Track("fog", 1, transition=value),
    "length of a stream": lambda value: ls.stream("fog", seconds=value if value is not None else "no"),
    "transition of a live stream": lambda value: ls.live(iter(["fog"]), transition=value),
    "part of a live stream": lambda value: ls.live(iter(["fog"])).collect(value if value is not None else "no"),
}


@pytest.mark.parametrize("name", SECONDS)
def test_a_time_that_is_none_is_refused(name: str) -> None:
    for value in NO_SECONDS:
        with pytest.raises(InvalidConfigError) as error:
            SECONDS[name](value)
        assert error.value.field in ("seconds", "transition"), value
        assert len(str(error.value)) < 200


def test_frames_that_are_no_number_are_refused() -> None:
    stream = ls.Stream(ls.MusicConfig(), sample_rate=8_000)
    for value in NO_FRAMES:
        with pytest.raises(InvalidConfigError):
            stream.read(value)
    assert len(stream.read(np.int64(10))) == 10


@pytest.mark.parametrize(
    "call",
    [
        lambda: ls.Playlist("fog"),
        lambda: ls.Playlist(b"fog"),
        lambda: ls.Playlist(7),
        lambda: ls.live(b"fog"),
        lambda: ls.live(ls.Track("fog")),
        lambda: ls.live(7),
        lambda: ls.render("fog", update={7: "slow"}),
        lambda: ls.render("fog", update=7),
        lambda: ls.render("fog", model=7),
        lambda: ls.Step(True),
        lambda: ls.Step(1.0),
        lambda: ls.render("fog", update={"tempo": ls.Step(10**5000), "root": ls.Step(1)}),
        lambda: ls.render({"config": {"tempo": "slow"}, "title": ["x"]}, seconds=float("nan")),
    ],
)
def test_what_is_no_item_update_or_model_is_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(LatentScoreError) as error:
        call()
    assert len(str(error.value)) < 300
