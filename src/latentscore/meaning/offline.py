"""The offline model ``builtin/keywords``: answers an English sentence without a language model, key or network.

Fields that a vibe names explicitly get their value at any temperature. The others follow from the meaning of its words
and the nearest pairs of the starter set, and are drawn with the temperature and the seed, so that N candidates differ.
The same question always has the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from latentscore.config import (
    MusicConfigPrompt,
    MusicConfigPromptPayload,
    Palette,
    PaletteColor,
)
from latentscore.labels import FIELDS, FieldSpec, Label
from latentscore.meaning.lexicon import ParsedVibe, parse_vibe
from latentscore.meaning.reading import (
    axes,
    pole_words,
    reading_fingerprint,
    says_something,
)
from latentscore.meaning.sentence import table_text, word_list
from latentscore.meaning.starter import Neighbours, neighbours, starter_fingerprint
from latentscore.seeds import digest, rng_for
from latentscore.vibe_map import starter_pairs

OFFLINE_MODEL = "builtin/keywords"
"""The name of the offline model in records and metadata."""
VERSION = 4
"""Raised when the same tables give another answer to the same question."""


@cache
def fingerprint() -> str:
    """Return a hash of everything that determines an answer: the rules, the lexicon, the axes, the vectors, the starter set."""
    return f"{OFFLINE_MODEL}:{VERSION}:{digest(table_text('lexicon.toml'), reading_fingerprint(), starter_fingerprint())[:12]}"


DEFAULT_LOGIT = 0.1
VOTE_LOGIT = 5.0
AXIS_LOGIT = 4.0
POLE_LOGIT = 5.0
GENRE_LOGIT = 6.0
COOL = 0.4
"""Factor on the temperature: at a temperature of 0.9, candidates differ and still fit the vibe."""


def payload_for(vibe: str, *, temperature: float, seed: int, sample_idx: int) -> MusicConfigPromptPayload:
    """Return a valid payload for a vibe.

    ``temperature`` 0 gives the most likely label of each field; higher values vary the fields that the vibe does not
    name. The result depends only on the four arguments.
    """
    parsed = parse_vibe(vibe)
    rng = rng_for(OFFLINE_MODEL, VERSION, vibe, f"{temperature:.6g}", seed, sample_idx)
    near = neighbours(parsed.reading)
    config = MusicConfigPrompt(**_draw_fields(parsed, near, temperature, rng))
    return MusicConfigPromptPayload(
        thinking=_thinking(parsed, config, near),
        title=title_for(vibe),
        config=config,
        palettes=_palettes(parsed.colors, near, temperature, rng),
    )


def dressed(vibe: str, config: MusicConfigPrompt) -> MusicConfigPromptPayload:
    """Return the payload of a config without one: a title from the vibe's words, the palettes of the nearest starter pairs
    after the colours that the vibe names, and empty ``thinking``. Deterministic."""
    parsed = parse_vibe(vibe)
    rng = rng_for(OFFLINE_MODEL, VERSION, vibe)
    palettes = _palettes(parsed.colors, neighbours(parsed.reading), 0.0, rng)
    return MusicConfigPromptPayload(thinking="", title=title_for(vibe), config=config, palettes=palettes)


def _draw_fields(
    parsed: ParsedVibe, near: Neighbours, temperature: float, rng: np.random.Generator
) -> dict[str, Label]:
    values: dict[str, Label] = {}
    for name, spec in FIELDS.items():
        # Also drawn for explicitly named fields, so that naming one field does not change the others.
        drawn = _draw(spec, parsed, near, temperature, rng)
        values[name] = parsed.fields.get(name, drawn)
    low, high = int(values["register_min_oct"]), int(values["register_max_oct"])
    if low > high:
        if "register_min_oct" in parsed.fields:
            values["register_max_oct"] = low
        else:
            values["register_min_oct"] = high
    return values


def _draw(spec: FieldSpec, parsed: ParsedVibe, near: Neighbours, temperature: float, rng: np.random.Generator) -> Label:
    logits = _logits(spec, parsed, near)
    for label in parsed.banned.get(spec.name, ()):
        logits[spec.labels.index(label)] = -np.inf
    u = rng.random()
    if temperature < 0.01:
        return spec.labels[int(np.argmax(logits))]
    odds = np.exp((logits - logits.max()) / (COOL * temperature))
    at = int(np.searchsorted(np.cumsum(odds / odds.sum()), u, side="right"))
    return spec.labels[min(at, len(spec.labels) - 1)]


def _closeness(spec: FieldSpec, wanted: int) -> NDArray[np.float64]:
    """Return the similarity of each label of a field to the label ``wanted``, 0 to 1; neighbours on an ordered field are
    similar."""
    places = np.arange(len(spec.labels))
    return np.maximum(0.0, 1.0 - 0.5 * abs(places - wanted)) if spec.ordered else 1.0 * (places == wanted)


def _logits(spec: FieldSpec, parsed: ParsedVibe, near: Neighbours) -> NDArray[np.float64]:
    """Return the logits of each label of a field: the sum of the default, the starter pairs' votes, and the axes."""
    places = np.arange(len(spec.labels))
    logits = DEFAULT_LOGIT * (places == spec.labels.index(spec.nearest_label(spec.default)))
    for at, vote in enumerate(near.votes(spec.name).values()):
        logits = logits + VOTE_LOGIT * vote * _closeness(spec, at)
    if spec.name in parsed.genre:
        logits = logits + GENRE_LOGIT * _closeness(spec, spec.labels.index(parsed.genre[spec.name]))
    shift = 0.0
    for axis in axes():
        value = parsed.reading.axes.get(axis.name, 0.0)
        shift += axis.moves.get(spec.name, 0.0) * value
        wanted = (axis.at_high if value > 0 else axis.at_low).get(spec.name)
        if wanted is not None:
            logits[spec.labels.index(wanted)] += POLE_LOGIT * abs(value)
    half = (len(spec.labels) - 1) / 2
    goal = half * (1.0 + min(max(shift, -1.0), 1.0))
    return logits - AXIS_LOGIT * min(1.0, abs(shift)) * abs(places - goal) / half


