"""The static copy of the studio: a folder with a page of players for rows, or for one vibe, that needs no server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from latentscore.seeds import digest
from latentscore_data.core.base.errors import MissingError
from latentscore_data.core.base.jsonl import read_rows
from latentscore_data.core.base.rows import SPLITS, BenchRow, ScoredRow, spread, text_of
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.bench.report import render_report
from latentscore_data.core.export.folder import new_folder, write_record
from latentscore_data.core.llm.builtin import payload_for
from latentscore_data.studio.renders import Renders

PAGE = "index.html"


def write_bundle(
    folder: Path, settings: Settings, vibe: str | None, splits: Sequence[str], limit: int, overwrite: bool
) -> int:
    """Write ``index.html`` and ``audio/*.mp3``, and return the number of pieces.

    With ``vibe``, there is one piece by the offline model; else the winners of ``limit`` rows of ``splits``, spread
    over the texts. Raises :class:`MissingError` if no row has a winner, :class:`OutputError` for a folder with other
    files.
    """
    rows = [_typed(vibe)] if vibe is not None else list(_winners(settings, splits or SPLITS, limit))
    if not rows:
        of = f" of {', '.join(splits)}" if splits else ""
        raise MissingError(f"no row{of} under {settings.paths.root} has a config", "run lsdata configs first")
    with new_folder(folder, overwrite) as draft, closing(Renders(settings.scoring.workers)) as renders:
        clips = [renders.clip(row.config_payload or {}, settings.scoring) for row in rows]
        shown: list[BenchRow] = []
        for row, future in zip(rows, clips, strict=True):
            path, clip = draft / "audio" / f"{digest(row.row_id)[:16]}.mp3", future.result()
            clip.write(path)
            shown.append(row.model_copy(update={"audio_file": path.name, "peaks": clip.peaks}))
        render_report(None, shown, draft / "audio", draft / PAGE, heading=vibe or "Pieces of this workspace")
        write_record(draft, "studio", {"rows": len(rows)})
    return len(rows)


def _winners(settings: Settings, splits: Sequence[str], limit: int) -> Iterator[BenchRow]:
    files = [path for split in splits if (path := Workspace(settings.paths.root).scored(split)).exists()]

    def rows() -> Iterator[ScoredRow]:
        return (row for path in files for row in read_rows(path, ScoredRow) if row.config_payload is not None)

    # Read twice, so that only the ids of all rows are in memory.
    shown = set(spread((row.row_id for row in rows()), limit, text_of))
    for row in rows():
        if row.row_id in shown:
            yield BenchRow(
                row_id=row.row_id, source=row.config_model or "winner", dataset=row.dataset,
                id_in_dataset=row.id_in_dataset, vibe_original=row.vibe_original, vibe_level=row.vibe_level,
                vibe_scope=row.vibe_scope, valid=True, config_payload=row.config_payload,
            )  # fmt: skip


def _typed(vibe: str) -> BenchRow:
    payload = payload_for(vibe, temperature=0.0, seed=0, sample_idx=0).model_dump(mode="json")
    return BenchRow(row_id=vibe, source="offline model", vibe_original=vibe, valid=True, config_payload=payload)
