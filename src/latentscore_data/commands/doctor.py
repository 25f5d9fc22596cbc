"""lsdata doctor: what is installed, what would not work, and the fix."""

from __future__ import annotations

from typing import Annotated

import typer

from latentscore_data.commands._options import Globals, load


def doctor(
    settings: Annotated[
        bool, typer.Option("--settings", help="Each effective setting and where it came from.")
    ] = False,
) -> None:
    """What is installed, which keys and weights are there, what would not work, and the fix."""
    from latentscore_data.core.display import OUTPUT, clean, console, print_json
    from latentscore_data.core.settings import effective

    load()
    if settings:
        flags = {"paths": {"root": Globals.root}} if Globals.root else {}
        rows = list(effective(Globals.config, **flags))
        if OUTPUT.json:
            print_json([{"name": name, "value": value, "from": origin} for name, value, origin in rows])
            return
        from rich.table import Table

        table = Table("setting", "value", "from", box=None)
        for name, value, origin in rows:
            table.add_row(name, clean(value), clean(origin))
        console().print(table)
