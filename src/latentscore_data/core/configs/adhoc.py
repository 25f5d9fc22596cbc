"""Answers for vibes typed on the command line: N candidates, scored, and the winner. Writes no rows."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentscore import Audio, AudioError
from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.errors import LsdataError, OutputError
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.loop import RowFailure
from latentscore_data.core.base.payloads import Payload
from latentscore_data.core.base.rows import ConfigRow, VibeRow
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.summary import Progress, Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.configs.candidate_generation import ask_for_candidates, questions
from latentscore_data.core.configs.sound_files import check_place
from latentscore_data.core.llm.types import LLM
from latentscore_data.core.scoring.acoustic import nothing_asked
from latentscore_data.core.scoring.best_of import Choice, Improver, choose
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorers, total_usage
from latentscore_data.core.scoring.renderer import LocalRenderer
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.search.report import run_of
from latentscore_data.core.search.rows import improver_for

Candidates = tuple[list[Payload | None], list[str]]


def answer_typed(
    rows: list[VibeRow],
    llm: LLM,
    settings: Settings,
    workspace: Workspace,
    *,
    audio: Path | None,
    trusted: frozenset[str],
    progress: Progress,
    spend: SpendTracker | None,
) -> Summary:
    """Return a summary with the winners in ``details["answers"]``, one per row; write their sounds to ``audio``.

    Answers of models are in the workspace's cache and ledger. Scores are cached only if the workspace's folder exists.
    Raises :class:`OutputError` if ``audio`` cannot be written, and errors of models and scorers that concern all rows.
    """
    started = time.monotonic()
    summary = Summary("configs", details={"model": llm.model, "answers": []})
    if audio is not None:
        with _writing(audio):
            check_place(audio / "sound.flac")
    with ScoreCache(workspace.score_cache if workspace.root.is_dir() else None) as cache:
        # Before the first question, to find missing dependencies of scorers.
        scorers = make_scorers(ScorerDeps.of_run(settings, workspace, cache, trusted, spend))
        candidates = asyncio.run(_ask_all(rows, llm, settings))
        progress.start("configs", len(rows))
        improve = improver_for(settings)
        with (
            ScoringService(scorers, settings.scoring, cache) as service,
            improve(service, cache, LocalRenderer) if improve is not None else nullcontext() as improver,
        ):
            scored: list[_Scored | RowFailure] = []
            for row, answer in zip(rows, candidates, strict=True):
                scored.append(_score(row, answer, service, improver, want_audio=audio is not None))
                bill = total_usage(scorers)
                bill.add(llm.usage)
                summary.count(bill)
                summary.done = len(scored)
                summary.seconds = time.monotonic() - started
                progress.update(summary, 0)
            summary.done = 0
            if improver is not None:
                _settle(scored, settings.search.judge, summary)
            for row, one in zip(rows, scored, strict=True):
                summary.details["answers"].append(_answer(row.vibe_original, one, service, audio, summary))
    progress.finish(summary)
    return summary


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Convert errors while writing sounds to a folder to :class:`OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"--audio {folder} cannot hold sound files ({error.strerror})", "name another folder"
        ) from None
    except AudioError as error:
        raise OutputError(str(error), "choose another folder with --audio") from None


async def _ask_all(rows: list[VibeRow], llm: LLM, settings: Settings) -> list[Candidates | RowFailure]:
    async def ask(row: VibeRow) -> Candidates | RowFailure:
        try:
            return await ask_for_candidates(questions(row, settings.configs, settings.prompts), llm)
        except RowFailure as failure:
            return failure

    try:
        return await asyncio.gather(*(ask(row) for row in rows))
    except LsdataError:
        llm.drain()
        raise
    finally:
        await llm.aclose()


@dataclass
class _Scored:
    """The candidates of a vibe, their scores, and the index of the winner."""

    payloads: list[Payload | None]
    errors: list[str]
    choice: Choice
    best: int | None
    columns: Mapping[str, Any] = field(default_factory=lambda: {})
    """The columns that a search adds to a row."""


def _score(
    row: VibeRow,
    answer: Candidates | RowFailure,
    service: ScoringService,
    improver: Improver | None,
    *,
    want_audio: bool,
) -> _Scored | RowFailure:
    """Score the candidates of one vibe; with an improver, also search from them."""
    if isinstance(answer, RowFailure):
        return answer
    payloads, errors = answer
    choice = choose(service, row.vibe_original, payloads, want_audio=want_audio and improver is None)
    if improver is None or choice.best_index is None:
        return _Scored(payloads, errors, choice, choice.best_index)
    config_row = ConfigRow.model_validate({**row.model_dump(exclude_unset=True), "config_candidates": payloads})
    improved = asyncio.run(improver.improve(config_row, choice))
    return _Scored(improved.row.config_candidates, errors, improved.choice, improved.best_index, improved.columns)


def _settle(scored: Sequence[_Scored | RowFailure], judge: str | None, summary: Summary) -> None:
    """Set the winners by the judge's decision over all vibes: the results of the search, or the models' candidates."""
    searched = [one for one in scored if isinstance(one, _Scored) and one.columns]
    run = run_of([(str(at), one.columns["search"]) for at, one in enumerate(searched)], judge)
    summary.details["search"] = run.to_dict()
    for one in searched:
        one.best = one.columns["search"]["found_index" if run.agrees else "start_index"]


def _answer(
    vibe: str, scored: _Scored | RowFailure, service: ScoringService, audio: Path | None, summary: Summary
) -> JsonObject:
    nothing = {"vibe": vibe, "config_payload": None, "best_index": None}
    if isinstance(scored, RowFailure):
        summary.failed[scored.kind] += 1
        return {**nothing, "failure": f"{scored.kind}: {scored.message}"}
    choice, best = scored.choice, scored.best
    if best is None:
        summary.failed["score"] += 1
        reasons = sorted(set(choice.reasons(choice.scorer).values()))
        return {**nothing, "failure": f"no candidate could be scored ({'; '.join(reasons)})"}
    summary.done += 1
    summary.short += any(payload is None for payload in scored.payloads)
    payload = scored.payloads[best] or {}
    scores = choice.scores(choice.scorer)
    found: JsonObject = {
        "vibe": vibe,
        "config_payload": payload,
        "best_index": best,
        "scorer": choice.scorer,
        "score": scores[best],
        "scores": scores,
        "candidates": scored.payloads,
        "errors": scored.errors,
        **scored.columns,
    }
    if choice.scorer == "acoustic" and (note := nothing_asked(vibe)) is not None:
        found["note"] = note
    if audio is not None:
        winner = choice.scored_renders[best]
        if winner is None or winner.audio is None:
            winner = service.score_one(vibe, payload, want_audio=True)
        if winner.audio is not None:
            found["audio_file"] = str(_write(winner.audio, audio, vibe, payload.get("title", vibe)))
    return found


def _write(sound: Audio, folder: Path, vibe: str, title: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", vibe.lower()).strip("-")[:48] or "vibe"
    path = folder / f"{slug}-{digest(vibe)[:6]}.flac"
    with _writing(folder):
        sound.tagged(title=title, vibe=vibe).save(path)
    return path
