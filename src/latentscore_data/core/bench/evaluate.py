"""Evaluation of a trained model: a benchmark against its base model, random configs and look-up."""

from __future__ import annotations

from collections.abc import Callable

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import MissingError, NoImprovementError
from latentscore_data.core.base.jsonl import replace_json
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench import prepare, run
from latentscore_data.core.bench.summary import summarise
from latentscore_data.core.generators.registry import make_generator
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.training.prepare import VALIDATION_SPLIT

TRAINED = "trained"
RIVALS = ("base", "random", "look-up")


def evaluate_run(
    folder: RunFolder, settings: Settings, *, require: bool, say: Callable[[str], None], spend: SpendTracker
) -> JsonObject:
    """Compare a finished run with :data:`RIVALS` on the validation rows, and write the result to ``run.json``.

    Returns ``{"evaluation": TEXT}``, the mean scores in one line. ``say`` gets the rivals that were not beaten. Raises
    :class:`MissingError` without validation rows, and with ``require`` :class:`NoImprovementError` if a rival was not
    beaten.
    """
    workspace = Workspace(settings.paths.root)
    if not workspace.scored(VALIDATION_SPLIT).exists():
        raise MissingError(
            f"there are no {VALIDATION_SPLIT} rows to compare on", f"lsdata configs --split {VALIDATION_SPLIT}"
        )
    table = compare(folder, settings, workspace, spend)
    verdict = judge(table)
    folder.note(evaluation=verdict)
    lost = [name for name, rival in verdict["rivals"].items() if not rival["beaten"]]
    if lost:
        say(f"{folder.run_id} did not beat {', '.join(lost)}: {verdict['in_words']}")
    if lost and require:
        raise NoImprovementError(
            f"{folder.run_id} did not beat {', '.join(lost)} ({verdict['in_words']})",
            "train longer or on more rows, or leave --require-improvement out; the run is kept",
        )
    return {"evaluation": verdict["in_words"]}


def compare(folder: RunFolder, settings: Settings, workspace: Workspace, spend: SpendTracker) -> JsonObject:
    """Run the benchmark of the trained model and its rivals, and return its table; no page is written.

    Raises :class:`MissingError` for a run without a spec.
    """
    spec = folder.spec()
    if spec is None:
        raise MissingError(f"run {folder.run_id} has no spec", "train it again")
    bench = settings.bench.model_copy(
        update={
            "sources": [
                f"local:{folder.run_id}={TRAINED}",
                f"local:{spec.base_model}=base",
                "baseline:random=random",
                "baseline:lookup=look-up",
            ],
            "split": VALIDATION_SPLIT,
            "suite": None,
            "baseline": TRAINED,
            "name": f"evaluate-{folder.run_id}",
        }
    )
    settings = settings.model_copy(update={"bench": bench})
    compared = prepare.compared(bench, workspace)
    rows, sources = compared.rows, compared.sources
    files = run.RunFiles(workspace.bench_dir / prepare.run_name(bench, settings.scoring, sources))
    with prepare.open_scoring(settings, workspace, spend=spend) as (service, cache):
        needs = prepare.generator_deps(settings, workspace, rows, cache, spend=spend)
        fingerprints: dict[str, str] = {}
        for source in sources:
            generator = make_generator(source, needs)
            run.generate(generator, rows, files)
            fingerprints[source.label] = generator.fingerprint
        samples = run.load_answers(files, rows, fingerprints, bench.seed)
        floor = prepare.floor_source(service, TRAINED)
        run.score_answers(samples, service, files, floor_source=floor)
        results = run.results_in_order(files, samples, service, floor_source=floor)
        facts = prepare.run_facts(settings, workspace, files.folder.name, rows, sources, TRAINED, service)
    table = summarise(results, facts)
    replace_json(files.summary, table)
    return table


def judge(table: JsonObject) -> JsonObject:
    """Return the result of an evaluation from its table: mean scores, differences and whether each rival is beaten.

    A rival is beaten if the model's mean is higher and the interval of the paired difference excludes zero. With too
    few documents for an interval, the mean decides.
    """
    scorer = table["headline"]
    by_label = {source["label"]: source for source in table["sources"]}
    mine = by_label[TRAINED]["scores"][scorer]["mean"]
    rivals: JsonObject = {}
    for label in RIVALS:
        difference = by_label[label]["versus_baseline"][scorer]
        # The model is the baseline of the table, so the differences are rival minus model.
        sure = difference["high"] is None or difference["high"] < 0
        rivals[label] = {
            "mean": by_label[label]["scores"][scorer]["mean"],
            "difference": -difference["mean"],
            "low": None if difference["high"] is None else -difference["high"],
            "high": None if difference["low"] is None else -difference["low"],
            "p_holm": difference["p_holm"],
            "beaten": difference["mean"] < 0 and sure,
        }
    words = ", ".join(f"{label} {rival['mean']:.3f}" for label, rival in rivals.items())
    note = f"; {table['few_documents']}" if table["few_documents"] else ""
    return {
        "scorer": scorer,
        "rows": table["rows"],
        "documents": table["documents"],
        "trained": mine,
        "raw_valid": by_label[TRAINED]["raw_valid_rate"],
        "rivals": rivals,
        "improved": all(rival["beaten"] for rival in rivals.values()),
        "in_words": f"{scorer} {mine:.3f} against {words}{note}",
    }
