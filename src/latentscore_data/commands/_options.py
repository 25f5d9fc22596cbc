"""Shared by the commands: option types, flags to settings, and a summary to an exit code."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from annotated_types import Ge, Le
from pydantic import BaseModel

from latentscore_data.commands._globals import Globals
from latentscore_data.core.base.answerers import VERBATIM
from latentscore_data.core.base.display import OUTPUT, print_summary, say
from latentscore_data.core.base.errors import LsdataError
from latentscore_data.core.base.layers import Values, nested, section_of
from latentscore_data.core.base.rows import SPLITS
from latentscore_data.core.base.secrets import read_dotenv
from latentscore_data.core.base.settings import PLACES, Settings, load_settings
from latentscore_data.core.base.summary import Summary

MODELS = "Model calls"

# Values for shell completion. They read settings and workspace if possible and never fail: a broken settings file must
# not break completion.


def complete_split() -> list[str]:
    return list(SPLITS)


def complete_model() -> list[str]:
    """The offline models and the models in the settings."""
    named = from_settings(lambda settings: [settings.llm.model, settings.vibes.model, settings.configs.model])
    return sorted({"builtin/keywords", VERBATIM, *(name for name in named if name)})


def complete_run() -> list[str]:
    """The training runs of this workspace."""

    def runs(settings: Settings) -> list[str]:
        folder = settings.paths.root / ".modal_outputs"
        return sorted(path.name for path in folder.iterdir() if path.is_dir())

    return from_settings(runs)


def from_settings(values: Callable[[Settings], list[Any]]) -> list[Any]:
    try:
        return values(load())
    except Exception:
        return []


def setting_option(name: str, *flags: str, **about: Any) -> Any:
    """Return the option that sets ``section.field`` (or ``section.part.field``), with the setting's type, bounds and
    description.

    ``flags`` are its spellings if they differ from the field's name; ``about`` is passed to Typer and has precedence.
    """
    *sections, field = name.split(".")
    kind: type[BaseModel] = Settings
    for section in sections:
        below = section_of(kind, section)
        assert below is not None, name
        kind = below
    info = kind.model_fields[field]
    inner = next((one for one in get_args(info.annotation) if one is not type(None)), info.annotation)
    given = inner if type(None) in get_args(info.annotation) else info.annotation
    if get_origin(given) is list:
        given = list[str]
    elif get_origin(given) is Literal:
        given = str
    for bound in info.metadata:
        if isinstance(bound, Ge):
            about.setdefault("min", bound.ge)
        elif isinstance(bound, Le):
            about.setdefault("max", bound.le)
    about.setdefault("help", first_sentence(info.description or ""))
    spelled = field.replace("_", "-")
    own = flags or (f"--{spelled}/--no-{spelled}" if given is bool else f"--{spelled}",)
    return Annotated[given | None, typer.Option(*own, **about)]


def first_sentence(description: str) -> str:
    """The beginning of a description, up to its first full stop or semicolon."""
    text = " ".join(description.split())
    return re.split(r"[;.](?=\s|$)", text, maxsplit=1)[0] + "."


ModelOption = Annotated[
    str | None,
    typer.Option(
        help="builtin/keywords, a LiteLLM name, or local:NAME.",
        rich_help_panel=MODELS,
        autocompletion=complete_model,
    ),
]
call_option = functools.partial(setting_option, rich_help_panel=MODELS)
"""A :func:`setting_option` among those of model calls."""
ExamplesOption = call_option("prompts.examples")
SystemOption = call_option(
    "prompts.system", metavar="FILE", help="System prompt for configs, instead of the own one (v1)."
)
SeedOption = Annotated[int | None, typer.Option(help="Seed of this stage.", min=0)]
MaxCostOption = Annotated[
    float | None,
    typer.Option(help="Cost cap of the run in USD.", min=0, rich_help_panel=MODELS),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending money or downloading.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done and the cost.")]
RetryFailedOption = Annotated[bool | None, typer.Option("--retry-failed", help="Also retry bad requests.")]
OverwriteOption = Annotated[
    bool | None, typer.Option("--overwrite", help="Make these rows again; others and the cache stay.")
]
TrustScorersOption = Annotated[
    bool, typer.Option("--trust-settings", help="Run scorer code that the settings file names.")
]
SearchOption = setting_option(
    "search.renders", "--search", metavar="RENDERS", max=None, help="Search: render this many configs per vibe."
)
SecondsOption = setting_option("scoring.seconds")
WorkersOption = Annotated[int | None, typer.Option(help="Processes that render (default: one per core).", min=1)]
OnOption = Annotated[
    str | None,
    typer.Option(metavar="|".join(PLACES), help="Where the work runs.", autocompletion=lambda: list(PLACES)),
]


CALL_OPTIONS = {
    "max_concurrency": call_option("llm.max_concurrency"),
    "max_qps": call_option("llm.max_qps"),
    "max_cost": MaxCostOption,
    "api_base": call_option("llm.api_base", help="Address of an OpenAI-compatible server."),
    "api_key_env": call_option("llm.api_key_env", help="Variable with the key for --api-base."),
    "labels": call_option("llm.labels", metavar="MODEL", help="Served model that answers with labels."),
    "batch": call_option("llm.batch", "--batch", help="Use the provider's batch API at half the price."),
    "batch_wait": call_option("llm.batch_wait", "--wait"),
}
"""The flags of every command that calls models, by the setting in ``llm`` that each overrides."""


Command = Callable[..., None]


def with_flags(
    parameter: str, options: Mapping[str, Any], gather: Callable[[Values], Values] = dict
) -> Callable[[Command], Command]:
    """Return a decorator that replaces the command's ``parameter``, a dict of the given flags, by these options."""
    own_names: dict[str, str] = {}
    for name in options:
        # Without an explicit spelling, an option is spelled as its parameter.
        short = name.rpartition(".")[2]
        own_names[name.replace(".", "_") if short in own_names else short] = name
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=options[setting])
        for name, setting in own_names.items()
    ]

    def decorate(command: Command) -> Command:
        own = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for one in inspect.signature(command, eval_str=True).parameters.values()
        ]
        at = [one.name for one in own].index(parameter)

        @functools.wraps(command)
        def run(**given: Any) -> None:
            flags = {own_names[name]: value for name in own_names if (value := given.pop(name, None)) is not None}
            command(**{parameter: gather(flags)}, **given)

        run.__signature__ = inspect.Signature([*own[:at], *added, *own[at + 1 :]])  # type: ignore[attr-defined]
        return run

    return decorate


