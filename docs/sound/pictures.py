"""Make the spectrograms of docs/sound.md: python docs/sound/pictures.py

A dozen of the named configs in configs.json, 16 s each, as small PNGs beside this file. Needs matplotlib (the ml extra).
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np

from latentscore import FIELDS, Audio, MusicConfigPrompt, render

HERE = Path(__file__).parent
SECONDS = 16.0
RATE = 32_000
SHOWN = (
    "first light", "rain on a tin roof", "cathedral", "night drive", "heroes return", "market street", "late café",
    "deep sea", "broken machine", "starfield", "sunday kitchen", "ice",
)  # fmt: skip


def named_configs() -> dict[str, MusicConfigPrompt]:
    words = json.loads((HERE / "configs.json").read_text(encoding="utf-8"))
    defaults = {name: spec.nearest_label(spec.default) for name, spec in FIELDS.items()}
    return {name: MusicConfigPrompt(**{**defaults, **config}) for name, config in words.items()}


def file_name(name: str) -> str:
    return "".join(c for c in name.replace(" ", "-").replace("é", "e")) + ".png"


def picture(name: str, audio: Audio, path: Path) -> None:
    """Level over time and frequency (logarithmic, 40 Hz to 15 kHz), left above right."""
    from matplotlib import pyplot
    from PIL import Image

    figure, axes = pyplot.subplots(2, 1, figsize=(5.2, 2.4), dpi=90, sharex=True, layout="constrained")
    for axis, channel, side in zip(axes, audio.samples.T, ("left", "right"), strict=True):
        frames = np.lib.stride_tricks.sliding_window_view(channel, 2048)[::400]
        power = np.abs(np.fft.rfft(frames * np.hanning(2048), axis=1)) ** 2
        hz = np.fft.rfftfreq(2048, 1 / audio.sample_rate)
        wanted = np.geomspace(40, 15_000, 110)
        rows = np.array([np.interp(wanted, hz, line) for line in power])
        level = 10 * np.log10(rows.T + 1e-5)
        axis.pcolormesh(
            np.arange(len(frames)) * 400 / audio.sample_rate,
            wanted,
            level,
            cmap="magma",
            vmin=-25,
            vmax=45,
            rasterized=True,
        )
        axis.set_yscale("log")
        axis.set_yticks([100, 1000, 10_000], ["100", "1k", "10k"])
        axis.tick_params(labelsize=6)
        axis.set_ylabel(side, fontsize=7)
    axes[0].set_title(name, fontsize=8)
    drawn = BytesIO()
    figure.savefig(drawn)
    pyplot.close(figure)
    # Forty colours look the same and take a quarter of the space.
    Image.open(drawn).convert("RGB").quantize(40).save(path, optimize=True)


def main() -> None:
    configs = named_configs()
    for name in SHOWN:
        picture(name, render(configs[name], SECONDS, 0, RATE), HERE / file_name(name))


if __name__ == "__main__":
    main()
