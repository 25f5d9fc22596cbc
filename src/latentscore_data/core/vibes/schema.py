"""The schema of a model's answer about a text: its moods, each in five lengths.

Validation normalizes answers: white space, the length of strings, the case of tags.
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
    """Replace runs of blanks by one. Line breaks are kept, because an ``xl`` wording consists of lines."""
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
        """Return (level, text) from longest to shortest; one pair, with the level of its length, if all are equal."""
        found: list[tuple[Level, str]] = [(level, getattr(self, level)) for level in LEVELS]
        return found if len({text for _, text in found}) > 1 else [(level_of(self.xl), self.xl)]


_FEWEST_WORDS: tuple[tuple[Level, int], ...] = (("xl", 46), ("lg", 26), ("m", 11), ("sm", 4), ("xs", 0))
"""The smallest number of words of each level, after the lengths that a model is asked for."""


def level_of(text: str) -> Level:
    """Return the level that a text of this length has."""
    words = len(text.split())
    return next(level for level, fewest in _FEWEST_WORDS if words >= fewest)


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


# The schema without characters, which saves tokens where they are not kept. Docstrings are part of the schema that a
# model gets, and so of the cache keys.


class SceneVibe(Vibe):
    """A passage of the text that holds a mood of its own."""

    characters: SkipJsonSchema[list[CharacterVibes]] = []


class TextScenes(BaseModel):
    """A model's whole answer about a text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vibes: list[SceneVibe]


def answer_type(characters: bool) -> type[TextVibes] | type[TextScenes]:
    """Return the type of a model's answer about a text."""
    return TextVibes if characters else TextScenes


@cache
def vibe_schema_hash(characters: bool) -> str:
    """Return the SHA-256 of the answer's JSON schema in canonical form."""
    canonical = json.dumps(answer_type(characters).model_json_schema(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
