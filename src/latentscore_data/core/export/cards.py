"""Cards: the README.md of what is exported, written from manifests and from the rows themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, quantiles
from typing import Any

from latentscore import FIELDS
from latentscore_data.core.export.chat import ChatFacts
from latentscore_data.core.export.columns import features
from latentscore_data.core.export.dataset import DatasetFacts, split_name
from latentscore_data.core.export.maps import MapFacts
from latentscore_data.core.export.merge import Parity
from latentscore_data.core.export.provenance import Provenance, hub_license, md

SCORES_PICTURE = "scores-{scorer}.svg"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(name: str, facts: DatasetFacts, origin: Provenance, license_id: str | None) -> str:
    """README.md of an exported data set: a YAML header that the hub and ``datasets`` read, and the story of the rows."""
    total = sum(facts.rows.values())
    header: dict[str, Any] = {
        "pretty_name": name,
        **license_header(origin, license_id),
        "task_categories": ["text-generation"],
        "tags": ["music", "text-to-music", "synthetic", "latentscore"],
        "size_categories": [next((size for limit, size in _SIZES if total < limit), "n>1M")],
        "configs": _configs(facts),
        "dataset_info": _dataset_info(facts),
    }
    body = [
        f"# {md(name)}",
        "",
        "Short texts that name a mood (*vibes*) and, for each, configurations of an ambient music synthesizer: "
        f"{total:,} vibes from {sum(origin.texts_by_dataset.values()):,} texts, "
        f"{facts.with_config:,} of them with a best configuration.",
        "",
        "## Load it",
        "",
        "```python",
        "from datasets import load_dataset",
        'rows = load_dataset("PATH_OR_REPO")',
        f'print(rows["{split_name(next(iter(facts.rows)))}"][0]["vibe_original"])',
        "```",
        "",
        "The same rows stand in `jsonl/`, one file per split, for everything that reads JSON lines.",
        "",
        "## Splits",
        "",
        *table(
            ("split", "rows", "source texts"),
            ((split_name(split), f"{n:,}", f"{len(facts.sources[split]):,}") for split, n in facts.rows.items()),
        ),
        "",
        *_leakage(origin),
        "",
        "## Where the rows come from",
        "",
        *table(
            ("source", "texts", "rows", "licence"),
            (
                (md(dataset), f"{origin.texts_by_dataset[dataset]:,}", f"{rows:,}", _licenses(origin, dataset))
                for dataset, rows in sorted(origin.rows_by_dataset.items())
            ),
        ),
        "",
        "The texts themselves are not part of this data set; works, authors and addresses are in "
        "[ATTRIBUTION.md](ATTRIBUTION.md).",
        "",
        *table(
            ("made by", "model", "rows"),
            [("vibes", md(model), f"{n:,}") for model, n in facts.vibe_models.most_common()]
            + [("configurations", md(model), f"{n:,}") for model, n in facts.config_models.most_common()],
        ),
        "",
        *stages_section(origin),
        "",
        "## Scores",
        "",
        *_scores(facts),
        "",
        "## Columns",
        "",
        *table(("column", "type"), ((f"`{column}`", f"`{_spell(kind)}`") for column, kind in facts.columns.items())),
        "",
        "## Known limits",
        "",
        *(f"- {limit}" for limit in _limits(facts, origin)),
        "",
    ]
    return with_header(header, body)


def with_header(header: Mapping[str, Any], body: Sequence[str]) -> str:
    """YAML between dashes, then Markdown."""
    import yaml

    return "---\n" + yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True) + "---\n\n" + "\n".join(body)


def license_header(origin: Provenance, license_id: str | None) -> dict[str, Any]:
    """The licence lines of a card: the one given, the one all sources share, or "other" with a name and a link."""
    if license_id:
        return {"license": license_id}
    names = origin.licenses()
    identifiers = {hub_license(name) for name in names}
    if len(identifiers) == 1 and (shared := identifiers.pop()):
        return {"license": shared}
    name = names[0] if len(names) == 1 else "mixed"
    slug = "-".join("".join(c if c.isalnum() or c in ".-" else " " for c in name.lower()).split())
    return {"license": "other", "license_name": slug[:60] or "unknown", "license_link": "ATTRIBUTION.md"}


def _configs(facts: DatasetFacts) -> list[dict[str, Any]]:
    # One form only: `datasets` reads all files of a repository with the one reader that fits most of them.
    folder, suffix = ("data", "parquet") if facts.parquet else ("jsonl", "jsonl")
    files = [{"split": split_name(split), "path": f"{folder}/{split_name(split)}.{suffix}"} for split in facts.rows]
    return [{"config_name": "default", "data_files": files}]


def _dataset_info(facts: DatasetFacts) -> dict[str, Any]:
    return {
        "features": features(facts.columns),
        "splits": [
            {"name": split_name(split), "num_bytes": facts.bytes[split], "num_examples": n}
            for split, n in facts.rows.items()
        ],
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, one string per line. Untrusted cells must have passed :func:`md`."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _licenses(origin: Provenance, dataset: str) -> str:
    return md("; ".join(origin.licenses(dataset)))


_LEAKAGE_FIGURES = {
    "mean_nearest": "nearest training row to a TEST row, mean cosine",
    "highest": "nearest training row to a TEST row, highest cosine",
    "share_above_threshold": "share of TEST rows with a near-duplicate in training",
    "share_same_source": "share of TEST rows whose source is trained on",
}


def _leakage(origin: Provenance) -> list[str]:
    vibes = origin.manifests.get("vibes", {})
    found = vibes.get("details", {}).get("leakage")
    if not isinstance(found, Mapping):
        return ["How near the splits are to each other was not measured."]
    by = vibes.get("settings", {}).get("splits.split_by", "source")
    columns = {f"drawn by {md(by)}": found, "if drawn by row": vibes["details"].get("leakage_if_split_by_row")}
    reports = {head: report for head, report in columns.items() if isinstance(report, Mapping)}
    rows = [
        (what, *(_figure(report[name]) if name in report else "" for report in reports.values()))
        for name, what in _LEAKAGE_FIGURES.items()
    ]
    return ["How near the splits are to each other:", "", *table(("", *reports), rows)]


def stages_section(origin: Provenance) -> list[str]:
    """What each stage was run with and what it cost, as far as its manifest says."""
    if not origin.manifests:
        return ["The rows came without manifests, so models' settings, prompts and costs are not known."]
    lines = ["## How it was made", ""]
    rows: list[tuple[str, ...]] = []
    for stage, manifest in origin.manifests.items():
        failed = sum(manifest.get("failed", {}).values())
        cost = manifest.get("cost_usd")
        rows.append(
            (
                stage,
                f"{manifest.get('done', 0) + manifest.get('skipped', 0):,}",
                f"{failed:,}",
                f"{manifest.get('tokens_in', 0):,}",
                f"{manifest.get('tokens_out', 0):,}",
                "unknown" if cost is None else f"${cost:.2f}",
                md(manifest.get("lsdata_version", "")),
            )
        )
    lines += table(("stage", "done", "failed", "tokens in", "tokens out", "cost", "lsdata"), rows)
    known = [
        (stage, md(name), _code(_figure(value)))
        for stage, manifest in origin.manifests.items()
        for name, value in _flat({**manifest.get("settings", {}), **manifest.get("versions", {})})
        if value is not None
    ]
    lines += ["", "Settings, prompt hashes and fingerprints that decide the result:", ""]
    return lines + table(("stage", "name", "value"), known)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _code(text: str) -> str:
    """Untrusted text as code in a table."""
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`"


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scores(facts: DatasetFacts) -> list[str]:
    if not facts.candidates:
        return ["No candidate was scored."]
    lines = [
        f"Each vibe has up to {max(facts.best_of)} candidates; the first scorer chose the winner, the others only listened.",
        "",
        *table(
            ("scorer", "of", "n", "mean", "5 %", "median", "95 %"),
            [
                _spread(scorer, of, numbers)
                for scorer in facts.candidates
                for of, numbers in (("winners", facts.winners.get(scorer, [])), ("all", facts.candidates[scorer]))
                if numbers
            ],
        ),
    ]
    for scorer in facts.candidates:
        lines += ["", f"![Distribution of {md(scorer)} scores]({picture_name(scorer)})"]
    return lines


def picture_name(scorer: str) -> str:
    """The file of a scorer's histogram; scorers may be paths and models' names."""
    return SCORES_PICTURE.format(scorer="".join(c if c.isalnum() else "-" for c in scorer))


def _spread(scorer: str, of: str, numbers: Sequence[float]) -> tuple[str, ...]:
    cuts = quantiles(numbers, n=20, method="inclusive") if len(numbers) > 1 else [numbers[0]] * 19
    return md(scorer), of, f"{len(numbers):,}", *(f"{x:.3f}" for x in (mean(numbers), cuts[0], cuts[9], cuts[18]))


def _spell(kind: Any) -> str:
    if isinstance(kind, dict):
        names = list(kind)
        return "{" + ", ".join(names[:6]) + (f", … {len(names)} fields" if len(names) > 6 else "") + "}"
    if isinstance(kind, list):
        return f"list of {_spell(kind[0])}"
    return "string (JSON)" if kind == "json" else kind


def _limits(facts: DatasetFacts, origin: Provenance) -> Iterable[str]:
    total = sum(facts.rows.values())
    yield "Vibes and configurations were written by models; nobody has read them all."
    yield "A configuration is the best of a few candidates, not the best possible one."
    if facts.winners:
        yield (
            f"Winners were chosen by `{md(next(iter(facts.winners)))}`, so a benchmark judged by the same scorer "
            "flatters them."
        )
    if set(facts.winners) == {"acoustic"}:
        yield (
            "The only scorer was `acoustic`, which compares measured descriptors with the words of the vibe; it does not "
            "hear meaning."
        )
    if "builtin/keywords" in facts.config_models or "builtin/keywords" in facts.vibe_models:
        yield "Some rows come from the built-in keyword model, which works on words and not on understanding."
    if facts.noisy:
        yield f"{facts.noisy:,} of {total:,} rows carry typing noise in `vibe_noisy`, for training; `vibe_original` is clean."
    if total > facts.with_config:
        yield f"{total - facts.with_config:,} rows have no valid configuration (`config_payload` is null)."
    if any(work.license == "unknown" for work in origin.works):
        yield "The licence of some source texts is not known: do not pass these rows on before it is."
    json_columns = [name for name, kind in facts.columns.items() if kind == "json"]
    if json_columns:
        yield f"Columns of mixed types are JSON text: {', '.join(f'`{name}`' for name in json_columns)}."


def map_card(name: str, kind: str, fingerprint: str, facts: MapFacts, splits: Counter[str], origin: Provenance) -> str:
    """README.md of an exported map."""
    searched = "the vibe's text" if kind == "text" else "the sound of the winning configuration"
    body = [
        f"# {md(name)}",
        "",
        f"A retrieval map: {facts.rows:,} music configurations, found by {searched}. Embeddings are unit vectors of "
        f"{facts.dim} dimensions, made with `{md(fingerprint)}`; a question must be embedded with the same model.",
        "",
        "## Load it",
        "",
        "```python",
        "from latentscore import load_map, lookup",
        'nearest = lookup(load_map("PATH"), "rain on a tin roof")',
        "print(nearest.similarity, nearest.title, nearest.config.tempo)",
        "```",
        "",
        "`map.safetensors` with `rows.jsonl` opens at once, whatever the size; `map.jsonl` holds the same, one line per row.",
        "",
        *table(("split", "rows"), ((md(split), f"{n:,}") for split, n in splits.items())),
        "",
        f"{facts.without_config:,} rows without a valid configuration were left out. Sources, licences and authors are in "
        "[ATTRIBUTION.md](ATTRIBUTION.md).",
        "",
    ]
    header = {
        "pretty_name": name,
        **license_header(origin, None),
        "tags": ["music", "retrieval", "latentscore"],
        "configs": [{"config_name": "default", "data_files": "map.jsonl"}],
    }
    return with_header(header, body)


def chat_card(name: str, facts: ChatFacts, origin: Provenance) -> str:
    """README.md of exported chat files."""
    splits = list(facts.messages)
    body = [
        f"# {md(name)}: chat files",
        "",
        "`sft/` holds `messages` (system, user, assistant): the question and the best of its candidates. `preference/` "
        "holds `prompt`, `chosen` and `rejected`: the best and the worst candidate by the scorer that chose, for rows "
        "whose candidates differ in score. Trainers such as TRL's SFTTrainer and DPOTrainer read both as they are.",
        "",
        "## Load it",
        "",
        "```python",
        "from datasets import load_dataset",
        f'rows = load_dataset("json", data_files="PATH/sft/{split_name(splits[0])}.jsonl", split="train")',
        'print([message["role"] for message in rows[0]["messages"]])',
        "```",
        "",
        *table(
            ("split", "messages", "pairs"),
            ((split_name(split), f"{facts.messages[split]:,}", f"{facts.pairs.get(split, 0):,}") for split in splits),
        ),
        "",
        "Keep TEST out of training. Sources, licences and authors are in [ATTRIBUTION.md](ATTRIBUTION.md).",
        "",
    ]
    configs = [
        {
            "config_name": kind,
            "data_files": [{"split": split_name(s), "path": f"{kind}/{split_name(s)}.jsonl"} for s in counts],
        }
        for kind, counts in (("sft", facts.messages), ("preference", facts.pairs))
        if counts
    ]
    header = {
        "pretty_name": f"{name}: chat files",
        **license_header(origin, None),
        "task_categories": ["text-generation"],
        "tags": ["music", "latentscore", "dpo"],
        "configs": configs,
    }
    return with_header(header, body)


@dataclass(frozen=True)
class ModelFacts:
    """What was exported, as the card tells it."""

    name: str
    chain: Sequence[str]
    """The base model and what it started from, the first ancestor last."""
    license: str | None
    parameters: int
    merged: Parity | None
    """Adapter with base against the merged model; ``None`` for a model that was trained whole."""
    gguf: Mapping[str, Parity]
    """GGUF file -> how far it is from the merged model."""
    record: Mapping[str, Any]
    """The run's ``run.json``; empty for a model from elsewhere."""
    missing: Sequence[str]
    tools: Mapping[str, str] = field(default_factory=lambda: {})
    """Programs of others that made a GGUF file -> their version."""


