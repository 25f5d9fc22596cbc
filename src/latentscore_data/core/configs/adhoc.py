"""Vibes typed by a person: N answers, heard, and the best one handed back. No rows are written."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any

from latentscore import Audio, AudioError, write_audio
from latentscore_data.core.base.errors import LsdataError, OutputError
from latentscore_data.core.base.loop import RowFailure
from latentscore_data.core.base.progress import Progress
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.seeds import digest
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.configs.candidate_generation import ask_for_candidates, questions
from latentscore_data.core.llm.types import LLM
from latentscore_data.core.scoring.acoustic import nothing_asked
from latentscore_data.core.scoring.best_of import Choice, choose
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorers, total_usage
from latentscore_data.core.scoring.service import ScoringService

Candidates = tuple[list[dict[str, Any] | None], list[str]]


def answer_typed(
    rows: list[VibeRow],
    llm: LLM,
    settings: Settings,
    workspace: Workspace,
    *,
    audio: Path | None = None,
    trusted: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> Summary:
    """The winners in ``details["answers"]``, in the order of the rows; with ``audio``, their sound in that folder.

    What models answer, candidates and judgements, goes through the workspace's cache and ledger. What was heard is kept
    where a workspace is there already; a folder is not made one for that.
    """
    started = time.monotonic()
    progress = progress or Progress()
    summary = Summary("configs", details={"model": llm.model, "answers": []})
    if audio is not None:
        _make_folder(audio)
    with ScoreCache(workspace.score_cache if workspace.root.is_dir() else None) as cache:
        needs = ScorerDeps(settings.scoring, settings.llm, cache, trusted, workspace.llm_cache, workspace.ledger)
        # What is missing for listening is found out before anything is asked.
        scorers = make_scorers(needs)
        candidates = asyncio.run(_ask_all(rows, llm, settings))
        progress.start("configs", len(rows))
        with ScoringService(scorers, settings.scoring, cache) as service:
            for row, answer in zip(rows, candidates, strict=True):
                summary.details["answers"].append(_best(row, answer, service, audio, summary))
                bill = total_usage(scorers)
                bill.add(llm.usage)
                summary.count(bill)
                summary.seconds = time.monotonic() - started
                progress.update(summary, 0)
    progress.finish(summary)
    return summary


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or error
        raise OutputError(f"--audio {folder} is no folder for sound ({reason})", "name another folder") from None


async def _ask_all(rows: list[VibeRow], llm: LLM, settings: Settings) -> list[Candidates | RowFailure]:
    async def ask(row: VibeRow) -> Candidates | RowFailure:
        try:
            return await ask_for_candidates(questions(row, settings.configs), llm)
        except RowFailure as failure:
            return failure

    try:
        return await asyncio.gather(*(ask(row) for row in rows))
    except LsdataError:
        llm.drain()
        raise
    finally:
        await llm.aclose()


def _best(
    row: VibeRow, answer: Candidates | RowFailure, service: ScoringService, audio: Path | None, summary: Summary
) -> dict[str, Any]:
    vibe = row.vibe_original
    nothing = {"vibe": vibe, "config_payload": None, "best_index": None}
    if isinstance(answer, RowFailure):
        summary.failed[answer.kind] += 1
        return {**nothing, "failure": f"{answer.kind}: {answer.message}"}
    payloads, errors = answer
    choice = choose(service, vibe, payloads, want_audio=audio is not None)
    best = choice.best_index
    if best is None:
        summary.failed["score"] += 1
        reasons = sorted(set(choice.reasons(choice.scorer).values()))
        return {**nothing, "failure": f"no candidate could be scored ({'; '.join(reasons)})"}
    summary.done += 1
    summary.short += any(payload is None for payload in payloads)
    scores = choice.scores(choice.scorer)
    found: dict[str, Any] = {
        "vibe": vibe,
        "config_payload": payloads[best],
        "best_index": best,
        "scorer": choice.scorer,
        "score": scores[best],
        "scores": scores,
        "errors": errors,
    }
    if (note := _undecided(vibe, choice)) is not None:
        found["note"] = note
    winner = choice.scored_renders[best]
    if audio is not None and winner is not None and winner.audio is not None:
        found["audio_file"] = str(_write(winner.audio, audio, vibe, (payloads[best] or {}).get("title", vibe)))
    return found


def _undecided(vibe: str, choice: Choice) -> str | None:
    """What to know where the deciding scorer had nothing to go by."""
    return nothing_asked(vibe) if choice.scorer == "acoustic" else None


def _write(sound: Audio, folder: Path, vibe: str, title: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", vibe.lower()).strip("-")[:48] or "vibe"
    path = folder / f"{slug}-{digest(vibe)[:6]}.flac"
    _make_folder(folder)
    try:
        write_audio(path, sound, {"title": title, "vibe": vibe})
    except AudioError as error:
        raise OutputError(str(error), "choose another folder with --audio") from None
    return path
