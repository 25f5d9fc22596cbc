"""The stages from Python: ``from latentscore_data import Workspace``.

Nothing of the stages is imported before a method needs it, so that the import takes milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentscore.files import user_path

if TYPE_CHECKING:
    import pandas

    from latentscore import Audio
    from latentscore.json_search import JsonObject
    from latentscore_data.core.base.payloads import Payload
    from latentscore_data.core.base.rows import ScoredRow
    from latentscore_data.core.base.settings import Settings
    from latentscore_data.core.base.summary import Summary

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Answered:
    """The best candidate for a vibe. ``scores`` has one value per candidate, ``None`` where one could not be scored."""

    vibe: str
    payload: Payload
    """Thinking, title, config in labels, and palettes."""
    scorer: str
    score: float
    scores: list[float | None]
    candidates: list[Payload | None]
    model: str

    @property
    def title(self) -> str:
        return str(self.payload.get("title") or "Untitled")

    @property
    def config(self) -> JsonObject:
        """The config in labels, one for each field of ``latentscore.labels.FIELDS``."""
        return dict(self.payload["config"])

    def render(self, seconds: float = 30.0, seed: int = 0) -> Audio:
        """The sound, as ``latentscore.render`` gives it: 48 kHz stereo, -16 LUFS."""
        return import_module("latentscore").render(self.payload, seconds, seed)


class Rows:
    """The rows of one or all splits, read from disk each time they are iterated. Made by :meth:`Workspace.rows`."""

    def __init__(self, root: Path, splits: Sequence[str]) -> None:
        self._root, self._splits = root, splits

    def __iter__(self) -> Iterator[ScoredRow]:
        """Rows with their configs first, then vibes that have none yet. Raises :class:`InputError` for a damaged file."""
        files, rows, jsonl = _core("base.workspace").Workspace(self._root), _core("base.rows"), _core("base.jsonl")
        for split in self._splits:
            seen: set[str] = set()
            for path in (files.scored(split), files.vibes(split)):
                for row in jsonl.read_rows(path, rows.ScoredRow) if path.exists() else ():
                    if row.row_id not in seen:
                        seen.add(row.row_id)
                        yield row

    def to_pandas(self) -> pandas.DataFrame:
        """One line per row and one column per field of the row; ``score`` and ``config.<field>`` are the winner's.

        Raises :class:`MissingError` without pandas.
        """
        try:
            import pandas
        except ImportError:
            raise _core("base.errors").MissingError("to_pandas() needs pandas", "pip install pandas") from None
        return pandas.DataFrame([_flat(row) for row in self])


class Workspace:
    """One data root and its settings.

    >>> work = Workspace("data_work", scoring={"seconds": 8})
    >>> work.answer("slow rain on a tin roof", n=8).title

    Settings come from where they come from on the command line: defaults, ``latentscore.toml`` (or ``config``), variables
    ``LSDATA_SECTION__NAME``, and last the sections given here, ``section={"name": value}``. Methods take values of their own
    section as keywords.

    Every method raises children of ``latentscore_data.core.base.errors.LsdataError``: ``InputError`` for a wrong value,
    ``MissingError`` for what is not there, ``OutputError`` for a full disk or a workspace in use, ``StoppedError`` at a cap. A
    model that costs money is asked only with ``max_cost`` (US dollars, a hard stop) or ``yes=True``.
    """

    def __init__(self, root: str | Path = "data_work", *, config: str | Path | None = None, **sections: Values) -> None:
        self.root = user_path(root)
        self._config = None if config is None else user_path(config)
        self._sections = sections

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def settings(self, max_cost: float | None = None, **sections: Values) -> Settings:
        """The effective settings, with ``sections`` over those of this workspace. Raises :class:`InputError`."""
        _core("base.secrets").read_dotenv()
        given = {"paths": {"root": self.root}, **({} if max_cost is None else {"llm": {"max_cost": max_cost}})}
        names = {*self._sections, *sections, *given}
        merged = {
            name: {**self._sections.get(name, {}), **given.get(name, {}), **sections.get(name, {})} for name in names
        }
        return _core("base.settings").load_settings(self._config, **merged)

    def rows(self, split: str | None = None) -> Rows:
        """The rows of a split (SFT-Train, SFT-Val, GRPO or TEST), or of all. Raises :class:`InputError`, :class:`MissingError`."""
        errors, splits = _core("base.errors"), _core("base.rows").SPLITS
        if split is not None and split not in splits:
            raise errors.InputError(f"split {split!r} is unknown", f"splits: {', '.join(splits)}")
        files = _core("base.workspace").Workspace(self.root)
        if not files.vibe_files() and not files.scored_files():
            raise errors.MissingError(f"there are no rows in {self.root}", "run vibes() and configs() first")
        return Rows(self.root, splits if split is None else (split,))

    def answer(
        self, vibe: str, n: int | None = None, *, max_cost: float | None = None, yes: bool = False, **options: Any
    ) -> Answered:
        """The best of ``n`` candidates for a vibe; no row is written. ``options`` are settings of the section ``configs``.

        Without ``n``, the offline model gives its likeliest answer and other models ``configs.n`` candidates. Raises
        :class:`MissingError` where no candidate is valid.
        """
        stage = _core("stages.configs")
        settings = stage.for_typed(self.settings(max_cost, configs={**options, **({} if n is None else {"n": n})}))
        files = _core("base.workspace").Workspace(self.root)
        with _own_event_loop():
            summary = stage.answer_vibes([vibe], settings, files, _context(yes=yes, trusted=self._trusted))
        found = summary.details["answers"][0]
        if found["config_payload"] is None:
            raise _core("base.errors").MissingError(
                f"no config for this vibe ({found['failure']})", "try another model"
            )
        names = ("scorer", "score", "scores", "candidates")
        return Answered(
            vibe, found["config_payload"], **{name: found[name] for name in names}, model=summary.details["model"]
        )

    def download(self, *datasets: str, yes: bool = False, overwrite: bool = False, **options: Any) -> Summary:
        """Sample texts from data sets: hub names, files, folders or ``builtin``. ``options``: section ``download``."""
        settings = self.settings(download=_with(options, datasets=datasets))
        return self._run("download", settings, "run_download", context=_context(yes=yes, overwrite=overwrite))

    def vibes(
        self,
        *,
        max_cost: float | None = None,
        yes: bool = False,
        retry_failed: bool = False,
        overwrite: bool = False,
        **options: Any,
    ) -> Summary:
        """Extract vibe rows from the texts and draw splits. ``options``: section ``vibes``."""
        settings = self.settings(max_cost, vibes=options)
        context = _context(yes=yes, retry_failed=retry_failed, overwrite=overwrite)
        return self._run("vibes", settings, "run_vibes", context=context)

    def configs(self, *, max_cost: float | None = None, yes: bool = False, **options: Any) -> Summary:
        """Ask for candidates for every vibe, score them and keep the best. ``options``: section ``configs``."""
        stage, files = _core("stages.configs"), _core("base.workspace").Workspace(self.root)
        settings = self.settings(max_cost, configs=options)
        rows = stage.VibeRows(files, settings.configs)
        stage.require_rows(rows, settings.configs)
        context = _context(yes=yes, trusted=self._trusted)
        return self._run("configs", settings, "run_configs", context=context, workspace=files, rows=rows)

    def train(self, *recipes: str, yes: bool = False, **options: Any) -> Summary:
        """Train these recipes (default: ``train.recipes``) in order. ``options``: section ``train``. Needs the ml extra."""
        settings = self.settings(train=_with(options, recipes=recipes))
        return self._run("train", settings, "run_train", context=_context(yes=yes))

    def bench(self, *sources: str, max_cost: float | None = None, yes: bool = False, **options: Any) -> Summary:
        """Compare sources (``KIND:NAME[=LABEL]``) on the same rows. ``options``: section ``bench``.

        ``outputs`` are the page, the summary and the samples; ``details`` holds each source's mean, interval and share.
        """
        settings = self.settings(max_cost, bench=_with(options, sources=sources))
        context, of_the_chain = _context(yes=yes, trusted=self._trusted), options.get("name") is None
        return self._run("bench", settings, "run_bench", context=context, of_the_chain=of_the_chain)

    def export(self, kind: str, out: str | Path | None = None, *, overwrite: bool = False, **options: Any) -> Summary:
        """Export a map, dataset, chat, model or report. ``options``: section ``export``. Nothing is pushed."""
        kinds = _core("stages.export").EXPORTS
        if kind not in kinds:
            raise _core("base.errors").InputError(f"export {kind!r} is unknown", f"kinds: {', '.join(kinds)}")
        target = None if out is None else user_path(out)
        settings = self.settings(export=options)
        return self._run("export", settings, "export_one", kind=kind, out=target, overwrite=overwrite)

    @property
    def _trusted(self) -> frozenset[str]:
        """Scorers whose code may run: those that the caller named here. Those of a settings file alone may not."""
        return frozenset(self._sections.get("scoring", {}).get("scorers", ()))

    def _run(self, stage: str, settings: Settings, function: str, **options: Any) -> Summary:
        """Call a stage's function under the lock of the workspace."""
        run = getattr(_core(f"stages.{stage}"), function)
        with _core("base.workspace").Workspace(self.root).lock(stage), _own_event_loop():
            return run(settings=settings, **options)


def _core(module: str) -> Any:
    """A module of the core, imported when it is first needed."""
    return import_module(f"latentscore_data.core.{module}")


def _context(**given: Any) -> Any:
    """The values of one run that are not settings."""
    return _core("stages.base").RunContext(**given)


def _with(options: Values, **lists: Sequence[str]) -> Values:
    """The options, with those lists that are not empty."""
    return {**options, **{name: list(values) for name, values in lists.items() if values}}


def _flat(row: ScoredRow) -> JsonObject:
    """A row as columns."""
    values, payload = row.model_dump(), row.config_payload or {}
    values["score"] = row.winner_score
    return {**values, **{f"config.{name}": label for name, label in (payload.get("config") or {}).items()}}


@contextmanager
def _own_event_loop() -> Iterator[None]:
    """Let a stage run its own event loop in a notebook, whose kernel runs one in this thread already.

    The stage stays in the main thread, where an interrupt makes it finish what is in flight.
    """
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(running)
        if running is not None:
            asyncio.set_event_loop(running)
