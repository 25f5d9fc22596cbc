"""Audio in memory with its sample rate, loudness and tags; reading and writing of sound files."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import html
import io
import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from latentscore.errors import AudioError
from latentscore.files import open_file, user_path
from latentscore.json_search import JsonObject
from latentscore.loudness import integrated_lufs, true_peak
from latentscore.playback import play_samples
from latentscore.version import RENDERER_VERSION

if TYPE_CHECKING:
    from latentscore.config import MusicConfig, MusicConfigPrompt, Palette

Samples = NDArray[np.float32]

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}

FILE_TAGS = ("title", "artist", "album", "comment", "software", "date", "copyright", "genre", "license", "tracknumber")
"""Tags that all file formats support."""
PIECE_TAGS = ("vibe", "config", "seed", "seconds", "loop", "renderer", "layer")
"""Tags that describe how a piece was rendered. A file holds them as one JSON object in its comment, with the title."""

COMMENT_BYTES = {"WAV": 2000}
"""Maximum length of a comment in bytes: libsndfile does not read longer ones. The vibe is cut to fit."""
COMMENT_BYTES_ELSEWHERE = 20_000

PCM_STEPS = {"PCM_16": np.float32(2**15), "PCM_24": np.float32(2**23)}
"""Steps from 0 to full scale. Samples are rounded to the nearest one, because libsndfile rounds them down in WAV."""

PIECE_FRAMES = 65_536
"""Frames per write: libsndfile's Vorbis encoder copies them to the stack, which a minute of audio overflows."""


@dataclass(frozen=True)
class Metadata:
    """The origin of a piece: the text, the model or map, and its answer."""

    title: str
    config: MusicConfig | MusicConfigPrompt
    seed: int
    seconds: float
    """The requested length; that of a loop differs, see :attr:`Audio.seconds`."""
    answered_by: str
    """``builtin/keywords``, the name of a model or map, or ``config`` if a config was given."""
    reasons: str = ""
    """How the text was interpreted, or the model's reasons."""
    palettes: tuple[Palette, ...] = ()
    text: str | None = None

    @property
    def thinking(self) -> str:
        """The reasons, under their name in a payload."""
        return self.reasons

    def tags(self) -> JsonObject:
        """Return title and comment tags for a sound file, from which the piece can be rendered again."""
        comment: JsonObject = {
            "config": self.config.model_dump(), "seed": self.seed, "seconds": self.seconds, "renderer": RENDERER_VERSION,
        }  # fmt: skip
        if self.text is not None:
            comment |= {"text": self.text, "answered_by": self.answered_by}
        return {"title": self.title, "software": f"latentscore {RENDERER_VERSION}", "comment": comment}


