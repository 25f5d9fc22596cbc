"""Samples of data sets on the hub, streamed with the ``datasets`` client: files are not downloaded completely."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentscore.json_search import JsonObject
from latentscore.seeds import digest, rng_for
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, one_line, require
from latentscore_data.core.base.jsonl import Appender, Line, read_lines
from latentscore_data.core.base.rows import SourceText
from latentscore_data.core.base.settings import DownloadSettings
from latentscore_data.core.texts.corpus import Reader, Sample, Source, draw_sample

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
WANTED_SPLITS = ("train", "validation", "test")


@dataclass
class HubPlan:
    """The files that a sample is drawn from, planned before any data is downloaded."""

    source: Source
    revision: str
    split: str
    files: list[str]
    """The data files of the split, with the names that the client uses."""
    sizes: list[int]
    """Size of each file in bytes; 0 if the hub does not report it."""
    order: list[int]
    """Indices of the files in the order of reading."""
    first: int
    """Number of files that the sample is drawn from; more are read if these have too few texts."""
    builder: Any = field(repr=False, default=None)

    def to_dict(self) -> JsonObject:
        return {
            "dataset": self.source.name,
            "revision": self.revision,
            "split": self.split,
            "files": len(self.files),
            "bytes": sum(self.sizes),
            "read_from_files": self.first,
            # Only the beginnings of these files are downloaded.
            "read_at_most_bytes": sum(self.sizes[i] for i in self.order[: self.first]),
        }


def plan(source: Source, settings: DownloadSettings) -> HubPlan:
    """Return the files of a data set and the order of reading. Sends a few small requests and downloads no data.

    Raises :class:`MissingError` if the data set does not exist, is not accessible to this user, or the hub does not
    respond.
    """
    require("datasets", "hub", f"downloading {source.name}")
    with _hub_errors(source):
        import datasets
        from huggingface_hub import HfApi

        datasets.disable_progress_bars()
        info = HfApi().dataset_info(source.repo, files_metadata=True)
        builder = datasets.load_dataset_builder(source.repo, source.config, revision=info.sha)
        config: Any = builder.config
        if hasattr(config, "chunksize"):
            # The default for JSON is 10 MB at a time, which is more than the few texts that are read from a file.
            config.chunksize = CHUNK_BYTES
        data_files = dict(config.data_files or {})
    split = next((name for name in WANTED_SPLITS if name in data_files), None) or next(iter(data_files), None)
    if split is None:
        raise InputError(f"{source.name} contains no data files that can be streamed", "choose another data set")
    files = [str(file) for file in data_files[split]]
    size_of = {sibling.rfilename: int(sibling.size or 0) for sibling in info.siblings or []}
    sizes = [next((size for name, size in size_of.items() if file.endswith("/" + name)), 0) for file in files]
    order = [int(i) for i in rng_for(settings.seed, source.name, "files").permutation(len(files))]
    first = min(settings.shards, len(files), settings.sample_size)
    return HubPlan(source, info.sha or "", str(split), files, sizes, order, first, builder)


def sample_hub(
    planned: HubPlan, settings: DownloadSettings, partial: Path, fingerprint: str, *, overwrite: bool = False
) -> Sample:
    """Return the sample. Each file's texts are appended to ``partial``, so that an interrupted download resumes there.

    ``fingerprint`` identifies the sample: a ``partial`` of another one is deleted, and so is any with ``overwrite``.
    Raises what :func:`plan` raises, and :class:`InputError` for a damaged file.
    """
    source = planned.source
    name = digest(fingerprint, planned.revision)
    done = {} if overwrite else _read_partial(partial, name)
    if not done:
        partial.unlink(missing_ok=True)
    reader = Reader(source.name, settings.text_field, keep_names=False)
    texts: list[SourceText] = []
    seen = used = empty = 0
    window = 0
    with _hub_errors(source, _path_in_repository(planned.files[0])):  # the client reads the first file here
        stream = planned.builder.as_streaming_dataset(split=planned.split)
    with Appender(partial) as keep:
        if not done:
            keep.append({"sample": name})
        for at, shard in enumerate(planned.order):
            missing = settings.sample_size - len(texts)
            if missing <= 0:
                break
            quota = math.ceil(missing / max(planned.first - at, 1))
            window = max(window, quota * settings.oversample)
            used += 1
            if shard in done:
                mine, shard_seen, shard_empty = done[shard]
                reader.claim(mine)
            else:
                before = reader.empty
                rows = _rows(planned, stream, shard, quota * settings.oversample)
                mine, shard_seen = draw_sample(_texts(reader, rows, source, shard), quota, settings.seed)
                shard_empty = reader.empty - before
                for text in mine:
                    keep.append({"shard": shard, "text": text.model_dump(mode="json")})
                keep.append({"shard": shard, "done": True, "seen": shard_seen, "empty": shard_empty})
                log.info("%s: file %d of %d read, %d texts kept", source.name, at + 1, planned.first, len(mine))
            texts += mine
            seen += shard_seen
            empty += shard_empty
    how = (
        f"{used} of {len(planned.files)} files, drawn by the seed; of at most the first {window} texts of each, those "
        "with the smallest hash of seed and id. Texts deeper inside a file cannot be drawn, so the sample is uniform "
        "within these beginnings, not over the whole data set"
    )
    facts = {**planned.to_dict(), "files_read": [planned.files[i] for i in planned.order[:used]]}
    facts.pop("dataset")
    return Sample(texts, seen, how, empty, facts)


def _rows(planned: HubPlan, stream: Any, shard: int, most: int) -> Iterator[tuple[int, Line]]:
    """Yield (number, row) of the first ``most`` rows of one file. Raises :class:`InputError` for a damaged file."""
    with _hub_errors(planned.source, _path_in_repository(planned.files[shard])):
        if stream.num_shards == len(planned.files) > 1:
            stream = stream.shard(num_shards=len(planned.files), index=shard)
        yield from enumerate(stream.take(most), start=1)


def _path_in_repository(file: str) -> str:
    """Return ``data/a.jsonl`` for ``hf://datasets/owner/name@revision/data/a.jsonl``."""
    return file.rpartition("@")[2].partition("/")[2] or file


