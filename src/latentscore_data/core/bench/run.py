"""The two slow steps of a benchmark: every source answers every row; every answer is rendered and scored.

Both use the row loop: the same command resumes a killed run, and only changed rows are processed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from latentscore.seeds import digest, rng_for
from latentscore_data.core.base.jsonl import Line
from latentscore_data.core.base.loop import Job, run_stage
from latentscore_data.core.base.row_index import read_newest
from latentscore_data.core.base.rows import BenchRow, VibeRow, model_candidates
from latentscore_data.core.base.summary import Progress, Summary
from latentscore_data.core.base.workspace import dataset_slug
from latentscore_data.core.bench.stats import shuffled_partners
from latentscore_data.core.generators.types import AnyGenerator, AskingGenerator, Generated, PaidGenerator
from latentscore_data.core.scoring.clips import waveform, write_flac, write_mp3
from latentscore_data.core.scoring.service import ScoredRender, ScoringService
from latentscore_data.core.scoring.types import UNFINISHED, Unscored

InT = TypeVar("InT")
OutT = TypeVar("OutT")

KEY = "sample_id"


class Batcher(Generic[InT, OutT]):
    """Collect items that arrive within ``wait_seconds`` into batches of up to ``size`` for one call of ``work``.

    ``work`` yields one answer per item, in order. Each caller gets its answer as soon as it is yielded.
    """

    def __init__(self, work: Callable[[list[InT]], Iterable[OutT]], size: int, wait_seconds: float = 0.02) -> None:
        self._work, self._size, self._wait = work, size, wait_seconds
        self._waiting: list[tuple[InT, asyncio.Future[OutT]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: InT) -> OutT:
        future: asyncio.Future[OutT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work_off())
        return await future

    async def _work_off(self) -> None:
        while self._waiting:
            if len(self._waiting) < self._size:
                await asyncio.sleep(self._wait)
            batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
            try:
                await asyncio.to_thread(self._answer, batch, asyncio.get_running_loop())
            except Exception as error:  # the callers that still wait for this batch get the error
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    def _answer(self, batch: list[tuple[InT, asyncio.Future[OutT]]], loop: asyncio.AbstractEventLoop) -> None:
        for (_, future), answer in zip(batch, self._work([item for item, _ in batch]), strict=True):
            loop.call_soon_threadsafe(future.set_result, answer)


@dataclass(frozen=True)
class Sample:
    """One row for one source; ``answer`` is None until it was answered."""

    row: VibeRow
    source: str
    answer: Generated | None = None
    foreign_vibe: str | None = None
    """A vibe of another text. The same audio is scored against it, for the floor."""

    @property
    def id(self) -> str:
        return f"{self.source}|{self.row.row_id}"


class RunFiles:
    """The paths of a run's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results.jsonl"
        self.summary = folder / "summary.json"
        self.report = folder / "report.html"
        self.audio = folder / "audio"
        self.manifest = folder / "manifest.json"
        self.score_failures = folder / "listen.failures.jsonl"

    def answers(self, source: str) -> Path:
        """Return the file of a source's answers. Adding or removing a source does not change the others' files."""
        return self.folder / "answers" / f"{dataset_slug(source)}.jsonl"


def generate(
    generator: AnyGenerator, rows: Sequence[VibeRow], files: RunFiles, *, progress: Progress | None = None, **loop: Any
) -> Summary:
    """Let one source answer every row that it has not answered yet, and append each answer to its file.

    ``loop`` is passed to :func:`run_stage`.
    """
    if isinstance(generator, AskingGenerator):
        ask = generator.ask
    else:
        ask = Batcher[VibeRow, Generated](generator.generate, generator.batch_size)

    async def answer(row: VibeRow) -> Line:
        return asdict(await ask(row))

    job = Job[VibeRow](
        name=f"bench: {generator.label}",
        key=lambda row: row.row_id,
        fingerprint=lambda row: answer_fingerprint(generator.fingerprint, row),
        work=answer,
        client=generator.llm if isinstance(generator, AskingGenerator) else None,
    )
    output = files.answers(generator.label)
    summary = run_stage(
        job,
        rows,
        output,
        unanswered(output),
        max_in_flight=generator.batch_size,
        total=len(rows),
        progress=progress,
        **loop,
    )
    if isinstance(generator, PaidGenerator):
        summary.add_usage(generator.usage)
    return summary


def answer_fingerprint(source: str, row: VibeRow) -> str:
    """Return the identity of a source's answer to a row: it changes with the source, the row or its vibe."""
    return digest(source, row.row_id, row.vibe_original)


def unanswered(answers: Path) -> Path:
    """Return the file of a source's failures, beside its answers."""
    return answers.with_name(f"{answers.stem}.failures.jsonl")


