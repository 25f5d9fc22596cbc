"""The promises of render that hold for every config."""

from __future__ import annotations

import numpy as np
import pytest

from latentscore import InvalidConfigError, MusicConfig, render

RATE = 22_050


def test_a_render_is_stereo_at_the_promised_loudness() -> None:
    audio = render(MusicConfig(), 4.0, sample_rate=RATE)
    assert audio.samples.shape == (4 * RATE, 2)
    assert audio.samples.dtype == np.float32
    assert np.isfinite(audio.samples).all()
    assert audio.loudness_lufs() == pytest.approx(-16.0, abs=0.5)
    assert audio.true_peak_dbfs() < -1.0


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("seconds", {"seconds": 0.0}),
        ("seconds", {"seconds": -3}),
        ("seconds", {"seconds": float("nan")}),
        ("seconds", {"seconds": 601}),
        ("sample_rate", {"seconds": 1, "sample_rate": 4_000}),
        ("sample_rate", {"seconds": 1, "sample_rate": 200_000}),
        ("seed", {"seconds": 1, "seed": -1}),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(field: str, arguments: dict) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        render(MusicConfig(), **arguments)
    assert caught.value.field == field
