"""The training spec: everything that determines a run's result, written to ``spec.json`` before it starts."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict

from latentscore.forms import AnswerForm, FormName, form_named
from latentscore.seeds import digest
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.layers import Layer, Origins, did_you_mean, leaves, nested, resolve
from latentscore_data.core.base.names import model_text
from latentscore_data.core.base.settings import (
    BatchSettings,
    CheckpointSettings,
    DpoSettings,
    GrpoSettings,
    LoraSettings,
    OptimSettings,
    Recipe,
    ScoringSettings,
    SftSettings,
    TrainSettings,
)

Method = Literal["lora", "full"]

TINY_RANDOM = "tiny-random"
MOST_PER_DEVICE = 8


class DataFact(BaseModel):
    """A file of rows that a run is made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    rows: int


class TrainSpec(BaseModel):
    """The model, the data and the method of a run. Two runs with equal specs give equal models on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Recipe
    run_id: str = ""
    base_model: str
    method: Method
    quantize: Literal["none", "4bit"] = "none"
    adapter: str | None = None
    """The run (an id) or adapter (a folder) that GRPO or DPO continues; None starts from the base model."""
    data: dict[str, DataFact]
    """Rows by role: ``train`` and, where there are any, ``val``."""
    answer: FormName = "json"
    """The form of the answers: the payload as JSON, or a line of labels."""
    system: str | None = None
    """The system message (``prompts.system`` with its examples); None for the package's own."""
    max_tokens: int | None = None
    limit: int | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    tracker: Literal["none", "trackio", "wandb"] = "none"
    optim: OptimSettings
    batch: BatchSettings
    lora: LoraSettings
    checkpoint: CheckpointSettings
    choose_by: Literal["score", "eval_loss"] = "eval_loss"
    choose_rows: int = 32
    sft: SftSettings = SftSettings()
    grpo: GrpoSettings | None = None
    dpo: DpoSettings | None = None
    scoring: ScoringSettings | None = None

    @property
    def form(self) -> AnswerForm:
        """The form of the answers."""
        return form_named(self.answer)

    @property
    def learning_rate(self) -> float:
        return _resolved(self.optim.learning_rate)

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
        """The GRPO settings of a GRPO spec. Raises :class:`TypeError` for another kind."""
        return _resolved(self.grpo)

    @property
    def preference(self) -> DpoSettings:
        """The DPO settings of a DPO spec. Raises :class:`TypeError` for another kind."""
        return _resolved(self.dpo)

    @property
    def packs(self) -> bool:
        """Whether several rows are packed into a sequence."""
        return self.kind == "sft" and self.sft.packing

    @property
    def prompts_per_step(self) -> int:
        """The rows of an optimizer step. With packing: the packed sequences, each as long as a device's batch."""
        if self.packs:
            return self.accumulation
        return self.batch_size // self.rollout.generations if self.kind == "grpo" else self.batch_size

    def steps(self, rows: int) -> int:
        """Return the number of optimizer steps for so many rows (or packed sequences)."""
        return self.optim.max_steps or max(1, math.ceil(rows / self.prompts_per_step * _resolved(self.optim.epochs)))

    def hash(self) -> str:
        """The hash of all values except the run id."""
        return digest(model_text(self.model_copy(update={"run_id": ""}), unnamed(self)))


LATER_FIELDS = (
    "answer", "quantize", "sft.packing", "lora.use_rslora", "processes", "grpo.vllm", "grpo.vllm_memory",
)  # fmt: skip
"""Fields that were added later. At their defaults they are not part of a run's hash, so earlier runs keep their ids."""


def unnamed(model: BaseModel) -> dict[str, Any]:
    """Return the :data:`LATER_FIELDS` that are at their defaults, as pydantic's ``exclude``."""
    found: dict[str, Any] = {}
    for dotted in LATER_FIELDS:
        section, _, name = dotted.rpartition(".")
        owner = getattr(model, section) if section else model
        if owner is None or name not in type(owner).model_fields:
            continue
        if getattr(owner, name) == type(owner).model_fields[name].get_default(call_default_factory=True):
            (found.setdefault(section, {}) if section else found)[name] = True
    return found


def _resolved(value: Any) -> Any:
    if value is None:
        raise TypeError("a spec value is missing; specs are made by build_spec")
    return value


@cache
def preset_table() -> dict[str, Any]:
    """Return the content of ``presets.toml``: the recipes and the families of presets."""
    return tomllib.loads((files("latentscore_data.core.models") / "presets.toml").read_text(encoding="utf-8"))


def families() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the values of each preset, by family and name."""
    return preset_table()["family"]


def family(name: str) -> dict[str, dict[str, Any]]:
    """Return the members of a family of presets. Raises :class:`InputError` for an unknown family."""
    if name not in families():
        raise InputError(f"no preset family {name!r}{did_you_mean(name, families())}", "see docs/training.md")
    return families()[name]


def preset(name: str) -> dict[str, Any]:
    """Return the values of the preset ``FAMILY:NAME``. Raises :class:`InputError` for an unknown preset."""
    group, _, member = name.partition(":")
    members = family(group)
    if member not in members:
        raise InputError(f"no preset {name!r}{did_you_mean(member, members)}", "presets are named FAMILY:NAME")
    return members[member]


def kind_of_sweep(kind: str, group: str) -> Recipe:
    """Return ``kind``; if it is empty, the kind that begins the family's name, else ``sft``.

    Raises :class:`InputError` for an unknown kind.
    """
    named = kind or next((known for known in get_args(Recipe) if group.startswith(f"{known}_")), "sft")
    if named not in get_args(Recipe):
        raise InputError(f"{kind!r} is not a kind of training", f"kinds are {', '.join(get_args(Recipe))}")
    return cast("Recipe", named)


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` texts. A value is TOML (a number, true, false, a list), or else text.

    Raises :class:`InputError` for a text without a key or an equals sign.
    """
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
    """The choices for one run beyond the settings."""

    kind: Recipe
    run_id: str | None = None
    adapter: str | None = None
    presets: Sequence[str] = ()
    overrides: Sequence[str] = ()