@dataclass(frozen=True, repr=False, eq=False)
class Audio:
    """Stereo sound.

    ``samples`` is float32 of shape (frames, 2) in [-1, 1]; ``sample_rate`` is in hertz. ``stems`` holds the layers by
    name if they were requested. ``tags`` are the tags of the file or of the piece: rendered audio has ``config``,
    ``seed``, ``seconds`` and ``renderer`` (its version), and a loop has ``loop`` (true); :func:`write_audio` writes
    them. ``metadata`` is None for audio that was not rendered in this process. ``np.asarray(audio)`` returns the
    samples; a notebook shows a player. Audio is equal if all of these are.
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
        """Return the mean of left and right, shape (frames,)."""
        return self.samples.mean(axis=1, dtype=np.float32)

    def tagged(self, **tags: Any) -> Audio:
        """Return the same audio with additional tags."""
        return replace(self, tags={**self.tags, **tags})

    def save(self, path: Path | str) -> Path:
        """Write WAV, FLAC or OGG, by the file's extension, with the tags. Creates the folder and returns the path, in which
        the home folder replaces ``~``. Raises :class:`AudioError`."""
        path = user_path(path)
        make_folder(path)
        write_audio(path, self)
        return path

    def to_bytes(self, format: str = "flac", subtype: str = "PCM_24") -> bytes:
        """Return the content of the file that :func:`write_audio` writes; ``format`` is "wav", "flac" or "ogg". Raises
        :class:`AudioError`."""
        path = Path(f"audio.{format}")
        kind = format_for(path, self.sample_rate)
        check_finite(path, self.samples)
        return sound_bytes(self, kind, subtype_for(kind, subtype))

    def play(self) -> None:
        """Play on this machine's loudspeakers and return when the audio has ended.

        Raises :class:`AudioError` without the extra ``play`` or an audio device.
        """
        play_samples(self.samples, self.sample_rate)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Audio):
            return NotImplemented
        same = (self.sample_rate, self.stems, self.tags, self.metadata) == (
            other.sample_rate, other.stems, other.tags, other.metadata,
        )  # fmt: skip
        return same and np.array_equal(self.samples, other.samples)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is None:  # not a value that numpy 1 knows
            return np.asarray(self.samples, dtype=dtype)
        return np.array(self.samples, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        title = f"{self.metadata.title!r}, " if self.metadata else ""
        stems = f", stems {', '.join(self.stems)}" if self.stems else ""
        return f"Audio({title}{self.seconds:.1f} s, stereo, {self.sample_rate} Hz{stems})"

    def _repr_html_(self) -> str:
        """Return a player for notebooks, with the audio as embedded FLAC."""
        flac = self.to_bytes("flac", "PCM_16")
        title = f"<b>{html.escape(self.metadata.title)}</b><br>" if self.metadata else ""
        source = f"data:audio/flac;base64,{base64.b64encode(flac).decode()}"
        return f'<div>{title}<audio controls src="{source}"></audio></div>'

    def loudness_lufs(self) -> float:
        """Return the integrated loudness in LUFS (ITU-R BS.1770-4); minus infinity for silence and for less than 0.4 s."""
        return integrated_lufs(self.samples, self.sample_rate)

    def true_peak_dbfs(self) -> float:
        """Return the true peak in dBFS, by four times oversampling (ITU-R BS.1770-4); minus infinity for silence."""
        peak = true_peak(self.samples)
        return 20.0 * math.log10(peak) if peak > 0 else -math.inf


def write_audio(path: Path | str, audio: Audio, tags: Mapping[str, Any] | None = None, subtype: str = "PCM_24") -> None:
    """Write WAV, FLAC or OGG, by the file's extension.

    ``tags`` are written in addition to those of the audio. Their names are those of :data:`FILE_TAGS`, whose values are
    converted to JSON unless they are text, and those of :data:`PIECE_TAGS`, which become the comment unless one is
    given. An existing file is replaced atomically. ``subtype`` is libsndfile's name of the sample format. Raises
    :class:`AudioError` for an unknown extension, a sample rate that the format does not support, samples that are not
    finite, an unknown tag, a tag that cannot be converted to JSON, or a file that cannot be written.
    """
    path = user_path(path)
    format_for(path, audio.sample_rate)
    check_finite(path, audio.samples)
    write_blocks(path, [audio.samples], audio.sample_rate, {**audio.tags, **(tags or {})}, subtype)


def write_blocks(
    path: Path, blocks: Iterable[Samples], sample_rate: int, tags: Mapping[str, Any], subtype: str = "PCM_24"
) -> None:
    """Write finite samples as :func:`write_audio` does, one block after the other, without holding all of them."""
    import soundfile

    kind = format_for(path, sample_rate)
    texts = file_tags(path.name, kind, tags)
    try:
        with replacing(path) as draft, _Draft(draft, "w+") as raw:
            if not raw.seekable():
                raise io.UnsupportedOperation("it is a pipe; write a file instead")
            try:
                encode(cast(BinaryIO, raw), blocks, sample_rate, kind, subtype_for(kind, subtype), texts)
            except (AssertionError, soundfile.LibsndfileError) as error:
                # soundfile asserts that as many samples were written as given.
                raise raw.failure or OSError(str(error) or "only a part of it was written") from error
            if raw.failure is not None:
                raise raw.failure
    except (OSError, ValueError) as error:
        raise cannot_be_written(path, error) from error


class _Draft(io.FileIO):
    """A file that soundfile writes; it keeps the error of a failed write, such as on a full disk.

    An error that is raised in libsndfile's callback is printed as a traceback and lost. soundfile gets an open file
    because it encodes names strictly and fails on accents in a locale that is not UTF-8.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        written = 0
        try:
            while written < len(data):  # a nearly full disk takes a part
                written += super().write(memoryview(data)[written:])
        except OSError as error:
            self.failure = error
        return written


def make_folder(path: Path) -> None:
    """Create the folder of a file. Raises :class:`AudioError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def format_for(path: Path, sample_rate: int) -> str:
    """Return libsndfile's name for the format of a file's extension.

    Raises :class:`AudioError` for an unknown extension and for a sample rate in hertz that the format does not support.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise AudioError(f"{path.name}: the file extension must be one of {', '.join(FORMATS)}")
    if kind == "FLAC" and sample_rate > 65_535 and sample_rate % 10:
        raise AudioError(
            f"{path.name}: FLAC does not support {sample_rate} Hz: it supports all rates up to 65535 Hz, and above it "
            "multiples of 10, such as 88200, 96000 and 192000"
        )
    return kind


def subtype_for(kind: str, subtype: str) -> str:
    """Return libsndfile's name of the sample format: ``subtype``, except in OGG files, which have only one."""
    return "VORBIS" if kind == "OGG" else subtype


def check_finite(path: Path, samples: Samples) -> None:
    """Raise :class:`AudioError` unless all samples are finite."""
    if not np.isfinite(samples).all():
        raise AudioError(f"{path.name}: the samples are not finite")


