"""Where texts come from: the bundled passages, local files, the hub; and how a sample of them is drawn."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from latentscore_data.core.base.errors import InputError, require
from latentscore_data.core.base.jsonl import read_lines
from latentscore_data.core.base.manifest import file_fact
from latentscore_data.core.base.rows import SourceText
from latentscore_data.core.base.seeds import digest, unit_hash
from latentscore_data.sample import PASSAGES, sample_texts

BUILTIN = "builtin"
TEXT_SUFFIXES = (".txt", ".md", ".markdown")
ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
TEXT_FIELDS = ("text", "content", "body", "passage", "document", "article", "story", "raw_content", "markdown")
TEXT_MAX_CHARS = 1_000_000
"""Longer texts are cut: no stage reads that far, and a line of ours must stay readable."""
ID_FIELDS = ("id_in_dataset", "id", "_id", "uuid", "doc_id", "url")

Kind = Literal["builtin", "local", "hub"]


@dataclass(frozen=True)
class Source:
    """A data set that was asked for."""

    name: str
    kind: Kind
    path: Path | None = None
    repo: str = ""
    config: str | None = None


@dataclass
class Sample:
    """The texts that were drawn, and how."""

    texts: list[SourceText]
    seen: int
    how: str
    empty: int = 0
    facts: dict[str, Any] = field(default_factory=lambda: {})


def find_source(name: str) -> Source:
    """What a ``--dataset`` means: ``builtin``, a file or folder that exists, or ``owner/name[:config]`` on the hub.

    Raises :class:`InputError` for a path that does not exist and for a name that can be neither.
    """
    if name == BUILTIN:
        return Source(name, "builtin")
    path = Path(name).expanduser()
    if path.exists():
        return Source(path.name or str(path.resolve().name), "local", path=path)
    if name.startswith((".", "/", "~")) or name.lower().endswith((*TEXT_SUFFIXES, *ROW_SUFFIXES)):
        raise InputError(f"{name} does not exist", "check the path")
    repo, _, config = name.partition(":")
    owner, slash, short = repo.partition("/")
    if not (owner and slash and short) or "/" in short:
        raise InputError(
            f"{name!r} is no data set", "name builtin, a file or folder, or a hub data set as owner/name[:config]"
        )
    return Source(name, "hub", repo=repo, config=config or None)


def find_sources(names: Iterable[str]) -> list[Source]:
    """All data sets, each once. Raises :class:`InputError` when two of them would have one name."""
    found: dict[str, Source] = {}
    for name in dict.fromkeys(names):
        source = find_source(name)
        if source.name in found:
            raise InputError(
                f"two data sets are called {source.name}", "rename one of them, or download them into separate roots"
            )
        found[source.name] = source
    return list(found.values())


# --- drawing a sample ------------------------------------------------------------------------------------------------


def draw_sample(texts: Iterable[SourceText], size: int, seed: int) -> tuple[list[SourceText], int]:
    """(texts, how many were seen): those with the smallest hash of seed and id, in the order they came.

    Uniform over all that is seen, the same for the same texts in any order, and more texts later displace few; only
    ``size`` texts are held.
    """
    heap: list[tuple[float, int, SourceText]] = []
    seen = 0
    for text in texts:
        entry = (-unit_hash(seed, text.dataset, text.id_in_dataset, "sample"), -seen, text)
        seen += 1
        if len(heap) < size:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)
    return [text for _, _, text in sorted(heap, key=lambda entry: -entry[1])], seen


# --- local files -----------------------------------------------------------------------------------------------------


def local_files(path: Path) -> list[Path]:
    """The files that hold texts, in a stable order. Raises :class:`InputError` when there are none.

    A folder ends at its own edge: links in it that lead out of it are not followed (:func:`links_out`).
    """
    if path.is_file():
        if _suffix(path) == "":
            raise InputError(
                f"{path} is not a text file that can be read", f"known: {', '.join((*TEXT_SUFFIXES, *ROW_SUFFIXES))}"
            )
        return [path]
    files = [file for file in _text_files(path) if not _leads_out(file, path)]
    if not files:
        if links_out(path):
            raise InputError(f"{path} holds no texts, only links that lead out of it", "name the folder they lead to")
        raise InputError(f"{path} holds no texts", f"known: {', '.join((*TEXT_SUFFIXES, *ROW_SUFFIXES))}")
    return files


def links_out(path: Path) -> list[Path]:
    """The text files of a folder that are links to somewhere else, and the linked folders: neither is read.

    A folder that was fetched or unpacked could otherwise bring any file of this machine into a sample.
    """
    if path.is_file():
        return []
    folders = [entry for entry in path.rglob("*") if entry.is_symlink() and entry.is_dir()]
    return sorted(entry for entry in (*_text_files(path), *folders) if _leads_out(entry, path))


def _text_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and _suffix(file) and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _leads_out(entry: Path, folder: Path) -> bool:
    return not entry.resolve().is_relative_to(folder.resolve())


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in (*ROW_SUFFIXES, *TEXT_SUFFIXES) if name.endswith(suffix)), "")


@dataclass
class Reader:
    """Reads the texts of a data set and counts what it leaves out."""

    dataset: str
    text_field: str | None = None
    keep_names: bool = True
    """Rows in our own format (with ``dataset`` and ``id_in_dataset``) keep the data set they name."""
    empty: int = 0
    _names: set[str] = field(default_factory=lambda: set())

    def read(self, root: Path, files: Iterable[Path]) -> Iterator[SourceText]:
        """Texts of local files, streamed. Rows that already are source texts keep their names."""
        several = root.is_dir()
        for file in files:
            place = file.relative_to(root).as_posix() if several else file.name
            suffix = _suffix(file)
            if suffix in TEXT_SUFFIXES:
                yield from self.text(place, read_text(file), {"file": place})
            elif suffix == ".parquet":
                for number, row in _read_parquet(file):
                    yield from self.row(row, f"{file}, row {number}", f"{place}#{number}")
            else:
                for number, row in read_lines(file):
                    yield from self.row(row, f"{file}:{number}", f"{place}#{number}")

    def row(self, row: dict[str, Any], where: str, place: str) -> Iterator[SourceText]:
        """The text of one row (none when it is empty). Raises :class:`InputError` naming the row and the column."""
        name = self.text_field or next((f for f in TEXT_FIELDS if isinstance(row.get(f), str)), None)
        if name is None or name not in row:
            columns = ", ".join(list(row)[:12])
            missing = f"no column {self.text_field}" if self.text_field else "no column with the text"
            raise InputError(f"{where}: {missing} (there are: {columns})", "name it with --text-field")
        value = row[name]
        if value is not None and not isinstance(value, str):
            raise InputError(
                f"{where}: field {name} is {type(value).__name__}, not text", "name another column with --text-field"
            )
        own = next((row[f] for f in ID_FIELDS if isinstance(row.get(f), str | int) and row[f] != ""), None)
        metadata = row["metadata"] if isinstance(row.get("metadata"), dict) else {}
        rest = {
            key: item
            for key, item in row.items()
            if key not in (name, "metadata", "dataset", "id_in_dataset", "created") and _is_plain(item)
        }
        created = row.get("created")
        yield from self.text(
            str(own) if own is not None else place,
            value or "",
            {**rest, **metadata},
            dataset=row["dataset"] if self._is_ours(row) else None,
            created=str(created) if created is not None else None,
        )

    def _is_ours(self, row: dict[str, Any]) -> bool:
        return self.keep_names and isinstance(row.get("dataset"), str) and "id_in_dataset" in row

    def claim(self, texts: Iterable[SourceText]) -> None:
        """Take the names of texts that were read before, so that no other text gets them."""
        self._names.update(digest(text.dataset, text.id_in_dataset)[:20] for text in texts)

    def text(
        self, name: str, text: str, metadata: dict[str, Any], dataset: str | None = None, created: str | None = None
    ) -> Iterator[SourceText]:
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
    """Small enough and simple enough to be carried along as metadata."""
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 500)


def read_text(path: Path) -> str:
    """A text file. Raises :class:`InputError` for one that cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "check its permissions") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}", "save the file as UTF-8") from None


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    require("pyarrow", "hub", f"reading {path.name}")
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(
            f"{path} is not a parquet file that can be read ({str(error).splitlines()[0]})", "check it"
        ) from None