def _thinking(parsed: ParsedVibe, config: MusicConfigPrompt, near: Neighbours) -> str:
    if parsed.reading.foreign and not parsed.fields:
        return "this text is not in English, which is all that builtin/keywords reads, so the usual setting is varied"
    parts = [f"“{parsed.words[name]}” asks for {name} {getattr(config, name)}" for name in parsed.fields]
    if parsed.reading.words:
        poles = ", ".join(list(pole_words(parsed.reading))[:3])
        parts.append(f"{', '.join(parsed.reading.words[:5])} read as {poles}" if poles else "its words pull both ways")
    if near.pairs:
        parts.append(f"the nearest known vibe is “{near.pairs[0]['vibe']}”")
    return "; ".join(parts) or "no word of this vibe is known, so the usual ambient setting is varied"


def title_for(vibe: str) -> str:
    """Return a title of one to four words of the vibe, preferring those with a mood, in their original order."""
    words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", vibe.split("\n")[0])
    telling = [w for w in words if w.lower() not in word_list("small")][:12] or words[:4]
    known = {w for w in telling if says_something(w)} if len(telling) > 4 else set(telling)
    rank = sorted(range(len(telling)), key=lambda i: (telling[i] not in known, i))[:4]
    title = " ".join(word[:1].upper() + word[1:] for word in (telling[i] for i in sorted(rank)))
    while len(title) > 60 and " " in title:
        title = title.rsplit(" ", 1)[0]
    return title[:60] or "Untitled"


def _palettes(named: Sequence[str], near: Neighbours, temperature: float, rng: np.random.Generator) -> list[Palette]:
    """Return the first palettes of the three nearest pairs (of any pairs if none is near), after the named colours."""
    pairs = near.pairs[:6] or starter_pairs()
    if temperature > 0 or not near.pairs:
        pairs = [pairs[at] for at in rng.permutation(len(pairs))]
    return [_tinted(Palette.model_validate(pair["palettes"][0]), named) for pair in pairs[:3]]


def _tinted(palette: Palette, named: Sequence[str]) -> Palette:
    colors = list(dict.fromkeys([*named, *(color.hex for color in palette.colors)]))
    return Palette(
        colors=[PaletteColor(hex=color, weight=old.weight) for color, old in zip(colors, palette.colors, strict=False)]
    )
