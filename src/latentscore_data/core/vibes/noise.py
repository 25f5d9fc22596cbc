"""Typing noise, which makes a trained model robust to typing errors. Seeds depend on the row alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentscore.seeds import rng_for, unit_hash
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import NoiseSettings

if TYPE_CHECKING:
    import numpy as np

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    letter: "".join(
        near
        for other, keys in enumerate(_ROWS)
        if abs(other - row) <= 1
        for at, near in enumerate(keys)
        if abs(at - column) <= 1 and near != letter
    )
    for row, letters in enumerate(_ROWS)
    for column, letter in enumerate(letters)
}
"""The neighbouring keys of each key."""

SLIP_EVERY = 20
"""Characters per typing error; a text gets at least one."""


def noise_draw(row_id: str, settings: NoiseSettings) -> float:
    """Return a number in [0, 1) for the row, which gets noise if the number is below the rate."""
    return unit_hash(settings.seed, row_id, "noise")


def with_noise(row: VibeRow, noisy: bool, settings: NoiseSettings) -> VibeRow:
    """Return the row with ``vibe_noisy`` and ``tags_noisy``: with typing errors if ``noisy``, else the originals."""
    if not noisy:
        return row.model_copy(update={"vibe_noisy": row.vibe_original, "tags_noisy": list(row.tags_original)})
    rng = rng_for(settings.seed, row.row_id, "slips")
    return row.model_copy(
        update={
            "vibe_noisy": mistyped(row.vibe_original, rng),
            "tags_noisy": [mistyped(tag, rng) if rng.random() < 0.5 else tag for tag in row.tags_original],
        }
    )


def mistyped(text: str, rng: np.random.Generator) -> str:
    """Return the text with typing errors: swapped, missing, doubled and neighbouring letters, lost capitals.

    A text with a letter always changes.
    """
    letters = list(text)
    for _ in range(max(1, round(len(text) / SLIP_EVERY))):
        places = [i for i, letter in enumerate(letters) if letter.isalpha()]
        if not places:
            break
        _slip(letters, int(places[int(rng.integers(len(places)))]), rng)
    changed = "".join(letters)
    if changed == text and any(letter.isalpha() for letter in text):
        at = next(i for i, letter in enumerate(text) if letter.isalpha())
        return text[: at + 1] + text[at:]
    return changed


def _slip(letters: list[str], at: int, rng: np.random.Generator) -> None:
    kind = int(rng.integers(5))
    letter = letters[at]
    if kind == 0 and at + 1 < len(letters) and letters[at + 1].isalpha():
        letters[at], letters[at + 1] = letters[at + 1], letter
    elif kind == 1 and sum(c.isalpha() for c in letters) > 3:
        del letters[at]
    elif kind == 2 and letter.isupper():
        letters[at] = letter.lower()
    elif kind == 3 and letter.lower() in _NEIGHBOURS:
        near = _NEIGHBOURS[letter.lower()]
        pressed = near[int(rng.integers(len(near)))]
        letters[at] = pressed.upper() if letter.isupper() else pressed
    else:
        letters.insert(at, letter)
