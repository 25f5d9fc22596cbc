"""lsdata: the table of commands, the global options, and the conversion of errors to messages and exit codes."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import importlib
import inspect
import itertools
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from latentscore.errors import LatentScoreError
from latentscore.files import user_path
from latentscore_data import __version__
from latentscore_data.commands._globals import Globals
from latentscore_data.commands._outline import outlined, read_outlines
from latentscore_data.core.base import display, streams
from latentscore_data.core.base.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    FULL_DISK,
    FlagError,
    InputError,
    LsdataError,
    OutputError,
)

STAGES = "Stages, in order"
HELPERS = "Helpers"


COMMANDS = {
    "download": STAGES,
    "vibes": STAGES,
    "configs": STAGES,
    "train": STAGES,
    "improve": STAGES,
    "bench": STAGES,
    "export": STAGES,
    "check": STAGES,
    "run-all": STAGES,
    "status": HELPERS,
    "batches": HELPERS,
    "render": HELPERS,
    "studio": HELPERS,
    "doctor": HELPERS,
}
"""The commands in the order of the help, with their panels. A command's module is imported when it is called; the help
texts are in ``commands/help.json``."""

RENAMED_OPTIONS = {"--batch-size": "--vibes-per-call"}
"""Options that had another name in version 0.1, and their names now."""


class LazyGroup(TyperGroup):
    """The program: lists its commands from the outlines, and imports only the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        commands = {
            name: TyperCommand(name, help=line, short_help=line, rich_help_panel=panel)
            for name, panel in COMMANDS.items()
            for line in [read_outlines().get(name, {"help": ""})["help"].partition("\n\n")[0]]
        }
        super().__init__(**{**attributes, "commands": commands})

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        self._json = "--json" in args
        with usage_errors_as_json(self._json):
            refuse_old_names(args)
            refuse_empty_values(args)
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        with usage_errors_as_json(self._json):
            return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        fit_help(self)
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            return super().resolve_command(ctx, args)
        known = args[0] in read_outlines()
        return args[0], fit_help(outlined(args[0])) if known else self.loaded(args[0]), args[1:]

    def loaded(self, name: str) -> Any:
        """The command itself, from its module."""
        return load_command(name)


def refuse_old_names(args: Sequence[str]) -> None:
    """Raise a usage error that names the option's new name, because the nearest known one (``--batch``) does something else."""
    for option in itertools.takewhile(lambda arg: arg != "--", args):
        name = option.partition("=")[0]
        if name in RENAMED_OPTIONS:
            raise typer.BadParameter(f"the option {name} is now {RENAMED_OPTIONS[name]}")


def refuse_empty_values(args: Sequence[str]) -> None:
    """Raise a usage error for an option with an empty value, such as that of an unset shell variable.

    Otherwise an empty folder is the current one, and an empty model is the default one.
    """
    for option, value in itertools.zip_longest(args, args[1:]):
        if option.startswith("--") and (value == "" or (option.endswith("=") and option.count("=") == 1)):
            raise typer.BadParameter(f"the value after {option.rstrip('=')} is empty (an unset shell variable?)")


@contextlib.contextmanager
def usage_errors_as_json(wanted: bool) -> Iterator[None]:
    """Context manager: if ``wanted``, also print a usage error, which Typer prints on stderr, as a JSON document."""
    try:
        yield
    except Exception as error:
        # The class of Typer's usage errors has another module in each of its versions.
        if wanted and (message := getattr(error, "format_message", None)) is not None:
            ctx = getattr(error, "ctx", None)
            remedy = f"{ctx.command_path if ctx else 'lsdata'} --help"
            _print_document(display.clean(message()), remedy, InputError.exit_code)
        raise


@functools.cache
def load_command(name: str) -> Any:
    """Import one command: the function of the same name, or the module's ``app`` if it has subcommands."""
    function = name.replace("-", "_")
    module = importlib.import_module(f"latentscore_data.commands.{function}")
    group: typer.Typer | None = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False, rich_markup_mode="rich")
        group.command(name)(everywhere(getattr(module, function), name))
        return fit_help(typer.main.get_command(group))
    for command in group.registered_commands:
        if command.callback is not None:
            sub = command.name or command.callback.__name__.replace("_", "-")
            command.callback = everywhere(command.callback, f"{name} {sub}")
    loaded: Any = typer.main.get_command(group)
    loaded.name = name
    return fit_help(loaded)