def model_card(facts: ModelFacts, origin: Provenance | None) -> str:
    """README.md of an exported model, from the run's record."""
    header: dict[str, Any] = {
        **({"base_model": facts.chain[-1]} if facts.chain and "/" in facts.chain[-1] else {}),
        **_model_license(facts.license),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["music", "text-to-music", "latentscore", *(["gguf"] if facts.gguf else [])],
    }
    record = facts.record
    body = [
        f"# {md(facts.name)}",
        "",
        f"A model of {facts.parameters:,} parameters that answers a short text (a *vibe*) with one JSON object: a title, "
        f"three palettes and the {len(FIELDS)} fields of an ambient music configuration, which `latentscore` renders.",
        "",
        f"Base: {md(' <- '.join(facts.chain) or 'not stated')}. Trained with "
        f"{md(record.get('kind') or 'an unknown recipe')} ({md(record.get('method') or 'method not stated')}).",
        "",
        "## Load it",
        "",
        "```python",
        "from transformers import pipeline",
        'answer = pipeline("text-generation", "PATH_OR_REPO", max_new_tokens=8)',
        'print(answer([{"role": "user", "content": "<vibe>rain on a tin roof</vibe>"}])[0]["generated_text"][-1])',
        "```",
        "",
        "The prompt it was trained on, the schema that keeps its answers valid, and rendering are in "
        "`lsdata configs --model openai/NAME --api-base URL`, against any server that speaks the OpenAI protocol.",
        "",
        *_gguf_section(facts),
        "## How it was trained",
        "",
        *_training_section(record),
        "",
        "## Figures",
        "",
        *_figures_section(record),
        "",
        *_data_section(origin),
        "## Intended use",
        "",
        "Making ambient music from short descriptions of moods, and research on that. The answers are settings of a "
        "synthesizer; nothing else should be read into them.",
        "",
        "## Known limits",
        "",
        "- Trained on answers of other models, chosen by a scorer: it inherits their taste and their mistakes.",
        "- English only, short texts only; anything else is out of its training data.",
        "- Small models often score near a random configuration; compare with the baselines in the figures above.",
        "- Without a schema while decoding, an answer may be incomplete JSON.",
        *(f"- Do not pass it on before this is settled: {md(problem)}." for problem in facts.missing),
        "",
    ]
    return with_header(header, body)


