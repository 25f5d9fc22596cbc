"""Measure the loudness of each style alone, and print the gains that bring each layer to its target level.

    python benchmarks/levels.py

The output goes into ``src/latentscore/synth/styles.py``.
"""

from __future__ import annotations

import math

import numpy as np

from latentscore.config import MusicConfig
from latentscore.labels import FIELDS
from latentscore.loudness import lufs_of_rows
from latentscore.synth import engine
from latentscore.synth.context import RenderContext
from latentscore.synth.notes import LAYERS
from latentscore.synth.score import compose
from latentscore.synth.styles import LEVELS_DB

MORE_DB = {
    "bells": 7.1, "pluck": 6.0, "brass_hit": 1.0, "arp_accent": 3.0, "chime": 5.9, "bells_dense": 1.0, "piano_note": 10.0, "blip": -0.2, "blip_random": 2.3,
    "shimmer_slow": 0.8, "crystal": 8.0, "glitch": 5.5, "stars": 4.4, "minimal": 7.3, "heartbeat": 5.5,
    "soft_four": -3.0, "hats_only": 1.5, "electronic": 2.7, "kit_light": 1.5, "kit_medium": 1.5, "military": 1.5,
    "tabla_essence": 5.5, "brush": 1.5, "wind": -1.5,
}  # fmt: skip
"""For styles of few events: loudness over time says too little of how loud each of them must be to be heard in the mix, and too
much of even strokes and long gusts. The melody has a style of the same name as one of the rhythm; it gets nothing."""

RATE = 24_000
SECONDS = 16.0


def loudness(layer: str, label: str) -> float:
    """How loud the layer is alone, with its echo and reverb, over four configs and seeds.

    The ear's weighting forgives low drums almost any energy, and then they eat up the loudness of the whole piece: the
    plain level counts as well, half a decibel less.
    """
    found = []
    for seed, (tempo, mode, engine_name) in enumerate(
        ((0.5, "minor", "pattern"), (0.3, "major", "procedural"), (0.7, "dorian", "pattern"), (0.5, "major", "pattern"))
    ):
        config = MusicConfig(
            **{layer: label}, density=6, tempo=tempo, mode=mode, melody_engine=engine_name, echo=0.25, space=0.5,
            melody_density=0.5, tension_curve="waves", root=("c", "e", "g", "a#")[seed],
        )  # fmt: skip
        score = compose(config, SECONDS, seed)
        context = RenderContext(score.piece, RATE)
        group = next(group for group in engine.GROUPS if layer in group[0])
        alone = engine.mix_layers(score, context, [((layer,), *group[1:])])
        plain = 10.0 * math.log10(2.0 * float(np.mean(alone.astype(np.float64) ** 2)) + 1e-12)
        found.append(max(lufs_of_rows(alone, RATE), plain - 0.5))
    return float(np.mean(found))


def main() -> None:
    for layer in LAYERS:
        print(f'    "{layer}": {{')
        for label in FIELDS[layer].labels:
            if label != "none":
                measured = loudness(layer, str(label))
                more = MORE_DB.get(str(label), 0.0) if layer != "melody" else 0.0
                wanted = LEVELS_DB[layer].get(str(label), 0.0) + engine.TARGET_LUFS_OF[layer] + more - measured
                print(f'        "{label}": {wanted:.1f},')
        print("    },")


if __name__ == "__main__":
    main()
