"""A user's scorer: a function in a file or a module, run in a separate process."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from latentscore import Audio
from latentscore.files import user_path
from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.display import say
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.workers import WorkerFailure, WorkerPool
from latentscore_data.core.scoring.deps import ScorerDeps, ScorerKind
from latentscore_data.core.scoring.types import Outcome, Score, Scorer, Unscored

CALL_SECONDS = 60.0
"""Time-out of a call, in seconds; its process is killed."""

LOAD_SECONDS = 120.0
"""Time-out for loading the file or module, in seconds; it may load a model."""


class CustomScorer:
    """``path/to/file.py:fn`` or ``module:fn``, called as ``fn(vibe, config, audio)`` or, with two parameters, ``fn(vibe, audio)``.

    ``vibe`` is text, ``config`` the dict of the musical fields, ``audio`` a :class:`latentscore.Audio`. It returns a number or a dict of
    numbers with ``final_score``; higher is better. Whatever else happens (an exception, NaN, a string, more than 60 s) leaves that pair
    without a score and with a reason. It runs with all rights of the user, so only what the user named runs: on
    the command line, or by trusting the settings file. The fingerprint covers the one file that holds the function.
    """

    def __init__(self, name: str, needs: ScorerDeps, call_seconds: float = CALL_SECONDS) -> None:
        self.name = name
        where, _, function = name.rpartition(":")
        file = _source_file(where)
        if file is None:
            raise InputError(f"the scorer {name} is neither a file nor an importable module", "check the path")
        if not function.isidentifier():
            raise InputError(
                f"the scorer {name} does not name a function", "write path/to/file.py:function or module:function"
            )
        self.fingerprint = "custom-" + digest(function, hashlib.sha256(file.read_bytes()).hexdigest())[:16]
        self._trusted = name in needs.trusted
        self._call_seconds = call_seconds
        self._source = str(file) if where.endswith(".py") else where
        self._function = function
        self._pool: WorkerPool | None = None

    def check(self) -> None:
        """Raise :class:`InputError` unless the user named this scorer."""
        if not self._trusted:
            raise InputError(
                f"the scorer {self.name} comes from a settings file, and its code would run",
                f"name it yourself with --scorer {self.name}, or pass --trust-settings",
            )

    def prepare(self) -> None:
        """Load the function in its process. Raises :class:`InputError` if it cannot be loaded."""
        self.check()
        if self._pool is None:
            self._pool = WorkerPool(
                make_caller,
                (self._source, self._function, os.getcwd()),
                count=1,
                timeout_seconds=self._call_seconds,
                start_seconds=LOAD_SECONDS,
            )
            try:
                parameters = self._pool.submit(None, None, None, 0).result()
            except WorkerFailure as failure:
                self.close()
                raise self._cannot_load(failure) from None
            if parameters != FULL:
                say(
                    f"the scorer {self.name} takes {len(parameters)} arguments: it is called with {', '.join(parameters)}"
                )

    def score(
        self, vibes: Sequence[str], audios: Sequence[Audio], configs: Sequence[Mapping[str, Any]] = ()
    ) -> Sequence[Outcome]:
        self.prepare()
        given = configs or [{} for _ in vibes]
        pairs = zip(vibes, given, audios, strict=True)
        return [self._score_one(vibe, config, audio) for vibe, config, audio in pairs]

    def _score_one(self, vibe: str, config: Mapping[str, Any], audio: Audio) -> Outcome:
        assert self._pool is not None
        try:
            final, parts = self._pool.submit(vibe, dict(config), audio.samples, audio.sample_rate).result()
        except WorkerFailure as failure:
            if failure.kind == "start":
                raise self._cannot_load(failure) from None
            return Unscored("scorer", f"{self.name}: {failure.message}"[:300])
        return Score(final, parts)

    def _cannot_load(self, failure: WorkerFailure) -> InputError:
        return InputError(f"the scorer {self.name} cannot be loaded ({failure.message})", "correct it and run again")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class NotAScore(Exception):
    """A scorer returned something that is not a score."""


def make_caller(source: str, function: str, folder: str) -> Callable[..., Any]:
    """Load the function, once in the worker process, and return a function that calls it."""
    sys.path.insert(0, folder)
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location("custom_scorer", source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["custom_scorer"] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    fn = getattr(module, function)
    if not callable(fn):
        raise TypeError(f"{function} is not a function")

    parameters = parameters_of(fn)

    def call(vibe: str | None, config: JsonObject, samples: Any, sample_rate: int) -> Any:
        if vibe is None:  # asked only whether it has loaded, and how it is called
            return parameters
        given = {"vibe": vibe, "config": config, "audio": Audio(samples, sample_rate)}
        return as_score(fn(*(given[name] for name in parameters)))

    return call


FULL = ("vibe", "config", "audio")


def parameters_of(fn: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a scorer's arguments: (vibe, config, audio), or (vibe, audio) for two parameters.

    The second of two is the config where it is called so. Raises :class:`TypeError` for a function that takes neither.
    """
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some C functions have no signature
        return FULL
    second = [*signature.parameters, "", ""][1]
    for parameters in (FULL, ("vibe", "config" if second == "config" else "audio")):
        with contextlib.suppress(TypeError):
            signature.bind(*parameters)
            return parameters
    raise TypeError(f"it takes {signature}; a scorer is called with (vibe, config, audio) or (vibe, audio)")


def as_score(value: Any) -> tuple[float, dict[str, float]]:
    """Convert the result of a scorer to (final score, parts). Raises :class:`NotAScore`."""
    if isinstance(value, Mapping):
        if "final_score" not in value:
            raise NotAScore("it returned a dict without final_score")
        parts = {str(name): _number(part, f"{name} is") for name, part in value.items() if name != "final_score"}
        return _number(value["final_score"], "final_score is"), parts
    return _number(value, "it returned"), {}


def _number(value: Any, saying: str) -> float:
    # numpy's numbers have __float__, and so do strings of nothing else; a bool is no score.
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise NotAScore(f"{saying} {type(value).__name__} instead of a number")
    number = float(value)
    if not math.isfinite(number):
        raise NotAScore(f"{saying} {number}")
    return number


def _source_file(where: str) -> Path | None:
    """Return the file of ``path/to/file.py`` or ``some.module``, without running its code."""
    if where.endswith(".py"):
        path = user_path(where).resolve()
        return path if path.is_file() else None
    search: Sequence[str] | None = [os.getcwd(), *sys.path]
    spec = None
    for depth in range(1, where.count(".") + 2):
        spec = PathFinder.find_spec(".".join(where.split(".")[:depth]), search)
        if spec is None:
            return None
        search = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin and Path(spec.origin).is_file() else None


class CustomKind(ScorerKind):
    def make(self, name: str, deps: ScorerDeps) -> Scorer:
        return CustomScorer(name, deps)
