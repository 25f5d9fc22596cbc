"""lsdata: the commands, the global options, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperGroup
from typer.models import OptionInfo

from latentscore_data.commands._options import Globals


class InOrder(TyperGroup):
    """Lists the commands as the table does; Typer puts those with subcommands behind the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in COMMANDS if name in self.commands]


_program = typer.Typer(
    name="lsdata",
    cls=InOrder,
    help="From a sentence to ambient music, and the data and models in between.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

GLOBAL = "Everywhere"

ConfigGlobal = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings file (default: latentscore.toml here).", rich_help_panel=GLOBAL
    ),
]
RootGlobal = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="Data root (default: data_work).", rich_help_panel=GLOBAL)
]
JsonGlobal = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=GLOBAL)]
QuietGlobal = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.", rich_help_panel=GLOBAL)]
VerboseGlobal = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.", rich_help_panel=GLOBAL)]


def _version(wanted: bool) -> None:
    if wanted:
        from latentscore_data import __version__

        typer.echo(f"lsdata {__version__}")
        raise typer.Exit


@_program.callback()
def _everywhere(
    config: ConfigGlobal = None,
    root: RootGlobal = None,
    json: JsonGlobal = False,
    quiet: QuietGlobal = False,
    verbose: VerboseGlobal = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    Globals.config, Globals.root = config, root
    Globals.json, Globals.quiet, Globals.verbose = json, quiet, verbose


_GLOBAL_OPTIONS = {
    "config": (ConfigGlobal, None),
    "root": (RootGlobal, None),
    "json": (JsonGlobal, False),
    "quiet": (QuietGlobal, False),
    "verbose": (VerboseGlobal, False),
}


def everywhere(command: Callable[..., None], name: str) -> Callable[..., None]:
    """The command with the global options added to its own, inside the error boundary."""
    signature = inspect.signature(command, eval_str=True)
    own = [with_short_metavar(parameter) for parameter in signature.parameters.values()]
    added = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for option, (kind, default) in _GLOBAL_OPTIONS.items()
    ]

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        for option, (_, default) in _GLOBAL_OPTIONS.items():
            value = kwargs.pop(option)
            if value != default:
                setattr(Globals, option, value)
        kwargs = {option: as_typed(value) for option, value in kwargs.items()}
        with_errors_shown(functools.partial(command, *args, **kwargs), name)

    run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return run


METAVARS = {int: "N", float: "X", str: "TEXT"}


def with_short_metavar(parameter: inspect.Parameter) -> inspect.Parameter:
    """``--n N [1<=x<=256]`` instead of ``--n <int range> [1<=x<=256]``: leaves the help room for words."""
    kind, option = [*get_args(parameter.annotation), None, None][:2]
    metavar = next((METAVARS[leaf] for leaf in _leaves(kind) if leaf in METAVARS), None)
    if metavar is None or not isinstance(option, OptionInfo) or option.metavar is not None:
        return parameter
    option = copy.copy(option)
    option.metavar = metavar
    return parameter.replace(annotation=Annotated[kind, option])


def _leaves(kind: Any) -> Iterator[Any]:
    yield kind
    for inner in get_args(kind):
        yield from _leaves(inner)


def as_typed(value: Any) -> Any:
    """Text as it was typed: UTF-8, also under a locale that does not know it (Python then leaves half surrogates)."""
    if isinstance(value, str):
        return os.fsencode(value).decode("utf-8", "replace")
    return [as_typed(item) for item in value] if isinstance(value, list) else value