def sets_settings(options: Mapping[str, Any]) -> Callable[[Command], Command]:
    """Return a decorator that adds these options, by the setting (``section.field``) that each overrides. The command's
    parameter ``given`` gets the sections with the given values, for :func:`load`."""
    return with_flags("given", options, nested)


repeats = with_flags("again", {"retry_failed": RetryFailedOption, "overwrite": OverwriteOption})
"""For stages that skip finished rows: the flags that make some of them again become ``again``."""

calls_models = with_flags("calls", CALL_OPTIONS)
"""For commands that call models: the flags that were given become ``calls``, for the section ``llm``."""


def load(**flags: Values) -> Settings:
    """Return the effective settings of this run: file, environment, these flags (see ``chosen``), ``--root``.

    Also puts the keys of ``.env`` into the environment.
    """
    read_dotenv()
    if Globals.root is not None:
        flags["paths"] = {"root": Globals.root, **flags.get("paths", {})}
    return load_settings(Globals.config, **flags)


def end_dry_run(problem: LsdataError | None) -> None:
    """Exit as the run would, after the plan was shown: with its error, which must not be a second document on stdout."""
    if problem is None:
        return
    if OUTPUT.json:
        say(f"lsdata: {problem.message}\n  -> {problem.remedy}")
        raise typer.Exit(problem.exit_code)
    raise problem


def show(summary: Summary) -> None:
    """Print the summary of a stage and exit with its code."""
    print_summary(summary)
    raise typer.Exit(summary.exit_code)
