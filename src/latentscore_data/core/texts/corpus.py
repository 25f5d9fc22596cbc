"""Data sets of texts: their names, samples, and the reader of local files."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from latentscore.json_search import JsonObject
from latentscore.seeds import digest, unit_hash
from latentscore_data.core.base.errors import InputError, require
from latentscore_data.core.base.jsonl import Line, read_lines
from latentscore_data.core.base.manifest import file_fact
from latentscore_data.core.base.names import leads_out, path_named, printable
from latentscore_data.core.base.rows import SourceText
from latentscore_data.core.texts.formats import TABLE_SUFFIXES, UTF8, find_encoding, read_columns, read_table

BUILTIN = "builtin"
TEXT_SUFFIXES = (".txt", ".md", ".markdown")
ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
KNOWN_SUFFIXES = (*TEXT_SUFFIXES, *ROW_SUFFIXES, *TABLE_SUFFIXES)
TEXT_FIELDS = (
    "text", "content", "body", "passage", "document", "article", "story", "raw_content", "markdown", "sentence", "vibe", "caption",
)  # fmt: skip
"""Columns that may contain the text; the first one that exists is used."""
TEXT_MAX_CHARS = 1_000_000
"""Longer texts are cut: no stage uses more, and JSONL lines have a largest length."""
ID_FIELDS = ("id_in_dataset", "id", "_id", "uuid", "doc_id", "url")

Kind = Literal["builtin", "local", "hub"]


@dataclass(frozen=True)
class Source:
    """A data set that the user named."""

    name: str
    kind: Kind
    path: Path | None = None
    repo: str = ""
    config: str | None = None


@dataclass(frozen=True)
class Unread:
    """A file in a folder that was not read, and the reason."""

    file: str
    reason: str


@dataclass
class Sample:
    """A sample of a data set."""

    texts: list[SourceText]
    seen: int
    """Number of texts that were read."""
    how: str
    """The method of sampling, for manifest and card."""
    empty: int = 0
    """Number of empty texts, which are left out."""
    facts: JsonObject = field(default_factory=lambda: {})
    """Revision and files of a data set on the hub, for the manifest."""
    unread: list[Unread] = field(default_factory=lambda: [])


def find_source(name: str) -> Source:
    """Return the data set of this name: ``builtin``, an existing file or folder, or ``owner/name[:config]`` on the hub.

    Raises :class:`InputError` for a path that does not exist, and for any other name.
    """
    if name == BUILTIN:
        return Source(name, "builtin")
    path = path_named(name)
    if name and path.exists():  # an empty name would be the current folder
        return Source(printable(path.name or path.resolve().name), "local", path=path)
    if name.startswith((".", "/", "~")) or name.lower().endswith(KNOWN_SUFFIXES):
        raise InputError(f"{name} does not exist", "check the path")
    repo, _, config = name.partition(":")
    owner, slash, short = repo.partition("/")
    if not (owner and slash and short) or "/" in short:
        raise InputError(
            f"{name!r} is not a data set", "name builtin, a file or folder, or a hub data set as owner/name[:config]"
        )
    return Source(name, "hub", repo=repo, config=config or None)


def find_sources(names: Iterable[str]) -> list[Source]:
    """Return all data sets, each once. Raises :class:`InputError` if two of them have the same name."""
    found: dict[str, Source] = {}
    for name in dict.fromkeys(names):
        source = find_source(name)
        if source.name in found:
            raise InputError(
                f"two data sets have the name {source.name}", "rename one of them, or download them into separate roots"
            )
        found[source.name] = source
    return list(found.values())


# --- drawing a sample ------------------------------------------------------------------------------------------------


def draw_sample(texts: Iterable[SourceText], size: int, seed: int) -> tuple[list[SourceText], int]:
    """Return the ``size`` texts with the smallest hash of seed and id, in the order of ``texts``, and the number of
    texts that were read.

    The sample is uniform, does not depend on the order of the texts, and changes little if texts are added. Only
    ``size`` texts are in memory.
    """
    places = count()
    drawn = heapq.nsmallest(
        size,
        zip(texts, places, strict=False),
        key=lambda one: unit_hash(seed, one[0].dataset, one[0].id_in_dataset, "sample"),
    )
    return [text for text, _ in sorted(drawn, key=itemgetter(1))], next(places)


# --- local files -----------------------------------------------------------------------------------------------------


def local_files(path: Path) -> list[Path]:
    """Return the files with texts, sorted by path. Raises :class:`InputError` if there are none."""
    files, links_out, _ = _listed(path)
    if files:
        return files
    if path.is_file():
        raise InputError(f"{path} is not a text file that can be read", f"known: {', '.join(KNOWN_SUFFIXES)}")
    if links_out:
        raise InputError(f"{path} contains no texts, only links that lead out of it", "name the folder they lead to")
    raise InputError(f"{path} contains no texts", f"known: {', '.join(KNOWN_SUFFIXES)}")


def _listed(path: Path) -> tuple[list[Path], list[Path], list[Unread]]:
    """Return the files with texts, the links out of the folder, and the other files. Hidden files are left out.

    Links out of the folder are not read: a downloaded or unpacked folder could add any file of this machine to a
    sample.
    """
    if path.is_file():
        return [path] if _suffix(path) else [], [], []
    files: list[Path] = []
    links_out: list[Path] = []
    others: list[Unread] = []
    for entry in sorted(path.rglob("*")):
        place = entry.relative_to(path)
        if entry.is_dir():
            if entry.is_symlink() and leads_out(entry, path):
                links_out.append(entry)
        elif any(part.startswith(".") for part in place.parts):
            continue
        elif entry.is_file() and _suffix(entry):
            (links_out if leads_out(entry, path) else files).append(entry)
        else:
            others.append(Unread(printable(place.as_posix()), _why_not(entry)))
    return files, links_out, others


def _why_not(file: Path) -> str:
    if not file.is_file():
        return "a link that leads nowhere" if file.is_symlink() else "not a file"
    return f"no texts are read from {file.suffix} files" if file.suffix else "its name has no extension"


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in KNOWN_SUFFIXES if name.endswith(suffix)), "")


@dataclass
class Reader:
    """Reads the texts of a data set, and counts those that it leaves out."""

    dataset: str
    text_field: str | None = None
    keep_names: bool = True
    """Whether rows in the format of ``download`` (with ``dataset`` and ``id_in_dataset``) keep their data set."""
    encoding: str | None = None
    """The encoding of files that are not UTF-8."""
    empty: int = 0
    unread: list[Unread] = field(default_factory=lambda: [])
    _column: str | None = None
    """The column of the text, the same for a whole file. A row with null in it has an empty text."""
    _names: set[str] = field(default_factory=lambda: set())

    def read(self, root: Path, files: Iterable[Path]) -> Iterator[SourceText]:
        """Yield the texts of local files.

        A file that cannot be read (wrong encoding, no text column) is added to ``unread`` if ``root`` is a folder. Else
        it raises :class:`InputError`.
        """
        several = root.is_dir()
        for file in files:
            place = printable(file.relative_to(root).as_posix() if several else file.name)
            self._column = None
            try:
                encoding = self._look_at(file)
            except InputError as error:
                if not several:
                    raise
                reason = re.sub(r"^:(\d+):", r"line \1:", error.message.removeprefix(str(file))).lstrip(": ")
                self.unread.append(Unread(place, f"{reason}: {error.remedy}"))
                continue
            yield from self._texts(file, place, encoding)

    def _look_at(self, file: Path) -> str:
        """Return the encoding of a file. Raises :class:`InputError` for a file in another encoding, and for a table
        without a text column."""
        if _suffix(file) == ".parquet":
            return ""
        encoding = find_encoding(file, self.encoding)
        if _suffix(file) in TABLE_SUFFIXES and (columns := read_columns(file, encoding)):
            self._name_in(dict.fromkeys(columns), str(file))
        return encoding

    def _texts(self, file: Path, place: str, encoding: str) -> Iterator[SourceText]:
        suffix = _suffix(file)
        if suffix in TEXT_SUFFIXES:
            yield from self.text(place, read_text(file, encoding), {"file": place})
        elif suffix == ".parquet":
            for number, column, row in _read_parquet(file, partial(self._name_in, where=str(file))):
                self._column = column
                yield from self.row(row, f"{file}, row {number}", f"{place}#{number}")
        elif suffix in TABLE_SUFFIXES:
            for number, (line, row) in enumerate(read_table(file, encoding), start=1):
                yield from self.row(row, f"{file}:{line}", f"{place}#{number}")
        else:
            for number, row in read_lines(file, encoding=None if encoding == UTF8 else encoding):
                yield from self.row(row, f"{file}:{number}", f"{place}#{number}")

    def _name_in(self, row: Mapping[str, Any], where: str) -> str:
        """Return the column of the text. Raises :class:`InputError` if the row has none."""
        name = (
            self.text_field
            or self._column
            or next((f for f in TEXT_FIELDS if f in row and isinstance(row[f], str | None)), None)
        )
        if name is None or name not in row:
            columns = ", ".join(list(row)[:12])
            missing = f"no column {name}" if name else "no column with text"
            raise InputError(f"{where}: {missing} (there are: {columns})", "name it with --text-field")
        return name

    def row(self, row: Line, where: str, place: str) -> Iterator[SourceText]:
        """Yield the text of one row, nothing for an empty one. Raises :class:`InputError` with row and column if the
        value is not text."""
        name = self._column = self._name_in(row, where)
        value = row[name]
        if value is not None and not isinstance(value, str):
            raise InputError(
                f"{where}: field {name} is {type(value).__name__}, not text", "name another column with --text-field"
            )
        own = next((row[f] for f in ID_FIELDS if isinstance(row.get(f), str | int) and row[f] != ""), None)
        given = row["metadata"] if isinstance(row.get("metadata"), dict) else {}
        metadata = {str(key): item for key, item in given.items() if _is_json(item)}
        rest = {
            key: item
            for key, item in row.items()
            if key not in (name, "metadata", "dataset", "id_in_dataset", "created") and _is_plain(item)
        }
        created = row.get("created")
        is_ours = self.keep_names and isinstance(row.get("dataset"), str) and "id_in_dataset" in row
        yield from self.text(
            str(own) if own is not None else place,
            value or "",
            {**rest, **metadata},
            dataset=row["dataset"] if is_ours else None,
            created=str(created) if created is not None else None,
        )

    def claim(self, texts: Iterable[SourceText]) -> None:
        """Reserve the ids of texts that an earlier run read."""
        self._names.update(digest(text.dataset, text.id_in_dataset)[:20] for text in texts)

    def text(
        self, name: str, text: str, metadata: JsonObject, dataset: str | None = None, created: str | None = None
    ) -> Iterator[SourceText]:
        """Yield the text with a unique id made from ``name``; nothing for an empty text."""
        if not text.strip():
            self.empty += 1
            return
        if len(text) > TEXT_MAX_CHARS:
            text, metadata = text[:TEXT_MAX_CHARS], {**metadata, "cut_at_chars": TEXT_MAX_CHARS}
        dataset = dataset or self.dataset
        unique, again = name, 1
        while digest(dataset, unique)[:20] in self._names:
            again += 1
            unique = f"{name}~{again}"
        self._names.add(digest(dataset, unique)[:20])
        yield SourceText(dataset=dataset, id_in_dataset=unique, text=text, metadata=metadata, created=created)


def _is_plain(value: object) -> bool:
    """Return whether a value is kept as metadata: a number, a switch, or text of up to 500 characters."""
    return (isinstance(value, bool | int | float) and _is_json(value)) or (isinstance(value, str) and len(value) <= 500)


def _is_json(value: object) -> bool:
    """Return whether a JSONL line can contain the value: no bytes, dates or integers of more than 64 bits."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, str | bool | float) or (isinstance(value, int) and abs(value) < 2**63)


