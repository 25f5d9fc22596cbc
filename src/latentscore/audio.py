"""Audio: samples with their rate, how loud they are, and files."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Loudness is reached through the package, which loads its compiled loops when they are first needed.
import latentscore
from latentscore.errors import AudioError
from latentscore.files import open_file
from latentscore.json_search import JsonObject
from latentscore.playback import play_samples
from latentscore.version import RENDERER_VERSION

if TYPE_CHECKING:
    from latentscore.config import MusicConfig, MusicConfigPrompt, Palette

Samples = NDArray[np.float32]

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}

FILE_TAGS = ("title", "artist", "album", "comment", "software", "date", "copyright", "genre", "license", "tracknumber")
"""Tags that files of all formats have fields for."""
PIECE_TAGS = ("vibe", "config", "seed", "seconds", "renderer", "layer")
"""Tags that say what a piece was made from. A file holds them as one JSON object in its comment, with the title."""

COMMENT_BYTES = {"WAV": 2000}
"""Longer comments are lost when libsndfile reads them; a vibe is cut to fit."""
COMMENT_BYTES_ELSEWHERE = 20_000

PIECE_FRAMES = 65_536
"""How much libsndfile is given at once: its Vorbis encoder puts the whole of it on the stack, which a minute overflows."""


@dataclass(frozen=True)
class Metadata:
    """Where a piece comes from: what was asked, what answered, and what was answered."""

    title: str
    config: MusicConfig | MusicConfigPrompt
    seed: int
    seconds: float
    answered_by: str
    """``builtin/keywords``, a model, a map, or ``config`` where nothing had to be answered."""
    reasons: str = ""
    """What was read from the text, and why the config is as it is."""
    palettes: tuple[Palette, ...] = ()
    text: str | None = None

    @property
    def thinking(self) -> str:
        """The reasons, under the name that they have in a payload."""
        return self.reasons

    def tags(self) -> JsonObject:
        """Title and comment for a sound file: enough to render the piece again."""
        comment: JsonObject = {
            "config": self.config.model_dump(), "seed": self.seed, "seconds": self.seconds, "renderer": RENDERER_VERSION,
        }  # fmt: skip
        if self.text is not None:
            comment |= {"text": self.text, "answered_by": self.answered_by}
        return {"title": self.title, "software": f"latentscore {RENDERER_VERSION}", "comment": comment}


@dataclass(frozen=True, repr=False)
class Audio:
    """Stereo sound.

    ``samples`` is float32 of shape (frames, 2) in [-1, 1]; ``sample_rate`` is in hertz. ``stems`` holds the layers by
    name when they were asked for. ``tags`` are those of the file, or of the piece: a rendered one holds ``config``,
    ``seed``, ``seconds`` and ``renderer`` (its version), which :func:`write_audio` writes.
    ``metadata`` is None for sound that was not rendered here. ``np.asarray(audio)`` is the samples; a notebook shows a
    player.
    """

    samples: Samples
    sample_rate: int
    stems: Mapping[str, Audio] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    metadata: Metadata | None = None

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[1] != 2:
            raise AudioError(f"samples must have the shape (frames, 2), not {self.samples.shape}")

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate

    @cached_property
    def mono(self) -> Samples:
        """The mean of left and right, shape (frames,)."""
        return self.samples.mean(axis=1, dtype=np.float32)

    def tagged(self, **tags: Any) -> Audio:
        """The same sound with these tags beside its own."""
        return replace(self, tags={**self.tags, **tags})

    def save(self, path: Path | str) -> Path:
        """Write WAV, FLAC or OGG by the file's ending, with the tags; the path. Makes its folder. Raises :class:`AudioError`."""
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_be_written(Path(path), error) from error
        write_audio(path, self)
        return Path(path)

    def play(self) -> None:
        """Play on this machine's loudspeakers and return at the end.

        Raises :class:`AudioError` without the extra ``play`` or without a device.
        """
        play_samples(self.samples, self.sample_rate)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.samples, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        title = f"{self.metadata.title!r}, " if self.metadata else ""
        stems = f", stems {', '.join(self.stems)}" if self.stems else ""
        return f"Audio({title}{self.seconds:.1f} s, stereo, {self.sample_rate} Hz{stems})"

    def _repr_html_(self) -> str:
        """A player for notebooks: the sound as FLAC inside the page."""
        import soundfile

        flac = io.BytesIO()
        soundfile.write(flac, self.samples, self.sample_rate, format="FLAC", subtype="PCM_16")
        title = f"<b>{html.escape(self.metadata.title)}</b><br>" if self.metadata else ""
        source = f"data:audio/flac;base64,{base64.b64encode(flac.getvalue()).decode()}"
        return f'<div>{title}<audio controls src="{source}"></audio></div>'

    def loudness_lufs(self) -> float:
        """Integrated loudness by ITU-R BS.1770; minus infinity for silence and below 0.4 s."""
        return latentscore.integrated_lufs(self.samples, self.sample_rate)

    def true_peak_dbfs(self) -> float:
        """The highest point of the continuous signal in dB against full scale; minus infinity for silence."""
        peak = latentscore.true_peak(self.samples)
        return 20.0 * math.log10(peak) if peak > 0 else -math.inf


