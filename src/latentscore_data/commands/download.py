"""lsdata download: sample texts from data sets into the workspace."""

from __future__ import annotations

from latentscore.json_search import JsonObject
from latentscore_data.commands._options import (
    DryRunOption,
    OverwriteOption,
    SeedOption,
    YesOption,
    load,
    sets_settings,
    setting_option,
    show,
)
from latentscore_data.core.base.display import OUTPUT, clean, console, print_json
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages.base import RunContext
from latentscore_data.core.stages.download import chosen_sources, in_words, is_there, run_download
from latentscore_data.core.texts.kinds import kind_of

OPTIONS = {
    "download.datasets": setting_option("download.datasets", "--dataset", metavar="NAME"),
    "download.sample_size": setting_option(
        "download.sample_size", help="Texts to keep from each data set (default 1000)."
    ),
    "download.text_field": setting_option(
        "download.text_field", help="Column that holds the text (default: found by its name)."
    ),
    "download.encoding": setting_option("download.encoding", metavar="NAME"),
    "download.seed": SeedOption,
}


@sets_settings(OPTIONS)
def download(
    *,
    given: Values,
    overwrite: OverwriteOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Draw a sample of texts from each data set.

    Examples:

        lsdata download --dataset builtin
        lsdata download --dataset ./my-books --sample-size 200
        lsdata download --dataset common-pile/news_filtered --yes
    """
    settings = load(**given)
    workspace = Workspace(settings.paths.root)
    if dry_run:
        show_plan(settings, workspace)
        return
    with workspace.lock("download"):
        show(run_download(settings, RunContext(yes, overwrite=bool(overwrite))))


def show_plan(settings: Settings, workspace: Workspace) -> None:
    """Show the files that would be read and downloaded. Requests only file names and sizes from the hub."""
    steps: list[JsonObject] = []
    for source in chosen_sources(settings):
        step: JsonObject = {"dataset": source.name, "kind": source.kind}
        step["there"] = is_there(source, settings.download, workspace)
        planned = None if step["there"] else kind_of(source).plan(source, settings.download)
        step.update(planned.to_dict() if planned else {})
        steps.append(step)
    if OUTPUT.json:
        print_json({"dry_run": True, "datasets": steps})
        return
    for step in steps:
        if step["there"]:
            line = f"download: {step['dataset']} exists already"
        elif "files" in step:
            line = in_words(step, settings.download)
        else:
            line = f"download: {step['dataset']}: up to {settings.download.sample_size} texts ({step['kind']})"
        console().print(clean(line), markup=False, soft_wrap=True)
