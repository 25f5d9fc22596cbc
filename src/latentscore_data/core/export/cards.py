"""Cards: the README.md of each export, from the manifests and the rows.

The header is card data of ``huggingface_hub``, the text a Jinja template of ``templates/``. Values from rows, texts or
models are untrusted: :func:`md` escapes them, here or in the template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, quantiles
from typing import TYPE_CHECKING, Any

from latentscore import FIELDS
from latentscore.forms import FormName
from latentscore.json_search import JsonObject
from latentscore_data.core.base.jsonl import replace_text
from latentscore_data.core.base.layers import leaves
from latentscore_data.core.export.columns import features
from latentscore_data.core.export.dataset import DatasetFacts
from latentscore_data.core.export.maps import MapFacts
from latentscore_data.core.export.merge import WrittenModel, is_hub_id, public_name
from latentscore_data.core.export.pictures import histograms
from latentscore_data.core.export.tables import Table, split_name
from latentscore_data.core.texts.licenses import license_lines, license_slug
from latentscore_data.core.texts.provenance import Provenance, hub_license, md

if TYPE_CHECKING:
    from huggingface_hub import CardData
    from jinja2 import Template

Cells = tuple[str, ...]

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_PURPOSES = {
    "default": "everything: each row with all its candidates and scores",
    "sft": "supervised fine-tuning (`messages`)",
    "preference": "preference training (`prompt`, `chosen`, `rejected`)",
    "map": "retrieval (`config` with the embedding of its vibe)",
}


def dataset_card(
    name: str,
    facts: DatasetFacts,
    tables: Sequence[Table],
    origin: Provenance,
    license_id: str | None,
    checks: Sequence[Cells],
    *,
    parquet: bool,
) -> str:
    """Return the README.md of a data set: a YAML header for the hub and ``datasets``, and the description of its rows.

    ``checks`` are (group, measure, value, limit, verdict).
    """
    from huggingface_hub import DatasetCardData

    total = sum(facts.rows.values())
    header = DatasetCardData(
        pretty_name=name,
        **license_header(origin, license_id),
        task_categories=["text-generation"],
        tags=["music", "text-to-music", "synthetic", "latentscore"],
        size_categories=[next((size for limit, size in _SIZES if total < limit), "n>1M")],
        configs=[_config(table) for table in tables],
        dataset_info=[_dataset_info(table) for table in tables],
    )
    return render_card(
        "dataset.md.jinja",
        header,
        name=name,
        total=total,
        facts=facts,
        origin=origin,
        first_split=split_name(next(iter(facts.rows))),
        configurations=[(f"`{t.name}`", _PURPOSES[t.name], f"{sum(t.rows.values()):,}") for t in tables],
        jsonl_beside=parquet,
        splits=[(split_name(split), f"{n:,}", f"{len(facts.sources[split]):,}") for split, n in facts.rows.items()],
        leakage=_leakage(origin),
        sources=_sources(origin),
        models=[("vibes", md(model), f"{n:,}") for model, n in facts.vibe_models.most_common()]
        + [("configurations", md(model), f"{n:,}") for model, n in facts.config_models.most_common()],
        stages=_stages(origin),
        decided=_decided(origin),
        scores=_scores(facts),
        checks=[tuple(map(md, check)) for check in checks],
        columns=[(f"`{column}`", f"`{_spell(kind)}`") for column, kind in tables[0].columns.items()],
        limits=list(_limits(facts, tables[0], origin)),
    )


def load_template(name: str, *, escape_html: bool = False) -> Template:
    """Return a template of ``templates/``. With ``escape_html`` all its values are escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("latentscore_data.core.export"),
        autoescape=escape_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(md=md, picture_name=picture_name)
    return environment.get_template(name)


def render_card(template: str, header: CardData, **values: object) -> str:
    """Return the header as YAML between dashes, and the template's Markdown."""
    return f"---\n{header.to_yaml()}\n---\n\n{load_template(template).render(values)}"


def license_header(origin: Provenance, license_id: str | None) -> JsonObject:
    """Return a card's licence: ``license_id``, else the one that all sources share, else "other" with a link."""
    if license_id and (given := license_lines(license_id)):
        return given
    names = origin.licenses()
    identifiers = {hub_license(name) for name in names}
    if len(identifiers) == 1 and (shared := identifiers.pop()):
        return {"license": shared}
    name = names[0] if len(names) == 1 else "mixed"
    return {"license": "other", "license_name": license_slug(name) or "unknown", "license_link": "ATTRIBUTION.md"}


def _config(table: Table) -> JsonObject:
    files = [{"split": split_name(split), "path": paths} for split, paths in table.files.items()]
    return {"config_name": table.name, "data_files": files, **({"default": True} if table.name == "default" else {})}


def _dataset_info(table: Table) -> JsonObject:
    splits = [{"name": split_name(s), "num_bytes": table.bytes[s], "num_examples": n} for s, n in table.rows.items()]
    return {"config_name": table.name, "features": features(table.columns), "splits": splits}


