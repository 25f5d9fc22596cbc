"""Display of winners and answers: tables, palettes and playback."""

from __future__ import annotations

from collections.abc import Iterable

import latentscore
from latentscore.errors import AudioError
from latentscore.json_search import JsonObject
from latentscore_data.core.base.display import (
    OUTPUT,
    console,
    fields_in_lines,
    palette_blocks,
    print_json,
    print_rows,
    say,
    shorten,
    styled,
)
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.scoring.registry import kind_of


def play_answers(summary: Summary, settings: Settings) -> None:
    """Play the winners at their scored length. Raises :class:`MissingError` without the extra or an audio device."""
    for answer in summary.details["answers"]:
        if answer["config_payload"] is not None:
            try:
                latentscore.render(answer["config_payload"], settings.scoring.seconds, settings.scoring.seed).play()
            except AudioError as error:
                raise MissingError(f"--play: {error}", "--audio DIR writes the sound instead") from error


def show_winners(summary: Summary) -> None:
    """Print a table of the first winners: vibe, title, number of the winner, its score, and its first palette."""
    found: list[JsonObject] = summary.details.get("winners", [])
    if OUTPUT.json or not found:
        return
    rows = [
        (
            shorten(winner["vibe"], 40),
            shorten(winner["title"], 30),
            f"{winner['best_index'] + 1} of {winner['candidates']}",
            f"{winner['score']:.3f}",
            palette_blocks(winner["palette"]),
        )
        for winner in found
    ]
    print_rows(("vibe", "title", "won", "score", "palette"), rows)
    _say_usual(summary.details.get("scorers", [])[:1])


def show_answers(summary: Summary, settings: Settings, *, play: bool) -> None:
    """Play the winners if ``play``, then print them with palettes and fields, or as one JSON document."""
    if play:
        play_answers(summary, settings)
    if OUTPUT.json:
        print_json(summary.to_dict())
        return
    from rich.padding import Padding

    out = console()
    for answer in summary.details["answers"]:
        out.print(styled(answer["vibe"], "bold"))
        payload = answer["config_payload"]
        if payload is None:
            out.print(Padding(styled(answer["failure"], "red"), (0, 0, 1, 2)))
            continue
        origins = answer.get("candidate_origins")
        origin = f" ({origins[answer['best_index']]})" if origins else ""
        won = f"{answer['best_index'] + 1} of {len(answer['scores'])}{origin}, {answer['scorer']} {answer['score']:.3f}"
        out.print(Padding(styled(payload["title"], "italic").append(f"   {won}"), (0, 2)))
        if payload.get("thinking"):
            out.print(Padding(styled(payload["thinking"]), (0, 2)))
        if answer.get("note"):
            out.print(Padding(styled(answer["note"], "yellow"), (0, 2)))
        for palette in payload["palettes"]:
            out.print(Padding(palette_blocks(palette), (0, 2)))
        out.print(Padding(styled(fields_in_lines(payload["config"], 4), "dim"), (0, 2)))
        if answer.get("audio_file"):
            out.print(styled(f"  {answer['audio_file']}"), soft_wrap=True)
        out.print()
    _say_usual(answer["scorer"] for answer in summary.details["answers"] if answer["config_payload"] is not None)
    if not any(answer.get("audio_file") for answer in summary.details["answers"]):
        say("configs: --audio DIR writes the winner's sound, --play plays it, --seconds sets its length")


def _say_usual(scorers: Iterable[str]) -> None:
    """Print the usual range of each scorer's scores."""
    for name in dict.fromkeys(scorers):
        if usual := kind_of(name).usual:
            say(f"configs: {name}: {usual}")