def sound_bytes(audio: Audio, kind: str, subtype: str, **options: Any) -> bytes:
    """Return a sound file with the audio's tags; ``kind``, ``subtype`` and ``options`` are those of :func:`encode`."""
    raw = io.BytesIO()
    encode(raw, [audio.samples], audio.sample_rate, kind, subtype, file_tags("the sound", kind, audio.tags), **options)
    return raw.getvalue()


def encode(
    raw: BinaryIO,
    blocks: Iterable[Samples],
    sample_rate: int,
    kind: str,
    subtype: str,
    texts: Mapping[str, str],
    **options: Any,
) -> None:
    """Write the blocks, with tags from :func:`file_tags`, to a file that is open for writing and reading."""
    import soundfile

    steps = PCM_STEPS.get(subtype)
    with soundfile.SoundFile(raw, "w", sample_rate, 2, subtype, format=kind, **options) as file:
        for name, text in texts.items():
            setattr(file, name, text)
        for block in blocks:
            for start in range(0, len(block), PIECE_FRAMES):
                piece = block[start : start + PIECE_FRAMES]
                file.write(piece if steps is None else np.rint(piece * steps) / steps)


def file_tags(name: str, kind: str, tags: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a file's tags; the :data:`PIECE_TAGS` become its comment.

    Raises :class:`AudioError`, with the file's ``name``, for an unknown tag and for one that cannot be converted to
    JSON.
    """
    if unknown := [tag for tag in tags if tag not in (*FILE_TAGS, *PIECE_TAGS)]:
        raise AudioError(f"{name}: unknown tag {unknown[0]}; known: {', '.join((*FILE_TAGS, *PIECE_TAGS))}")
    given: JsonObject = {tag: value for tag, value in tags.items() if tag in FILE_TAGS}
    piece = {tag: tags[tag] for tag in ("title", *PIECE_TAGS) if tags.get(tag) is not None}
    if not piece.keys().isdisjoint(PIECE_TAGS):
        given.setdefault("comment", _comment(name, kind, piece))
    if "renderer" in piece:
        given.setdefault("software", f"latentscore {piece['renderer']}")
    texts = {tag: _tag(name, tag, value) for tag, value in given.items()}
    if kind == "MP3":  # libsndfile writes ID3 tags as Latin-1; the comment is JSON in ASCII
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
    """Context manager: yield a hidden draft beside ``path``, which is renamed to ``path`` on success and deleted on an error.

    The draft that a killed process left is used again.
    """
    if path.exists() and not path.is_file():
        # A pipe or a device is written directly: it must not be replaced by a file.
        yield path
        return
    # The target of a link is replaced, not the link.
    target = Path(os.path.realpath(path))
    with _claimed_draft(target) as draft:
        try:
            yield draft
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _claimed_draft(target: Path) -> Iterator[Path]:
    """Context manager: the path of a draft, locked until the end: the usual one, or another if a process is writing that."""
    usual = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]
    for name in (usual, uuid.uuid4().hex):
        draft = target.with_name(f".latentscore-{name}.tmp")
        with draft.open("ab") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError:  # a file system without locks
                pass
            yield draft
            return


def cannot_be_written(path: Path, error: Exception) -> AudioError:
    """Return the error for a file that could not be written; the system's message would name the draft."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return AudioError(f"{path}: cannot be written ({reason})")


def _tag(file: str, name: str, value: Any) -> str:
    """Return the value as text for a tag: valid UTF-8, cut at the first NUL; an empty text means that the tag is omitted."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise AudioError(f"{file}: the tag {name} cannot be written as JSON ({error}); give it as text") from error
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()


def read_audio(path: Path | str) -> Audio:
    """Read a sound file and its tags. Mono is copied to both channels, so it measures 3 LU louder than the one channel;
    more than two channels are refused.

    ``Audio.tags`` holds the file's tags of :data:`FILE_TAGS` as text, and, if :func:`write_audio` wrote the file, those
    of :data:`PIECE_TAGS` with their original values. Raises :class:`AudioError`.
    """
    import soundfile

    try:
        with open_file(user_path(path)) as raw, soundfile.SoundFile(raw) as file:
            samples, rate, tags = file.read(dtype="float32", always_2d=True), file.samplerate, _read_tags(file)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(f"{path}: cannot be read ({error})") from error
    if samples.shape[1] == 1:
        samples = np.repeat(samples, 2, axis=1)
    return Audio(np.ascontiguousarray(samples, dtype=np.float32), rate, tags=tags)


def read_tags(path: Path | str) -> JsonObject:
    """Return the tags of a sound file as :func:`read_audio` does, and its ``sample_rate`` in hertz, without reading
    samples.

    Raises :class:`AudioError`.
    """
    import soundfile

    try:
        with open_file(user_path(path)) as raw, soundfile.SoundFile(raw) as file:
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