def _sources(origin: Provenance) -> list[Cells]:
    return [
        (md(name), f"{origin.texts_by_dataset[name]:,}", f"{rows:,}", md("; ".join(origin.licenses(name))))
        for name, rows in sorted(origin.rows_by_dataset.items())
    ]


_LEAKAGE_FIGURES = {
    "mean_nearest": "nearest training row to a TEST row, mean cosine",
    "highest": "nearest training row to a TEST row, highest cosine",
    "share_above_threshold": "share of TEST rows with a near-duplicate in training",
    "share_same_source": "share of TEST rows whose source is trained on",
}


def _leakage(origin: Provenance) -> tuple[Cells, list[Cells]] | None:
    """Return head and rows of the table of the splits' similarity; None if it was not measured."""
    vibes = origin.manifests.get("vibes", {})
    found = vibes.get("details", {}).get("leakage")
    if not isinstance(found, Mapping):
        return None
    by = vibes.get("settings", {}).get("splits.split_by", "source")
    columns = {f"drawn by {md(by)}": found, "if drawn by row": vibes["details"].get("leakage_if_split_by_row")}
    reports = {head: report for head, report in columns.items() if isinstance(report, Mapping)}
    rows = [
        (what, *(_figure(report[name]) if name in report else "" for report in reports.values()))
        for name, what in _LEAKAGE_FIGURES.items()
    ]
    return ("", *reports), rows


def _stages(origin: Provenance) -> list[Cells]:
    """Return the numbers and the cost of each stage, from its manifest."""
    return [
        (
            stage,
            f"{manifest.get('done', 0) + manifest.get('skipped', 0):,}",
            f"{sum(manifest.get('failed', {}).values()):,}",
            f"{manifest.get('tokens_in', 0):,}",
            f"{manifest.get('tokens_out', 0):,}",
            "unknown" if (cost := manifest.get("cost_usd")) is None else f"${cost:.2f}",
            md(manifest.get("lsdata_version", "")),
        )
        for stage, manifest in origin.manifests.items()
    ]


def _decided(origin: Provenance) -> list[Cells]:
    return [
        (stage, md(name), _code(_figure(value)))
        for stage, manifest in origin.manifests.items()
        for name, value in leaves({**manifest.get("settings", {}), **manifest.get("versions", {})})
        if value not in (None, {})
    ]


