"""The training spec: everything that decides a run, resolved before anything starts and written to ``spec.json``."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from latentscore_data.core.base.errors import InputError, in_a_sentence
from latentscore_data.core.base.seeds import digest
from latentscore_data.core.base.settings import (
    BatchSettings,
    CheckpointSettings,
    GrpoSettings,
    LoraSettings,
    OptimSettings,
    ScoringSettings,
    TrainSettings,
)

Kind = Literal["sft", "grpo"]
Method = Literal["lora", "full"]
Origins = dict[str, str]
"""Dotted name of a spec value -> where it came from."""

TINY_RANDOM = "tiny-random"
MOST_PER_DEVICE = 8


class DataFact(BaseModel):
    """A file of rows that a run is made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    rows: int


class TrainSpec(BaseModel):
    """What is trained, on what, how. Two runs with equal specs give equal models on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    run_id: str = ""
    base_model: str
    method: Method
    adapter: str | None = None
    """GRPO goes on from this run (an id) or adapter (a folder); ``None`` starts from the base model."""
    data: dict[str, DataFact]
    """Rows by role: ``train`` and, where there are any, ``val``."""
    max_tokens: int | None = None
    limit: int | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    tracker: Literal["none", "trackio", "wandb"] = "none"
    optim: OptimSettings
    batch: BatchSettings
    lora: LoraSettings
    checkpoint: CheckpointSettings
    grpo: GrpoSettings | None = None
    scoring: ScoringSettings | None = None

    @property
    def learning_rate(self) -> float:
        return _resolved(self.optim.learning_rate)

    @property
    def epochs(self) -> float:
        return _resolved(self.optim.epochs)

    @property
    def batch_size(self) -> int:
        return _resolved(self.batch.size)

    @property
    def per_device(self) -> int:
        return _resolved(self.batch.per_device)

    @property
    def accumulation(self) -> int:
        return self.batch_size // self.per_device

    @property
    def rollout(self) -> GrpoSettings:
        """The GRPO part of a GRPO spec."""
        return _resolved(self.grpo)

    @property
    def prompts_per_step(self) -> int:
        """Rows that one optimizer step reads."""
        return self.batch_size // self.rollout.generations if self.kind == "grpo" else self.batch_size

    def steps(self, rows: int) -> int:
        """Optimizer steps that so many rows make."""
        return self.optim.max_steps or max(1, math.ceil(rows / self.prompts_per_step * self.epochs))

    def hash(self) -> str:
        """Of everything but the name: the same spec is the same run."""
        return digest(self.model_copy(update={"run_id": ""}).model_dump_json())


def _resolved(value: Any) -> Any:
    if value is None:
        raise TypeError("a spec value was left open; specs are made by build_spec")
    return value


@cache
def preset_table() -> dict[str, Any]:
    """``presets.toml``: the recipes and the families of presets."""
    return tomllib.loads((files("latentscore_data.core.training") / "presets.toml").read_text(encoding="utf-8"))


def families() -> dict[str, dict[str, dict[str, Any]]]:
    return preset_table()["family"]


def family(name: str) -> dict[str, dict[str, Any]]:
    """The members of a family of presets. Raises :class:`InputError` naming the nearest one."""
    if name not in families():
        raise InputError(f"no preset family {name!r}{_nearest(name, families())}", "see docs/training.md")
    return families()[name]


def preset(name: str) -> dict[str, Any]:
    """The values of ``FAMILY:NAME``. Raises :class:`InputError`."""
    group, _, member = name.partition(":")
    members = family(group)
    if member not in members:
        raise InputError(f"no preset {name!r}{_nearest(member, members)}", "presets are named FAMILY:NAME")
    return members[member]


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as values: numbers, true, false and lists as in TOML, everything else as text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {pair!r} has no value", "write --set KEY=VALUE, such as optim.learning_rate=1e-4")
        try:
            values[name.strip()] = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            values[name.strip()] = text.strip()
    return values


@dataclass(frozen=True)
class Choices:
    """What one run was asked for, beyond the settings."""

    kind: Kind
    run_id: str | None = None
    adapter: str | None = None
    presets: Sequence[str] = ()
    overrides: Sequence[str] = ()


def effective_settings(settings: TrainSettings, choices: Choices) -> tuple[TrainSettings, Origins]:
    """The settings of one run, with nothing left open, and each value's origin.

    Later wins: default, recipe, settings (file, environment, flags), preset, ``--set``. Raises :class:`InputError`.
    """
    values = settings.model_dump()
    defaults = dict(dotted(TrainSettings().model_dump()))
    origins = {name: "default" if defaults.get(name) == value else "settings" for name, value in dotted(values)}

    def put(new: Mapping[str, Any], origin: str, only_open: bool = False) -> None:
        for name, value in new.items():
            if only_open and _get(values, name) is not None:
                continue
            _set(values, name, value)
            origins[name] = origin

    for name in [*settings.presets, *choices.presets]:
        put(preset(name), f"preset {name}")
    put(parse_overrides(choices.overrides), "--set")
    recipes = preset_table()["recipe"]
    if values["base_model"] == TINY_RANDOM:
        put(recipes[TINY_RANDOM][choices.kind], f"recipe {TINY_RANDOM}", only_open=True)
    put(recipes[choices.kind], f"recipe {choices.kind}", only_open=True)
    put({"method": "lora"}, "recipe", only_open=True)
    put({"batch.per_device": _per_device(values["batch"]["size"])}, "largest that divides", only_open=True)
    try:
        return TrainSettings.model_validate(values), origins
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{origins.get(name, 'training')}: {name}: {in_a_sentence(first['msg'])}", "see docs/training.md"
        ) from None


def build_spec(
    settings: TrainSettings, choices: Choices, data: Mapping[str, DataFact], scoring: ScoringSettings
) -> tuple[TrainSpec, Origins]:
    """The spec of one run and where each value came from. Raises :class:`InputError`, also for batches that do not
    divide (naming the nearest that do)."""
    train, origins = effective_settings(settings, choices)
    is_grpo = choices.kind == "grpo"
    spec = TrainSpec(
        kind=choices.kind,
        base_model=train.base_model,
        method=train.method or "lora",
        adapter=choices.adapter,
        data=dict(data),
        max_tokens=train.max_tokens,
        limit=train.limit,
        seed=train.seed,
        device=train.device,
        tracker=train.tracker,
        optim=train.optim,
        batch=train.batch,
        lora=train.lora,
        checkpoint=train.checkpoint,
        grpo=train.grpo if is_grpo else None,
        scoring=scoring if is_grpo else None,
    )
    check_batches(spec)
    return spec.model_copy(update={"run_id": choices.run_id or _run_id(spec)}), origins


def check_batches(spec: TrainSpec) -> None:
    """Raise :class:`InputError` unless the batch divides, naming the nearest values that do."""
    size, per_device = spec.batch_size, spec.per_device
    if size % per_device:
        fits = _nearest_multiples(size, per_device)
        raise InputError(
            f"batch.size {size} is not a multiple of batch.per_device {per_device}",
            f"take batch.size {fits}, or batch.per_device {_per_device(size)}",
        )
    if spec.kind == "grpo" and size % spec.rollout.generations:
        generations = spec.rollout.generations
        divisors = [n for n in range(2, size + 1) if size % n == 0]
        nearest = min(divisors, key=lambda n: abs(n - generations), default=2)
        raise InputError(
            f"batch.size {size} completions cannot be split into groups of grpo.generations {generations}",
            f"take batch.size {_nearest_multiples(size, generations)}, or grpo.generations {nearest}",
        )


def _nearest_multiples(value: int, of: int) -> str:
    below, above = value // of * of, (value // of + 1) * of
    return f"{below} or {above}" if below else str(above)


def _per_device(size: int) -> int:
    return max(n for n in range(1, MOST_PER_DEVICE + 1) if size % n == 0)


def _run_id(spec: TrainSpec) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", spec.base_model.rsplit("/", 1)[-1].lower()).strip("-")[:32] or "model"
    return f"{spec.kind}-{base}-{spec.hash()[:8]}"


def check_run_id(run_id: str) -> str:
    """A run id is a folder's name. Raises :class:`InputError`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_id):
        raise InputError(f"run id {run_id!r} is no folder name", "use letters, digits, dots, dashes and underscores")
    return run_id


def differences(old: TrainSpec, new: TrainSpec) -> list[str]:
    """What differs between two specs, as dotted names with both values."""
    before = dict(dotted(old.model_dump(mode="json")))
    after = dict(dotted(new.model_dump(mode="json")))
    return [
        f"{name} {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted(set(before) | set(after))
        if before.get(name) != after.get(name)
    ]


def dotted(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested values as (dotted name, value)."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += dotted(cast("dict[str, Any]", value), f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def _walk(values: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    at: dict[str, Any] = values
    *sections, leaf = name.split(".")
    for section in sections:
        if not isinstance(at.get(section), dict):
            raise _unknown(name, values)
        at = at[section]
    if leaf not in at or isinstance(at[leaf], dict):
        raise _unknown(name, values)
    return at, leaf


def _get(values: dict[str, Any], name: str) -> Any:
    at, leaf = _walk(values, name)
    return at[leaf]


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    at, leaf = _walk(values, name)
    at[leaf] = value


def _unknown(name: str, values: dict[str, Any]) -> InputError:
    return InputError(
        f"training has no value {name!r}{_nearest(name, [known for known, _ in dotted(values)])}",
        "the names are those of [train] in latentscore.toml.example, without train.",
    )


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(known)})"
