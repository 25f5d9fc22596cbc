"""The two config classes, the conversion between them, and a model's complete answer.

``MusicConfigPrompt`` holds labels and ``MusicConfig`` holds numbers. Both are generated from the table in
:mod:`latentscore.labels`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
)

from latentscore.errors import InvalidConfigError
from latentscore.json_search import JsonObject
from latentscore.labels import FIELDS, PALETTE_WEIGHTS, FieldSpec, Label

if TYPE_CHECKING:
    import numpy as np
    from pydantic_core import ErrorDetails

ModelT = TypeVar("ModelT", bound=BaseModel)

THINKING_MAX_CHARS = 1000
TITLE_MAX_CHARS = 60
TITLE_MAX_WORDS = 6
PALETTE_COUNT = 3
COLORS_PER_PALETTE = 5


class LintFinding(BaseModel):
    """A field without audible effect, or one that contradicts another field, and the reason."""

    model_config = ConfigDict(frozen=True)

    field: str
    reason: str


def _described(text: str) -> ConfigDict:
    """The configuration of a class in the payload's JSON schema.

    The schema is part of every cache key, so its descriptions are not the docstrings: a reworded docstring would ask, and pay
    for, every stored answer again.
    """
    return ConfigDict(extra="forbid", frozen=True, json_schema_extra={"description": text})


class _ConfigBase(BaseModel):
    """Base of both config classes: unknown keys are refused, instances are immutable, registers are in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    if TYPE_CHECKING:
        # The fields are generated from the table at import time, so type checkers do not know them.
        def __getattr__(self, name: str) -> Any: ...

    else:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise invalid_config(error) from None

        # Tells pydantic that its own validation need not call this __init__.
        __init__.__pydantic_base_init__ = True

    @field_validator("register_max_oct", check_fields=False)
    @classmethod
    def _registers_in_order(cls, highest: int, info: ValidationInfo) -> int:
        lowest = info.data.get("register_min_oct", highest)
        if lowest > highest:
            raise ValueError(f"register_max_oct ({highest}) is below register_min_oct ({lowest}); swap them")
        return highest

    def lint(self) -> list[LintFinding]:
        """Return the fields of this config without audible effect; an empty list for most configs."""
        return _lint(cast("MusicConfig | MusicConfigPrompt", self))


def _word_type(spec: FieldSpec) -> Any:
    if spec.kind == "switch":
        return StrictBool
    if spec.kind == "whole":
        low, high = int(spec.labels[0]), int(spec.labels[-1])
        if spec.labels == tuple(range(low, high + 1)):
            return Annotated[StrictInt, Field(ge=low, le=high)]
        return Annotated[Literal[spec.labels], BeforeValidator(_refuse_bool)]  # type: ignore[valid-type]
    return Literal[spec.labels]  # type: ignore[valid-type]


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError("must be a whole number")
    return value


def _number_type(spec: FieldSpec) -> Any:
    if spec.kind == "scale":
        number = Annotated[float, Field(ge=spec.low, le=spec.high, allow_inf_nan=False)]
        return Annotated[number, BeforeValidator(lambda value: _labelled(spec, value), json_schema_input_type=float)]
    return _word_type(spec)