def _model_license(identifier: str | None) -> dict[str, str]:
    return {"license": identifier} if identifier else {"license": "other", "license_name": "unknown"}


def _gguf_section(facts: ModelFacts) -> list[str]:
    lines = ["## Exactness", "", "Logits against the float32 reference, over the tokens of fixed prompts:", ""]
    rows = [("`model.safetensors` (adapter merged)", facts.merged)] if facts.merged else []
    rows += [(f"`{name}`", parity) for name, parity in facts.gguf.items()]
    if not rows:
        return []
    figures = [
        (what, f"{p.max_abs_diff:.2g}", f"{p.relative_error:.2g}", f"{p.top1_agreement:.1%}", f"{p.kl:.2g}")
        for what, p in rows
    ]
    lines += table(("file", "largest difference", "relative error", "same first choice", "KL, nats"), figures)
    lines += ["", *(f"K-quants were made by {md(tool)}, {md(version)}." for tool, version in facts.tools.items())]
    if facts.gguf:
        lines += ["", "```sh", f"llama-server -m {next(iter(facts.gguf))}", "```"]
    return [*lines, ""]


def _training_section(record: Mapping[str, Any]) -> list[str]:
    if not record:
        return ["Nothing is known of its training: it was not exported from a run."]
    spec = {name: value for name, value in _flat(record.get("spec", {})) if value is not None}
    known = {
        "run": record.get("run_id"),
        "finished": record.get("finished"),
        "seconds": record.get("seconds"),
        **spec,
        **{f"version of {name}": value for name, value in record.get("versions", {}).items() if name != "platform"},
    }
    return table(("setting", "value"), [(md(name), md(_figure(v))) for name, v in known.items() if v is not None])


