"""lsdata render: one vibe or one config to a sound file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer

from latentscore import Answer, Audio
from latentscore.errors import InvalidConfigError
from latentscore_data.commands._options import ModelOption, YesOption, calls_models, load
from latentscore_data.core.base.display import OUTPUT, clean, print_json, say
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.configs.saved import SavedPiece, read_piece
from latentscore_data.core.configs.sound_files import check_format, check_places, play_sound, render_files
from latentscore_data.core.stages.render import answer_text
from latentscore_data.core.stages.spending import trust_key_to

ValueT = TypeVar("ValueT")

RENDERS = 64
"""Configs that --search renders where search.renders is not set."""


@calls_models
def render(
    vibe: Annotated[str | None, typer.Argument(help="A text, answered as lsdata configs answers it.")] = None,
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
    map_path: Annotated[
        str | None, typer.Option("--map", metavar="DIR", help="Answer with the nearest row of an exported map.")
    ] = None,
    model: ModelOption = None,
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
    search: Annotated[
        bool, typer.Option("--search", help="With VIBE: search for a better config than the first answer.")
    ] = False,
    play: Annotated[bool, typer.Option("--play", help="Also play it (needs the extra play).")] = False,
    yes: YesOption = False,
    *,
    calls: dict[str, Any],
) -> None:
    """Render one text or config to WAV or FLAC (24 bit), with the config, the seed and the renderer's version in its tags.

    Examples:

        lsdata render "rain on a tin roof" --out rain.flac
        lsdata render "rain on a tin roof" --search
        lsdata render --payload winner.json --seconds 60 --stems --midi notes.mid
        lsdata render --payload rain.flac --sample-rate 96000 --out rain-96k.flac
        lsdata render "rain on a tin roof" --map .exports/map-text
    """
    _check_flags(vibe, payload, pick, map_path, model, search=search)
    check_places(out, midi, stems)
    found = _answer(vibe, model, map_path, calls, search=search, yes=yes) if vibe is not None else None
    piece = SavedPiece(found.config, found.title, vibe) if found else read_piece(cast(Path, payload), pick)
    seconds = _first(seconds, piece.seconds, 30.0)
    seed = _first(seed, piece.seed, 0)
    sample_rate = _first(sample_rate, piece.sample_rate, 48_000)
    check_format(out, sample_rate)
    try:
        written, audio = render_files(piece, out, seconds, seed, sample_rate, stems, midi)
    except InvalidConfigError as error:
        raise InputError(str(error), "lsdata render --help lists what is allowed") from error
    _show_files(written, audio, piece, found, seed)
    if play:
        play_sound(audio, out)


def _check_flags(
    vibe: str | None, payload: Path | None, pick: int | None, map_path: str | None, model: str | None, *, search: bool
) -> None:
    """Raise :class:`InputError` for flags that do not go together."""
    if (vibe is None) == (payload is None):
        raise InputError("render needs a vibe or --payload FILE, one of them", 'lsdata render "rain on a tin roof"')
    if pick is not None and payload is None:
        raise InputError("--pick chooses from a --payload", "lsdata render --payload rows.jsonl --pick 2")
    if map_path is not None and (vibe is None or model is not None):
        raise InputError("--map answers a vibe, instead of a model", 'lsdata render "rain" --map .exports/map-text')
    if search and (vibe is None or map_path is not None):
        raise InputError("--search goes with a vibe and without --map", 'lsdata render "rain on a tin roof" --search')


def _show(piece: SavedPiece, found: Answer | None) -> None:
    """Say what was read from a text or file, the config, and what in it has no audible effect."""
    for note in piece.notes:
        say(f"render: {note}")
    if found is not None:
        say(f"render: {found.answered_by} read: {found.reasons}")
        say("render: " + "  ".join(f"{name} {str(word).lower()}" for name, word in piece.config.model_dump().items()))
    for finding in piece.config.lint():
        say(f"render: {finding.field}: {finding.reason}")


def _show_files(written: list[Path], audio: Audio, piece: SavedPiece, found: Answer | None, seed: int) -> None:
    """What was read, what was written, and how loud it is."""
    _show(piece, found)
    loudness = round(audio.loudness_lufs(), 2)
    if OUTPUT.json:
        facts = {
            "title": piece.title, "files": [str(path) for path in written], "seconds": round(audio.seconds, 3),
            "seed": seed, "loudness_lufs": loudness, "true_peak_dbfs": round(audio.true_peak_dbfs(), 2),
        }  # fmt: skip
        if found is not None:
            facts |= {"answered_by": found.answered_by, "reasons": found.reasons, "config": found.config.model_dump()}
        print_json(facts)
        return
    say(f"render: {piece.title}, {audio.seconds:.1f} s, {loudness} LUFS")
    for path in written:
        typer.echo(clean(path))


def _answer(
    vibe: str, model: str | None, map_path: str | None, calls: dict[str, Any], *, search: bool, yes: bool
) -> Answer:
    settings = load(configs=chosen(model=model), llm=calls)
    if search and settings.search.renders is None:
        settings = load(configs=chosen(model=model), llm=calls, search={"renders": RENDERS})
    trust_key_to(settings.llm, calls.get("api_key_env"))
    return answer_text(vibe, settings, Workspace(settings.paths.root), map_path=map_path, yes=yes)


def _first(typed: ValueT | None, kept: ValueT | None, default: ValueT) -> ValueT:
    """What was typed, else what the file says, else the default."""
    return next(value for value in (typed, kept, default) if value is not None)
