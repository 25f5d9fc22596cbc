"""lsdata render: one vibe or one config to a sound file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentscore import Answer
from latentscore.errors import AudioError, InvalidConfigError
from latentscore_data.commands._options import ModelOption, YesOption, calls_models, load
from latentscore_data.core.base.display import OUTPUT, clean, print_json, say
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.settings import chosen
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages.render import RenderFiles, answer_text, check_places, read_answer, render_files
from latentscore_data.core.stages.spending import trust_key_to


@calls_models
def render(
    vibe: Annotated[str | None, typer.Argument(help="A text, answered as lsdata configs answers it.")] = None,
    payload: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON of a payload or a config, in words or numbers; - is stdin."),
    ] = None,
    map_path: Annotated[
        str | None, typer.Option("--map", metavar="DIR", help="Answer with the nearest row of an exported map.")
    ] = None,
    model: ModelOption = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write: .wav, .flac or .ogg.")
    ] = Path("vibe.flac"),
    seconds: Annotated[float, typer.Option(help="Length, 0.5 to 600.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Another seed is another piece of the same config.", min=0)] = 0,
    sample_rate: Annotated[int, typer.Option(help="Hertz, 8000 to 192000.")] = 48_000,
    stems: Annotated[bool, typer.Option("--stems", help="Also one file for each layer, before the bus.")] = False,
    midi: Annotated[Path | None, typer.Option(metavar="FILE", help="Also the notes, as a MIDI file.")] = None,
    play: Annotated[bool, typer.Option("--play", help="Also play it (needs the extra play).")] = False,
    yes: YesOption = False,
    *,
    calls: dict[str, Any],
) -> None:
    """Render one text or config to WAV or FLAC (24 bit), with the config, the seed and the renderer's version in its tags.

    Examples:

        lsdata render "rain on a tin roof" --out rain.flac
        lsdata render --payload winner.json --seconds 60 --stems --midi notes.mid
        lsdata render "rain on a tin roof" --map .exports/map-text
    """
    if (vibe is None) == (payload is None):
        raise InputError("render needs a vibe or --payload FILE, one of them", 'lsdata render "rain on a tin roof"')
    if map_path is not None and (vibe is None or model is not None):
        raise InputError("--map answers a vibe, instead of a model", 'lsdata render "rain" --map .exports/map-text')
    wanted = RenderFiles(out, midi, seconds, seed, sample_rate, stems)
    if vibe is not None:
        settings = load(configs=chosen(model=model), llm=calls)
        trust_key_to(settings.llm, calls.get("api_key_env"))
        check_places(wanted)
        answer = answer_text(vibe, settings, Workspace(settings.paths.root), map_path=map_path, yes=yes)
    else:
        answer = read_answer(payload)  # type: ignore[arg-type]
        check_places(wanted)
    try:
        written, audio = render_files(answer, wanted)
    except InvalidConfigError as error:
        raise InputError(str(error), "lsdata render --help lists what is allowed") from error
    facts = {
        "title": answer.title, "files": [str(path) for path in written], "seconds": round(audio.seconds, 3), "seed": seed,
        "loudness_lufs": round(audio.loudness_lufs(), 2), "true_peak_dbfs": round(audio.true_peak_dbfs(), 2),
        "answered_by": answer.answered_by, "reasons": answer.reasons, "config": answer.config.model_dump(),
    }  # fmt: skip
    show_answer(answer)
    if OUTPUT.json:
        print_json(facts)
    else:
        say(f"render: {answer.title}, {audio.seconds:.1f} s, {facts['loudness_lufs']} LUFS")
        for path in written:
            typer.echo(clean(path))
    if play:
        try:
            audio.play()
        except AudioError as error:
            raise MissingError(f"--play: {error}", f"the sound is in {out}") from error


def show_answer(answer: Answer) -> None:
    """Say what was read from a text, the config, and what in it will not be heard."""
    if answer.text is not None:
        say(f"render: {answer.answered_by} read: {answer.reasons}")
        say("render: " + "  ".join(f"{name} {str(word).lower()}" for name, word in answer.config.model_dump().items()))
    for finding in answer.config.lint():
        say(f"render: {finding.field}: {finding.reason}")
