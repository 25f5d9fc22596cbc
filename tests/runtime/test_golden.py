"""Twenty named configs and what they sound like, coarsely: an accidental change of sound is noticed.

After a change that is meant, raise ``RENDERER_VERSION`` and write the file again:

    python tests/runtime/test_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from listening import DEFAULTS, RATE, mel_bank, spectrogram

from latentscore import RENDERER_VERSION, MusicConfigPrompt, render

CONFIGS = Path(__file__).parents[2] / "docs" / "sound" / "configs.json"
GOLDEN = Path(__file__).with_name("golden.json")
SECONDS = 4.0
TOLERANCE_DB = 0.5


def named_configs() -> dict[str, MusicConfigPrompt]:
    return {
        name: MusicConfigPrompt(**{**DEFAULTS, **words})
        for name, words in json.loads(CONFIGS.read_text(encoding="utf-8")).items()
    }


def fingerprint(config: MusicConfigPrompt) -> list[list[float]]:
    """Decibels in 12 mel bands of each half second, of the middle; and of the side against the middle."""
    audio = render(config, SECONDS, 1, RATE)
    middle, side = audio.mono, (audio.samples[:, 0] - audio.samples[:, 1]) / 2
    rows = []
    for part in np.split(spectrogram(middle)[: 8 * 21], 8):
        rows.append([round(float(x), 1) for x in 10 * np.log10(part.mean(axis=0) @ mel_bank(1024, RATE, 12).T + 1e-4)])
    rows.append([round(10 * float(np.log10((side**2).mean() / (middle**2).mean() + 1e-6)), 1)])
    return rows


def flat(rows: list[list[float]]) -> np.ndarray:
    return np.array([value for row in rows for value in row])


@pytest.mark.long
@pytest.mark.parametrize("name", named_configs())
def test_a_named_config_sounds_as_it_did(name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["renderer"] == RENDERER_VERSION, "a new version of the sound needs new fingerprints: see above"
    apart = np.abs(flat(fingerprint(named_configs()[name])) - flat(golden["configs"][name]))
    assert apart.max() < TOLERANCE_DB, f"{name}: {apart.max():.1f} dB away; if that is meant, see the top of this file"


def test_twenty_configs_are_named_and_all_different() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["configs"]
    assert list(golden) == list(named_configs())
    assert len(golden) == 20
    prints = [flat(rows) for rows in golden.values()]
    assert min(np.abs(a - b).mean() for n, a in enumerate(prints) for b in prints[:n]) > 2.0


def main() -> None:
    lines = ",\n".join(
        f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(fingerprint(config))}"
        for name, config in named_configs().items()
    )
    GOLDEN.write_text(f'{{"renderer": "{RENDERER_VERSION}", "configs": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