def effective_settings(settings: TrainSettings, choices: Choices) -> tuple[TrainSettings, Origins]:
    """Return the settings of one run, with recipe and presets applied, and each value's origin.

    Precedence from lowest to highest: default, recipe, settings, preset, ``--set``. Raises :class:`InputError` for an
    unknown name or an invalid value.
    """
    recipes = preset_table()["recipe"]
    defaults = dict(leaves(TrainSettings().model_dump()))
    given = nested({name: value for name, value in leaves(settings.model_dump()) if value != defaults.get(name)})
    presets = [*settings.presets, *choices.presets]
    chosen = [
        *(Layer(f"preset {name}", nested(preset(name))) for name in presets),
        Layer("--set", nested(parse_overrides(choices.overrides))),
    ]
    remedy = "use the names of [train] in latentscore.toml.example, without train."
    base_model = resolve(TrainSettings, [Layer("settings", given), *chosen], remedy).value.base_model
    recipe = [Layer("recipe", {"method": "lora"}), Layer(f"recipe {choices.kind}", nested(recipes[choices.kind]))]
    if base_model == TINY_RANDOM:
        recipe.append(Layer(f"recipe {TINY_RANDOM}", nested(recipes[TINY_RANDOM][choices.kind])))
    layers = [*recipe, Layer("settings", given), *chosen]
    resolved = resolve(TrainSettings, layers, remedy)
    if resolved.value.batch.per_device is None:
        largest = {"batch": {"per_device": _per_device(_resolved(resolved.value.batch.size))}}
        resolved = resolve(TrainSettings, [*layers, Layer("largest that divides", largest)], remedy)
    return resolved.value, resolved.origins


def build_spec(
    settings: TrainSettings,
    choices: Choices,
    data: Mapping[str, DataFact],
    scoring: ScoringSettings,
    system: str | None = None,
) -> tuple[TrainSpec, Origins]:
    """Return the spec of one run and each value's origin. Raises :class:`InputError` for inconsistent values."""
    train, origins = effective_settings(settings, choices)
    is_grpo, choose_by = choices.kind == "grpo", train.choose_by or "eval_loss"
    renders = train.grpo.reward == "standard" and train.grpo.audio_weight > 0
    if is_grpo and not renders and origins.get("choose_by", "").startswith("recipe"):
        # The reward needs no scorer, so by default the choice of the checkpoint needs none either.
        choose_by = "eval_loss"
    as_set = {name: getattr(train, name) for name in TrainSpec.model_fields if name in TrainSettings.model_fields}
    decided = {
        "method": train.method or "lora",
        "choose_by": choose_by,
        "sft": train.sft if choices.kind == "sft" else SftSettings(),
        "grpo": train.grpo if is_grpo else None,
        "dpo": train.dpo if choices.kind == "dpo" else None,
        "scoring": scoring if is_grpo or choose_by == "score" else None,
    }
    given = {"kind": choices.kind, "adapter": choices.adapter, "data": dict(data), "system": system}
    spec = TrainSpec(**{**as_set, **decided, **given})
    check_batches(spec)
    if spec.quantize != "none" and spec.method == "full":
        raise InputError(
            "train.quantize loads the base in 4 bits, and method full trains all weights",
            "leave --set quantize=4bit out, or use --set method=lora",
        )
    return spec.model_copy(update={"run_id": choices.run_id or _run_id(spec)}), origins


def check_batches(spec: TrainSpec) -> None:
    """Raise :class:`InputError` unless the batch is a multiple of the device's batch and of GRPO's group."""
    size, per_device = spec.batch_size, spec.per_device
    if size % per_device:
        fits = _nearest_multiples(size, per_device)
        raise InputError(
            f"batch.size {size} is not a multiple of batch.per_device {per_device}",
            f"use batch.size {fits}, or batch.per_device {_per_device(size)}",
        )
    if spec.kind == "grpo" and size % spec.rollout.generations:
        generations = spec.rollout.generations
        divisors = [n for n in range(2, size + 1) if size % n == 0]
        nearest = min(divisors, key=lambda n: abs(n - generations), default=2)
        raise InputError(
            f"batch.size {size} completions cannot be split into groups of grpo.generations {generations}",
            f"use batch.size {_nearest_multiples(size, generations)}, or grpo.generations {nearest}",
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
    """Return ``run_id``. Raises :class:`InputError` if it is not a folder name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_id):
        raise InputError(f"run id {run_id!r} is not a folder name", "use letters, digits, dots, dashes and underscores")
    return run_id


def differences(old: TrainSpec, new: TrainSpec) -> list[str]:
    """Return the values that differ between two specs, as "NAME OLD -> NEW" with dotted names."""
    before = dict(leaves(old.model_dump(mode="json")))
    after = dict(leaves(new.model_dump(mode="json")))
    return [
        f"{name} {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted(set(before) | set(after))
        if before.get(name) != after.get(name)
    ]
