"""lsdata vibes: extract vibes from the texts with a model, drop near-duplicates, draw splits, add noise."""

from __future__ import annotations

from contextlib import closing

from latentscore_data.commands._models import load_to_ask, show_dry_run
from latentscore_data.commands._options import (
    DryRunOption,
    ModelOption,
    OnOption,
    SeedOption,
    YesOption,
    calls_models,
    repeats,
    sets_settings,
    setting_option,
    show,
)
from latentscore_data.core.base.display import say
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.stages.base import RunContext
from latentscore_data.core.stages.spending import RunPlan
from latentscore_data.core.stages.vibes import make_plan_for, remote_estimates, require_texts, run_vibes

OPTIONS = {
    "vibes.model": ModelOption,
    "vibes.temperature": setting_option("vibes.temperature"),
    "vibes.limit": setting_option("vibes.limit"),
    "vibes.max_vibes": setting_option("vibes.max_vibes"),
    "vibes.max_input_words": setting_option("vibes.max_input_words"),
    "vibes.page_words": setting_option("vibes.page_words"),
    "vibes.characters": setting_option("vibes.characters", help="Also request the moods of characters."),
    "noise.rate": setting_option("noise.rate", "--noise-rate"),
    "dedupe.threshold": setting_option("dedupe.threshold", "--dedupe-threshold"),
    "dedupe.model": setting_option("dedupe.model", "--dedupe-model", help="auto, minilm, words, a folder or a hub id."),
    "splits.split_by": setting_option("splits.split_by"),
}


@calls_models
@repeats
@sets_settings(OPTIONS)
def vibes(
    *,
    given: Values,
    on: OnOption = None,
    seed: SeedOption = None,
    again: Values,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    calls: Values,
) -> None:
    """Extract vibe rows from the downloaded texts, drop near-duplicates, draw splits, add noise.

    With builtin/verbatim as the model, each text is one vibe, as it stands.

    Examples:

        lsdata vibes
        lsdata vibes --model builtin/verbatim
        lsdata vibes --model openai/gpt-4o-mini --limit 50 --max-cost 1
    """
    for section in ("vibes", "noise", "splits"):
        given[section] = {**given.get(section, {}), **chosen(seed=seed)}
    settings = load_to_ask(calls, lambda s: [s.model_of("vibes")], **given)
    workspace = Workspace(settings.paths.root)
    executor = make_executor(on or "here", settings, say)
    if dry_run:
        require_texts(workspace)
        remote = remote_estimates(settings, workspace, executor) if executor.remote else []
        plan = RunPlan([make_plan_for(settings, workspace)], remote, executor)
        show_dry_run(plan, lambda: plan.check(settings, SpendTracker()))
        return
    with workspace.lock("vibes"), closing(executor):
        summary = run_vibes(settings, RunContext(yes, executor=executor, **again))
    show(summary)