def _labelled(spec: FieldSpec, value: object) -> object:
    """Return the number of a label; other values are returned unchanged."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is neither a label nor a number")
    if not isinstance(value, str):
        return value
    if value not in spec.labels:
        raise ValueError(f"{value!r} is none of {', '.join(map(str, spec.labels))}, and no number")
    return spec.number(value)


class _PromptBase(_ConfigBase):
    model_config = _described("A music config in words: every field, none left out.")

    def to_config(self) -> MusicConfig:
        """Convert labels to numbers. Every label has exactly one number."""
        return MusicConfig(**{name: spec.number(getattr(self, name)) for name, spec in FIELDS.items()})

    def step(self, **moves: int) -> Self:
        """Move ordered fields by a number of labels; a move stops at the first or last label.

        ``step(brightness=+1, tempo=-2)`` is one label brighter and two slower. If the registers would cross, the one
        that was not moved is set to the other. Raises :class:`InvalidConfigError` for a field without an order.
        """
        values = self.model_dump()
        for name, move in moves.items():
            spec = FIELDS.get(name)
            if spec is None or not spec.ordered:
                raise InvalidConfigError(name, "has no ordered labels, so it cannot be stepped")
            if type(move) is not int:
                raise InvalidConfigError(name, f"the number of labels must be an int, not {type(move).__name__}")
            at = spec.labels.index(values[name]) + move
            values[name] = spec.labels[min(max(at, 0), len(spec.labels) - 1)]
        if values["register_min_oct"] > values["register_max_oct"]:
            if "register_min_oct" in moves:
                values["register_max_oct"] = values["register_min_oct"]
            else:
                values["register_min_oct"] = values["register_max_oct"]
        return type(self)(**values)


class _NumberBase(_ConfigBase):
    def to_prompt(self) -> MusicConfigPrompt:
        """Convert numbers to the nearest labels. Numbers between two labels are rounded, so this is not an exact inverse."""
        words = {name: spec.nearest_label(getattr(self, name)) for name, spec in FIELDS.items()}
        return _parse(MusicConfigPrompt, words)


if TYPE_CHECKING:

    class MusicConfigPrompt(_PromptBase):
        def __init__(self, **words: Any) -> None: ...

    class MusicConfig(_NumberBase):
        def __init__(self, **numbers: Any) -> None: ...
        def __hash__(self) -> int: ...

else:
    MusicConfigPrompt = create_model(
        "MusicConfigPrompt",
        __base__=_PromptBase,
        __module__=__name__,
        __doc__="A music config of labels. All fields are required. Raises :class:`InvalidConfigError`.",
        **{name: (_word_type(spec), Field(description=spec.meaning)) for name, spec in FIELDS.items()},
    )
    MusicConfig = create_model(
        "MusicConfig",
        __base__=_NumberBase,
        __module__=__name__,
        __doc__="""A music config of numbers, as the synthesizer takes it. Every field has a default.

        Labels are accepted instead of numbers: ``MusicConfig(tempo="slow", space=0.9)``. Raises
        :class:`InvalidConfigError`.
        """,
        **{
            # Defaults are validated too: the default of register_max_oct may be below a given register_min_oct.
            name: (_number_type(spec), Field(default=spec.default, description=spec.meaning, validate_default=True))
            for name, spec in FIELDS.items()
        },
    )

HexColor = Annotated[str, StringConstraints(pattern=r"^#[0-9A-Fa-f]{6}$", to_upper=True)]
Weight = Literal["xs", "sm", "md", "lg", "xl", "xxl"]


class PaletteColor(BaseModel):
    """A colour (``#RRGGBB``) and its weight in a palette."""

    model_config = _described("A colour and how much of the picture it takes.")

    hex: HexColor
    weight: Weight


_PLACE = {weight: -number for number, weight in enumerate(PALETTE_WEIGHTS)}


class Palette(BaseModel):
    """Exactly five colours, sorted from the largest weight to the smallest."""

    model_config = _described("Exactly five colours, kept in order from the largest weight to the smallest.")

    colors: Annotated[list[PaletteColor], Field(min_length=COLORS_PER_PALETTE, max_length=COLORS_PER_PALETTE)]

    @field_validator("colors")
    @classmethod
    def _largest_first(cls, colors: list[PaletteColor]) -> list[PaletteColor]:
        return sorted(colors, key=lambda color: _PLACE[color.weight])

    def duplicate_count(self) -> int:
        """Return the number of colours that repeat an earlier one of this palette."""
        return len(self.colors) - len({color.hex for color in self.colors})

    def repair(self) -> Palette:
        """Return the palette with each repeated colour shifted slightly; the result is deterministic."""
        seen: set[str] = set()
        colors: list[PaletteColor] = []
        for color in self.colors:
            hex_code = color.hex
            while hex_code in seen:
                hex_code = _shift(hex_code)
            seen.add(hex_code)
            colors.append(PaletteColor(hex=hex_code, weight=color.weight))
        return Palette(colors=colors)


def _shift(hex_code: str) -> str:
    """A neighbouring colour."""
    # Steps of 7, 6 and 5 modulo 251 visit different colours, so repeated shifts never return to one in use.
    channels = [(int(hex_code[i : i + 2], 16) + step) % 251 for i, step in ((1, 7), (3, 6), (5, 5))]
    return "#" + "".join(f"{c:02X}" for c in channels)


def _cut_thinking(value: object) -> object:
    return value[:THINKING_MAX_CHARS] if isinstance(value, str) else value


TITLE_CUT = "…"
"""The end of a title that was cut."""


def _tidy_title(value: object) -> object:
    """Collapse whitespace and cut a title that is too long between words, so that a paid answer is not lost because of its
    title."""
    if not isinstance(value, str):
        return value
    words = value.split()
    title = " ".join(words[:TITLE_MAX_WORDS])
    if len(words) <= TITLE_MAX_WORDS and len(title) <= TITLE_MAX_CHARS:
        return title
    if len(title) >= TITLE_MAX_CHARS:
        title = title[:TITLE_MAX_CHARS].rpartition(" ")[0] or title[: TITLE_MAX_CHARS - 1]
    return title.rstrip(" ,;:.-…") + TITLE_CUT


def _registers_swapped(config: JsonObject) -> JsonObject:
    """Return the config with registers in order; the same object if they are in order already, or not numbers."""
    low, high = config.get("register_min_oct"), config.get("register_max_oct")
    if type(low) is int and type(high) is int and low > high:
        return {**config, "register_min_oct": high, "register_max_oct": low}
    return config


def _tidy_registers(value: object) -> object:
    """Registers in the wrong order can only mean one range, so an answer that was paid for is kept."""
    return _registers_swapped(cast("JsonObject", value)) if isinstance(value, dict) else value


class MusicConfigPromptPayload(BaseModel):
    """A model's complete answer to a vibe: reasons, title, config and three palettes."""

    model_config = _described("A model's whole answer to a vibe.")

    thinking: Annotated[
        str,
        BeforeValidator(_cut_thinking),
        WithJsonSchema(
            {
                "type": "string",
                "maxLength": THINKING_MAX_CHARS,
                "description": "how the vibe becomes sound, at most 1000 characters",
            }
        ),
    ]
    title: Annotated[
        str,
        BeforeValidator(_tidy_title),
        Field(min_length=1, max_length=TITLE_MAX_CHARS, description="a name for the piece, 1 to 6 words"),
    ]
    config: Annotated[MusicConfigPrompt, BeforeValidator(_tidy_registers)]
    palettes: Annotated[
        list[Palette],
        Field(min_length=PALETTE_COUNT, max_length=PALETTE_COUNT, description="three palettes of five colours"),
    ]

    def repair(self) -> MusicConfigPromptPayload:
        """Return the answer with repeated colours of its palettes shifted."""
        return self.model_copy(update={"palettes": [palette.repair() for palette in self.palettes]})


@dataclass(frozen=True)
class Step:
    """A move of a field by ``by`` labels, up or down; it stops at the first or last label."""

    by: int

    def __post_init__(self) -> None:
        if type(self.by) is not int:
            raise InvalidConfigError("Step", f"the number of labels must be an int, not {type(self.by).__name__}")


class MusicConfigUpdate:
    """Changes to a config: a label, a number or a :class:`Step` for each named field; the others keep their value.

    ``MusicConfigUpdate(tempo=Step(+1), brightness="dark")``. Raises :class:`InvalidConfigError` for an unknown field,
    an invalid value, and a step of a field without an order.
    """

    def __init__(self, **changes: Label | float | Step) -> None:
        self.changes: Mapping[str, Label | float | Step] = changes
        for name in self._steps():
            if name in FIELDS and not FIELDS[name].ordered:
                raise InvalidConfigError(name, "has no ordered labels, so it cannot be stepped")
        self.apply(MusicConfig())

    def __repr__(self) -> str:
        return f"MusicConfigUpdate({', '.join(f'{name}={value!r}' for name, value in self.changes.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MusicConfigUpdate) and self.changes == other.changes

    __hash__ = None  # type: ignore[assignment]

    def apply(self, config: MusicConfig | MusicConfigPrompt) -> MusicConfig | MusicConfigPrompt:
        """Return the changed config: of labels if it was and all changes are labels or steps, otherwise of numbers.

        A step from a number starts at the nearest label. If the registers would cross, the one that is not changed is
        set to the other.
        """
        steps = self._steps()
        values: JsonObject = config.model_dump()
        values |= {name: value for name, value in self.changes.items() if name not in steps}
        for name, by in steps.items():
            if name not in FIELDS:
                continue  # refused below, with the other unknown fields
            spec, words = FIELDS[name], isinstance(config, MusicConfigPrompt)
            at = spec.labels.index(values[name] if words else spec.nearest_label(values[name]))
            label = spec.labels[min(max(at + by, 0), len(spec.labels) - 1)]
            values[name] = label if words else spec.number(label)
        low, high = values["register_min_oct"], values["register_max_oct"]
        if isinstance(low, int) and isinstance(high, int) and low > high:
            if "register_min_oct" not in self.changes:
                values["register_min_oct"] = high
            elif "register_max_oct" not in self.changes:
                values["register_max_oct"] = low
        unknown = {name: by for name, by in steps.items() if name not in FIELDS}
        return _parse_settled(_settled(values | unknown))

    def _steps(self) -> dict[str, int]:
        return {name: value.by for name, value in self.changes.items() if isinstance(value, Step)}


def parse_payload(data: Any) -> MusicConfigPromptPayload:
    """Return a payload from a dict or JSON text. Raises :class:`InvalidConfigError`, which names every invalid field."""
    return _parse(MusicConfigPromptPayload, data)


def parse_config(data: Any) -> MusicConfig | MusicConfigPrompt:
    """Return a config from a mapping of labels, of numbers, or of both.

    Missing fields have their defaults. A label for every field gives a :class:`MusicConfigPrompt`, everything else a
    :class:`MusicConfig`. Raises :class:`InvalidConfigError`, which names the invalid fields.
    """
    if isinstance(data, MusicConfig | MusicConfigPrompt):
        return data
    return _parse_settled(_settled(data))


REGISTERS_SWAPPED = "register_min_oct was above register_max_oct: swapped"
TITLE_SHORTENED = f"a title was longer than {TITLE_MAX_WORDS} words or {TITLE_MAX_CHARS} characters: cut"
FIELDS_LEFT_OUT = "fields were left out: set to their defaults"


def convert_config(data: Any) -> tuple[MusicConfig | MusicConfigPrompt, tuple[str, ...]]:
    """Return a config that another program wrote, and notes about the changes that were needed.

    Accepts everything that :func:`parse_config` accepts, and also registers in the wrong order, which occur in
    published configs, and null for a missing field. Raises :class:`InvalidConfigError` for an ambiguous config and for
    one without any field.
    """
    if isinstance(data, MusicConfig | MusicConfigPrompt):
        return data, ()
    values = {name: value for name, value in _settled(data).items() if value is not None}
    if values.keys().isdisjoint(FIELDS):
        for name in values:
            if near := difflib.get_close_matches(name, FIELDS, 1):
                raise InvalidConfigError(name, f"no field has this name; did you mean {near[0]}?")
        raise InvalidConfigError("config", "it has no field of a config")
    notes: list[str] = []
    if (ordered := _registers_swapped(values)) is not values:
        values = ordered
        notes.append(REGISTERS_SWAPPED)
    low, high = values.get("register_min_oct"), values.get("register_max_oct")
    if not FIELDS.keys() <= values.keys():
        notes.append(FIELDS_LEFT_OUT)
        if isinstance(low, int) and high is None:
            values["register_max_oct"] = max(low, int(FIELDS["register_max_oct"].default))
        if isinstance(high, int) and low is None:
            values["register_min_oct"] = min(high, int(FIELDS["register_min_oct"].default))
    return _parse_settled(values), tuple(notes)


def _settled(data: Any) -> JsonObject:
    """Return the fields of a config as one flat mapping with the types of this package.

    A ``layers`` mapping is merged into the fields, a ``schema_version`` of 1 is removed, 4.0 becomes 4 for whole-number
    fields, and 0 and 1 become booleans for switches.
    """
    if not isinstance(data, Mapping):
        raise InvalidConfigError("config", f"must be a mapping, not {type(data).__name__}")
    values = {str(name): value for name, value in cast("Mapping[str, Any]", data).items()}
    layers = values.get("layers")
    if isinstance(layers, Mapping):
        del values["layers"]
        values = {str(name): style for name, style in cast("Mapping[str, Any]", layers).items()} | values
    if values.get("schema_version") == 1:
        del values["schema_version"]
    for name, value in values.items():
        kind = FIELDS[name].kind if name in FIELDS else None
        if kind == "whole" and isinstance(value, float) and value.is_integer():
            values[name] = int(value)
        elif kind == "switch" and not isinstance(value, bool) and value in (0, 1):
            values[name] = bool(value)
    return values


def _parse_settled(values: JsonObject) -> MusicConfig | MusicConfigPrompt:
    scales = [name for name, spec in FIELDS.items() if spec.kind == "scale"]
    if FIELDS.keys() <= values.keys() and all(isinstance(values[name], str) for name in scales):
        return _parse(MusicConfigPrompt, values)
    words = {name: values[name] for name in scales if isinstance(values.get(name), str)}
    unknown = [
        (name, f"{word!r} is none of {', '.join(map(str, FIELDS[name].labels))}")
        for name, word in words.items()
        if word not in FIELDS[name].labels
    ]
    if unknown:
        raise InvalidConfigError(*unknown[0], unknown)
    return _parse(MusicConfig, {**values, **{name: FIELDS[name].number(word) for name, word in words.items()}})


def _parse(shape: type[ModelT], data: Any) -> ModelT:
    try:
        return shape.model_validate_json(data) if isinstance(data, str | bytes) else shape.model_validate(data)
    except ValidationError as error:
        raise invalid_config(error) from None


def invalid_config(error: ValidationError) -> InvalidConfigError:
    """Convert pydantic's error to one that names the first invalid field and lists all problems."""
    problems = [(".".join(str(part) for part in e["loc"]) or "config", _reason(e)) for e in error.errors()]
    return InvalidConfigError(problems[0][0], problems[0][1], problems)


def _reason(fault: ErrorDetails) -> str:
    if fault["type"] != "extra_forbidden":
        return fault["msg"].removeprefix("Value error, ")
    near = difflib.get_close_matches(str(fault["loc"][-1]), FIELDS, 1)
    return "no field has this name" + (f"; did you mean {near[0]}?" if near else "")


def _lint(config: MusicConfig | MusicConfigPrompt) -> list[LintFinding]:
    numbers = config.to_config() if isinstance(config, MusicConfigPrompt) else config
    findings: list[LintFinding] = []

    def add(field: str, reason: str) -> None:
        findings.append(LintFinding(field=field, reason=reason))

    steady = numbers.bass in ("drone", "sustained", "fifth_drone", "walking", "sub_pulse")
    if (
        numbers.swing > 0
        and numbers.syncopation == 0
        and numbers.melody_density <= 0.3
        and numbers.rhythm in ("none", "minimal")
        and steady
        and numbers.accent in ("none", "bells", "chime", "wind", "brass_hit")
    ):
        add("swing", "almost no note of this piece is off the beat, so swing has almost no effect")
    if numbers.register_min_oct >= 7:
        add("register_min_oct", "a melody that starts in octave 7 is mostly above the range where pitch is clear")
    if numbers.register_max_oct <= 2:
        add("register_max_oct", "a melody below octave 3 is masked by the bass")
    return findings


def random_config(rng: np.random.Generator) -> MusicConfigPrompt:
    """Return a random config; every label has the same probability, and the two registers are sorted."""
    values: dict[str, Label] = {name: spec.labels[int(rng.integers(len(spec.labels)))] for name, spec in FIELDS.items()}
    octaves = sorted((int(values["register_min_oct"]), int(values["register_max_oct"])))
    values["register_min_oct"], values["register_max_oct"] = octaves
    return MusicConfigPrompt(**values)


@cache
def schema_hash() -> str:
    """Return the SHA-256 (hex) of the payload's JSON schema in canonical form; part of every cache key."""
    canonical = json.dumps(MusicConfigPromptPayload.model_json_schema(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def schema_text() -> str:
    """Return the fields for a prompt: one line per field, with its labels in order and its description."""
    return "\n".join(
        f"- {name}: {' | '.join(_spell(label) for label in spec.labels)} ({spec.meaning})"
        for name, spec in FIELDS.items()
    )


def _spell(label: Label) -> str:
    return json.dumps(label) if isinstance(label, bool | int) else label