def _figures_section(record: Mapping[str, Any]) -> list[str]:
    figures = dict(_flat(record.get("metrics", {})))
    lines = table(("figure", "value"), [(md(name), md(_figure(value))) for name, value in figures.items()])
    evaluation = record.get("evaluation")
    if isinstance(evaluation, Mapping) and evaluation.get("rivals"):
        lines += ["", *_evaluation(evaluation)]
    elif record:
        lines += ["", "It was not compared with any baseline (`lsdata train --evaluate` or `lsdata bench` would)."]
    health = record.get("health") or []
    return lines + [f"- {md(finding)}" for finding in health]


def _evaluation(found: Mapping[str, Any]) -> list[str]:
    """What ``lsdata train --evaluate`` noted: the rivals' means, and how far the model is above them."""
    rows = [
        (
            md(name),
            f"{rival['mean']:.3f}",
            f"{rival['difference']:+.3f}",
            "–" if rival["low"] is None else f"{rival['low']:+.3f} to {rival['high']:+.3f}",
            "–" if rival["p_holm"] is None else f"{rival['p_holm']:.3f}",
            "yes" if rival["beaten"] else "no",
        )
        for name, rival in found["rivals"].items()
    ]
    few = any(rival["low"] is None for rival in found["rivals"].values())
    note = " There were too few source documents for intervals and tests: take it as a hint." if few else ""
    return [
        f"On {found['rows']} validation rows of {found['documents']} source documents, none of them trained on, judged by "
        f"{md(found['scorer'])}, its mean score is {found['trained']:.3f}. Intervals resample source documents; p-values are "
        f"corrected with Holm's method.{note}",
        "",
        *table(("against", "its mean", "difference", "95 % interval", "p", "beaten"), rows),
    ]


def _data_section(origin: Provenance | None) -> list[str]:
    if origin is None or not origin.rows_by_dataset:
        return []
    rows = (
        (md(dataset), f"{origin.texts_by_dataset[dataset]:,}", f"{n:,}", _licenses(origin, dataset))
        for dataset, n in sorted(origin.rows_by_dataset.items())
    )
    return ["## Data", "", *table(("source", "texts", "rows", "licence"), rows), ""]
