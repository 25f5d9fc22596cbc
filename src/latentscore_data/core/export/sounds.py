"""The winners' sounds as FLAC files for a data set's column ``audio``, rendered in worker processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import latentscore
from latentscore import parse_payload
from latentscore.audio import write_audio
from latentscore.seeds import digest
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.summary import Progress, Summary
from latentscore_data.core.base.workers import WorkerPool
from latentscore_data.core.export.columns import AudioFile


@dataclass(frozen=True)
class Sounds:
    """FLAC files by config, in a temporary folder."""

    folder: Path

    def of(self, row: ScoredRow) -> AudioFile | None:
        """Return the winner's sound; None for a row without a config."""
        if row.config_payload is None:
            return None
        name = _name(row.config_payload)
        return AudioFile(bytes=(self.folder / name).read_bytes(), path=name)


def _name(payload: Mapping[str, Any]) -> str:
    return f"{digest(payload['config'])[:16]}.flac"


@contextmanager
def rendered(
    root: Path, rows: Iterable[ScoredRow], seconds: float, seed: int, workers: int, shown: Progress
) -> Iterator[Sounds]:
    """Render the winners' sounds, each config once: 48 kHz, stereo, 16 bit, ``seconds`` long; deleted at the end.

    ``shown`` displays the progress. Raises :class:`WorkerFailure` if one cannot be rendered.
    """
    with tempfile.TemporaryDirectory(dir=root, prefix=".sounds-") as folder:
        sounds, counter = Sounds(Path(folder)), Summary("export audio")
        payloads = {_name(row.config_payload): row.config_payload for row in rows if row.config_payload is not None}
        pool = WorkerPool(
            _make_worker,
            (folder, seconds, seed),
            count=workers,
            timeout_seconds=60 + 2 * seconds,
            preload=["latentscore_data.core.scoring.preload"],
        )
        try:
            shown.start(counter.stage, len(payloads))
            for future in [pool.submit(name, payload) for name, payload in payloads.items()]:
                future.result()
                counter.done += 1
                shown.update(counter, 0)
        finally:
            shown.finish(counter)
            pool.close()
        yield sounds


def _make_worker(folder: str, seconds: float, seed: int) -> Callable[[str, Mapping[str, Any]], None]:
    def write(name: str, payload: Mapping[str, Any]) -> None:
        audio = latentscore.render(parse_payload(payload).config, seconds, seed)
        write_audio(Path(folder) / name, audio, subtype="PCM_16")

    return write