def load_answers(files: RunFiles, rows: Sequence[VibeRow], sources: Mapping[str, str], seed: int) -> list[Sample]:
    """Return a sample for every row and source (label -> fingerprint), by source and in the order of the rows.

    A row without an answer (network error, refused request) stays in the comparison as a failure and gets the floor. So
    does a row whose only answer is from other settings or for another vibe.
    """
    names = list(Generated.__dataclass_fields__)
    foreign = foreign_vibes(rows, seed)
    samples: list[Sample] = []
    for source, fingerprint in sources.items():
        output = files.answers(source)
        find = _finder(output, unanswered(output), "row_id", "no answer")
        for row, other in zip(rows, foreign, strict=True):
            line = find(row.row_id, answer_fingerprint(fingerprint, row))
            samples.append(Sample(row, source, Generated(**{name: line.get(name) for name in names}), other))
    return samples


def _finder(output: Path, failures: Path, key: str, missing: str) -> Callable[[str, str], Line]:
    """Return a function that finds the line with a key and a fingerprint in ``output``.

    Without one, it returns a line with only ``failure``: the cause from ``failures``, or ``missing``.
    """
    files = [{str(line[key]): line for line in read_newest(path, key)} for path in (output, failures)]

    def find(name: str, fingerprint: str) -> Line:
        line, cause = (found.get(name, {}) for found in files)
        if line.get("input_fingerprint") == fingerprint:
            return line
        if cause.get("input_fingerprint") != fingerprint:
            cause = {}
        return {"failure": f"{cause.get('kind', 'missing')}: {cause.get('message', missing)}"[:300]}

    return find


def foreign_vibes(rows: Sequence[VibeRow], seed: int) -> list[str | None]:
    """Return, for each row, a vibe of another text; None for all rows if they are of one text."""
    partners = shuffled_partners([row.source_id for row in rows], rng_for(seed, "foreign vibes"))
    if partners is None:
        return [None] * len(rows)
    return [rows[int(partner)].vibe_original for partner in partners]


def score_answers(
    samples: Sequence[Sample],
    service: ScoringService,
    files: RunFiles,
    *,
    keep_flac: bool = False,
    floor_source: str | None = None,
    max_in_flight: int = 24,
    progress: Progress | None = None,
    **loop: Any,
) -> Summary:
    """Render and score every answer that has not been scored yet, and append each sample to ``results.jsonl``.

    The audio is written to ``audio/`` as MP3, with ``keep_flac`` also as FLAC. For the floor, the same audio is scored
    against a vibe of another text; ``floor_source`` limits this to one source. ``loop`` is passed to :func:`run_stage`.
    """
    scorers = {scorer.name: scorer.fingerprint for scorer in service.scorers}
    first = _first_with_each_sound(samples, service)

    async def score(sample: Sample) -> Line:
        line = _line(sample)
        answer = sample.answer
        if answer is None or answer.payload is None:
            return line
        own = service.submit(sample.row.vibe_original, answer.payload, want_audio=True)
        # Submitted before the first result, so that both use one render.
        other = service.submit(vibe, answer.payload) if (vibe := _foreign(sample, floor_source)) is not None else None
        scored_render = await asyncio.wrap_future(own)
        key = service.sound_key(answer.payload["config"])
        audio_file = f"audio/{key[:16]}.mp3"
        path = files.folder / audio_file
        if (peaks := await asyncio.to_thread(_write_sound, path, scored_render, first[key], keep_flac)) is not None:
            line["peaks"], line["audio_file"] = peaks, audio_file
        line["scores"], unscored = _scores(scored_render, scorers)
        line["render_seconds"], line["score_seconds"] = scored_render.render_seconds, scored_render.score_seconds
        if not line["scores"]:
            nothing = scored_render.failure.reason if scored_render.failure is not None else "no scorer answered"
            line["failure"] = "; ".join(sorted(set(unscored.values())))[:300] or nothing
        elif unscored:
            line["unscored"] = unscored
        if any(outcome.may_pass for outcome in scored_render.outcomes.values() if isinstance(outcome, Unscored)):
            line[UNFINISHED] = True
        if other is not None:
            shuffled, _ = _scores(await asyncio.wrap_future(other), scorers)
            if line["scores"]:
                line["shuffled_scores"] = {name: score["final_score"] for name, score in shuffled.items()}
        return line

    job = Job[Sample](
        name="bench: score",
        key=lambda sample: sample.id,
        fingerprint=lambda sample: score_fingerprint(sample, service, keep_flac, floor_source),
        work=score,
        complete=lambda line: not line.get(UNFINISHED) and _audio_is_there(line, files.folder, keep_flac),
        line_key=KEY,
        drain=service.drain,
    )
    loop |= {"max_in_flight": max_in_flight, "total": len(samples), "progress": progress}
    return run_stage(job, samples, files.results, files.score_failures, **loop)