def _code(text: str) -> str:
    """Return untrusted text as code for a table."""
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`"


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scores(facts: DatasetFacts) -> list[Cells]:
    """Return n, mean, 5th percentile, median and 95th percentile of each scorer's scores."""
    return [
        _spread(scorer, of, numbers)
        for scorer in facts.candidates
        for of, numbers in (("winners", facts.winners.get(scorer, [])), ("all", facts.candidates[scorer]))
        if numbers
    ]


def picture_name(scorer: str) -> str:
    """Return the file name of a scorer's histogram. A scorer may be a path or a model's name."""
    return f"scores-{''.join(c if c.isalnum() else '-' for c in scorer)}.svg"


def draw_scores(folder: Path, facts: DatasetFacts) -> None:
    """Write a histogram of each scorer's scores (:func:`picture_name`)."""
    for scorer, scores in facts.candidates.items():
        series = {"all candidates": scores, "winners": facts.winners.get(scorer, [])}
        replace_text(folder / picture_name(scorer), histograms(f"{scorer} scores, share of each", series))


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


def _limits(facts: DatasetFacts, table: Table, origin: Provenance) -> Iterable[str]:
    total = sum(facts.rows.values())
    yield "Vibes and configurations were written by models; they have not been reviewed completely."
    yield "A configuration is the best of a few candidates, not the best possible one."
    if facts.winners:
        yield (
            f"Winners were chosen by `{md(next(iter(facts.winners)))}`, so a benchmark judged by the same scorer "
            "overstates them."
        )
    if set(facts.winners) == {"acoustic"}:
        yield (
            "The only scorer was `acoustic`, which compares measured descriptors with the words of the vibe, not its "
            "meaning with the music."
        )
    if "builtin/keywords" in facts.config_models or "builtin/keywords" in facts.vibe_models:
        yield "Some rows come from the built-in keyword model, which reads words, not meaning."
    if facts.noisy:
        yield f"{facts.noisy:,} of {total:,} rows have typing errors in `vibe_noisy`, for training; `vibe_original` is clean."
    if total > facts.with_config:
        yield f"{total - facts.with_config:,} rows have no valid configuration (`config_payload` is null)."
    if any(work.license == "unknown" for work in origin.works):
        yield "The licence of some source texts is unknown: do not redistribute these rows until it is known."
    json_columns = [name for name, kind in table.columns.items() if kind == "json"]
    if json_columns:
        yield f"Columns of mixed types are JSON text: {', '.join(f'`{name}`' for name in json_columns)}."


def map_card(name: str, kind: str, fingerprint: str, facts: MapFacts, splits: Counter[str], origin: Provenance) -> str:
    """Return the README.md of a map."""
    from huggingface_hub import DatasetCardData

    header = DatasetCardData(
        pretty_name=name,
        **license_header(origin, None),
        tags=["music", "retrieval", "latentscore"],
        configs=[{"config_name": "default", "data_files": "map.jsonl"}],
    )
    return render_card(
        "map.md.jinja",
        header,
        name=name,
        kind=kind,
        fingerprint=fingerprint,
        facts=facts,
        splits=[(md(split), f"{n:,}") for split, n in splits.items()],
    )


def chat_card(name: str, tables: Sequence[Table], origin: Provenance) -> str:
    """Return the README.md of chat files."""
    from huggingface_hub import DatasetCardData

    messages = tables[0].rows
    pairs = tables[1].rows if len(tables) > 1 else {}
    header = DatasetCardData(
        pretty_name=f"{name}: chat files",
        **license_header(origin, None),
        task_categories=["text-generation"],
        tags=["music", "latentscore", "dpo"],
        configs=[_config(table) for table in tables],
    )
    return render_card(
        "chat.md.jinja",
        header,
        name=name,
        first_split=split_name(next(iter(messages))),
        splits=[(split_name(split), f"{n:,}", f"{pairs.get(split, 0):,}") for split, n in messages.items()],
    )


@dataclass(frozen=True)
class ModelFacts:
    """The facts of an exported model for its card."""

    name: str
    chain: Sequence[str]
    """The base model and its own base models, the first ancestor last."""
    license: str | None
    model: WrittenModel
    adapter: bool
    """True for an adapter without its base."""
    record: Mapping[str, Any]
    """The content of ``run.json``; empty for a model without a run."""
    missing: Sequence[str]
    """Licences and notices that are missing."""
    answer: FormName = "json"
    """The form in which the model answers."""


def model_card(facts: ModelFacts, origin: Provenance | None) -> str:
    """Return the README.md of a model, from the record of its run."""
    from huggingface_hub import ModelCardData

    header = ModelCardData(
        base_model=facts.chain[-1] if facts.chain and is_hub_id(facts.chain[-1]) else None,
        license=facts.license or "other",
        license_name=None if facts.license else "unknown",
        library_name="peft" if facts.adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["music", "text-to-music", "latentscore", *(["gguf"] if facts.model.gguf else [])],
    )
    record = facts.record
    evaluation = record.get("evaluation")
    rivals = evaluation.get("rivals") if isinstance(evaluation, Mapping) else None
    return render_card(
        "model.md.jinja",
        header,
        facts=facts,
        recipe=record.get("kind") or "an unknown recipe",
        method=record.get("method") or "method not stated",
        from_run=bool(record),
        health=record.get("health") or [],
        field_count=len(FIELDS),
        base=" <- ".join(map(public_name, facts.chain)) or "not stated",
        exactness=_exactness(facts),
        trained=_trained(record),
        figures=[(md(name), md(_figure(value))) for name, value in leaves(record.get("metrics", {}))],
        evaluation=evaluation if rivals else None,
        rivals=[_rival(name, rival) for name, rival in (rivals or {}).items()],
        few_documents=any(rival["low"] is None for rival in (rivals or {}).values()),
        sources=_sources(origin) if origin else [],
    )


def _exactness(facts: ModelFacts) -> list[Cells]:
    rows = [("`model.safetensors` (adapter merged)", facts.model.merged)] if facts.model.merged else []
    rows += [(f"`{name}`", parity) for name, parity in facts.model.gguf.items()]
    return [
        (what, f"{p.max_abs_diff:.2g}", f"{p.relative_error:.2g}", f"{p.top1_agreement:.1%}", f"{p.kl:.2g}")
        for what, p in rows
    ]


def _trained(record: Mapping[str, Any]) -> list[Cells]:
    known = {
        "run": record.get("run_id"),
        **{name: record.get(name) for name in ("finished", "seconds")},
        **dict(leaves(record.get("spec", {}))),
        **{f"version of {name}": value for name, value in record.get("versions", {}).items() if name != "platform"},
    }
    return [(md(name), md(_figure(value))) for name, value in known.items() if value not in (None, {})]


def _rival(name: str, rival: Mapping[str, Any]) -> Cells:
    """Return a comparison of ``lsdata train --evaluate``: the other source's mean, and the model's difference to it."""
    return (
        md(name),
        f"{rival['mean']:.3f}",
        f"{rival['difference']:+.3f}",
        "–" if rival["low"] is None else f"{rival['low']:+.3f} to {rival['high']:+.3f}",
        "–" if rival["p_holm"] is None else f"{rival['p_holm']:.3f}",
        "yes" if rival["beaten"] else "no",
    )