def write_audio(path: Path | str, audio: Audio, tags: Mapping[str, Any] | None = None, subtype: str = "PCM_24") -> None:
    """Write WAV, FLAC or OGG by the file's ending.

    ``tags`` come beside those of the audio: the names of :data:`FILE_TAGS`, whose values are written as JSON where they are
    no text, and those of :data:`PIECE_TAGS`, which become the comment unless one is given. An existing file is replaced
    only by a whole one. Raises :class:`AudioError` for an unknown ending, a rate that the format cannot hold, samples that
    are not finite, an unknown tag, one that JSON cannot hold, or a file that cannot be written.
    """
    import soundfile

    path = Path(path)
    kind = format_for(path, audio.sample_rate)
    if not np.isfinite(audio.samples).all():
        raise AudioError(f"{path.name}: the samples are not finite")
    texts = file_tags(path.name, kind, {**audio.tags, **(tags or {})})
    try:
        # Opened here: soundfile encodes names strictly, and fails on any accent under a locale that is not UTF-8.
        with replacing(path) as draft, draft.open("w+b") as raw:
            encode(raw, audio, kind, "VORBIS" if kind == "OGG" else subtype, texts)
    except (OSError, soundfile.LibsndfileError, ValueError) as error:
        raise cannot_be_written(path, error) from error
    except AssertionError as error:  # what soundfile says of a file that takes fewer samples than it was given
        raise AudioError(f"{path}: cannot be written (the disk took only a part of it; is it full?)") from error


def format_for(path: Path, sample_rate: int) -> str:
    """libsndfile's name for the format of a file's ending.

    Raises :class:`AudioError` for an unknown ending and for a sample rate in hertz that the format cannot hold.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise AudioError(f"{path.name}: the ending must be one of {', '.join(FORMATS)}")
    if kind == "FLAC" and sample_rate > 65_535 and sample_rate % 10:
        raise AudioError(
            f"{path.name}: FLAC cannot hold {sample_rate} Hz: it holds every rate up to 65535 Hz, and above it the "
            "multiples of 10, such as 88200, 96000 and 192000"
        )
    return kind


def encode(raw: BinaryIO, audio: Audio, kind: str, subtype: str, texts: Mapping[str, str], **options: Any) -> None:
    """Write the audio, with the tags that :func:`file_tags` made, into a file that is open for writing and reading."""
    import soundfile

    with soundfile.SoundFile(raw, "w", audio.sample_rate, 2, subtype, format=kind, **options) as file:
        for name, text in texts.items():
            setattr(file, name, text)
        for start in range(0, len(audio.samples), PIECE_FRAMES):
            file.write(audio.samples[start : start + PIECE_FRAMES])


def file_tags(name: str, kind: str, tags: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a file's own tags; those that say what a piece was made from become its comment.

    Raises :class:`AudioError`, with the file's ``name``, for an unknown tag and for one that JSON cannot hold.
    """
    if unknown := [tag for tag in tags if tag not in (*FILE_TAGS, *PIECE_TAGS)]:
        raise AudioError(f"{name}: no tag is called {unknown[0]}; known: {', '.join((*FILE_TAGS, *PIECE_TAGS))}")
    given: JsonObject = {tag: value for tag, value in tags.items() if tag in FILE_TAGS}
    piece = {tag: tags[tag] for tag in ("title", *PIECE_TAGS) if tags.get(tag) is not None}
    if not piece.keys().isdisjoint(PIECE_TAGS):
        given.setdefault("comment", _comment(name, kind, piece))
    if "renderer" in piece:
        given.setdefault("software", f"latentscore {piece['renderer']}")
    texts = {tag: _tag(name, tag, value) for tag, value in given.items()}
    if kind == "MP3":  # libsndfile writes its ID3 tags as Latin-1; the comment is JSON, which needs ASCII only
        texts = {tag: text for tag, text in texts.items() if text.isascii()}
    return {tag: text for tag, text in texts.items() if text}