# --- the three kinds -------------------------------------------------------------------------------------------------


def sample_builtin(size: int, seed: int) -> Sample:
    """From the bundled passages."""
    texts, seen = draw_sample(sample_texts(), size, seed)
    return Sample(texts, seen, f"{len(texts)} of the {seen} bundled passages")


def sample_local(source: Source, size: int, seed: int, text_field: str | None) -> Sample:
    """From files: everything is read, so the sample is uniform over all texts."""
    assert source.path is not None
    reader = Reader(source.name, text_field)
    files = local_files(source.path)
    texts, seen = draw_sample(reader.read(source.path, files), size, seed)
    how = f"uniform: {len(texts)} of {seen} texts with the smallest hash of seed and id, all {len(files)} files read"
    if outside := len(links_out(source.path)):
        how += f"; {outside} {'link leads' if outside == 1 else 'links lead'} out of the folder and were not followed"
    return Sample(texts, seen, how, reader.empty)


def source_fingerprint(source: Source, size: int, seed: int, text_field: str | None, **more: object) -> str:
    """Changes when the sample of a data set would come out differently. Local files are hashed."""
    contents: list[object] = []
    if source.kind == "local" and source.path is not None:
        contents = [(str(file.name), file_fact(file).sha256) for file in local_files(source.path)]
    elif source.kind == "builtin":
        contents = [file_fact(PASSAGES).sha256]
    return digest(source.name, source.kind, size, seed, text_field, contents, sorted(more.items()))[:32]