def read_text(path: Path, encoding: str) -> str:
    """Return the content of a text file. Raises :class:`InputError` for a file that cannot be opened."""
    try:
        return path.read_bytes().decode(encoding)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "check its permissions") from None


def _read_parquet(path: Path, name_in: Callable[[Mapping[str, Any]], str]) -> Iterator[tuple[int, str, Line]]:
    """Yield (row number, column of the text, row) of a parquet file, with the columns that a source text can use.

    ``name_in`` selects the column of the text in a row; it gets a row with None in each column of texts.
    A value without a Python equivalent (a date in the year 20000, text that is not UTF-8) becomes None. In the text
    column it raises :class:`InputError`; so do a file that is not parquet, and a missing column.
    """
    require("pyarrow", "hub", f"reading {path.name}")
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with path.open("rb") as raw, pyarrow.parquet.ParquetFile(raw) as file:
            name = name_in({field.name: None if _is_text_type(field.type) else field for field in file.schema_arrow})
            for batch in file.iter_batches(batch_size=256, columns=_used_columns(file.schema_arrow, name)):
                columns = {
                    field.name: _python_values(column)
                    for field, column in zip(batch.schema, batch.columns, strict=True)
                }
                for values in zip(*columns.values(), strict=True):
                    number += 1
                    row = dict(zip(columns, values, strict=True))
                    if row[name] is UNREADABLE:
                        raise InputError(
                            f"{path}, row {number}: field {name} is not UTF-8", "correct or leave out the row"
                        )
                    yield number, name, {key: None if value is UNREADABLE else value for key, value in row.items()}
    except (OSError, pyarrow.ArrowException) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{path} is not a parquet file that can be read ({reason})", "check it") from None


