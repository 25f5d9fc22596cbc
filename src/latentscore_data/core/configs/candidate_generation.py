"""Candidates: N answers of a model for each vibe row, one line per row in ``candidates.jsonl``."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from latentscore import schema_hash
from latentscore.config import TITLE_CUT, TITLE_SHORTENED, MusicConfigPromptPayload
from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.errors import LsdataError, MissingError
from latentscore_data.core.base.jsonl import Line, count_lines, read_lines, read_rows, typed_row
from latentscore_data.core.base.loop import (
    RETRYABLE_KINDS,
    Job,
    NotAttempted,
    RowFailure,
    run_stage,
)
from latentscore_data.core.base.payloads import Payload
from latentscore_data.core.base.row_files import RowFiles
from latentscore_data.core.base.rows import SPLITS, VibeRow, share_out, spread, text_of
from latentscore_data.core.base.sample import sample_vibes
from latentscore_data.core.base.settings import ConfigsSettings, PromptsSettings
from latentscore_data.core.base.summary import Progress, Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm import builtin
from latentscore_data.core.llm.prompts import OWN, config_prompt_hash, config_question
from latentscore_data.core.llm.types import LLM, Question
from latentscore_data.core.scoring.candidate_validation import validate_candidates


@dataclass(frozen=True)
class VibeRows:
    """The vibe rows of a workspace in the configured splits, up to the limit. ``len`` does not read them."""

    workspace: Workspace
    settings: ConfigsSettings

    def __iter__(self) -> Iterator[VibeRow]:
        limit, splits = self.settings.limit, self.settings.splits
        shares = [None] * len(splits) if limit is None else share_out(limit, self._counts())
        for split, share in zip(splits, shares, strict=True):
            path = self.workspace.vibes(split)
            if share == 0 or not path.exists():
                continue
            rows = read_rows(path, VibeRow)
            for row in rows if share is None else spread(rows, share, lambda row: text_of(row.row_id)):
                # Rows from other sources may have no split.
                yield row if row.split else row.model_copy(update={"split": split})

    def __len__(self) -> int:
        return sum(share_out(self.settings.limit, self._counts()))

    def _counts(self) -> list[int]:
        """The number of rows of each split; 0 without a file."""
        return [count_lines([self.workspace.vibes(split)]) for split in self.settings.splits]


def sample_rows(settings: ConfigsSettings) -> list[VibeRow]:
    """Return the bundled sample vibes, up to the limit."""
    return spread(sample_vibes(), settings.limit, lambda row: text_of(row.row_id))


def questions(row: VibeRow, settings: ConfigsSettings, prompts: PromptsSettings = OWN) -> list[Question]:
    """Return the questions about a row, one for each candidate."""
    return [config_question(row.vibe_original, settings, number, prompts) for number in range(settings.n)]


def fingerprint(
    row: VibeRow, model: str, settings: ConfigsSettings, api_base: str | None = None, prompts: PromptsSettings = OWN
) -> str:
    """Return a hash of everything that determines a row's answers: vibe, model, server, prompt, schema and sampling.

    Without ``api_base`` it is the same as in older versions, so older answers stay valid.
    """
    return digest(
        row.vibe_original,
        builtin.version_of(model),
        config_prompt_hash(prompts),
        schema_hash(),
        settings.temperature,
        settings.top_p,
        settings.max_tokens,
        settings.seed,
        *([api_base] if api_base else []),
    )[:32]


def generate(
    rows: VibeRows | list[VibeRow],
    llm: LLM,
    settings: ConfigsSettings,
    workspace: Workspace,
    *,
    api_base: str | None = None,
    prompts: PromptsSettings = OWN,
    version: str | None = None,
    max_concurrency: int = 16,
    retry_failed: bool = False,
    overwrite: set[str] | None = None,
    progress: Progress | None = None,
    files: RowFiles | None = None,
) -> Summary:
    """Generate the missing candidates of all rows, and append them to ``candidates.jsonl``.

    ``api_base`` is the URL of the model's server; None for its provider's default. ``version`` identifies the model, if
    its name does not. ``overwrite`` is that of :func:`run_stage`. ``files`` are the indexes of the workspace's files.
    Raises what ends the run: see :func:`run_stage`.
    """
    files = files or RowFiles(workspace)

    def complete(line: Line) -> bool:
        found = line.get("config_candidates") or []
        if len(found) < settings.n:
            return False
        return not (_missing(line, settings.n) if retry_failed else _may_come(line, settings.n))

    job: Job[VibeRow] = Job(
        name="configs",
        key=lambda row: row.row_id,
        fingerprint=lambda row: fingerprint(row, version or llm.model, settings, api_base, prompts),
        work=lambda row: _answer(row, llm, settings, prompts),
        complete=complete,
        short=lambda line: _missing(line, settings.n) > 0,
        refresh=lambda row, line: {**line, **_carried(row)},
        client=llm,
    )
    # Twice the concurrency of the model, so that it stays busy while rows wait for a retry.
    in_flight = max(2, math.ceil(2 * max_concurrency * settings.vibes_per_call / settings.n))
    files.name_rows(workspace.candidates)
    summary = run_stage(
        job,
        rows,
        workspace.candidates,
        workspace.failures("configs"),
        max_in_flight=in_flight,
        total=len(rows),
        retry_failed=retry_failed,
        overwrite=overwrite,
        progress=progress,
        index=files.candidates,
    )
    prune_orphans(workspace, files)
    return summary


def prune_orphans(workspace: Workspace, files: RowFiles | None = None) -> None:
    """Drop the candidates and scores of rows that are no longer in the vibe files.

    Their answers stay in the cache. Rows that were not written by lsdata stay.
    """
    files = files or RowFiles(workspace)
    candidates = files.candidates.entries
    known = {row_id for path in workspace.vibe_files() for row_id in _row_ids(path)}
    gone = {row_id for row_id, entry in candidates.items() if known and entry.ours and row_id not in known}
    if not gone:
        return
    # Scored rows first: after an interruption, the candidates still identify the orphans.
    scored = [files.scored(split) for split in SPLITS if workspace.scored(split).exists()]
    for index in (*scored, files.candidates):
        stays = [key for key, entry in index.entries.items() if key not in gone or not entry.ours]
        if len(stays) < len(index.entries):
            index.keep(stays)


def _row_ids(path: Path) -> Iterator[str]:
    """The ids of the vibe rows in a file."""
    for number, line in read_lines(path):
        yield str(line.get("row_id") or typed_row(line, VibeRow, f"{path}:{number}").row_id)


def _missing(line: Line, n: int) -> int:
    return sum(candidate is None for candidate in (line.get("config_candidates") or [])[:n])


_CAUSE = re.compile(r"candidate (\d+): ([a-z ]+): ")


def _may_come(line: Line, n: int) -> bool:
    """Return True if a candidate is missing for a reason that another try may change."""
    missing = {str(i) for i, candidate in enumerate((line.get("config_candidates") or [])[:n]) if candidate is None}
    causes = _CAUSE.findall(line.get("config_error") or "")
    return any(number in missing and kind in RETRYABLE_KINDS for number, kind in causes)


def _carried(row: VibeRow) -> JsonObject:
    return row.model_dump(mode="json", exclude_unset=True)


async def _answer(row: VibeRow, llm: LLM, settings: ConfigsSettings, prompts: PromptsSettings) -> Line:
    candidates, errors = await ask_for_candidates(questions(row, settings, prompts), llm)
    line = {
        **_carried(row),
        "config_model": llm.model,
        "config_candidates": candidates,
        "validation_scores": validate_candidates(candidates),
        "config_error": "; ".join(errors) or None,
    }
    if any(candidate and candidate["title"].endswith(TITLE_CUT) for candidate in candidates):
        line["converted"] = [TITLE_SHORTENED]
    return line


async def ask_for_candidates(asked: list[Question], llm: LLM) -> tuple[list[Payload | None], list[str]]:
    """Return the answers in order, None for a failed one, and the reasons of failures.

    Raises :class:`RowFailure` if all failed, and errors that end the run.
    """
    answers = await asyncio.gather(
        *(llm.ask(question, MusicConfigPromptPayload) for question in asked), return_exceptions=True
    )
    candidates: list[Payload | None] = []
    failures: list[RowFailure] = []
    errors: list[str] = []
    for number, answer in enumerate(answers):
        if isinstance(answer, RowFailure):
            failures.append(answer)
            errors.append(f"candidate {number}: {answer.kind}: {answer.message}")
            candidates.append(None)
        elif isinstance(answer, BaseException):
            continue
        else:
            candidates.append(answer.value.model_dump(mode="json"))
    for ending in (LsdataError, NotAttempted, BaseException):
        for answer in answers:
            if isinstance(answer, ending) and not isinstance(answer, RowFailure):
                raise answer
    if len(failures) == len(asked):
        # A transient failure has precedence, because a later run may succeed.
        raise next((failure for failure in failures if failure.kind == "transient"), failures[0])
    return candidates, errors


def require_rows(rows: VibeRows | list[VibeRow], settings: ConfigsSettings) -> None:
    """Raise :class:`MissingError` if there are no vibe rows."""
    if len(rows) == 0:
        raise MissingError(
            f"there are no vibe rows in {', '.join(settings.splits)}", "run lsdata vibes first, or name other splits"
        )