NARROW_COLUMNS = 70
"""Below this width, the help's panels truncate the names of options."""


def fit_help(command: Any) -> Any:
    """Return the command. On a narrow terminal, its help and that of its subcommands uses plain lines, which wrap, instead
    of panels."""
    for sub in getattr(command, "commands", {}).values():
        fit_help(sub)
    if shutil.get_terminal_size().columns < NARROW_COLUMNS:
        command.rich_markup_mode = None
        about, mark, examples = (command.help or "").partition("Examples:\n\n")
        # Make each example a paragraph, because the lines of a paragraph are joined and wrapped.
        command.help = about + mark + examples.replace("\n", "\n\n")
        command.short_help = command.help.partition("\n\n")[0]
    return command


app = typer.Typer(
    name="lsdata",
    cls=LazyGroup,
    help="Turn a sentence into ambient music, and make the data and models for it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def whole_program() -> Any:
    """Return the program with all its commands imported, for the documentation and for tests of every command."""
    program: Any = typer.main.get_command(app)
    program.commands = {name: load_command(name) for name in COMMANDS}
    return program


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
JsonGlobal = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel=GLOBAL)]
QuietGlobal = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only results and errors.", rich_help_panel=GLOBAL)
]
VerboseGlobal = Annotated[bool, typer.Option("--verbose", "-v", help="Print more on stderr.", rich_help_panel=GLOBAL)]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lsdata {__version__}")
        raise typer.Exit


@app.callback()
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
    Globals.config, Globals.root = as_typed(config), as_typed(root)
    Globals.json, Globals.quiet, Globals.verbose = json, quiet, verbose


_GLOBAL_OPTIONS = {
    "config": (ConfigGlobal, None),
    "root": (RootGlobal, None),
    "json": (JsonGlobal, False),
    "quiet": (QuietGlobal, False),
    "verbose": (VerboseGlobal, False),
}


def everywhere(command: Callable[..., None], name: str) -> Callable[..., None]:
    """Return the command with the global options added, inside the error boundary."""
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
                setattr(Globals, option, as_typed(value))
        kwargs = {option: as_typed(value) for option, value in kwargs.items()}

        def work() -> None:
            try:
                command(*args, **kwargs)
            except FlagError as error:
                typed = typed_as(error.typed, kwargs, signature) or error.setting
                raise InputError(f"{typed}: {error.problem}", f"lsdata {name} --help") from None

        with_errors_shown(work, name)

    run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return run


def typed_as(value: Any, given: Mapping[str, Any], signature: inspect.Signature) -> str:
    """The option with this value, as it is spelled on the command line; empty if there is none."""
    name = next((name for name, one in given.items() if one == value and name in signature.parameters), None)
    if name is None:
        return ""
    option = next((one for one in get_args(signature.parameters[name].annotation) if isinstance(one, OptionInfo)), None)
    # In an annotation, Typer stores the first spelling as the default.
    spelled = [] if option is None else [option.default, *(option.param_decls or ())]
    flags = [flag for flag in spelled if isinstance(flag, str) and flag.startswith("--")]
    return flags[0].partition("/")[0] if flags else f"--{name.replace('_', '-')}"


METAVARS = {int: "N", float: "X", str: "TEXT"}


def with_short_metavar(parameter: inspect.Parameter) -> inspect.Parameter:
    """Shorten ``--n <int range> [1<=x<=256]`` to ``--n N [1<=x<=256]``, which leaves more room for the help text."""
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
    """Decode a command-line value as UTF-8, even in another locale, in which Python leaves surrogates.

    In a path, the home folder replaces ``~``, which the shell leaves in ``--out=~/x``. The name of an existing file is not
    changed, whatever its bytes.
    """
    if isinstance(value, str):
        if os.path.lexists(value):
            return value
        return os.fsencode(value).decode("utf-8", "replace")
    if isinstance(value, Path):
        return value if os.path.lexists(value) else user_path(value)
    return [as_typed(item) for item in value] if isinstance(value, list) else value


