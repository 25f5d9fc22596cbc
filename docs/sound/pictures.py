"""Make the spectrograms of docs/sound.md: python docs/sound/pictures.py

A dozen of the named configs in configs.json, 16 s each, as small PNGs beside this file. Needs matplotlib (the ml extra).

    python docs/sound/pictures.py --before SRC

instead draws 90 s of three configs by another version, whose ``src`` folder is SRC, above those of this one: form.png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
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


LONG = ("rain on a tin roof", "heroes return", "late café")
LONG_SECONDS = 90.0
LONG_RATE = 22_050

_RENDER = """
import json, sys
import numpy
from latentscore import MusicConfigPrompt, render
audio = render(MusicConfigPrompt(**json.loads(sys.argv[1])), float(sys.argv[2]), 0, int(sys.argv[3]))
numpy.save(sys.argv[4], audio.samples.mean(axis=1))
"""


def long_mono(config: MusicConfigPrompt, src: str) -> np.ndarray:
    """90 s of a config by the version in a folder ``src``, both sides as one."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "mono.npy")
        words = [config.model_dump_json(), str(LONG_SECONDS), str(LONG_RATE), out]
        subprocess.run([sys.executable, "-c", _RENDER, *words], check=True, env={**os.environ, "PYTHONPATH": src})
        return np.load(out)


def form_picture(before: str, after: str, path: Path) -> None:
    """Log-mel level over 90 s of three configs: each by the version ``before``, and under it by the one ``after``."""
    from matplotlib import pyplot
    from PIL import Image

    configs = named_configs()
    figure, axes = pyplot.subplots(2 * len(LONG), 1, figsize=(7.0, 7.2), dpi=80, sharex=True, layout="constrained")
    hz = np.fft.rfftfreq(2048, 1 / LONG_RATE)
    wanted = np.geomspace(40, 10_000, 90)
    for number, (name, label) in enumerate((name, label) for name in LONG for label in ("before", "now")):
        mono = long_mono(configs[name], before if label == "before" else after)
        frames = np.lib.stride_tricks.sliding_window_view(mono, 2048)[::1024]
        power = np.abs(np.fft.rfft(frames * np.hanning(2048), axis=1)) ** 2
        rows = np.array([np.interp(wanted, hz, line) for line in power[: len(power) // 4 * 4]])
        level = 10 * np.log10(rows.reshape(-1, 4, len(wanted)).mean(axis=1).T + 1e-5)
        seconds = (np.arange(level.shape[1]) * 4 + 2) * 1024 / LONG_RATE
        axis = axes[number]
        axis.pcolormesh(seconds, wanted, level, cmap="magma", vmin=-20, vmax=42, rasterized=True)
        axis.set_yscale("log")
        axis.set_yticks([100, 1000], ["100", "1k"])
        axis.tick_params(labelsize=6)
        axis.set_title(f"{name}, {label}", fontsize=7, loc="left", pad=2)
    drawn = BytesIO()
    figure.savefig(drawn)
    pyplot.close(figure)
    Image.open(drawn).convert("RGB").quantize(40).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="SRC", help="the src folder of another version: draw form.png")
    before = parser.parse_args().before
    if before:
        form_picture(before, str(HERE.parents[1] / "src"), HERE / "form.png")
        return
    configs = named_configs()
    for name in SHOWN:
        picture(name, render(configs[name], SECONDS, 0, RATE), HERE / file_name(name))


if __name__ == "__main__":
    main()
