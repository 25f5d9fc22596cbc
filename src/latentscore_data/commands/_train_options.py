"""The shared options of the ``lsdata train`` commands, and their conversion to settings and choices."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from latentscore_data.commands._options import (
    OnOption,
    SeedOption,
    YesOption,
    complete_run,
    load,
    setting_option,
)
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.settings import Recipe, Settings
from latentscore_data.core.models.spec import Choices, families
from latentscore_data.core.stages.train import trust_reward

WHAT = "What is trained"
WHERE = "Where it runs"
JUDGE = "Evaluation"

RECIPE_HELP: dict[Recipe, str] = {
    "sft": """Fine-tune a base model on the SFT-Train rows.

    Examples:

        lsdata train sft --base-model tiny-random
        lsdata train sft --preset lora_rank:r64 --set optim.epochs=2
    """,
    "grpo": """Train a model with GRPO on the GRPO rows, with a weighted reward for format, schema, audio and title.

    Examples:

        lsdata train grpo --base-model tiny-random --max-steps 10
        lsdata train grpo --adapter sft-gemma-3-270m-it-1a2b3c4d --preset grpo_beta:b0.08
    """,
    "dpo": """Train a model with DPO to prefer the best candidate of each GRPO row to its worst one.

    Examples:

        lsdata train dpo --base-model tiny-random --max-steps 10
        lsdata train dpo --adapter sft-gemma-3-270m-it-1a2b3c4d --set dpo.margin=1.5
    """,
}
"""The help of each recipe's command."""

SETTING_FLAGS: dict[str, Any] = {
    "train.base_model": setting_option(
        "train.base_model",
        help="gemma3-270m, qwen3-600m, tiny-random, a hub id, folder, GGUF or run.",
        rich_help_panel=WHAT,
    ),
    "train.optim.max_steps": setting_option("train.optim.max_steps", rich_help_panel=WHAT),
    "train.limit": setting_option("train.limit"),
    "train.seed": SeedOption,
    "train.on": OnOption,
    "train.modal.gpu": setting_option(
        "train.modal.gpu", help="GPU of a remote run: T4, L4, A10, L40S, A100-80GB, H100, ...", rich_help_panel=WHERE
    ),
    "llm.max_cost": setting_option("llm.max_cost", help="Cost cap of the run in USD.", rich_help_panel=WHERE),
}
"""The options by the setting that each overrides."""

ADAPTER_FLAG: dict[str, Any] = {
    "adapter": Annotated[
        str | None,
        typer.Option(
            metavar="RUN|PATH",
            help="Continue this run or adapter (default: the newest SFT run; none for the base model).",
            rich_help_panel=WHAT,
            autocompletion=complete_run,
        ),
    ],
}

PRESET_FLAG: dict[str, Any] = {
    "presets": Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            help="FAMILY:NAME, such as lora_rank:r32.",
            rich_help_panel=WHAT,
            autocompletion=lambda: [f"{family}:{name}" for family, members in families().items() for name in members],
        ),
    ],
}

CHOICE_FLAGS: dict[str, Any] = {
    "overrides": Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set any training value: optim.learning_rate=1e-4.", rich_help_panel=WHAT
        ),
    ],
    "run_id": Annotated[str | None, typer.Option(help="Name of the run (default: derived from its spec).")],
}
"""The options by the field of :class:`Choices` that each sets; the same for ``ADAPTER_FLAG`` and ``PRESET_FLAG``."""

START_FLAGS: dict[str, Any] = {
    "resume": Annotated[str | None, typer.Option(help="auto: resume from the newest checkpoint; never: start again.")],
    "force": Annotated[bool, typer.Option("--force", help="Continue although the spec has changed.")],
    "yes": YesOption,
}

REMOTE_AND_JUDGE_FLAGS: dict[str, Any] = {
    "detach": Annotated[
        bool, typer.Option("--detach", help="Start on Modal and return (see train status).", rich_help_panel=WHERE)
    ],
    "evaluate": Annotated[
        bool,
        typer.Option("--evaluate", help="Then compare with its base, random and look-up.", rich_help_panel=JUDGE),
    ],
    "require_improvement": Annotated[
        bool,
        typer.Option("--require-improvement", help="Exit with 5 unless it beats all of them.", rich_help_panel=JUDGE),
    ],
}
"""The options by the field of :class:`StartOptions` that each sets; the same for ``START_FLAGS``."""

TRUST_FLAG: dict[str, Any] = {
    "trust_settings": Annotated[
        bool, typer.Option("--trust-settings", help="Run reward code that the settings file names.")
    ],
}


def settings_and_choices(
    kind: Recipe, given: Values, chosen: dict[str, Any], dry_run: bool
) -> tuple[Settings, Choices]:
    """Return the settings with the given flags of :data:`SETTING_FLAGS`, and the other choices of this run.

    Raises :class:`InputError` for ``--gpu`` in a run on this machine (a dry run may show its price), for reward code
    that only the settings file names, and for an adapter with SFT.
    """
    trusted, settings = chosen.pop("trust_settings", False), load(**given)
    if "gpu" in given.get("train", {}).get("modal", {}) and settings.train.on == "here" and not dry_run:
        raise InputError(
            "--gpu is for remote runs",
            "add --on modal; here a GPU is used if there is one (--set device=cuda requires one)",
        )
    if kind == "sft" and "adapter" in chosen:
        raise InputError("--adapter is for GRPO and DPO", "SFT starts from --base-model, which may be a run")
    if kind == "grpo":
        trust_reward(settings, trusted)
    return settings, Choices(kind, **chosen)