def _comment(name: str, kind: str, piece: JsonObject) -> str:
    room = COMMENT_BYTES.get(kind, COMMENT_BYTES_ELSEWHERE)
    text = _tag(name, "comment", piece)
    while len(text) > room and piece.get("vibe"):
        vibe = str(piece["vibe"]).removesuffix("…")
        piece["vibe"] = vibe[: min(len(vibe) - 1, room)] + "…" if len(vibe) > 1 else ""
        text = _tag(name, "comment", piece)
    return text


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden draft beside ``path`` that takes its name when the block ends well, and is deleted when it does not."""
    if path.exists() and not path.is_file():
        # A pipe or a device has nothing to lose, and must not become a file.
        yield path
        return
    # A link stays one: what it points at is replaced.
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".latentscore-{uuid.uuid4().hex}.tmp")
    try:
        yield draft
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def cannot_be_written(path: Path, error: Exception) -> AudioError:
    """The error for a file that could not be written; the system's own message would name the draft."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return AudioError(f"{path}: cannot be written ({reason})")


def _tag(file: str, name: str, value: Any) -> str:
    """Text that fits into a tag, which ends at the first NUL, is UTF-8, and must not be empty: such ones are left out."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise AudioError(f"{file}: the tag {name} cannot be written as JSON ({error}); give it as text") from error
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()


def read_audio(path: Path | str) -> Audio:
    """Read a sound file and its tags; one channel is heard from both sides, more than two are refused.

    ``Audio.tags`` holds the tags of :data:`FILE_TAGS` that are there, as text, and those of :data:`PIECE_TAGS`, as they were
    given to :func:`write_audio`, where the file was written by it. Raises :class:`AudioError`.
    """
    import soundfile

    try:
        with open_file(Path(path)) as raw, soundfile.SoundFile(raw) as file:
            samples, rate, tags = file.read(dtype="float32", always_2d=True), file.samplerate, _read_tags(file)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(f"{path}: cannot be read ({error})") from error
    if samples.shape[1] == 1:
        samples = np.repeat(samples, 2, axis=1)
    return Audio(np.ascontiguousarray(samples, dtype=np.float32), rate, tags=tags)


def read_tags(path: Path | str) -> JsonObject:
    """The tags of a sound file as :func:`read_audio` gives them, and its ``sample_rate``; no samples are read.

    Raises :class:`AudioError`.
    """
    import soundfile

    try:
        with open_file(Path(path)) as raw, soundfile.SoundFile(raw) as file:
            return {**_read_tags(file), "sample_rate": file.samplerate}
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(f"{path}: cannot be read ({error})") from error


def _read_tags(file: Any) -> JsonObject:
    tags: JsonObject = {name: text for name in FILE_TAGS if (text := getattr(file, name))}
    if software := tags.get("software"):  # libsndfile adds itself
        tags["software"] = str(software).partition(" (libsndfile-")[0]
    try:
        piece = json.loads(tags.get("comment", ""))
    except (ValueError, RecursionError):
        return tags
    if not isinstance(piece, dict) or piece.keys().isdisjoint(PIECE_TAGS):
        return tags
    del tags["comment"]
    found = cast(JsonObject, piece)
    return {**{name: value for name, value in found.items() if name in ("title", *PIECE_TAGS)}, **tags}
