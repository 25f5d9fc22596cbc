"""Training runs, benchmarks and reports of the workspace, and the files of opened reports."""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict
from pathlib import Path

from latentscore.json_search import JsonObject
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import read_object
from latentscore_data.core.base.names import leads_out
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.models.runs import RunFolder, find_runs
from latentscore_data.studio.rows import Stamp, stamp_of

SERVED = {
    ".html": "text/html; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""The extensions of a report's files that are served, with their media types."""

ROUNDS = ".improve/*/rounds.json"
"""The files with the rounds of ``lsdata improve``, under the data root."""

MOST_FILES = 50_000
MOST_OPEN = 8
"""Largest number of open reports; the oldest is closed."""

MOST_POINTS = 200
"""Largest number of points of a training curve."""

Curves = dict[str, list[list[float]]]
"""The points (step, value) of each curve of a run."""


class Places:
    """Runs and reports of a workspace. An open report has a random name; only its listed files are served."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._open: OrderedDict[str, dict[str, Path]] = OrderedDict()
        self._curves: dict[Path, tuple[Stamp | None, Curves]] = {}

    def listed(self) -> JsonObject:
        """Return runs with their curves, rounds of ``improve``, and pages with the ``id`` for :meth:`open`."""
        return {
            "runs": [self._run(run) for run in find_runs(self._workspace.train_dir)],
            "rounds": [_rounds(path) for path in sorted(self._workspace.root.glob(ROUNDS))],
            "pages": [
                {"id": name, "kind": name.partition("/")[0], "name": page.parent.name, **_headline(page.parent)}
                for name, page in self._pages().items()
            ],
        }

    def open(self, name: str) -> str:
        """Return the address of a benchmark's or an export's page. Raises :class:`InputError` for an unknown id."""
        page = self._pages().get(name)
        if page is None:
            raise InputError(f"there is no page {name[:100]!r} in this workspace", "reload the list")
        folder = page.parent
        found: dict[str, Path] = {}
        for path in folder.rglob("*"):
            # A link in a downloaded or unpacked workspace could otherwise serve any file of this machine.
            if path.suffix in SERVED and path.is_file() and not leads_out(path, folder) and len(found) < MOST_FILES:
                found[path.relative_to(folder).as_posix()] = path
        key = secrets.token_urlsafe(18)
        self._open[key] = found
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return f"/open/{key}/{page.name}"

    def file(self, key: str, name: str) -> Path | None:
        """Return a listed file of an open report, else None. Neither ``key`` nor ``name`` becomes a path."""
        return self._open.get(key, {}).get(name)

    def _run(self, run: RunFolder) -> JsonObject:
        """Return a training run with its curves. Steps are read again only if more were logged: dozens of runs with
        thousands of steps each take seconds."""
        stamp = stamp_of(run.metrics)
        try:
            record = run.record()
            known = self._curves.get(run.metrics)
            curves = known[1] if known and known[0] == stamp else _curves(run)
        except InputError as error:
            return {"id": run.run_id, "status": f"damaged: {error.message}", "curves": {}}
        self._curves[run.metrics] = stamp, curves
        facts = {name: str(record.get(name, "")) for name in ("kind", "base_model", "status")}
        return {"id": run.run_id, "done": run.done, **facts, "curves": curves}

    def _pages(self) -> dict[str, Path]:
        benches = sorted(self._workspace.bench_dir.glob("*/report.html"))
        exports = sorted(self._workspace.export_dir.glob("*/index.html"))
        found = {f"benchmark/{page.parent.name}": page for page in benches}
        return {**found, **{f"report/{page.parent.name}": page for page in exports}}


def _curves(run: RunFolder) -> Curves:
    """Return the curves of a run, with at most :data:`MOST_POINTS` points each."""
    curves: Curves = {}
    for line in run.history():
        for name in ("loss", "eval_loss", "reward"):
            value, step = _number(line.get(name)), _number(line.get("step"))
            if value is not None and step is not None:
                curves.setdefault(name, []).append([step, value])
    return {name: points[:: math.ceil(len(points) / MOST_POINTS)] for name, points in curves.items()}


_FIGURES = ("against_round_0", "low", "high", "entropy", "answered", "learned")


def _number(value: object) -> float | None:
    """Return the value if it is a number that can be plotted; else None."""
    return value if isinstance(value, int | float) and abs(value) < 1e300 else None


def _rounds(path: Path) -> JsonObject:
    """Return the rounds of one ``improve`` as a table: models, mean scores, differences to round 0."""
    name = path.parent.name
    try:
        found = read_object(path, f"delete {path.parent}")
        judge, guide = str(found["judge"]), str(found["guide"])
        lines = [
            {
                "round": int(line["round"]),
                "model": str(line["model"]),
                "judge": _number(line.get(judge)),
                "guide": _number(line.get(guide)),
                **{key: _number(line.get(key)) for key in _FIGURES},
            }
            for line in found["rounds"]
        ]
    except (InputError, KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        return {"id": name, "status": f"damaged: {error}", "rounds": []}
    facts = {key: str(found.get(key) or "") for key in ("best", "stopped")}
    return {"id": name, "judge": judge, "guide": guide, **facts, "rounds": lines}


def _headline(folder: Path) -> JsonObject:
    """Return title, scorer and mean of each source from a benchmark's summary; an empty object without one."""
    path = folder / "summary.json"
    if not path.exists():
        return {}
    try:
        summary = read_object(path, "run lsdata bench again")
        scorer = summary["headline"]
        means = [
            {"label": str(source["label"]), "mean": _number(source["scores"][scorer]["mean"])}
            for source in summary["sources"]
        ]
    except (InputError, KeyError, TypeError):
        return {}
    return {"scorer": str(scorer), "title": str(summary.get("title") or ""), "sources": means}
