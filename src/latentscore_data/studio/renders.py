"""Sounds for the page, rendered and encoded in worker processes that also render for the scorers."""

from __future__ import annotations

import io
import logging
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import latentscore
from latentscore import MusicConfig, MusicConfigPrompt, parse_config
from latentscore.audio import sound_bytes
from latentscore.installed import available_cores
from latentscore.seeds import digest
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.base.workers import WorkerPool
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clips import Clip, flac_bytes, make_clip, mp3_bytes
from latentscore_data.core.scoring.renderer import Rendered, RenderRequest, embedders_of, make_worker
from latentscore_data.core.scoring.types import Scorer

log = logging.getLogger(__name__)

KEPT_BYTES = 96 * 2**20
"""Size of the cache of encoded sounds, which serves undo, A/B and further tabs."""

TIMEOUT_SECONDS = 120.0

PLAYED = {"pcm": "audio/wav", "flac-16": "audio/flac"}
"""Formats for playback: 16-bit WAV on this machine, which decodes fastest; FLAC over a network, a third of the size."""

FORMATS = {
    **PLAYED,
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "stems": "application/zip",
    "midi": "audio/midi",
}
"""The formats of sounds, with their media types."""


@dataclass(frozen=True)
class Sound:
    """A sound to render: a config of labels or numbers, seed, length and one of :data:`FORMATS`."""

    config: Mapping[str, Any]
    seed: int
    seconds: float
    format: str
    title: str = ""
    begin: float = 0.0
    length: float | None = None
    """Render only an excerpt of this many seconds from second ``begin``, in a tenth of the time. It is similar to the
    same part of the whole piece."""

    @property
    def key(self) -> str:
        config = sorted((name, value) for name, value in self.config.items())
        return digest(config, self.seed, f"{self.seconds:g}", self.format, self.title, self.begin, self.length)


def make_studio_worker() -> Callable[..., Any]:
    """Return the function that a worker process runs: ``work("score", ...)`` renders for scorers, ``work("sound",
    sound)`` for playback, ``work("clip", ...)`` for the static copy."""
    kinds: dict[str, Callable[..., Any]] = {"sound": encode, "clip": clip_of, "score": make_worker(None)}
    return lambda what, *args: kinds[what](*args)


def clip_of(config: Mapping[str, Any], seconds: float, seed: int) -> Clip:
    """Return the sound of a config as MP3 with its waveform."""
    return make_clip(latentscore.render(parse_config(config), seconds, seed))


def encode(sound: Sound) -> bytes:
    """Return the content of the sound's file."""
    config = parse_config(sound.config)
    if sound.format == "midi":
        return _midi(config.to_config() if isinstance(config, MusicConfigPrompt) else config, sound)
    if sound.length is not None:
        audio = latentscore.render_excerpt(config, sound.seconds, sound.begin, sound.length, sound.seed)
    else:
        audio = latentscore.render(config, sound.seconds, sound.seed, stems=sound.format == "stems")
    named = audio.tagged(title=sound.title)
    match sound.format:
        case "pcm" | "flac-16":
            plain = latentscore.Audio(audio.samples, audio.sample_rate)
            return sound_bytes(plain, "WAV" if sound.format == "pcm" else "FLAC", "PCM_16")
        case "mp3":
            return mp3_bytes(named)
        case "stems":
            return _stems(audio, sound.title)
        case _:
            return sound_bytes(named, sound.format.upper(), "PCM_24")


def _stems(audio: latentscore.Audio, title: str) -> bytes:
    """Return a ZIP with one FLAC for each layer. Stems have the same gain, so that their sum is the mix."""
    highest = max(1.0, *(float(np.abs(stem.samples).max()) for stem in audio.stems.values()))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for layer, stem in audio.stems.items():
            samples = stem.samples / np.float32(highest)
            tags = {**audio.tags, "title": f"{title} ({layer})", "layer": layer}
            share = latentscore.Audio(samples, stem.sample_rate, tags=tags)
            archive.writestr(f"{layer}.flac", flac_bytes(share))
    return packed.getvalue()


def _midi(config: MusicConfig, sound: Sound) -> bytes:
    with tempfile.TemporaryDirectory(prefix="lsdata-studio-") as folder:
        path = Path(folder) / "notes.mid"
        latentscore.write_midi(path, latentscore.compose(config, sound.seconds, sound.seed))
        return path.read_bytes()


class Renders:
    """Up to ``count`` worker processes (default: one per core) that render for the page and the scorers."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or available_cores()
        self.pool = WorkerPool(
            make_studio_worker,
            count=self.count,
            timeout_seconds=TIMEOUT_SECONDS,
            preload=["latentscore_data.core.scoring.preload", "latentscore_data.studio.renders"],
            tries=2,
        )
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def sound(self, sound: Sound) -> Future[bytes]:
        """Return a future of the encoded sound. It raises :class:`WorkerFailure` if rendering fails."""
        with self._lock:
            known = self._kept.get(sound.key)
            if known is not None:
                self._kept.move_to_end(sound.key)
        if known is not None:
            future: Future[bytes] = Future()
            future.set_result(known)
            return future
        future = self.pool.submit("sound", sound)
        future.add_done_callback(lambda done: self._keep(sound.key, done))
        return future

    def _keep(self, key: str, done: Future[bytes]) -> None:
        if done.cancelled() or done.exception() is not None or len(done.result()) > KEPT_BYTES // 2:
            return
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = done.result()
            self._bytes += len(done.result())
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def clip(self, payload: Mapping[str, Any], scoring: ScoringSettings) -> Future[Clip]:
        """Return a future of the payload's sound as a clip, with the length and seed of scoring."""
        return self.pool.submit("clip", payload["config"], scoring.seconds, scoring.seed)

    def warm(self) -> None:
        """Start a process, so that the first vibe does not wait for it."""
        config = latentscore.MusicConfig().model_dump()
        self.pool.submit("sound", Sound(config, 0, 0.5, "pcm"))

    def close(self) -> None:
        self.pool.close()


class SharedRenderer:
    """The renderer of a scoring service that uses the processes of :class:`Renders`."""

    at_once = 24
    scores = False

    def __init__(
        self, renders: Renders, scorers: Sequence[Scorer], settings: ScoringSettings, cache: ScoreCache
    ) -> None:
        self.workers = renders.count
        self._renders, self._seconds, self._seed = renders, settings.seconds, settings.seed
        self._embedders = embedders_of(scorers)
        self._needs_audio = len(self._embedders) < len(scorers)

    def submit(self, request: RenderRequest) -> Future[Rendered]:
        wanted = request.want_audio or self._needs_audio
        return self._renders.pool.submit(
            "score", dict(request.config), self._seconds, self._seed, self._embedders, wanted
        )

    def release(self) -> None:
        """Do nothing: requests are not delayed."""

    def close(self) -> None:
        """Do nothing: :class:`Renders` closes the processes."""
