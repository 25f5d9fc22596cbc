"""A static copy: chosen rows, or one typed vibe, as a folder whose page plays from a file without a server."""

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
from latentscore_data.core.scoring.clips import Clip
from latentscore_data.studio.renders import Renders

PAGE = "index.html"


def write_bundle(
    folder: Path, settings: Settings, vibe: str | None, splits: Sequence[str], limit: int, overwrite: bool
) -> int:
    """Write ``index.html`` and ``audio/*.mp3``; return the number of pieces.

    With a ``vibe`` it is the offline model's one piece, otherwise the winners of ``limit`` rows of ``splits``, spread over the
    texts.
    Raises :class:`MissingError` where no row has a winner, :class:`OutputError` for a folder that is not ours.
    """
    rows = [_typed(vibe)] if vibe is not None else list(_winners(settings, splits or SPLITS, limit))
    if not rows:
        of = f" of {', '.join(splits)}" if splits else ""
        raise MissingError(f"no row{of} under {settings.paths.root} has a config", "run lsdata configs first")
    with new_folder(folder, overwrite) as draft, closing(Renders(settings.scoring.workers)) as renders:
        clips = [renders.clip(row.config_payload or {}, settings.scoring) for row in rows]
        shown: list[BenchRow] = []
        for row, clip in zip(rows, clips, strict=True):
            shown.append(_with_sound(row, clip.result(), draft / "audio"))
        render_report(None, shown, draft / "audio", draft / PAGE, heading=vibe or "Pieces of this workspace")
        write_record(draft, "studio", {"rows": len(rows)})
    return len(rows)


def _winners(settings: Settings, splits: Sequence[str], limit: int) -> Iterator[BenchRow]:
    files = [path for split in splits if (path := Workspace(settings.paths.root).scored(split)).exists()]

    def rows() -> Iterator[ScoredRow]:
        return (row for path in files for row in read_rows(path, ScoredRow) if row.config_payload is not None)

    # Read twice, so that only the ids of all rows are held.
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


def _with_sound(row: BenchRow, clip: Clip, audio: Path) -> BenchRow:
    path = audio / f"{digest(row.row_id)[:16]}.mp3"
    clip.write(path)
    return row.model_copy(update={"audio_file": path.name, "peaks": clip.peaks})
