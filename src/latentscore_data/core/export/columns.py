"""The types of a data set's columns, inferred from its rows.

A kind is the name of a plain type ("string", "int64", "float64", "float32", "bool"), "json" (JSON text), "audio" (bytes
of a sound file with its name), a list of one kind, or a dict of named kinds; None is an unknown kind. Features of a
card and the Parquet schema are both made from kinds, so the JSONL and the Parquet files of a data set load with equal
features, even if a split has no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from latentscore.json_search import JsonObject
from latentscore_data.core.base.names import json_bytes

if TYPE_CHECKING:
    import pyarrow

Kind = str | list["Kind"] | dict[str, "Kind"] | None

AUDIO = "audio"

# The kinds of columns in which no row has a value; of all other such columns it is "string".
UNSEEN: Mapping[str, Kind] = {
    "tags_original": ["string"],
    "tags_noisy": ["string"],
    "best_index": "int64",
    "vibe_index": "int64",
}


class AudioFile(dict[str, Any]):
    """``{"bytes": ..., "path": ...}``: a sound file in a column."""


class MixedKindsError(Exception):
    """Values that do not fit into one column type."""


def columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Kind]:
    """Return the kind of each column, "json" for a column with values of different kinds."""
    columns: dict[str, Kind] = {}
    for row in rows:
        for name, value in row.items():
            if columns.get(name) == "json":
                continue
            try:
                columns[name] = _join(columns.get(name), _kind(value))
            except MixedKindsError:
                columns[name] = "json"
    settled = {name: _settled(kind, UNSEEN.get(name, "string")) for name, kind in columns.items()}
    return {name: kind for name, kind in settled.items() if kind != {}}


def _kind(value: Any) -> Kind:
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise MixedKindsError
        return "int64"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, AudioFile):
        return AUDIO
    if isinstance(value, Mapping):
        return {str(name): _kind(part) for name, part in value.items()}
    joined: Kind = None
    for part in value:
        joined = _join(joined, _kind(part))
    return [joined]


def _join(a: Kind, b: Kind) -> Kind:
    if a is None or a == b:
        return b
    if b is None:
        return a
    if isinstance(a, dict) and isinstance(b, dict):
        return {name: _join(a.get(name), b.get(name)) for name in {**a, **b}}
    if isinstance(a, list) and isinstance(b, list):
        return [_join(a[0], b[0])]
    if a in ("int64", "float64") and b in ("int64", "float64"):
        return "float64"
    raise MixedKindsError


def _settled(kind: Kind, unseen: Kind) -> Kind:
    """Return the kind with unknown kinds replaced. A struct without fields cannot be stored and is left out."""
    if kind is None:
        return unseen
    if isinstance(kind, list):
        inner = _settled(kind[0], "string")
        return [inner] if inner != {} else {}
    if isinstance(kind, dict):
        parts = {name: _settled(part, "string") for name, part in kind.items()}
        return {name: part for name, part in parts.items() if part != {}}
    return kind


def fitted(row: Mapping[str, Any], columns: Mapping[str, Kind]) -> JsonObject:
    """Return the row with every column, in the order of the columns; missing values are None."""
    return {name: _fit(row.get(name), kind) for name, kind in columns.items()}


def _fit(value: Any, kind: Kind) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json_bytes(value, orjson.OPT_SORT_KEYS).decode()
    if kind in ("float64", "float32"):
        return float(value)
    if isinstance(kind, list):
        return [_fit(part, kind[0]) for part in value]
    if isinstance(kind, dict):
        return {name: _fit(value.get(name), part) for name, part in kind.items()}
    return value


def features(columns: Mapping[str, Kind]) -> list[JsonObject]:
    """Return the columns as the ``features`` of a data set card's YAML."""
    return [{"name": name, **_feature_type(kind)} for name, kind in columns.items()]


def _feature_type(kind: Kind) -> JsonObject:
    if isinstance(kind, dict):
        return {"struct": features(kind)}
    if isinstance(kind, list):
        inner = _feature_type(kind[0])
        return {"list": inner.get("dtype") or inner.get("struct") or inner}
    return {"dtype": "string" if kind in (None, "json") else kind}


def arrow_schema(columns: Mapping[str, Kind]) -> pyarrow.Schema:
    """Return the columns as a Parquet schema. Needs pyarrow."""
    import pyarrow

    return pyarrow.schema([(name, _arrow(kind)) for name, kind in columns.items()])


def _arrow(kind: Kind) -> pyarrow.DataType:
    import pyarrow

    if kind == AUDIO:
        return pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    if isinstance(kind, dict):
        return pyarrow.struct([(name, _arrow(part)) for name, part in kind.items()])
    if isinstance(kind, list):
        return pyarrow.list_(_arrow(kind[0]))
    return pyarrow.type_for_alias("string" if kind in (None, "json") else kind)