UNREADABLE = object()
"""Placeholder for a parquet value without a Python equivalent."""


def _is_text_type(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    # A column with only nulls has empty texts.
    are = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(is_kind(kind) for is_kind in are)


def _used_columns(schema: Any, text: str) -> list[str]:
    """Return the columns of the text and of ids, and those with plain values, which become metadata."""
    from pyarrow import types

    def is_plain(kind: Any) -> bool:
        return (
            (types.is_primitive(kind) and not types.is_temporal(kind))
            or types.is_string(kind)
            or types.is_large_string(kind)
        )

    named = (text, "metadata", "dataset", "created", *ID_FIELDS)
    return [field.name for field in schema if field.name in named or is_plain(field.type)]


def _python_values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, TypeError):  # UnicodeDecodeError and ArrowInvalid are subclasses
        return [_python_value(cell) for cell in column]


def _python_value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except (ValueError, OverflowError, TypeError):
        return UNREADABLE


# --- samples ---------------------------------------------------------------------------------------------------------


def sample_local(source: Source, size: int, seed: int, text_field: str | None, encoding: str | None = None) -> Sample:
    """Return a sample of local files. All files are read, so the sample is uniform over all texts.

    Raises :class:`InputError` for a damaged file, and for a folder without a file that can be read.
    """
    assert source.path is not None
    reader = Reader(source.name, text_field, encoding=encoding)
    files = local_files(source.path)
    texts, seen = draw_sample(reader.read(source.path, files), size, seed)
    if len(reader.unread) == len(files):
        raise InputError(
            f"{source.path} contains no file that can be read; {in_words(reader.unread)}", "correct one of them"
        )
    read = len(files) - len(reader.unread)
    how = f"uniform: {len(texts)} of {seen} texts with the smallest hash of seed and id, all {read} files read"
    _, links_out, others = _listed(source.path)
    if outside := len(links_out):
        how += f"; {outside} {'link leads' if outside == 1 else 'links lead'} out of the folder and were not followed"
    unread = sorted([*reader.unread, *others], key=lambda one: one.file)
    return Sample(texts, seen, how, reader.empty, unread=unread)


def in_words(unread: Sequence[Unread], most: int = 5) -> str:
    """Return the first ``most`` files that were not read with their reasons, and the number of the others."""
    named = "; ".join(f"{one.file} ({one.reason})" for one in unread[:most])
    return f"not read: {named}" + (f"; and {len(unread) - most} more" if len(unread) > most else "")


def sha256_of(file: Path) -> str:
    """Return the hash of a local file. Raises :class:`InputError` if it cannot be read."""
    try:
        return file_fact(file).sha256
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})", "check its permissions") from None
