"""lsdata studio: serve a web page on this machine to play vibes and browse the rows of the workspace."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from latentscore_data.commands._options import ModelOption, TrustScorersOption, WorkersOption, load, show
from latentscore_data.commands._scorer_options import ScorerOption
from latentscore_data.core.base.display import OUTPUT, print_json, say
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.base.summary import Summary
from latentscore_data.studio.bundle import PAGE, write_bundle
from latentscore_data.studio.server import choose_access, serve

BUNDLE = "A static copy"


def studio(
    port: Annotated[int, typer.Option(help="Port; 0 for any free port.", min=0, max=65535)] = 8765,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Also serve other machines; needs --token.")
    ] = None,
    token: Annotated[str | None, typer.Option(help="Access token (default: a new one at each start).")] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write a folder that works without a server, then exit.", rich_help_panel=BUNDLE
        ),
    ] = None,
    vibe: Annotated[
        str | None, typer.Option(help="One piece of the offline model instead of rows.", rich_help_panel=BUNDLE)
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Only rows of this split. Repeatable.", rich_help_panel=BUNDLE)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Maximum number of rows, spread over the texts (default 50).", min=1, rich_help_panel=BUNDLE),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier bundle.", rich_help_panel=BUNDLE)
    ] = False,
    model: ModelOption = None,
    scorer: ScorerOption = None,
    trust_settings: TrustScorersOption = False,
    workers: WorkersOption = None,
) -> None:
    """Open a web page to type vibes, play and change them, and browse the rows of the workspace.

    The page is served on this machine only, until Ctrl-C.

    Examples:

        lsdata studio
        lsdata studio --model openai/gpt-4o-mini --port 9000
        lsdata studio --host 0.0.0.0 --token "$STUDIO_TOKEN"
        lsdata studio --bundle site/ --split TEST --limit 20
    """
    access = choose_access(host, token)
    settings = load(configs=chosen(model=model), scoring=chosen(scorers=scorer, workers=workers))
    of_rows = {"--split TEST": split, "--limit 20": limit}
    if bundle is None:
        typed = {'--vibe "slow rain"': vibe is not None, **of_rows, "--overwrite": overwrite}
        if example := next(filter(typed.get, typed), None):
            raise InputError(f"{example.split()[0]} needs --bundle", f"lsdata studio --bundle site/ {example}")
    else:
        if model is not None:
            raise InputError("--bundle calls no model, so --model has no effect", "leave out --model")
        if vibe is not None and any(of_rows.values()):
            raise InputError("--vibe is one piece, so --split and --limit have no effect", "leave them out, or --vibe")
        count = write_bundle(bundle, settings, vibe, split or [], limit or 50, overwrite)
        summary = Summary("studio", done=count, outputs=[str(bundle / PAGE)], next_step=f"open {bundle / PAGE}")
        show(summary)
    trusted = frozenset(settings.scoring.scorers if trust_settings else scorer or ())
    serve(settings, access, port, partial(_ready, open_browser), trusted)
    say("studio: stopped")


def _ready(open_browser: bool, address: str) -> None:
    if OUTPUT.json:
        print_json({"address": address})
        return
    say(f"studio: {address}\n(Ctrl-C stops the server)")
    if open_browser:
        typer.launch(address)
