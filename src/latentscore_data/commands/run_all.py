"""lsdata run-all: run the stages in order and skip those that are fresh."""

from __future__ import annotations

from typing import Annotated

import typer

from latentscore_data.commands._globals import Globals
from latentscore_data.commands._options import DryRunOption, MaxCostOption, YesOption, load
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.stages.chain import run_stages, sample_flags, selected


def run_all(
    sample: Annotated[
        bool, typer.Option("--sample", help="Use the bundled passages, offline, in sample/ of the data root.")
    ] = False,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Start with this stage.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="End with this stage.")] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="STAGE", help="Leave this stage out. Repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also run stages that are fresh.")] = False,
    max_cost: MaxCostOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Run download, vibes, configs, train, bench and export in order; skip stages that are fresh.

    Examples:

        lsdata run-all --sample
        lsdata run-all --until configs --max-cost 5
    """
    flags = sample_flags(Globals.root, Globals.config) if sample else {}
    flags["llm"] = {**flags.get("llm", {}), **chosen(max_cost=max_cost)}
    settings = load(**flags)
    stages = selected(from_, until, [*(skip or []), *settings.run_all.skip])
    chain = run_stages(settings, stages, force=force, dry_run=dry_run, yes=yes, sample=sample)
    chain.show()
    raise typer.Exit(chain.exit_code)