def _first_with_each_sound(samples: Sequence[Sample], service: ScoringService) -> dict[str, Sample]:
    """Return the first sample with each sound. Samples with equal configs share a file, which is tagged with the first
    one's vibe, so that the tags do not depend on the order of completion."""
    first: dict[str, Sample] = {}
    for sample in samples:
        if sample.answer is not None and sample.answer.payload is not None:
            first.setdefault(service.sound_key(sample.answer.payload["config"]), sample)
    return first


def _write_sound(path: Path, scored_render: ScoredRender, sample: Sample, keep_flac: bool) -> str | None:
    """Write the sound files of a sample. Returns the waveform for the page, or None without sound."""
    if scored_render.clip is not None:
        scored_render.clip.write(path)
        return scored_render.clip.peaks
    if scored_render.audio is None:
        return None
    title = (sample.answer.payload or {}).get("title") if sample.answer is not None else None
    audio = scored_render.audio.tagged(vibe=sample.row.vibe_original, title=title)
    write_mp3(path, audio)
    if keep_flac:
        write_flac(path.with_suffix(".flac"), audio)
    return waveform(audio)


def score_fingerprint(sample: Sample, service: ScoringService, keep_flac: bool, floor_source: str | None) -> str:
    """Return the identity of a sample's result: it changes with the vibes, the answer, the scorers or the renderer."""
    return digest(
        sample.row.vibe_original,
        # Time and cost of an answer do not change its sound.
        asdict(replace(sample.answer, seconds=None, cost_usd=None)) if sample.answer else None,
        _foreign(sample, floor_source),
        sorted((scorer.name, scorer.fingerprint) for scorer in service.scorers),
        service.sound_key({}),
        keep_flac,
    )


def _foreign(sample: Sample, floor_source: str | None) -> str | None:
    return sample.foreign_vibe if floor_source in (None, sample.source) else None


def _line(sample: Sample) -> Line:
    row, answer = sample.row, sample.answer or Generated(failure="missing: no answer")
    suite = {name: value for name in ("expect", "half") if (value := getattr(row, name, None)) is not None}
    extra: Line = {KEY: sample.id, "raw_valid": answer.raw_valid, **suite}
    return BenchRow(
        row_id=row.row_id,
        source=sample.source,
        dataset=row.dataset,
        id_in_dataset=row.id_in_dataset,
        vibe_original=row.vibe_original,
        vibe_level=row.vibe_level,
        vibe_scope=row.vibe_scope,
        valid=answer.payload is not None,
        failure=answer.failure,
        config_payload=answer.payload,
        generate_seconds=answer.seconds,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        cost_usd=answer.cost_usd,
        **extra,
    ).model_dump(mode="json")


def _scores(scored_render: ScoredRender, scorers: Iterable[str]) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return the scores with their parts, and the reasons of scorers without a score, each by scorer."""
    scores, reasons = {}, {}
    for name in scorers:
        if (score := scored_render.score(name)) is not None:
            scores[name] = score.to_dict()
        elif (unscored := scored_render.unscored(name)) is not None:
            reasons[name] = unscored.reason
    return scores, reasons


def _audio_is_there(line: Line, folder: Path, keep_flac: bool) -> bool:
    name = line.get("audio_file")
    if not name:
        return True
    path = folder / name
    return path.exists() and (not keep_flac or path.with_suffix(".flac").exists())


def ceiling(rows: Sequence[VibeRow], service: ScoringService, scorers: Sequence[str]) -> dict[str, list[float | None]]:
    """Return, for each scorer, the best score among each row's candidates (None without a score): the largest mean that
    a choice among the candidates could reach."""
    futures = [
        [service.submit(row.vibe_original, candidate) for candidate in model_candidates(row) if candidate]
        for row in rows
    ]
    renders = [[future.result() for future in of_row] for of_row in futures]
    return {
        name: [max((s.final_score for one in of_row if (s := one.score(name))), default=None) for of_row in renders]
        for name in scorers
    }


def results_in_order(
    files: RunFiles,
    samples: Sequence[Sample],
    service: ScoringService,
    *,
    keep_flac: bool = False,
    floor_source: str | None = None,
) -> list[BenchRow]:
    """Return one result per sample, by source and in the order of the rows; a sample without a result is a failure.

    ``service``, ``keep_flac`` and ``floor_source`` are those of :func:`score_answers`: results of other answers or
    scorers do not count.
    """
    find = _finder(files.results, files.score_failures, KEY, "not scored")
    return [
        BenchRow.model_validate(
            {**_line(sample), **find(sample.id, score_fingerprint(sample, service, keep_flac, floor_source))}
        )
        for sample in samples
    ]
