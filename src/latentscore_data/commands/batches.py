"""lsdata batches: list, refresh and cancel the open provider batches."""

from __future__ import annotations

from typing import Annotated

import typer

from latentscore_data.commands._models import show_batches
from latentscore_data.commands._options import load
from latentscore_data.core.base.display import OUTPUT, print_json, say
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.batch_state import FILE_NAME, open_batches
from latentscore_data.core.llm.batches.run import cancel_batches, refresh_batches


def batches(
    refresh: Annotated[bool, typer.Option("--refresh", help="Query the providers for the progress.")] = False,
    cancel: Annotated[
        list[str] | None,
        typer.Option(metavar="BATCH|all", help="Cancel this batch; finished answers still cost money. Repeatable."),
    ] = None,
) -> None:
    """Show the open provider batches of this workspace, with age, counts and cost, or cancel them.

    The stage that submitted a batch collects its answers, including those of a cancelled batch.

    Examples:

        lsdata batches --refresh
        lsdata batches --cancel 1f3a90b7c2d4
    """
    settings = load()
    workspace = Workspace(settings.paths.root)
    path = workspace.llm_cache.with_name(FILE_NAME)
    if cancel or refresh:
        with workspace.lock("batches"):
            if cancel:
                cancel_batches(path, settings.llm, cancel)
            refresh_batches(path, settings.llm)
    found = open_batches(path)
    if OUTPUT.json:
        print_json([vars(batch) for batch in found])
        return
    if not found:
        say("batches: no open batches")
    show_batches(found)
