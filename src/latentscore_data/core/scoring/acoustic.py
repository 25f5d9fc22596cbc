"""A scorer without weights: what is measured in the sound against what the words of the vibe ask for.

What it can: tell a bright from a dark piece, fast from slow, full from bare, vast from dry, calm from wild, wide from narrow,
smooth from rough, deep from light, and a little of glad from sad, when the vibe says so in common English words.

What it cannot: it knows some 870 words and looks at each alone, apart from "not" and "very". It does not understand metaphors, names,
other languages or irony, nor which instrument plays, nor whether the music is good. A vibe without a word it knows
gets 0 from every candidate, and says so (``words`` is 0). It measures a mix, so a shaker counts as brightness and a long
reverb as fullness. Use CLAP where weights can be had; use this to get going, offline, and as a second opinion.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from latentscore import Audio
from latentscore_data.core.base.seeds import digest
from latentscore_data.core.llm.offline.lexicon import parse_vibe
from latentscore_data.core.scoring import descriptors
from latentscore_data.core.scoring.types import Outcome, Score, Vectors

AXES: dict[str, dict[str, float]] = {
    "speed": {"attack": 1.0, "activity": 1.0, "mod_rate": 0.8, "decay": 0.5, "pulse": 0.4},
    "light": {"high_share": 1.0, "centroid": 0.6, "flatness": 0.4, "filled": 0.4},
    "crowd": {"fullness": 1.0, "activity": 0.8, "bandwidth": 0.6, "filled": 0.4, "attack": 0.3, "gaps": -0.3},
    "room": {"drop": -1.0, "decay": -1.0, "width": 1.0, "attack": -0.4},
    "width": {"width": 1.0},
    "energy": {"activity": 1.0, "attack": 0.8, "mod_rate": 0.8, "drop": 0.5, "decay": 0.4},
    "rough": {"activity": 0.8, "flatness": 0.8, "filled": 0.8, "attack": 0.5, "loudness_range": -0.3},
    "depth": {"centroid": -1.0, "low_share": 0.8, "high_share": -0.6},
    "mood": {"majorness": 1.0},
}
"""What each thing that words ask for looks like in the descriptors: weights on their standard scores."""

TYPICAL: dict[str, tuple[float, float]] = {
    "activity": (-1.36, 0.313),
    "attack": (7.06, 1.6),
    "mod_rate": (0.968, 0.478),
    "pulse": (0.332, 0.157),
    "decay": (6.76, 0.261),
    "drop": (7.86, 1.9),
    "gaps": (0.0224, 0.0114),
    "loudness_range": (9.35, 3.19),
    "centroid": (7.86, 1.01),
    "bandwidth": (1.47, 0.477),
    "flatness": (-30.9, 14.9),
    "low_share": (-4.31, 3.61),
    "high_share": (-25.5, 15.0),
    "fullness": (3.48, 0.505),
    "filled": (0.581, 0.158),
    "width": (-20.0, 16.5),
    "majorness": (0.0115, 0.102),
    "movement": (2.63, 0.675),
}
"""Mean and standard deviation of each descriptor over random configs, 10 s; benchmarks/scoring.py --calibrate prints them."""

_WORDS: dict[str, str] = {
    "speed+": "fast quick rapid swift speedy hasty hurried hurry hurrying rush rushing race racing sprint sprinting run running "
    "runner gallop galloping chase chasing pursuit dash dashing brisk breakneck frantic frenetic hectic urgent urgency "
    "flurry scurry scramble speeding accelerate accelerating whirl whirling spin spinning zip bolt fleeing flee escape "
    "express busy lively energetic dance dancing dancer jig sprightly nimble pulse pounding upbeat uptempo allegro presto "
    "gallivant skitter darting fleet headlong stampede rave frenzied manic",
    "speed-": "slow slowly slower unhurried languid lazy leisurely lingering linger sluggish drowsy sleepy sleep sleeping asleep doze dozing "
    "slumber drift drifting crawl crawling creeping creep glacial ponderous heavy plod plodding stately solemn still stillness "
    "motionless idle rest resting pause waiting wait weary tired lullaby adagio largo lento patient gradual eternal timeless "
    "frozen suspended lying stagnant trudge dirge funeral procession meditation meditative float floating hover",
    "light+": "bright brilliant brightness radiant luminous shining shine shiny sparkling sparkle glitter glittering glint gleaming gleam "
    "twinkling twinkle shimmer shimmering sunny sun sunlight sunlit sunshine sunrise dawn morning noon daylight day dazzling vivid glass "
    "glassy crystal crystalline icy ice icicle frost frosty crisp clear silver silvery neon light lights glow glowing "
    "spring summer snow white golden gold bells bell chimes chime tinkling tinkle flute piccolo birdsong birds bird treetops high "
    "star stars starlight diamond prism rainbow lightning treble shrill piercing thin airy sharp needle",
    "light-": "dark darkness dim dusky dusk gloomy gloom murky shadow shadows shadowy night midnight nocturnal black blackness ink "
    "inky somber sombre bleak dungeon cellar basement crypt tomb grave cave cavern underground buried muffled muted dull "
    "obscure overcast fog foggy smoke smoky soot coal ebony velvet moonless abyss deep depths swamp mud muddy bog cloak "
    "hollow haunted ominous sinister brooding menacing grim thunder rumble rumbling underwater drowned subterranean below bottom mellow "
    "dusty sepia rust rusty eclipse evening twilight",
    "crowd+": "busy crowded crowd crowds overcrowded bustling bustle teeming swarm swarming dense thick lush rich full packed "
    "layered orchestral orchestra choir chorus symphony symphonic carnival festival fair market city traffic parade throng mob jungle "
    "opulent ornate baroque abundant overflowing hundreds thousands many countless everything everywhere party feast celebration "
    "cascade torrent flood avalanche massive epic grand wall saturated riot tapestry kaleidoscope hive bees voices drums fireworks",
    "crowd-": "sparse spare bare minimal minimalist minimalistic empty emptiness solitary solitude alone lonely lone lonesome single one only "
    "austere barren desert desolate vacant deserted abandoned isolated hush hushed quiet silence silent whisper whispering "
    "whispered faint nothing barely little thin simple plain stark skeletal ascetic void unadorned stripped naked hermit monk "
    "spacious blank tundra",
    "room+": "vast immense huge enormous endless infinite boundless cathedral church temple hall cavern cavernous cave canyon valley "
    "echo echoes echoing echoed resound resounds resounding reverberant reverberation reverberating cosmic cosmos space universe galaxy "
    "nebula stars void abyss sky skies horizon horizons ocean sea expanse expansive wide open distant faraway far remote spacious "
    "monumental stadium arena desert mountain mountains dome tunnel ethereal dreamy dreamlike heavenly celestial misty mist "
    "aurora limitless eternity floating drifting ambient atmospheric haze hazy",
    "room-": "dry close near intimate cramped tiny small little closet cupboard attic cabin booth box boxed boxy padded cell nook cosy cozy "
    "snug confined claustrophobic narrow enclosed tight bedroom kitchen car phone telephone radio ear inside pocket carpeted "
    "direct dead anechoic stuffy cubicle elevator pantry burrow",
    "width+": "wide broad panoramic surround surrounding horizon horizons sweeping open vast everywhere expanse expansive sky immersive "
    "enveloping spread stretching field fields plain plains prairie all-around",
    "width-": "mono narrow radio telephone phone centered centred thin pinhole gramophone phonograph keyhole tiny flat single "
    "cramped closet",
    "energy+": "energetic energy wild furious fury rage raging angry anger fierce ferocious violent violence aggressive intense intensity chaos chaotic "
    "panic panicked alarm alarmed agitated agitation restless nervous anxious anxiety tense tension frantic frenzied frenzy hectic "
    "storm stormy tempest battle war fight fighting hammer hammering pounding explosive explosion eruption erupting thrilling "
    "excited exciting ecstatic euphoric triumphant heroic riot revolt adrenaline turbulent turmoil dance rave party manic "
    "mad madness urgent desperate dangerous danger burning blazing inferno roaring electric rebellious crash crashing "
    "bursting powerful relentless driving charging unquiet feverish jittery",
    "energy-": "calm calming serene serenity tranquil tranquility peaceful peace placid gentle gently soothing soothed relaxed relaxing restful "
    "quiet still stillness mellow mild tender lullaby sleepy sleep sleeping drowsy dozing dreaming meditation meditative zen "
    "contemplative pensive soft hush hushed easy lazy languid idle cosy cozy comfort comforting balm rest repose "
    "lull lulling whisper infant baby cradle garden pond lake breeze unhurried composed silent",
    "rough+": "rough harsh gritty grit grinding grind distorted distortion noisy noise raw coarse jagged scratchy scratch rusty rust rusted "
    "broken cracked crackling crackle static buzz buzzing rasp rasping abrasive industrial machine machines machinery mechanical "
    "metal metallic factory engine glitch glitchy gravel sand sandpaper dirty filthy grimy torn shredded fuzz fuzzy "
    "crunch crunchy corrosive blacksmith forge saw chainsaw screech screeching punk grunge decayed barbed thorns thorny "
    "shattered growling growl snarling",
    "rough-": "smooth silky silk satin velvet velvety soft softly gentle pure clean clear polished gliding glide flowing flow liquid milk milky "
    "cream creamy honey butter feather feathers feathery cloud clouds cotton delicate tender warm rounded pristine "
    "immaculate silken caress fluid plush downy cashmere pillow pillowy",
    "depth+": "deep deeper depth depths low bass sub rumble rumbling thunder thunderous subterranean underground earth earthquake tectonic giant "
    "whale ocean abyss abyssal heavy massive cavern drone drones seismic boulder mountain weight weighty ominous foghorn gong growl "
    "bottom below leviathan tuba cello monolith",
    "depth-": "high thin airy weightless feather light lightweight tinkling tinkle chirp chirping birdsong birds sparkling flute piccolo "
    "icicle treetops glitter glittering twinkle needle crystal glass glassy crisp sky delicate gossamer flutter fluttering butterfly "
    "treble squeak helium",
    "mood+": "happy joy joyful joyous glad cheerful merry jolly hopeful hope optimistic delight delightful delighted celebration celebrate bliss "
    "blissful sunny playful laughing laughter smile smiling triumph triumphant victory bright carefree innocent festive "
    "wonderful uplifting gratitude love loving paradise heaven jubilant wedding spring",
    "mood-": "sad sadness sorrow sorrowful melancholy melancholic grief grieving mourning mournful tragic tragedy lament despair "
    "hopeless forlorn gloomy gloom lonely loneliness bitter dread fear fearful ominous sinister haunting haunted eerie menacing "
    "doom funeral death dying dead tears weeping crying regret loss lost heartbreak heartbroken wistful nostalgia nostalgic "
    "bleak grim dark anguish pain wounded sombre somber horror terror sick",
}
"""Words by what they ask for; a word may ask for several things. Chosen from general English before any vibe was scored."""

_TURN = frozenset(
    [
        "not",
        "no",
        "never",
        "without",
        "hardly",
        "nor",
        "isn't",
        "aren't",
        "wasn't",
        "don't",
        "doesn't",
        "lacking",
        "less",
    ]
)
_MORE = frozenset(["very", "extremely", "so", "utterly", "incredibly", "deeply", "intensely", "too"])
_LESS = frozenset(["slightly", "somewhat", "mildly", "faintly", "rather", "half"])
_TOKEN = re.compile(r"[a-z]+(?:['’-][a-z]+)*")


class AcousticScorer:
    """``final = sum(asked * heard) / sum(|asked|)`` over what the vibe asks for, in [-1, 1].

    ``asked`` is the sum of the vibe's words for a thing (squashed by tanh); ``heard`` is tanh of the weighted standard scores of
    the descriptors that show it. Parts: ``words`` (how many words were known) and ``asked_X``, ``heard_X`` for each thing
    X asked for. The standard scores are taken against random configs of this package's own renderer.
    """

    name = "acoustic"
    embed_in_worker: Callable[[Audio], Vectors] | None = staticmethod(descriptors.describe)

    def __init__(self) -> None:
        self.embedding_fingerprint = digest("acoustic descriptors", descriptors.VERSION, descriptors.NAMES)
        self.fingerprint = (
            "acoustic-" + digest(self.embedding_fingerprint, AXES, TYPICAL, _WORDS, _TURN, _MORE, _LESS)[:16]
        )
        means = np.array([TYPICAL[name][0] for name in descriptors.NAMES])
        spreads = np.array([TYPICAL[name][1] for name in descriptors.NAMES])
        self._means, self._spreads = means, spreads
        weights = np.array([[AXES[axis].get(name, 0.0) for name in descriptors.NAMES] for axis in AXES])
        self._weights = weights / np.linalg.norm(weights, axis=1, keepdims=True)

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Outcome]:
        return self.compare(vibes, np.stack(self.embed(audios)))

    def embed(self, audios: Sequence[Audio]) -> list[Vectors]:
        return [descriptors.describe(audio) for audio in audios]

    def compare(self, vibes: Sequence[str], vectors: Vectors) -> Sequence[Outcome]:
        # One extreme measure must not drown the others.
        standard = np.clip((vectors - self._means) / self._spreads, -3.0, 3.0)
        # Row by row, not as one matrix product: that rounds by the size of the batch, and a score must not know its company.
        heard = 0.5 * (standard[:, None, :] * self._weights).sum(axis=2)
        return [
            self._match(vibe, {axis: math.tanh(value) for axis, value in zip(AXES, row, strict=True)})
            for vibe, row in zip(vibes, heard.tolist(), strict=True)
        ]

    @staticmethod
    def _match(vibe: str, heard: Mapping[str, float]) -> Score:
        asked, words = asked_for(vibe)
        weight = sum(abs(value) for value in asked.values())
        if not weight:
            return Score(0.0, {"words": float(len(words))})
        final = sum(value * heard[axis] for axis, value in asked.items()) / weight
        parts = {"words": float(len(words))}
        for axis, value in asked.items():
            parts[f"asked_{axis}"] = value
            parts[f"heard_{axis}"] = heard[axis]
        return Score(final, parts)


def asked_for(vibe: str) -> tuple[dict[str, float], list[str]]:
    """({axis: -1..1} of what a vibe asks for, the words it was read from)."""
    sums: dict[str, float] = {}
    known: list[str] = []
    strength = 1.0
    since = 0
    for token in _TOKEN.findall(vibe.lower().replace("’", "'")):
        if token in _TURN:
            strength, since = -0.8, 0
        elif token in _MORE or token in _LESS:
            strength, since = strength * (1.5 if token in _MORE else 0.6), 0
        elif found := _meaning(token):
            known.append(token)
            for axis, sign in found.items():
                sums[axis] = sums.get(axis, 0.0) + sign * strength
            strength = 1.0
        else:
            since += 1
            if since > 2:  # "not" reaches over "a very", not over half a sentence
                strength = 1.0
    return {axis: float(np.tanh(value)) for axis, value in sums.items() if abs(value) > 1e-6}, known


def nothing_asked(vibe: str) -> str | None:
    """Why every sound scores 0 against this vibe, in one line with what to do; None where something is asked for."""
    asked, words = asked_for(vibe)
    if asked:
        return None
    why = (
        f"what acoustic knows of this vibe cancels out ({', '.join(words)})"
        if words
        else "acoustic knows no word of it"
    )
    return f"{why}, so the first answer that can be played stands; use other words, or --scorer clap or judge:MODEL"


def lexicon() -> frozenset[str]:
    """Every word this scorer knows."""
    return frozenset(_entries())


@dataclass(frozen=True)
class Sharing:
    """How much of what this scorer reads in some vibes the offline model ``builtin/keywords`` reads too."""

    known: int
    """Words of the vibes that this scorer knows."""
    shared: int
    """Those of them that the offline model knows as well."""
    words: list[str]
    """The shared ones, each once, the most frequent first."""
    others: list[str]
    """Those that only this scorer knows, likewise."""

    @property
    def share(self) -> float:
        return self.shared / self.known if self.known else 0.0


def sharing(vibes: Iterable[str]) -> Sharing:
    """Where the share is high, a good score of ``builtin/keywords`` may only say that both read the same word the same way."""
    counts = Counter(word for vibe in vibes for word in asked_for(vibe)[1])
    ordered = [word for word, _ in counts.most_common()]
    shared = [word for word in ordered if _keywords_knows(word)]
    others = [word for word in ordered if not _keywords_knows(word)]
    return Sharing(counts.total(), sum(counts[word] for word in shared), shared, others)


@cache
def _keywords_knows(word: str) -> bool:
    heard = parse_vibe(word)
    return bool(heard.fields or heard.moods or heard.colors or heard.banned)


@cache
def _entries() -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for side, words in _WORDS.items():
        for word in words.split():
            table.setdefault(word, {})[side[:-1]] = 1.0 if side[-1] == "+" else -1.0
    return table


def _meaning(token: str) -> dict[str, float]:
    table = _entries()
    return next((table[form] for form in _forms(token) if form in table), {})


def _forms(token: str) -> list[str]:
    """A word and what it may be a form of: faster -> fast, glowing -> glow, icicles -> icicle."""
    forms = [token]
    for ending, instead in (
        ("s", ""), ("es", ""), ("ies", "y"), ("ly", ""), ("ily", "y"), ("er", ""), ("er", "e"), ("est", ""), ("est", "e"),
        ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"), ("ness", ""), ("iness", "y"), ("y", ""), ("'s", ""), ("iest", "y"), ("ier", "y"),
    ):  # fmt: skip
        if token.endswith(ending) and len(token) - len(ending) + len(instead) >= 3:
            forms.append(token[: len(token) - len(ending)] + instead)
    return forms