def _texts(reader: Reader, rows: Iterator[tuple[int, Line]], source: Source, shard: int) -> Iterator[SourceText]:
    for number, row in rows:
        yield from reader.row(row, f"{source.name}, file {shard}, row {number}", f"file-{shard:05d}#{number}")


def _read_partial(path: Path, name: str) -> dict[int, tuple[list[SourceText], int, int]]:
    """Return (texts, number read, number empty) of each file that an interrupted download finished."""
    if not path.exists():
        return {}
    texts: dict[int, list[SourceText]] = {}
    done: dict[int, tuple[list[SourceText], int, int]] = {}
    for number, line in read_lines(path, torn="drop"):
        if number == 1 and line.get("sample") != name:
            return {}
        if "text" in line:
            texts.setdefault(int(line["shard"]), []).append(SourceText.model_validate(line["text"]))
        elif line.get("done"):
            shard = int(line["shard"])
            done[shard] = (texts.get(shard, []), int(line["seen"]), int(line["empty"]))
    return done


@contextmanager
def _hub_errors(source: Source, file: str = "") -> Iterator[None]:
    """Convert exceptions of the client, which plans or reads a file, to an error with a remedy."""
    try:
        yield
    except LsdataError:
        raise
    except Exception as error:
        raise _explained(source, file, error) from None


def _explained(source: Source, file: str, error: Exception) -> LsdataError:
    import httpx
    from huggingface_hub import errors

    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and isinstance(cause, Exception):
        chain.append(cause)
    status = next(
        (e.response.status_code for e in chain if isinstance(e, errors.HfHubHTTPError) and e.response is not None), None
    )
    if any(isinstance(e, errors.GatedRepoError) for e in chain) or status == 403:
        return MissingError(
            f"{source.name} is gated", "ask for access on its page, then set HF_TOKEN in the environment or .env"
        )
    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in chain):
        return MissingError(f"{source.name} cannot be fetched: HF_HUB_OFFLINE is set", "unset it")
    if status == 401 or any(isinstance(e, errors.RepositoryNotFoundError) for e in chain):
        return MissingError(
            f"there is no data set {source.repo} on the hub, or it is private",
            "check the name; for a private one set HF_TOKEN in the environment or .env",
        )
    network = (httpx.TransportError, ConnectionError, TimeoutError, errors.HfHubHTTPError)
    if any(isinstance(e, network) for e in chain):
        reason = f"HTTP {status}" if status else one_line(chain[-1])
        return MissingError(
            f"{source.name}: the hub did not answer ({reason})", "run the same command again; downloaded files are kept"
        )
    # Other exceptions (of zlib, Arrow or YAML, or a failed cast) are caused by a file, or by the card of the data set.
    if file:
        return InputError(
            f"{source.name}: {file} cannot be read ({one_line(chain[-1])})",
            "the file on the hub is damaged or contradicts the card of the data set: choose another data set or :config",
        )
    return InputError(f"{source.name}: {one_line(error)}", "check the name, its :config and its card")
