"""lsdata vibes: ask a model what moods the texts hold; thin the answers out, split them, add noise."""

from __future__ import annotations

from contextlib import closing

from latentscore_data.commands._models import show_dry_run
from latentscore_data.commands._options import (
    DryRunOption,
    ModelOption,
    OnOption,
    OverwriteOption,
    RetryFailedOption,
    SeedOption,
    YesOption,
    calls_models,
    load,
    sets_settings,
    setting_option,
    show,
)
from latentscore_data.core.base.display import say
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.secrets import read_dotenv
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.stages.spending import check_remote_jobs, check_spending, trust_key_to
from latentscore_data.core.stages.vibes import make_plan_for, remote_estimates, require_texts, run_vibes

OPTIONS = {
    "vibes.model": ModelOption,
    "vibes.temperature": setting_option("vibes.temperature"),
    "vibes.limit": setting_option("vibes.limit"),
    "vibes.max_vibes": setting_option("vibes.max_vibes"),
    "vibes.max_input_words": setting_option("vibes.max_input_words"),
    "vibes.page_words": setting_option("vibes.page_words"),
    "vibes.characters": setting_option("vibes.characters", help="Keep the moods of characters, too."),
    "noise.rate": setting_option("noise.rate", "--noise-rate", help="Share of vibes with typing noise."),
    "dedupe.threshold": setting_option("dedupe.threshold", "--dedupe-threshold"),
    "dedupe.model": setting_option(
        "dedupe.model", "--dedupe-model", help="Embedder: auto, minilm, words, a folder or a hub id."
    ),
    "splits.split_by": setting_option("splits.split_by"),
}


@calls_models
@sets_settings(OPTIONS)
def vibes(
    *,
    given: Values,
    on: OnOption = None,
    seed: SeedOption = None,
    retry_failed: RetryFailedOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    calls: Values,
) -> None:
    """Extract vibe rows from the downloaded texts, drop near-duplicates, draw splits, add noise.

    Examples:

        lsdata vibes
        lsdata vibes --model openai/gpt-4o-mini --limit 50 --max-cost 1
    """
    read_dotenv()
    for section in ("vibes", "noise", "splits"):
        given[section] = {**given.get(section, {}), **chosen(seed=seed)}
    settings = load(**given, llm=calls)
    trust_key_to(settings.llm, calls.get("api_key_env"))
    workspace = Workspace(settings.paths.root)
    executor = make_executor(on or "here", settings, say)
    if dry_run:
        require_texts(workspace)
        plan = make_plan_for(settings, workspace)
        away = remote_estimates(settings, workspace, executor) if executor.remote else []

        def check() -> None:
            check_spending(plan, settings.llm)
            check_remote_jobs(away, settings)

        show_dry_run([plan], check, remote=[one.in_words() for one in away])
        return
    with workspace.lock("vibes"), closing(executor):
        summary = run_vibes(settings, yes=yes, retry_failed=retry_failed, overwrite=overwrite, executor=executor)
    show(summary)
