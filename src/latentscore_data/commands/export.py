"""lsdata export: write models, maps, data sets, chat files and a report in formats that other software loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentscore_data.commands._options import load, sets_settings, setting_option, show, with_flags
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.stages.export import export_and_push

app = typer.Typer(
    help="Write models, maps, data sets, chat files and a report for other software.",
    no_args_is_help=True,
    add_completion=False,
)

WRITE_OPTIONS = {
    "out": Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Output folder (default: under .exports/ of the data root)."),
    ],
    "overwrite": Annotated[bool | None, typer.Option("--overwrite", help="Replace an earlier export there.")],
}
PUSH_OPTIONS = {
    "push": Annotated[
        str | None,
        typer.Option(
            "--push",
            metavar="OWNER/NAME",
            help="Then upload it to the hub; without --overwrite, an existing export.",
        ),
    ],
    "public": Annotated[
        bool | None, typer.Option("--public", help="With --push: to a public repository instead of a private one.")
    ],
}
writes = with_flags("target", WRITE_OPTIONS)
writes_and_pushes = with_flags("target", WRITE_OPTIONS | PUSH_OPTIONS)
"""Where an export goes: the flags that were given become ``target``."""

SPLIT = setting_option("export.splits", "--split", help="Take only this split. Repeatable.", metavar="SPLIT")
MARKS = setting_option("export.marks", "--marks", help="Preference pairs: use the studio's answers before scores.")
MODEL = {
    "export.gguf": setting_option(
        "export.gguf",
        help="Also write GGUF: q8_0, q5_0, q4_0, f16, bf16; with llama-quantize also K-quants (q4_k_m, ...). Repeatable.",
    ),
    "export.adapter_only": setting_option("export.adapter_only", "--adapter-only"),
    "export.terms": setting_option("export.terms", metavar="FILE"),
    "export.tokenizer": setting_option("export.tokenizer", metavar="FILE"),
}
MAP = {
    "export.map_kind": setting_option("export.map_kind", "--kind"),
    "export.embedder": setting_option("export.embedder"),
    "export.splits": SPLIT,
}
DATASET = {
    "export.license": setting_option("export.license"),
    "export.name": setting_option("export.name"),
    "export.leave_out_bad": setting_option("export.leave_out_bad", "--leave-out-bad"),
    "export.marks": MARKS,
    "export.audio": setting_option("export.audio", "--audio", help="Add the winners' sounds as a column of FLAC."),
    "export.exclude": setting_option(
        "export.exclude",
        metavar="TAG",
        help="Leave out rows with this tag (lsdata check lists them). Repeatable.",
    ),
    "export.splits": SPLIT,
}


@app.command("model")
@writes_and_pushes
@sets_settings(MODEL)
def export_model(
    source: Annotated[
        str | None,
        typer.Argument(metavar="RUN|PATH", help="A run, or a folder with an adapter or a model (default: newest run)."),
    ] = None,
    *,
    given: Values,
    target: Values,
) -> None:
    """Merge an adapter into its base, verify the result, and write safetensors, GGUF files and a card.

    Example:

        lsdata export model my-run --gguf q8_0
    """
    settings = load(export=given.get("export", {}) | chosen(model=source))
    show(export_and_push("model", settings, **target))


@app.command("map")
@writes_and_pushes
@sets_settings(MAP)
def export_map(*, given: Values, target: Values) -> None:
    """Write vibes, embeddings and configs as a map for looking up the config nearest to a text.

    Example:

        lsdata export map --kind text --embedder minilm
    """
    show(export_and_push("map", load(**given), **target))


@app.command("dataset")
@writes_and_pushes
@sets_settings(DATASET)
def export_dataset(*, given: Values, target: Values) -> None:
    """Write the scored rows as a folder that datasets.load_dataset reads, with a card and the sources' notices.

    Example:

        lsdata export dataset --license cc-by-4.0
    """
    show(export_and_push("dataset", load(**given), **target))


@app.command("chat")
@writes_and_pushes
@sets_settings({"export.splits": SPLIT, "export.marks": MARKS})
def export_chat(*, given: Values, target: Values) -> None:
    """Write messages and preference pairs as JSON lines for other trainers.

    Example:

        lsdata export chat --split SFT-Train --split SFT-Val
    """
    show(export_and_push("chat", load(**given), **target))


@app.command("report")
@writes
def export_report(*, target: Values) -> None:
    """Write one page about the whole workspace: stages, counts, costs, and rows with players.

    Example:

        lsdata export report --out report/
    """
    show(export_and_push("report", load(), **target))
