"""What a model must answer about a text: which moods it holds, each in five lengths.

Answers are tidied at the door (white space, over-long strings, the case of tags) and then trusted.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from typing import Annotated, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from latentscore_data.core.base.rows import LEVELS, Level

STRING_MAX_CHARS = 1000
TAG_MAX_WORDS = 3


def _tidy(value: object) -> object:
    """Runs of blanks become one; line breaks stay, because an ``xl`` wording is made of lines."""
    if not isinstance(value, str):
        return value
    lines = (re.sub(r"[^\S\n]+", " ", line).strip() for line in value.splitlines())
    return "\n".join(line for line in lines if line)[:STRING_MAX_CHARS].rstrip()


def _tidy_tags(value: object) -> object:
    if not isinstance(value, list):
        return value
    tags: list[object] = []
    for tag in cast("list[object]", value):
        if isinstance(tag, str):
            tag = " ".join(tag.lower().split()[:TAG_MAX_WORDS])
        if tag != "" and tag not in tags:
            tags.append(tag)
    return tags


def _text_schema(description: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description})


class Ladder(BaseModel):
    """One mood in five lengths, from the most vivid wording to the shortest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    xl: Annotated[str, BeforeValidator(_tidy), Field(min_length=1), _text_schema("two or three vivid lines")]
    lg: Annotated[str, BeforeValidator(_tidy), Field(min_length=1), _text_schema("2 to 3 sentences")]
    m: Annotated[str, BeforeValidator(_tidy), Field(min_length=1), _text_schema("1 to 2 sentences")]
    sm: Annotated[str, BeforeValidator(_tidy), Field(min_length=1), _text_schema("5 to 10 words")]
    xs: Annotated[str, BeforeValidator(_tidy), Field(min_length=1), _text_schema("1 to 3 words")]

    def wordings(self) -> list[tuple[Level, str]]:
        """(level, text) from longest to shortest; one pair, with the level of its length, where all five are the same."""
        found: list[tuple[Level, str]] = [(level, getattr(self, level)) for level in LEVELS]
        if len({text for _, text in found}) > 1:
            return found
        words = len(self.xl.split())
        return [(next(level for level, fewest in _FEWEST_WORDS if words >= fewest), self.xl)]


_FEWEST_WORDS: tuple[tuple[Level, int], ...] = (("xl", 46), ("lg", 26), ("m", 11), ("sm", 4), ("xs", 0))
"""From how many words on a text has the length of a level, as far as what a model is asked for tells."""


class CharacterVibes(BaseModel):
    """The moods around one person of the text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, BeforeValidator(_tidy), Field(min_length=1), _text_schema("the character's name")]
    ladders: Annotated[list[Ladder], Field(min_length=1, description="one ladder for each mood of the character")]


class Vibe(BaseModel):
    """A passage of the text that holds a mood of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vibe_index: Annotated[int, Field(ge=0, description="0 for the first vibe, then counting up")]
    text_page: Annotated[int, Field(ge=0, description="the one page it comes from, as marked in the text")]
    characters: Annotated[list[CharacterVibes], Field(description="who is felt in this passage; may be empty")]
    scene_vibes: Annotated[list[Ladder], Field(description="the mood of the scene itself; may be empty")]
    tags: Annotated[
        list[str],
        BeforeValidator(_tidy_tags),
        Field(description="a few tags of 1 to 3 words, lower case"),
    ]


class TextVibes(BaseModel):
    """A model's whole answer about a text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vibes: list[Vibe]


# For texts whose characters nobody keeps: they would cost tokens. The docstrings are part of what a model is sent.


class SceneVibe(Vibe):
    """A passage of the text that holds a mood of its own."""

    characters: SkipJsonSchema[list[CharacterVibes]] = []


class TextScenes(BaseModel):
    """A model's whole answer about a text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vibes: list[SceneVibe]


def answer_type(characters: bool) -> type[TextVibes] | type[TextScenes]:
    """What a model is asked for about a text."""
    return TextVibes if characters else TextScenes


@cache
def vibe_schema_hash(characters: bool = True) -> str:
    """SHA-256 of the JSON schema of the answer, in canonical form."""
    canonical = json.dumps(answer_type(characters).model_json_schema(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
