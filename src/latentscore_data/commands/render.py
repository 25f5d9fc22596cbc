"""lsdata render: one vibe or one config to a sound file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar, cast

import typer

from latentscore.errors import InvalidConfigError
from latentscore_data.core.base.display import OUTPUT, clean, print_json, say
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.configs.saved import SavedPiece, read_piece
from latentscore_data.core.configs.sound_files import check_format, check_places, render_files
from latentscore_data.core.llm.offline.builtin import payload_for

ValueT = TypeVar("ValueT")


def render(
    vibe: Annotated[str | None, typer.Argument(help="A text, answered by the builtin model.")] = None,
    payload: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Play what a file holds: a payload or config (JSON), a row, rows (JSONL), what configs --json writes, or a "
            "FLAC, WAV or OGG of lsdata, with its own seed, length and rate; - is stdin.",
        ),
    ] = None,
    pick: Annotated[
        int | None, typer.Option(metavar="N", help="Which config of a --payload with several, from 1.", min=1)
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write: .wav, .flac or .ogg.")
    ] = Path("vibe.flac"),
    seconds: Annotated[float | None, typer.Option(help="Length, 0.5 to 600 (default 30).")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Another seed is another piece of the same config (default 0).", min=0)
    ] = None,
    sample_rate: Annotated[int | None, typer.Option(help="Hertz, 8000 to 192000 (default 48000).")] = None,
    stems: Annotated[bool, typer.Option("--stems", help="Also one file for each layer, before the bus.")] = False,
    midi: Annotated[Path | None, typer.Option(metavar="FILE", help="Also the notes, as a MIDI file.")] = None,
) -> None:
    """Render one config to WAV or FLAC (24 bit), with the config, the seed and the renderer's version in its tags.

    Examples:

        lsdata render "rain on a tin roof" --out rain.flac
        lsdata render --payload winner.json --seconds 60 --stems --midi notes.mid
        lsdata render --payload rain.flac --sample-rate 96000 --out rain-96k.flac
    """
    if (vibe is None) == (payload is None):
        raise InputError("render needs a vibe or --payload FILE, one of them", 'lsdata render "rain on a tin roof"')
    if pick is not None and payload is None:
        raise InputError("--pick chooses from a --payload", "lsdata render --payload rows.jsonl --pick 2")
    piece = answer(vibe, seed or 0) if vibe is not None else read_piece(cast(Path, payload), pick)
    seconds = _first(seconds, piece.seconds, 30.0)
    seed = _first(seed, piece.seed, 0)
    sample_rate = _first(sample_rate, piece.sample_rate, 48_000)
    check_format(out, sample_rate)
    check_places(out, midi, stems)
    for note in piece.notes:
        say(f"render: {note}")
    try:
        written, audio = render_files(piece, out, seconds, seed, sample_rate, stems, midi)
    except InvalidConfigError as error:
        raise InputError(str(error), "lsdata render --help lists what is allowed") from error
    facts = {
        "title": piece.title, "files": [str(path) for path in written], "seconds": round(audio.seconds, 3), "seed": seed,
        "loudness_lufs": round(audio.loudness_lufs(), 2), "true_peak_dbfs": round(audio.true_peak_dbfs(), 2),
    }  # fmt: skip
    for finding in piece.config.lint():
        say(f"render: {finding.field}: {finding.reason}")
    if OUTPUT.json:
        print_json(facts)
        return
    say(f"render: {piece.title}, {audio.seconds:.1f} s, {facts['loudness_lufs']} LUFS")
    for path in written:
        typer.echo(clean(path))


def _first(typed: ValueT | None, kept: ValueT | None, default: ValueT) -> ValueT:
    """What was typed, else what the file says, else the default."""
    return next(value for value in (typed, kept, default) if value is not None)


def answer(vibe: str, seed: int) -> SavedPiece:
    """The builtin model's title and config for a vibe."""
    if not vibe.strip():
        raise InputError("the vibe is empty", 'lsdata render "rain on a tin roof"')
    answered = payload_for(vibe, temperature=0.0, seed=seed, sample_idx=0)
    return SavedPiece(answered.config, answered.title, vibe)
