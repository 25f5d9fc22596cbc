"""The scorer ``clap``: similarity of a sound and a text by a model that was trained on pairs of both.

``final = cos(audio, text) - max(0, cos(audio, bad) - cos(text, bad))``, where ``bad`` is the normalised mean embedding of words
for bad sound: a piece that sounds worse than its text asks for is marked down by the excess.

The usual wrappers crop sounds of more than 10 s at random, so that the same file scores differently each time. Here sounds are
cut into windows that never exceed what the model takes, and every batch has the same shape, because rounding depends on the
shape: the same sound has the same score to the last digit, in any company, on one machine with one set of versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from latentscore import Audio
from latentscore.files import read_whole
from latentscore.seeds import digest
from latentscore_data.core.base.errors import InputError, MissingError, one_line, require
from latentscore_data.core.base.settings import ScoringSettings
from latentscore_data.core.base.weights import fetched_file
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.deps import ScorerDeps, ScorerKind
from latentscore_data.core.scoring.types import Outcome, Score, Scorer, Unscored, Vectors

if TYPE_CHECKING:
    import torch

Windows = NDArray[np.float32]


SAMPLE_RATE = 48_000
WINDOW = 10 * SAMPLE_RATE
HOP = 5 * SAMPLE_RATE
QUIET = 10 ** (-60 / 20)
"""Windows with a root mean square below -60 dBFS are left out."""

BATCH_WINDOWS = 8
THREADS = 2
MAX_TEXT_TOKENS = 77

BAD_SOUND = (
    "distorted clipping audio",
    "harsh white noise",
    "static and hiss",
    "an electrical hum",
    "glitches, clicks and pops",
    "a broken recording",
    "out of tune and dissonant",
)
"""Captions of bad sound."""

UNRELATED = ("a dog barks", "an orchestra plays a slow movement", "heavy rain on a roof", "a man gives a speech")
MOST_ALIKE = 0.9
"""Maximum mean cosine of unrelated captions; a text encoder above it is collapsed and cannot distinguish vibes."""

_HUB_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer_config.json")


class Backend(Protocol):
    """Runs a CLAP model, which converts windows of 10 s and texts to vectors of a joint space."""

    def audio(self, windows: Windows) -> Vectors:
        """Convert up to BATCH_WINDOWS windows, shape (n, 480000) in [-1, 1], to (n, dim). The batch is padded to one shape."""
        ...

    def text(self, text: str) -> Vectors:
        """Convert a text to a vector of shape (dim,)."""
        ...


class ClapScorer:
    """Scores by CLAP. The model is loaded by :meth:`prepare`, or at its first use.

    Parts: ``similarity`` = cos(audio, text), ``audio_bad`` = cos(audio, bad), ``text_bad`` = cos(text, bad) and ``penalty``. Each in
    [-1, 1], so the score is in [-3, 1]. Raises :class:`MissingError` where the extra or the weights are missing and
    :class:`InputError` for weights that are not CLAP, not whole or not safe to load.
    """

    name = "clap"
    embed_in_worker: Callable[[Audio], Vectors] | None = None

    def __init__(self, settings: ScoringSettings, cache: ScoreCache | None = None) -> None:
        missing = clap_missing(settings)
        if missing is not None:
            raise missing
        self._open, weights = BACKENDS[settings.clap_backend](settings)
        recipe = (WINDOW, HOP, QUIET, BATCH_WINDOWS, "int16", "mean of unit vectors")
        self.embedding_fingerprint = f"clap-{settings.clap_backend}-{digest(weights, *recipe)[:16]}"
        self.fingerprint = (
            f"clap-{digest(self.embedding_fingerprint, MAX_TEXT_TOKENS, BAD_SOUND, 'excess badness')[:16]}"
        )
        self._text_kind = f"text {settings.clap_backend} {digest(weights, MAX_TEXT_TOKENS)[:16]}"
        self._cache = cache
        self._backend: Backend | None = None
        self._texts: dict[str, Vectors] = {}
        self.counts: Counter[str] = Counter()
        """Numbers of windows, sounds, texts and bad-sound vectors that the model computed, without those from the cache."""

    def prepare(self) -> None:
        """Load the model and check that it can distinguish texts, before any rendering."""
        if self._backend is not None:
            return
        with running():
            backend = self._open()
            refuse_collapsed(backend)
        self._backend = backend

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for vibe, sound in zip(vibes, self.embed(audios), strict=True):
            outcomes += [sound] if isinstance(sound, Unscored) else self.compare([vibe], sound[None, :])
        return outcomes

    def embed(self, audios: Sequence[Audio]) -> Sequence[Vectors | Unscored]:
        """Return for each sound the normalized mean of its windows' unit vectors, or a reason if all windows are quiet."""
        windows = [cut(audio) for audio in audios]
        flat = [window for some in windows for window in some]
        if not flat:
            return [Unscored("sound", "every window is below -60 dBFS") for _ in audios]
        vectors = self._embed(np.stack(flat))
        self.counts["sounds"] += len(audios)
        results: list[Vectors | Unscored] = []
        at = 0
        for some in windows:
            mine = vectors[at : at + len(some)]
            at += len(some)
            results.append(
                unit(mine.mean(axis=0)) if len(some) else Unscored("sound", "every window is below -60 dBFS")
            )
        return results

    def compare(self, vibes: Sequence[str], vectors: Vectors) -> Sequence[Outcome]:
        bad = self._bad_sound()
        return [_compare(vector, self._text(vibe), bad) for vibe, vector in zip(vibes, vectors, strict=True)]

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts, shape (texts, dim)."""
        return np.stack([self._text(text) for text in texts])

    def _embed(self, windows: Windows) -> Vectors:
        """Unit vectors of windows."""
        self.prepare()
        assert self._backend is not None
        starts = range(0, len(windows), BATCH_WINDOWS)
        with running():
            vectors = [self._backend.audio(windows[start : start + BATCH_WINDOWS]) for start in starts]
        self.counts["windows"] += len(windows)
        return unit(np.concatenate(vectors))

    def _text(self, text: str) -> Vectors:
        return self._stored("texts", digest(text), lambda: self._ask_text(text))

    def _bad_sound(self) -> Vectors:
        key = digest("bad sound", *BAD_SOUND)
        return self._stored("bad_sound", key, lambda: unit(np.mean([*map(self._ask_text, BAD_SOUND)], axis=0)))

    def _stored(self, what: str, key: str, compute: Callable[[], Vectors]) -> Vectors:
        """Return the vector from memory or the cache, or compute, count and store it."""
        known = self._texts.get(key)
        if known is None and self._cache is not None:
            known = self._cache.vector(self._text_kind, key)
        if known is None:
            known = compute()
            self.counts[what] += 1
            if self._cache is not None:
                self._cache.keep_vector(self._text_kind, key, known)
        self._texts[key] = known
        return known

    def _ask_text(self, text: str) -> Vectors:
        self.prepare()
        assert self._backend is not None
        with running():
            return unit(self._backend.text(text))


def _compare(audio: Vectors, text: Vectors, bad: Vectors) -> Score:
    similarity, audio_bad, text_bad = _cosine(audio, text), _cosine(audio, bad), _cosine(text, bad)
    penalty = max(0.0, audio_bad - text_bad)
    parts = {"similarity": similarity, "audio_bad": audio_bad, "text_bad": text_bad, "penalty": penalty}
    return Score(similarity - penalty, parts)


def _cosine(a: Vectors, b: Vectors) -> float:
    """Return the cosine of unit vectors, with an exact sum, so that the last digit does not depend on a library's blocks."""
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def unit(vectors: Vectors) -> Vectors:
    """Vectors of length 1 along the last axis."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)).astype(np.float32)


def cut(audio: Audio) -> list[Windows]:
    """Return windows of exactly 10 s, 5 s apart, mono at 48 kHz, quantized to int16 as in training, without quiet ones.

    The last window ends where the sound ends, so only the overlap is embedded twice. A sound below 10 s is
    repeated as often as it fits, and the rest is silence.
    """
    mono = audio.mono
    if audio.sample_rate != SAMPLE_RATE:
        from scipy.signal import resample_poly

        shared = math.gcd(audio.sample_rate, SAMPLE_RATE)
        mono = np.asarray(resample_poly(mono, SAMPLE_RATE // shared, audio.sample_rate // shared))
    mono = (np.clip(mono, -1.0, 1.0) * 32767.0).astype(np.int16).astype(np.float32) / np.float32(32767.0)
    if not len(mono):
        return []
    if len(mono) < WINDOW:
        loud = [mono]
    else:
        starts = [*range(0, len(mono) - WINDOW, HOP), len(mono) - WINDOW]
        loud = [mono[start : start + WINDOW] for start in starts]
    return [_filled(window) for window in loud if float(np.sqrt(np.mean(np.square(window)))) >= QUIET]


def _filled(window: Windows) -> Windows:
    repeated = np.tile(window, WINDOW // len(window))
    return np.pad(repeated, (0, WINDOW - len(repeated)))


def refuse_collapsed(backend: Backend) -> None:
    """Raise :class:`InputError` for a text tower that maps all texts to nearly the same vector."""
    vectors = np.stack([unit(backend.text(caption)) for caption in UNRELATED])
    alike = vectors @ vectors.T
    mean = float(alike[np.triu_indices(len(vectors), 1)].mean())
    if not mean <= MOST_ALIKE:
        raise InputError(
            f"this CLAP model rates unrelated captions as similar (mean cosine {mean:.3f}, at most {MOST_ALIKE} is usable)",
            "choose another scoring.clap_model, such as laion/clap-htsat-unfused",
        )


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Context manager for all work of a model. It fixes the number of threads, because rounding depends on how a sum is split,
    and sends output of libraries to stderr, because stdout may be a JSON document."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.inference_mode(), contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        torch.set_num_threads(before)


def clap_missing(settings: ScoringSettings) -> MissingError | None:
    """Return why CLAP cannot run here, or None if it can. Imports no heavy library and uses no network."""
    extra = {"transformers": "ml", "laion-clap": "laion-clap"}[settings.clap_backend]
    try:
        require("torch", extra, "CLAP scoring")
        require(
            {"transformers": "transformers", "laion-clap": "laion_clap"}[settings.clap_backend], extra, "CLAP scoring"
        )
    except MissingError as error:
        return error
    if settings.clap_backend == "laion-clap":
        if Path(settings.clap_model).is_file():
            return None
        return MissingError(
            f"the checkpoint {settings.clap_model} is not there", "set scoring.clap_model to a .pt file"
        )
    folder = clap_folder(settings.clap_model)
    if folder is None:
        return MissingError(f"the weights of {settings.clap_model} are not there", "lsdata doctor --fetch clap")
    absent = [name for name in _HUB_FILES if not (folder / name).is_file()]
    if absent:
        return MissingError(
            f"the CLAP weights in {folder} lack {', '.join(absent)}",
            "lsdata doctor --fetch clap" if not Path(settings.clap_model).is_dir() else "complete the folder",
        )
    return None


def clap_folder(model: str) -> Path | None:
    """Return the folder of the model: the named folder, or that of a fetched hub model; None without one. Makes no network
    calls."""
    if Path(model).is_dir():
        return Path(model)
    found = fetched_file(model, "config.json")
    return found.parent if found is not None else None


def _open_transformers(settings: ScoringSettings) -> tuple[Callable[[], Backend], str]:
    """Return a function that loads the model, and the hash of its weights. Raises :class:`InputError` unless they are a whole
    CLAP model in safetensors."""
    folder = clap_folder(settings.clap_model)
    assert folder is not None
    weights = folder / "model.safetensors"
    try:
        kind = json.loads(read_whole(folder / "config.json")).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError):
        kind = None
    if kind != "clap":
        raise InputError(f"{folder} contains no CLAP model (model_type {kind!r})", "choose another scoring.clap_model")
    refuse_unsafe(weights)
    return lambda: TransformersClap(folder), weights_digest(weights)


def refuse_unsafe(weights: Path) -> None:
    """Raise :class:`InputError` unless the file is a whole safetensors file with both towers of CLAP."""
    from safetensors import SafetensorError, safe_open

    with weights.open("rb") as file:
        head = file.read(4)
    if head[:1] == b"\x80" or head == b"PK\x03\x04":
        raise InputError(
            f"{weights} is a pickle, which could run code when loaded", "use weights in safetensors format"
        )
    try:
        with safe_open(weights, framework="np") as tensors:
            names = set(tensors.keys())
    except SafetensorError as error:
        raise InputError(f"{weights} is truncated or no safetensors file ({error})", "fetch it again") from None
    lacking = [
        part
        for part in ("audio_model.", "text_model.", "audio_projection.", "text_projection.")
        if not any(name.startswith(part) for name in names)
    ]
    if lacking:
        raise InputError(
            f"{weights} is not a CLAP model (it lacks {', '.join(lacking)})", "choose another scoring.clap_model"
        )


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of the file. For a file from the hub, it is the name of the blob."""
    blob = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
        return blob
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class TransformersClap:
    """``transformers.ClapModel`` from a local folder, on the CPU."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        try:
            self._model, report = cast(Any, ClapModel).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
            self._ears = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # damaged files raise many exception types
            raise InputError(
                f"the CLAP model in {folder} cannot be loaded ({one_line(error)})", "fetch it again"
            ) from None
        # The library initializes missing weights randomly, with only a log line.
        invented = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
        if invented:
            raise InputError(
                f"the CLAP weights in {folder} lack {len(invented)} tensors ({invented[0]}, ...)", "fetch it again"
            )
        self._model.eval()
        self._fused = bool(self._model.config.audio_config.enable_fusion)

    def audio(self, windows: Windows) -> Vectors:
        import torch

        features = self._ears(
            list(windows),
            sampling_rate=SAMPLE_RATE,
            truncation="fusion" if self._fused else "rand_trunc",
            padding="repeatpad",
            return_tensors="pt",
        )
        # Padded with silence, because rounding depends on the shape of the batch.
        mels = torch.zeros((BATCH_WINDOWS, *features["input_features"].shape[1:]), dtype=torch.float32)
        mels[: len(windows)] = features["input_features"]
        # No window is longer than the model's input, but the library marks a random one of each batch as longer.
        is_longer = torch.zeros((BATCH_WINDOWS, 1), dtype=torch.bool)
        return self._model.get_audio_features(mels, is_longer=is_longer).pooler_output[: len(windows)].numpy()

    def text(self, text: str) -> Vectors:
        tokens = self._tokenizer(
            text, padding="max_length", truncation=True, max_length=MAX_TEXT_TOKENS, return_tensors="pt"
        )
        features = self._model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return features.pooler_output[0].numpy()


def _open_laion(settings: ScoringSettings) -> tuple[Callable[[], Backend], str]:
    path = Path(settings.clap_model)
    refuse_unreadable(path)
    return lambda: LaionClap(path, settings.clap_sha256), weights_digest(path)


def refuse_unreadable(path: Path) -> None:
    """Raise :class:`InputError` for a checkpoint whose archive is truncated."""
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PK\x03\x04":
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path} is truncated", "fetch it again")
    elif head[:1] != b"\x80":
        raise InputError(f"{path} is not a PyTorch checkpoint", "set scoring.clap_model to a .pt file")


def read_checkpoint(path: Path, trusted_sha256: str | None) -> dict[str, torch.Tensor]:
    """Return the tensors of a .pt checkpoint, loaded without running code from it.

    A checkpoint that cannot be read so is refused, unless its SHA-256 is the one that the user trusts. Raises :class:`InputError`.
    """
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises many exception types
        sha256 = weights_digest(path)
        if trusted_sha256 is None or sha256 != trusted_sha256.lower():
            raise InputError(
                f"{path} cannot be loaded without running code from it, or is damaged ({one_line(error, 120)})",
                f"if you trust the file, set scoring.clap_sha256 to {sha256}",
            ) from None
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as damage:
            raise InputError(f"{path} is damaged ({one_line(damage, 120)})", "fetch it again") from None
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not any(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise InputError(f"{path} contains no weights", "set scoring.clap_model to a CLAP checkpoint")
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


class LaionClap:
    """The ``laion_clap`` package with a ``.pt`` checkpoint. It fetches three tokenizers when it is imported."""

    def __init__(self, checkpoint: Path, trusted_sha256: str | None) -> None:
        tensors = read_checkpoint(checkpoint, trusted_sha256)
        with contextlib.redirect_stdout(sys.stderr):
            import laion_clap  # pyright: ignore[reportMissingImports]

            self._clap = laion_clap.CLAP_Module(enable_fusion=False, device="cpu")
        # Older checkpoints contain a buffer that newer versions of transformers do not have.
        tensors.pop("text_branch.embeddings.position_ids", None)
        try:
            self._clap.model.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(
                f"{checkpoint} does not match the model ({one_line(error)})", "use a checkpoint of HTSAT-tiny"
            ) from None
        self._clap.model.eval()

    def audio(self, windows: Windows) -> Vectors:
        padded = np.zeros((BATCH_WINDOWS, WINDOW), dtype=np.float32)
        padded[: len(windows)] = windows
        return self._clap.get_audio_embedding_from_data(padded, use_tensor=False)[: len(windows)]

    def text(self, text: str) -> Vectors:
        # Some versions squeeze a batch of one, so the text is passed twice.
        return self._clap.get_text_embedding([text, text], use_tensor=False)[0]


BACKENDS: dict[str, Callable[[ScoringSettings], tuple[Callable[[], Backend], str]]] = {
    "transformers": _open_transformers,
    "laion-clap": _open_laion,
}


class ClapKind(ScorerKind):
    def make(self, name: str, deps: ScorerDeps) -> Scorer:
        return ClapScorer(deps.scoring, deps.cache)

    def remote_blocker(self, name: str, scoring: ScoringSettings) -> str | None:
        if scoring.clap_backend != "transformers":
            return f"the {scoring.clap_backend} backend of clap is not in the containers"
        if Path(scoring.clap_model).exists():
            return f"the CLAP weights {scoring.clap_model} are on this machine, and Modal cannot read them"
        return None
