"""lsdata render: render a vibe, a config, or a mix of several vibes to a sound file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar, cast

import typer

from latentscore import Answer
from latentscore_data.commands._models import load_to_ask
from latentscore_data.commands._options import ModelOption, YesOption, calls_models
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.layers import Values
from latentscore_data.core.base.settings import Settings, chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.configs.saved import SavedPiece, read_piece
from latentscore_data.core.configs.sound_files import (
    check_format,
    check_mix,
    check_numbers,
    check_places,
    mix_files,
    play_sound,
    render_files,
    report_files,
)
from latentscore_data.core.stages.render import answer_texts

ValueT = TypeVar("ValueT")

RENDERS = 64
"""Number of configs that --search renders if search.renders is not set."""

PayloadOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Render a file: a payload or config (JSON), a row, rows (JSONL), the output of configs --json, or a FLAC, "
        "WAV or OGG of lsdata, with its seed, length, rate and loop; - is stdin.",
    ),
]
PickOption = Annotated[
    int | None, typer.Option(metavar="N", help="Number of the config, from 1, if --payload has several.", min=1)
]
MapOption = Annotated[str | None, typer.Option("--map", metavar="DIR", help="Use the nearest row of an exported map.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Sound file: .wav, .flac or .ogg.")]


@calls_models
def render(
    vibes: Annotated[
        list[str] | None,
        typer.Argument(metavar="VIBE...", help="A text, answered as by lsdata configs; several texts become one mix."),
    ] = None,
    payload: PayloadOption = None,
    pick: PickOption = None,
    map_path: MapOption = None,
    model: ModelOption = None,
    out: OutOption = Path("vibe.flac"),
    seconds: Annotated[float | None, typer.Option(help="Length, 0.5 to 600 (default 30 per vibe).")] = None,
    crossfade: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Cross-fade between several vibes (default 5).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed: another seed gives another piece (default 0).", min=0)] = None,
    sample_rate: Annotated[int | None, typer.Option(help="Hertz, 8000 to 192000 (default 48000).")] = None,
    stems: Annotated[bool, typer.Option("--stems", help="Also write one file per layer.")] = False,
    midi: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the notes as a MIDI file.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Render whole bars that repeat without a seam.")] = False,
    search: Annotated[
        bool, typer.Option("--search", help="With VIBE: search for a better config than the first answer.")
    ] = False,
    play: Annotated[bool, typer.Option("--play", help="Also play the sound (needs the extra play).")] = False,
    yes: YesOption = False,
    *,
    calls: Values,
) -> None:
    """Render a text or config to WAV, FLAC or OGG, with config, seed and renderer version in the tags.

    Examples:

        lsdata render "rain on a tin roof" --out rain.flac
        lsdata render "rain on a tin roof" --search
        lsdata render --payload winner.json --seconds 60 --stems --midi notes.mid
        lsdata render --payload rain.flac --sample-rate 96000 --out rain-96k.flac
        lsdata render "rain on a tin roof" --loop --seconds 16 --out loop.wav
        lsdata render "rain on a tin roof" --map .exports/map-text
        lsdata render "grey dawn" "market street" "fog" --crossfade 4 --seconds 120 --out mix.flac
    """
    _check_flags(
        vibes or [], payload, pick, map_path, model, search=search, of_one=bool(search or stems or midi or loop)
    )
    check_mix(len(vibes or ()), seconds, crossfade)
    check_places(out, midi, stems)
    saved = None if vibes else read_piece(cast(Path, payload), pick)
    loop = loop or (saved is not None and saved.loop)
    if loop and (stems or midi is not None):
        raise InputError("a loop has no stems and no MIDI file", "leave out --stems and --midi, or render no loop")
    count = max(len(vibes or ()), 1)
    seconds = _first(seconds, saved and saved.seconds, 30.0 * count)
    seed = _first(seed, saved and saved.seed, 0)
    sample_rate = _first(sample_rate, saved and saved.sample_rate, 48_000)
    check_format(out, sample_rate)
    check_numbers(seconds if saved else seconds / count, seed, sample_rate)
    # A model is called only after all checks.
    answers = _answers(vibes, model, map_path, calls, search=search, yes=yes) if vibes else []
    pieces = [saved] if saved else [SavedPiece(answer.config, answer.title, answer.text) for answer in answers]
    if len(pieces) > 1:
        written, audio = mix_files(answers, out, seconds, crossfade, seed, sample_rate)
    else:
        written, audio = render_files(pieces[0], out, seconds, seed, sample_rate, stems, loop, midi)
    report_files(audio, pieces, written, seed, answers)
    if play:
        play_sound(audio, out)


def _check_flags(
    vibes: list[str],
    payload: Path | None,
    pick: int | None,
    map_path: str | None,
    model: str | None,
    *,
    search: bool,
    of_one: bool,
) -> None:
    """Raise :class:`InputError` for flags that cannot be combined."""
    vibe = vibes[0] if vibes else None
    if len(vibes) > 1 and (payload is not None or of_one):
        raise InputError(
            "--payload, --search, --stems, --midi and --loop need one vibe", 'lsdata render "rain" --stems'
        )
    if (vibe is None) == (payload is None):
        raise InputError("render needs either a vibe or --payload FILE", 'lsdata render "rain on a tin roof"')
    if pick is not None and payload is None:
        raise InputError("--pick needs --payload", "lsdata render --payload rows.jsonl --pick 2")
    if map_path is not None and (vibe is None or model is not None):
        raise InputError("--map needs a vibe and replaces --model", 'lsdata render "rain" --map .exports/map-text')
    if search and (vibe is None or map_path is not None):
        raise InputError("--search needs a vibe and no --map", 'lsdata render "rain on a tin roof" --search')


def _answers(
    vibes: list[str], model: str | None, map_path: str | None, calls: Values, *, search: bool, yes: bool
) -> list[Answer]:
    def asked(settings: Settings) -> list[str]:
        return [] if map_path is not None else [settings.model_of("configs")]

    settings = load_to_ask(calls, asked, configs=chosen(model=model))
    if search and settings.search.renders is None:
        settings = load_to_ask(calls, asked, configs=chosen(model=model), search={"renders": RENDERS})
    return answer_texts(vibes, settings, Workspace(settings.paths.root), map_path=map_path, yes=yes)


def _first(typed: ValueT | None, kept: ValueT | None, default: ValueT) -> ValueT:
    """The value of the flag, else that of the file, else the default."""
    return next(value for value in (typed, kept, default) if value is not None)