def with_errors_shown(work: Callable[[], None], name: str) -> None:
    """Run a command; an error we know becomes one line, its remedy and its exit code, anything else is a bug (70)."""
    from latentscore.errors import LatentScoreError
    from latentscore_data.core.base import display
    from latentscore_data.core.base.errors import EXIT_BUG, EXIT_INTERRUPTED, InputError, LsdataError

    display.OUTPUT.json, display.OUTPUT.quiet = Globals.json, Globals.quiet
    display.OUTPUT.verbose, display.OUTPUT.command = Globals.verbose, name
    _log_to_stderr(Globals.verbose)
    try:
        work()
    except LsdataError as error:
        _report(error.message, error.remedy, error.exit_code)
    except LatentScoreError as error:
        _report(str(error), "mend the config, the file or the argument that is named", InputError.exit_code)
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C or the end of input at a question
        _report("interrupted; what was done is saved", "run the same command again to go on", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader went away (`lsdata ... | head`); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except typer.Exit:
        raise
    except Exception as bug:
        if type(bug).__module__.startswith(("typer", "click")):
            raise
        import traceback

        print(display.redact(display.clean(traceback.format_exc())), file=sys.stderr, end="")  # noqa: T201
        _report(
            f"this is a bug in lsdata: {display.redact(str(bug))}", "please report it with the lines above", EXIT_BUG
        )


def _report(message: str, remedy: str, exit_code: int) -> None:
    from latentscore_data.core.base.display import OUTPUT, clean, print_json, redact

    message, remedy = redact(clean(message)), redact(clean(remedy))
    print(f"lsdata: {message}" + (f"\n  -> {remedy}" if remedy else ""), file=sys.stderr)  # noqa: T201
    if OUTPUT.json:
        print_json({"error": message, "remedy": remedy, "exit_code": exit_code})
    raise typer.Exit(exit_code)


def _log_to_stderr(verbose: bool) -> None:
    import logging

    from latentscore_data.core.base.display import RedactingFormatter

    class Stderr(logging.StreamHandler[Any]):
        """Where stderr is when something is said: while a panel is drawn, that is the panel."""

        def __init__(self) -> None:
            logging.Handler.__init__(self)

        @property
        def stream(self) -> Any:  # type: ignore[override]
            return sys.stderr

    handler = Stderr()
    handler.setFormatter(
        RedactingFormatter("%(levelname)s %(name)s: %(message)s" if verbose else "lsdata: %(message)s")
    )
    handler.setLevel(logging.DEBUG if verbose else logging.WARNING)
    root = logging.getLogger("latentscore_data")
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False


STAGES = "Stages, in order"
HELPERS = "Helpers"

# One line per command: its name, its module, its panel in the help.
COMMANDS = {
    "download": ("download", STAGES),
    "vibes": ("vibes", STAGES),
    "configs": ("configs", STAGES),
    "train": ("train", STAGES),
    "bench": ("bench", STAGES),
    "export": ("export", STAGES),
    "run-all": ("run_all", STAGES),
    "status": ("status", HELPERS),
    "render": ("render", HELPERS),
    "doctor": ("doctor", HELPERS),
}


def register(name: str) -> None:
    """Add one command: the function of the same name, or the module's `app` when it has subcommands."""
    module, panel = COMMANDS[name]
    loaded = importlib.import_module(f"latentscore_data.commands.{module}")
    group: typer.Typer | None = getattr(loaded, "app", None)
    if group is None:
        function = getattr(loaded, module)
        _program.command(name, rich_help_panel=panel)(everywhere(function, name))
        return
    for command in group.registered_commands:
        if command.callback is not None:
            sub = command.name or command.callback.__name__.replace("_", "-")
            command.callback = everywhere(command.callback, f"{name} {sub}")
    _program.add_typer(group, name=name, rich_help_panel=panel)


@functools.cache
def whole_program() -> typer.Typer:
    """The program with all its commands."""
    for name in COMMANDS:
        register(name)
    return _program


def __getattr__(name: str) -> Any:
    if name == "app":
        return whole_program()
    raise AttributeError(name)


def called_command(words: list[str]) -> str:
    """The first word that is neither an option nor an option's value; empty without one."""
    for before, word in zip(["", *words], words, strict=False):
        if not word.startswith("-") and before not in ("--root", "--config"):
            return word
    return ""


def main() -> None:
    """The console entry point. Of the commands only the one that is called is loaded, which halves the time to its help."""
    for stream in (sys.stdout, sys.stderr):
        # A locale that is not UTF-8 must not turn a vibe into a crash.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    called = called_command(sys.argv[1:])
    if called in COMMANDS and "_LSDATA_COMPLETE" not in os.environ:
        register(called)
        _program(prog_name="lsdata")
    else:
        whole_program()(prog_name="lsdata")


if __name__ == "__main__":
    main()