def with_errors_shown(work: Callable[[], None], name: str) -> None:
    """Run a command. A known error becomes a message, a remedy and an exit code; any other exception is a bug (70)."""
    display.OUTPUT.json, display.OUTPUT.quiet = Globals.json, Globals.quiet
    display.OUTPUT.verbose, display.OUTPUT.command = Globals.verbose, name
    _log_to_stderr(Globals.verbose)
    if not gc.isenabled():
        gc.freeze()
        gc.set_threshold(10_000)  # commands import too: torch with a seventh less work than at the usual 700
        gc.enable()
    try:
        work()
    except LsdataError as error:
        _report(error.message, error.remedy, error.exit_code)
    except LatentScoreError as error:
        _report(str(error), "correct the named config, file or argument", InputError.exit_code)
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C or the end of input at a question
        _report("interrupted; finished work is saved", "run the same command again to continue", EXIT_INTERRUPTED)
    except typer.Exit:
        raise
    except OSError as error:
        if error.errno in FULL_DISK:
            _report(
                f"a file cannot be written ({error.strerror})",
                "free some disk space or choose another folder with --root, then run the same command again",
                OutputError.exit_code,
            )
        if not _working_folder_exists():
            _report("the working folder was deleted", "cd to a folder that exists", OutputError.exit_code)
        if error.filename is None:
            if not _temporary_folder_exists():
                _report("no folder for temporary files is writable", "set TMPDIR to one that is", OutputError.exit_code)
            _report_bug(error)
        # A path that was removed, is locked or is not a file: the system's message is clearer than a traceback.
        logging.getLogger(__name__).debug("file error", exc_info=True)
        _report(
            f"{os.fsdecode(error.filename)}: {error.strerror}",
            "check that the path exists, is a file, and can be read and written; finished work is saved",
            OutputError.exit_code,
        )
    except Exception as bug:
        if type(bug).__module__.startswith(("typer", "click")):
            raise
        _report_bug(bug)


def _working_folder_exists() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _temporary_folder_exists() -> bool:
    import tempfile

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True


def _report_bug(bug: Exception) -> NoReturn:
    print(display.redact(display.clean("".join(traceback.format_exception(bug)))), file=sys.stderr, end="")  # noqa: T201
    _report(f"this is a bug in lsdata: {display.redact(str(bug))}", "please report it with the lines above", EXIT_BUG)


def _report(message: str, remedy: str, exit_code: int) -> NoReturn:
    message, remedy = display.redact(display.clean(message)), display.redact(display.clean(remedy))
    print(f"lsdata: {message}" + (f"\n  -> {remedy}" if remedy else ""), file=sys.stderr)  # noqa: T201
    if display.OUTPUT.json:
        _print_document(message, remedy, exit_code)
    raise typer.Exit(exit_code)


def _print_document(message: str, remedy: str, exit_code: int) -> None:
    """Print an error as the JSON document of ``--json``."""
    display.print_json({"error": message, "remedy": remedy, "exit_code": exit_code})


def _log_to_stderr(verbose: bool) -> None:
    class Stderr(logging.StreamHandler[Any]):
        """Writes to the current ``sys.stderr``, which is the progress panel while one is shown."""

        def __init__(self) -> None:
            logging.Handler.__init__(self)

        @property
        def stream(self) -> Any:  # type: ignore[override]
            return sys.stderr

    handler = Stderr()
    handler.setFormatter(
        display.RedactingFormatter("%(levelname)s %(name)s: %(message)s" if verbose else "lsdata: %(message)s")
    )
    handler.setLevel(logging.DEBUG if verbose else logging.WARNING)
    root = logging.getLogger("latentscore_data")
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False


def main() -> None:
    """The console entry point."""
    # Nothing that is imported becomes garbage, and looking for some in it takes a sixth of the time to start.
    gc.disable()
    # The threads of numpy's OpenBLAS wait in a loop for 2**this cycles before they sleep. The usual 2**28 cycles are
    # 0.1 s of each core at every start; matrix products take as long with 2**20.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
    streams.protect()
    try:
        try:
            app(prog_name="lsdata")
        finally:
            sys.stdout.flush()
    except OutputError as error:  # the result cannot be written
        streams.abandon_stdout()
        print(f"lsdata: {error.message}\n  -> {error.remedy}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
