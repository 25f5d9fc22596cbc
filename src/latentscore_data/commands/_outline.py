"""Commands built from ``help.json``, which show help and complete options without importing the command's module.

``docs/make.py`` writes the file from the modules; a test fails if it is out of date.
"""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from latentscore.json_search import JsonObject

OUTLINES = Path(__file__).with_name("help.json")
TYPES = {"boolean": bool, "float": float, "int": int, "path": Path, "str": str}
"""The type of a parameter by the first word of Click's type name (``int range``)."""


def describe(command: Any) -> JsonObject:
    """Return the data from which :func:`outlined` rebuilds the command and its subcommands."""
    if hasattr(command, "commands"):
        return {"help": command.help, "commands": {name: describe(sub) for name, sub in command.commands.items()}}
    return {"help": command.help, "parameters": [_describe_parameter(one) for one in command.params]}


def _describe_parameter(parameter: Any) -> JsonObject:
    shown = {name: getattr(parameter, name) for name in ("help", "metavar", "rich_help_panel")}
    bounds = {name: getattr(parameter.type, name, None) for name in ("min", "max")}
    described = {
        "name": parameter.name,
        "type": parameter.type.name.split()[0],
        "default": str(parameter.default) if isinstance(parameter.default, Path) else parameter.default,
        "about": {name: value for name, value in {**shown, **bounds}.items() if value is not None},
    }
    if parameter.param_type_name == "option":
        off = [f"/{flag}" for flag in parameter.secondary_opts] or [""] * len(parameter.opts)
        described["flags"] = [f"{on}{other}" for on, other in zip(parameter.opts, off, strict=True)]
    marks = {
        "many": parameter.multiple or parameter.nargs == -1,
        "required": parameter.required,
        "completed": parameter._custom_shell_complete is not None,
    }
    return described | {mark: True for mark, is_so in marks.items() if is_so}


@functools.cache
def read_outlines() -> JsonObject:
    """Return the content of ``help.json``: each command's description by its name."""
    return orjson.loads(OUTLINES.read_bytes())


class OutlinedCommand(TyperCommand):
    """A command that shows its help and completes its options' names itself, and loads its module for everything else."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if extra.get("resilient_parsing"):  # the shell asks for completions
            return super().make_context(info_name, args, parent, **extra)
        if {"--help", "-h"} & set(args):
            # This call exits, unless the word is an option's value or follows `--`.
            super().make_context(info_name, list(args), parent, **extra)
        return _from_module(parent, info_name).make_context(info_name, args, parent, **extra)


def _from_module(parent: Any, name: str) -> Any:
    """Import the module of the command ``name`` under the context ``parent``; return the module's command."""
    if parent.parent is None:
        return parent.command.loaded(name)
    return _from_module(parent.parent, parent.info_name).commands[name]


def outlined(name: str) -> Any:
    """Return the command ``name`` as ``help.json`` describes it, with its subcommands."""
    outline = read_outlines()[name]
    group = typer.Typer(name=name, help=outline["help"], no_args_is_help=True, add_completion=False)
    for sub, one in outline.get("commands", {name: outline}).items():
        group.command(sub, cls=OutlinedCommand, help=one["help"])(_with_parameters(one["parameters"]))
    return typer.main.get_command(group)


def _with_parameters(described: list[JsonObject]) -> Any:
    def function(**_: Any) -> None: ...

    parameters = [_parameter(one) for one in described]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {one.name: one.annotation for one in parameters}
    return function


def _parameter(described: JsonObject) -> inspect.Parameter:
    name, flags, about = described["name"], described.get("flags", ()), described["about"]

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        command = _from_module(ctx.parent, ctx.info_name or "")
        own = next(one for one in command.params if one.name == name)
        return [(item.value, item.help) for item in own.shell_complete(ctx, incomplete)]

    if "completed" in described:
        about = {**about, "autocompletion": complete}
    kind: Any = TYPES[described["type"]]
    if "many" in described:
        kind = list[kind]
    option = typer.Option(*flags, **about) if flags else typer.Argument(**about)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if "required" in described else described["default"],
        annotation=Annotated[kind, option],
    )
