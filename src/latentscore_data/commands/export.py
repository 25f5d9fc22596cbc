"""lsdata export: hand over what was made, in forms that other software loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentscore_data.commands._options import load, show
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.stages.export import export_and_push

app = typer.Typer(
    help="Hand over models, maps, data sets, chat files and a report.", no_args_is_help=True, add_completion=False
)

OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where to write (default: below .exports/ of the data root)."),
]
ReplaceOption = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier export wrote there.")]
PushOption = Annotated[
    str | None,
    typer.Option(
        "--push", metavar="OWNER/NAME", help="Then upload it to the hub; without --overwrite, what was exported before."
    ),
]
PublicOption = Annotated[bool, typer.Option("--public", help="With --push: a public repository, not a private one.")]
SplitOption = Annotated[
    list[str] | None, typer.Option("--split", help="Take only this split. Repeatable.", metavar="SPLIT")
]
MarksOption = Annotated[
    bool, typer.Option("--marks", help="Preference pairs: the studio's answers stand before scores.")
]


@app.command("model")
def export_model(
    source: Annotated[
        str | None,
        typer.Argument(metavar="RUN|PATH", help="A run, or a folder with an adapter or a model (default: newest run)."),
    ] = None,
    gguf: Annotated[
        list[str] | None,
        typer.Option(
            help="Also write GGUF: q8_0, q5_0, q4_0, f16 or bf16, or q4_k_m and its like with llama-quantize. Repeatable."
        ),
    ] = None,
    adapter_only: Annotated[
        bool | None, typer.Option("--adapter-only", help="The adapter as it is, without merging it into its base.")
    ] = None,
    terms: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text of the base model's licence, shipped with the model.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A GGUF of the base model to copy the tokenizer's keys from.")
    ] = None,
    out: OutOption = None,
    overwrite: ReplaceOption = False,
    push: PushOption = None,
    public: PublicOption = False,
) -> None:
    """Merge an adapter into its base, prove that nothing changed, and write safetensors, GGUF files and a card.

    Example:

        lsdata export model my-run --gguf q8_0
    """
    settings = load(export=chosen(model=source, gguf=gguf, adapter_only=adapter_only, terms=terms, tokenizer=tokenizer))
    show(export_and_push("model", settings, out, overwrite, push, public))


@app.command("map")
def export_map(
    kind: Annotated[str | None, typer.Option(help="Search by the vibe's text or by the winner's audio.")] = None,
    embedder: Annotated[
        str | None, typer.Option(help="auto, minilm, words, or a sentence-transformers id or folder.")
    ] = None,
    split: SplitOption = None,
    out: OutOption = None,
    overwrite: ReplaceOption = False,
    push: PushOption = None,
    public: PublicOption = False,
) -> None:
    """Write vibes, embeddings and configs as a map that finds the config nearest to a text.

    Example:

        lsdata export map --kind text --embedder minilm
    """
    settings = load(export=chosen(map_kind=kind, embedder=embedder, splits=split))
    show(export_and_push("map", settings, out, overwrite, push, public))


@app.command("dataset")
def export_dataset(
    license: Annotated[str | None, typer.Option(help="Licence of the rows, as the hub spells it.")] = None,
    name: Annotated[str | None, typer.Option(help="Title of the card.")] = None,
    leave_out_bad: Annotated[
        bool, typer.Option("--leave-out-bad", help="Without the rows that are marked bad in the studio.")
    ] = False,
    marks: MarksOption = False,
    audio: Annotated[bool | None, typer.Option("--audio", help="Add the winners' sounds as a column of FLAC.")] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Leave out rows with this tag (lsdata check lists them). Repeatable."),
    ] = None,
    split: SplitOption = None,
    out: OutOption = None,
    overwrite: ReplaceOption = False,
    push: PushOption = None,
    public: PublicOption = False,
) -> None:
    """Write the scored rows as a folder that datasets.load_dataset reads, with a card and the sources' notices.

    Example:

        lsdata export dataset --license cc-by-4.0
    """
    settings = load(
        export=chosen(
            license=license,
            splits=split,
            name=name,
            audio=audio,
            exclude=exclude,
            leave_out_bad=leave_out_bad or None,
            marks=marks or None,
        )
    )
    show(export_and_push("dataset", settings, out, overwrite, push, public))


@app.command("chat")
def export_chat(
    split: SplitOption = None,
    marks: MarksOption = False,
    out: OutOption = None,
    overwrite: ReplaceOption = False,
    push: PushOption = None,
    public: PublicOption = False,
) -> None:
    """Write messages and preference pairs as JSON lines for other trainers.

    Example:

        lsdata export chat --split SFT-Train --split SFT-Val
    """
    settings = load(export=chosen(splits=split, marks=marks or None))
    show(export_and_push("chat", settings, out, overwrite, push, public))


@app.command("report")
def export_report(out: OutOption = None, overwrite: ReplaceOption = False) -> None:
    """Write one page over the whole workspace: what was made from what, counts, money, and rows to listen to.

    Example:

        lsdata export report --out report/
    """
    settings = load()
    show(export_and_push("report", settings, out, overwrite, None, False))
