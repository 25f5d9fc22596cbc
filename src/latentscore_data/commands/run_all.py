"""lsdata run-all: the stages in order, each only when something it depends on has changed.

What the module of each stage offers to this one and to ``status``:

- ``stage_files(settings, workspace) -> list[StageFiles]``: what it reads, and which settings and versions decide its result
  (configs has two parts, generate and score); it works before any input exists;
- ``preflight(settings) -> list[LsdataError]``: keys, extras and weights that are missing, found without network or cost;
- ``run_stage_for_chain(settings, context) -> Summary``: the whole stage, under the lock that is already held;
- where it costs money, ``estimate(settings, workspace, behind=...) -> Plan``; ``behind`` names the first stage that runs before it, empty for none: its rows are then not those that are there now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from latentscore_data.commands._options import DryRunOption, Globals, MaxCostOption, YesOption, load
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.stages.chain import run_stages, sample_flags, selected

if TYPE_CHECKING:
    pass


def run_all(
    sample: Annotated[
        bool, typer.Option("--sample", help="The bundled passages, offline, in sample/ of the data root.")
    ] = False,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Start with this stage.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="End with this stage.")] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="STAGE", help="Leave this stage out. Repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run every stage, fresh or not.")] = False,
    max_cost: MaxCostOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Run download, vibes, configs, train, bench and export in order; a stage that is fresh is skipped.

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
