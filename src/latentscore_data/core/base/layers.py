"""The resolver of values: merges layers and records the origin of each value.

Settings are resolved from the settings file, the environment and flags; a training run from recipes, settings, presets
and ``--set``. Later layers win.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ValidationError

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import FLAG, FlagError, InputError, in_a_sentence

Values = JsonObject
"""Nested values of settings by name, as a settings file or flags give them."""
Origins = dict[str, str]
"""Dotted name of a value -> the layer that it comes from."""

ModelT = TypeVar("ModelT", bound=BaseModel)

DEFAULT = "default"
RENAMED = {"configs.batch_size": "configs.vibes_per_call"}
"""Settings that had another name in version 0.1, and their names now."""


@dataclass(frozen=True)
class Layer:
    """Nested values and their origin."""

    origin: str
    values: Values

    def says(self, name: str) -> bool:
        """Return whether this layer holds a value of that dotted name, or of a name below it."""
        return _holds(self.values, name.split("."))

    def origin_of(self, name: str) -> str:
        """Return the origin of a value: the variable's name for the environment, otherwise the layer's name."""
        return f"LSDATA_{name.upper().replace('.', '__')}" if self.origin == "environment" else self.origin


def _holds(values: Any, parts: Sequence[str]) -> bool:
    """Return whether the values contain that name; a key may itself contain dots, for example a model's name."""
    if not parts:
        return True
    if not isinstance(values, dict):
        return False
    table = cast(Values, values)
    heads = ((".".join(parts[:count]), parts[count:]) for count in range(1, len(parts) + 1))
    return any(head in table and _holds(table[head], rest) for head, rest in heads)


@dataclass(frozen=True)
class Resolved(Generic[ModelT]):
    """A validated model, and the origin of each of its values by dotted name."""

    value: ModelT
    origins: Origins


def resolve(model: type[ModelT], layers: Sequence[Layer], remedy: str) -> Resolved[ModelT]:
    """Merge the layers over the model's defaults.

    Raises :class:`InputError`, which names the layer, the value and, for an unknown name, the nearest known one;
    ``remedy`` tells the user where the names are listed.
    """
    try:
        value = model(**merged(layers))
    except ValidationError as error:
        raise _input_error(model, error, layers, remedy) from None
    return Resolved(value, {name: origin(name, layers) for name, _ in leaves(value.model_dump())})


def merged(layers: Iterable[Layer]) -> Values:
    """Return the values of all layers; later layers win."""
    values: Values = {}
    for layer in layers:
        values = merge(values, layer.values)
    return values


def merge(below: Values, above: Values) -> Values:
    """Return the nested values of ``below``, overridden by those of ``above``."""
    found = dict(below)
    for name, value in above.items():
        under = found.get(name)
        if isinstance(under, dict) and isinstance(value, dict):
            found[name] = merge(cast(Values, under), cast(Values, value))
        else:
            found[name] = value
    return found


def common(values: Values, names: Values) -> Values:
    """Return the nested values of ``values`` whose names ``names`` also has."""
    found: Values = {}
    for name in values.keys() & names.keys():
        value, below = values[name], names[name]
        both = isinstance(value, dict) and isinstance(below, dict)
        found[name] = common(cast(Values, value), cast(Values, below)) if both else value
    return found


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) for every value that is not a table."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(cast(Values, value), f"{prefix}{name}.")
        else:
            yield prefix + name, value


def nested(dotted: Mapping[str, Any]) -> Values:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    values: Values = {}
    for name, value in dotted.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        values = merge(values, value)
    return values


def origin(name: str, layers: Sequence[Layer]) -> str:
    """Where the value of that dotted name comes from."""
    return next((layer.origin_of(name) for layer in reversed(layers) if layer.says(name)), DEFAULT)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint with the nearest known name, or with all of them; empty if none is known."""
    known = list(known)
    initials = [other for other in known if "_" in other and "".join(word[:1] for word in other.split("_")) == name]
    close = initials or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(known)})" if known else ""


def _input_error(model: type[BaseModel], error: ValidationError, layers: Sequence[Layer], remedy: str) -> InputError:
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    name = ".".join(parts)
    where = origin(_given(parts, layers), layers)
    if first["type"] == "extra_forbidden":
        what = (
            "section"
            if len(parts) == 1 and all(section_of(model, known) for known in model.model_fields)
            else "setting"
        )
        known = did_you_mean(parts[-1], _known_names(model, parts[:-1]))
        hint = f" (it is now {RENAMED[name]})" if name in RENAMED else known
        return InputError(f"{where}: unknown {what} {name}{hint}", remedy)
    problem = f"{in_a_sentence(first['msg'])} (got {first['input']!r})"
    if where == FLAG:
        return FlagError(name, dict(leaves(layers[-1].values)).get(_given(parts, layers)), problem, remedy)
    return InputError(f"{where}: {name}: {problem}", remedy)


def _given(parts: Sequence[str], layers: Sequence[Layer]) -> str:
    """Return the part of the name that a layer contains, because pydantic's location also includes list items and union
    members."""
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if any(layer.says(name) for layer in layers)), ".".join(parts))


def section_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the model of a field that is a table; None for other and unknown fields."""
    field = model.model_fields.get(name)
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _known_names(model: type[BaseModel], sections: Sequence[str]) -> list[str]:
    for section in sections:
        below = section_of(model, section)
        if below is None:
            return []
        model = below
    return list(model.model_fields)
