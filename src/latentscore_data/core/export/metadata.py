"""Machine-readable metadata of a data set: Croissant (MLCommons, version 1.1) and a citation file (CFF 1.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from latentscore.json_search import JsonObject
from latentscore_data import __version__
from latentscore_data.core.export.columns import Kind
from latentscore_data.core.export.tables import Table, split_name

CROISSANT_FILE = "croissant.json"
CITATION_FILE = "CITATION.cff"

_CR_TERMS = """
    arrayShape citeAs column containedIn equivalentProperty extract field fileProperty fileObject fileSet format includes isArray
    isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source
    subField transform
    """
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "sc": "https://schema.org/",
    **{term: f"cr:{term}" for term in _CR_TERMS.split()},
}
_TYPES: Mapping[str, str] = {
    "bool": "sc:Boolean",
    "int64": "sc:Integer",
    "float64": "sc:Float",
    "float32": "sc:Float",
    "string": "sc:Text",
    "json": "sc:Text",
}


def croissant(name: str, description: str, license_name: str, tables: Sequence[Table], *, parquet: bool) -> JsonObject:
    """Return the Croissant metadata: a file set and a record set for each split of each configuration.

    Columns of objects are left out, because Croissant would need a field for each of their parts.
    """
    encoding = "application/x-parquet" if parquet else "application/jsonlines"
    files: list[JsonObject] = []
    records: list[JsonObject] = []
    for table in tables:
        for split, paths in table.files.items():
            key = f"{table.name}/{split_name(split)}"
            named = {"@id": f"files/{key}", "name": f"files/{key}"}
            files.append({"@type": "cr:FileSet", **named, "includes": paths, "encodingFormat": encoding})
            fields = [field for column, kind in table.columns.items() if (field := _field(key, column, kind))]
            records.append({"@type": "cr:RecordSet", "@id": key, "name": key, "field": fields})
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": name,
        "description": description,
        "license": license_name,
        "creator": {"@type": "sc:Organization", "name": f"lsdata {__version__}"},
        "datePublished": _today(),
        "version": "1.0.0",
        "distribution": files,
        "recordSet": records,
    }


def _field(key: str, column: str, kind: Kind) -> JsonObject | None:
    """Return the field of a column of plain values or of lists of them; None for any other column."""
    inner = kind[0] if isinstance(kind, list) else kind
    if not isinstance(inner, str) or inner not in _TYPES:
        return None
    return {
        "@type": "cr:Field",
        "@id": f"{key}/{column}",
        "name": f"{key}/{column}",
        "dataType": _TYPES[inner],
        **({"isArray": True, "arrayShape": "-1"} if isinstance(kind, list) else {}),
        "source": {"fileSet": {"@id": f"files/{key}"}, "extract": {"column": column}},
    }


def citation(name: str, license_id: str | None) -> str:
    """Return the content of CITATION.cff. Authors are "the creators of NAME", because the publisher is unknown."""
    import yaml

    return yaml.safe_dump(
        {
            "cff-version": "1.2.0",
            "message": "If you use this data set, please cite it as below.",
            "type": "dataset",
            "title": name,
            "authors": [{"name": f"The creators of {name}"}],
            **({"license": license_id.upper()} if license_id else {}),
            "date-released": _today(),
            "references": [{"type": "software", "title": "latentscore-data", "version": __version__,
                            "authors": [{"name": "latentscore-data"}]}],
        },
        sort_keys=False,
        allow_unicode=True,
    )  # fmt: skip


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
