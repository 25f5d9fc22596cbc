"""The rounds of improve: a model answers, its answers are scored, the next model learns from them, a judge decides."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from latentscore.forms import form_of
from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.answerers import LOCAL
from latentscore_data.core.base.display import say
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError, raised_by
from latentscore_data.core.base.jsonl import read_lines, read_object, read_rows, replace_bytes, replace_json
from latentscore_data.core.base.ledger import SpendTracker
from latentscore_data.core.base.row_files import RowFiles
from latentscore_data.core.base.rows import ScoredRow, VibeRow, spread
from latentscore_data.core.base.settings import Recipe, Settings, TrainSettings
from latentscore_data.core.base.summary import Summary
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.compute.estimates import cap_usd
from latentscore_data.core.compute.ray_executor import RayExecutor
from latentscore_data.core.compute.registry import make_executor
from latentscore_data.core.configs.candidate_generation import VibeRows
from latentscore_data.core.export.pictures import panels
from latentscore_data.core.llm.plan import Plan
from latentscore_data.core.models.base_models import absolute_base, adapter_base
from latentscore_data.core.models.engines import check_local
from latentscore_data.core.models.local_names import place_of, weights_facts
from latentscore_data.core.models.runs import RunFolder, newest_sft
from latentscore_data.core.models.spec import Choices, check_run_id, effective_settings, unnamed
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.executor import Executor, RemoteJobEstimate
from latentscore_data.core.scoring.registry import make_scorers, resolve_auto, scorer_names, spellings
from latentscore_data.core.scoring.renderer import LocalRenderer
from latentscore_data.core.stages.base import RunContext, Stage
from latentscore_data.core.stages.configs import paid_scorers, run_generate, run_score
from latentscore_data.core.stages.spending import RunPlan, confirm_remote_jobs, confirm_spending
from latentscore_data.core.stages.train import StartOptions, agree, check_runs, train_one
from latentscore_data.core.training.preference import preference_pairs
from latentscore_data.core.training.prepare import NO_ADAPTER, VALIDATION_SPLIT, Rows, starting_point
from latentscore_data.core.training.rounds import (
    Round,
    Verdict,
    against,
    best_scores,
    table,
    verdict,
    with_winner,
)

LEARNED_SPLIT = "GRPO"
SPEC_FILE, TABLE_FILE, PICTURE_FILE = "spec.json", "rounds.json", "rounds.svg"
VERSION = 1
"""Raised when the same settings and rows give other rounds."""


@dataclass(frozen=True)
class Rounds:
    """The rounds of one command: the values that determine them, and their paths. Creating the object writes nothing."""

    settings: Settings
    overrides: Sequence[str] = ()
    context: RunContext = field(default_factory=RunContext)

    @cached_property
    def workspace(self) -> Workspace:
        return Workspace(self.settings.paths.root)

    @cached_property
    def judge(self) -> str:
        """The scorer that decides. Raises :class:`InputError` unless it is named and differs from the guide."""
        judge, guide = self.settings.improve.judge, self.guide
        others = [name for name in (*spellings(), "path/to/file.py:fn") if name != guide]
        choices = f"--judge takes another scorer than {guide}: {', '.join(others)}"
        if judge is None:
            raise InputError(f"no judge is named, and {guide} chooses the answers", choices)
        resolved = resolve_auto(self.settings.scoring)[0] if judge == "auto" else judge
        if resolved == guide:
            raise InputError(f"judge and guide are the same scorer: {guide} would judge its own choices", choices)
        return resolved

    @cached_property
    def guide(self) -> str:
        """The scorer that selects the training answers."""
        return scorer_names(self.settings.scoring)[0]

    @cached_property
    def start(self) -> str:
        """The model to improve, by its name as a local model: a run, a folder, or the base model."""
        if (named := self.settings.improve.model) is not None:
            choices = Choices("dpo", adapter=named)
            return starting_point(self.settings.train, choices, self.workspace, say) or self.base
        # The runs of rounds are never the start, so that a repeated command finds the same start.
        rounds = [f"{folder.name}-round-" for folder in self.workspace.improve_dir.glob("*")]
        newest = newest_sft(self.workspace.train_dir, self.base, self.train.answer, say, rounds)
        if newest is None:
            say(
                f"no finished SFT run of {self.base}: the rounds start from the base model, which has not seen the format"
            )
        return self.base if newest is None else newest.run_id

    @property
    def method(self) -> Recipe:
        """The recipe of a round."""
        return self.settings.improve.method

    @cached_property
    def base(self) -> str:
        """The base model of the settings, by the name under which it is found from any folder."""
        return absolute_base(self.train.base_model, self.workspace.train_dir)

    @cached_property
    def train(self) -> TrainSettings:
        """The settings under which a round trains."""
        return effective_settings(self.settings.train, Choices(self.method, overrides=self.overrides))[0]

    def base_of(self, model: str) -> str:
        """Return the base of a round that continues this model: the base of its adapter, or of its run."""
        run = RunFolder(self.workspace.train_dir / model)
        base = adapter_base(run.final if run.final.is_dir() else Path(model))
        spec = run.spec() if base is None else None
        return base or (spec.base_model if spec is not None else self.base)

    @cached_property
    def learned(self) -> list[VibeRow]:
        """The vibes whose answers are used for training. Raises :class:`MissingError` if there are none."""
        return self._vibes(LEARNED_SPLIT, self.settings.improve.limit)

    @cached_property
    def judged(self) -> list[VibeRow]:
        """The vibes for the judge. Raises :class:`MissingError` if there are none."""
        return self._vibes(VALIDATION_SPLIT, self.settings.improve.validation)

    def _vibes(self, split: str, limit: int | None) -> list[VibeRow]:
        wanted = self.settings.configs.model_copy(update={"splits": [split], "limit": None})
        rows = spread(VibeRows(self.workspace, wanted), limit, lambda row: row.source_id)
        if not rows:
            raise MissingError(f"there are no {split} vibes in {self.workspace.vibes(split)}", "run lsdata vibes")
        return rows

    @cached_property
    def spec(self) -> JsonObject:
        """The values that determine the rounds, as in ``spec.json``, without the number of rounds and the stop conditions."""
        improve = self.settings.improve.model_dump(mode="json", exclude={"rounds", "min_entropy", "name", "model"})
        place = place_of(self.start, self.workspace.train_dir)
        train = self.settings.train
        left_out = {**dict.fromkeys(("skip", "on", "modal", "recipes"), True), **unnamed(train)}
        spec = {
            "version": VERSION,
            "improve": improve,
            "guide": self.guide,
            "start": self.start,
            "weights": digest(*weights_facts(place))[:12],
            "configs": self.settings.configs.model_dump(mode="json", include={"temperature", "top_p", "max_tokens", "seed"}),
            "scoring": self.settings.scoring.model_dump(mode="json", include={"seconds", "seed"}),
            "search": self.settings.search.model_dump(mode="json"),
            "train": train.model_dump(mode="json", exclude=left_out),
            "set": list(self.overrides),
            "rows": digest(*(f"{row.row_id} {row.vibe_original}" for row in (*self.learned, *self.judged)))[:12],
        }  # fmt: skip
        return json.loads(json.dumps(spec))  # as it is read back

    @cached_property
    def name(self) -> str:
        """The name of the folder and of the runs."""
        return check_run_id(
            self.settings.improve.name or f"improve-{digest(json.dumps(self.spec, sort_keys=True))[:8]}"
        )

    @property
    def folder(self) -> Path:
        return self.workspace.improve_dir / self.name

    def for_answers(self) -> Settings:
        """The settings under which a model answers the vibes that are learned."""
        return self._asking(LEARNED_SPLIT, [self.guide], n=self.settings.improve.n)

    def for_judging(self) -> Settings:
        """The settings under which a model answers the validation vibes: once, with its likeliest answer, without search."""
        asking = self._asking(VALIDATION_SPLIT, [self.judge, self.guide], n=1, temperature=0.0)
        return asking.changed(search={"renders": None})

    def work(self) -> list[tuple[Settings, int]]:
        """Return the settings and the number of vibes for the answers of all rounds: those for training, those for the judge."""
        count = self.settings.improve.rounds
        return [
            (self.for_answers(), count * len(self.learned)),
            (self.for_judging(), (count + 1) * len(self.judged)),
        ]

    def _asking(self, split: str, scorers: list[str], **asked: Any) -> Settings:
        asked |= {"splits": [split], "limit": None, "vibes_per_call": 1}
        return self.settings.changed(configs=asked, scoring={"scorers": scorers}, search={"judge": None})


def check(rounds: Rounds) -> None:
    """Raise the errors that the run would raise before its first call or render."""
    for settings in (rounds.for_answers(), rounds.for_judging()):
        make_scorers(ScorerDeps(settings.scoring, settings.llm, trusted=rounds.context.trusted))
    check_local(LOCAL.prefix + rounds.start, rounds.workspace.train_dir)
    old = rounds.folder / SPEC_FILE
    if old.exists() and (kept := read_object(old, f"delete {rounds.folder}")) != rounds.spec:
        changed = [name for name in rounds.spec if kept.get(name) != rounds.spec[name]]
        raise InputError(
            f"the rounds {rounds.name} were started with other {', '.join(changed)}",
            f"use another --name, or delete {rounds.folder}",
        )


def plans(rounds: Rounds) -> list[Plan]:
    """Return the plans of paid scorers for all rounds."""
    return [
        plan
        for settings, rows in rounds.work()
        for plan in paid_scorers(
            settings, rows, ScorerDeps(settings.scoring, settings.llm, trusted=rounds.context.trusted)
        )
    ]


def plan_improve(rounds: Rounds, executor: Executor) -> JsonObject:
    """Return the work and maximum cost of all rounds. Raises the errors of unusable rows, models or judges."""
    settings, improve = rounds.settings, rounds.settings.improve
    each = max(improve.n, settings.search.renders or 0)
    modal = settings.train.modal
    return {
        "name": rounds.name,
        "start": rounds.start,
        "method": improve.method,
        "guide": rounds.guide,
        "judge": rounds.judge,
        "rounds": improve.rounds,
        "vibes_learned": len(rounds.learned),
        "vibes_judged": len(rounds.judged),
        "answers": improve.rounds * len(rounds.learned) * improve.n + (improve.rounds + 1) * len(rounds.judged),
        "runs_on": executor.name,
        "renders": improve.rounds * len(rounds.learned) * each + (improve.rounds + 1) * len(rounds.judged),
        "plans": [plan.to_dict() for plan in plans(rounds)],
        "cap_usd": _remote_cap(rounds, executor) if executor.remote else 0.0,
        "modal_gpu": modal.gpu if settings.train.on == "modal" else None,
    }


def _remote_jobs(rounds: Rounds, executor: Executor) -> list[RemoteJobEstimate]:
    work = rounds.work()
    executor.check_model(rounds.start, rounds.workspace.train_dir)
    form = form_of(place_of(rounds.start, rounds.workspace.train_dir))
    tokens = rounds.settings.configs.max_tokens
    answers = sum(rows * settings.configs.n for settings, rows in work)
    jobs = executor.estimate_answers(
        f"{rounds.start} and of the rounds",
        answers,
        min(form.most_tokens or tokens, tokens),
        rounds.settings.llm.max_concurrency,
    )
    found = [replace(job, booked=True) for job in jobs]
    for settings, rows in work:
        if (reason := executor.scorer_blocker(settings.scoring)) is not None:
            say(f"improve: {settings.configs.splits[0]} answers are scored here: {reason}")
        else:
            sounds = rows * max(settings.configs.n, settings.search.renders or 0)
            found += executor.estimate_scoring(sounds, settings.scoring, clips=False)
    return found


def _remote_cap(rounds: Rounds, executor: Executor) -> float:
    train = rounds.settings.train
    training = cap_usd(train.modal, train.modal.gpu, rounds.settings.improve.rounds) if train.on == "modal" else 0.0
    return training + sum(job.cap_usd for job in _remote_jobs(rounds, executor))


def run_improve(rounds: Rounds, executor: Executor) -> Summary:
    """Make the rounds that are missing, under the lock that the caller holds, and report on all of them."""
    started = time.monotonic()
    check(rounds)
    settings = rounds.settings.improve
    summary = Summary("improve", unit="round")
    replace_json(rounds.folder / SPEC_FILE, rounds.spec)
    work = _Work(rounds, executor, summary)
    done: list[Round] = []
    found = Verdict(None)
    while not found.stop and len(done) <= settings.rounds:
        one = Round.read(rounds.folder / f"round-{len(done)}")
        if one is None:
            if not summary.done:
                _agree(rounds, executor)
            say(f"round {len(done)} of up to {settings.rounds}" if done else "round 0: the model as it is")
            one = work.make(len(done), found.best.model if found.best else rounds.start)
            summary.done += one is not None
        else:
            summary.skipped += 1
        if one is None:
            found = Verdict(
                found.best, f"{rounds.guide} gives all answers to each vibe of round {len(done)} the same score"
            )
            break
        done.append(one)
        found = verdict(done, rounds.judge, settings.min_entropy)
        _report(rounds, done, found)
    summary.seconds = time.monotonic() - started
    return _summed_up(summary, rounds, done, found)


def check_start(rounds: Rounds, executor: Executor) -> None:
    """Raise the errors that the run would raise before any call, including a cap that it could exceed."""
    check(rounds)
    jobs = _remote_jobs(rounds, executor) if executor.remote else []
    spend = SpendTracker()
    RunPlan(plans(rounds), jobs, executor).check(rounds.settings, spend)
    check_runs(rounds.settings, rounds.settings.improve.rounds, spend)


def _agree(rounds: Rounds, executor: Executor) -> None:
    """Ask once, for all rounds, before anything is spent."""
    context = rounds.context
    for plan in plans(rounds):
        confirm_spending(plan, rounds.settings.llm, context.yes)
    if executor.remote:
        confirm_remote_jobs(_remote_jobs(rounds, executor), executor, rounds.settings, context)
    if rounds.settings.train.on == "modal":
        agree(rounds.settings, StartOptions(yes=context.yes, spend=context.spend), runs=rounds.settings.improve.rounds)


@dataclass(frozen=True)
class _Work:
    """The phases of a round. Each can be resumed; the file ``round.json`` marks the end of the round."""

    rounds: Rounds
    executor: Executor
    """Where the models answer and train, and where answers are scored by scorers that can run there."""
    used: Summary

    def make(self, number: int, model: str) -> Round | None:
        """Make round ``number``, which continues ``model``; return None if all answers to each vibe have the same score."""
        if number == 0:
            return self._judged(number, model)
        rows = self._answers(self.rounds.for_answers(), number, "answers", model, self.rounds.learned)
        learned = len(rows)
        if self.rounds.method == "dpo":
            train = effective_settings(self.rounds.settings.train, Choices("dpo", overrides=self.rounds.overrides))[0]
            learned = len(preference_pairs(rows, train.dpo).pairs)
            if not learned and number > 1:
                return None
        trained = self._trained(number, model, rows)
        return self._judged(number, trained, learned=learned, best_of=best_scores(rows))

    def _judged(self, number: int, model: str, **trained: Any) -> Round:
        """Return the round: the model's likeliest answers to the validation vibes, scored by judge and guide."""
        rows = self._answers(self.rounds.for_judging(), number, "judged", model, self.rounds.judged)
        made = Round.judged(number, model, self.rounds.judged, rows, **trained)
        if not number and not made.scores.get(self.rounds.judge):
            folder = self.rounds.folder / "round-0"
            raise MissingError(
                f"{model} gave no answer that {self.rounds.judge} could score to any of {len(self.rounds.judged)} vibes"
                f"{_first_failure(self.rounds.workspace.within(folder / 'judged'))}",
                f"see *.failures.jsonl below {folder}; a model that was never trained (lsdata train sft) or answers that are "
                "cut (configs.max_tokens) are likely reasons",
            )
        made.write(self.rounds.folder / f"round-{number}")
        return made

    def _answers(
        self, settings: Settings, number: int, phase: str, model: str, vibes: list[VibeRow]
    ) -> list[ScoredRow]:
        """Return the scored answers of a model, in an order that does not depend on when they were finished."""
        room = self.rounds.workspace.within(self.rounds.folder / f"round-{number}" / phase)
        settings = settings.changed(configs={"model": LOCAL.prefix + model})
        here = not self.executor.remote or self.executor.scorer_blocker(settings.scoring) is not None
        make_renderer = LocalRenderer if here else self.executor.make_renderer()
        with RowFiles(room) as files:
            context = replace(self.rounds.context, executor=self.executor)
            summary = run_generate(settings, files, vibes, context)
            summary = run_score(summary, settings, files, context, make_renderer)
        self.used.add_bill(summary)
        path = room.scored(settings.configs.splits[0])
        return with_winner(read_rows(path, ScoredRow)) if path.exists() else []

    def _trained(self, number: int, model: str, rows: list[ScoredRow]) -> str:
        """Train on these rows and return the run."""
        rounds = self.rounds
        workspace, adapter = rounds.workspace, None
        settings = rounds.settings.changed(train={"base_model": rounds.base_of(model)})
        if rounds.method == "dpo":
            adapter = NO_ADAPTER if model == rounds.base else model
        elif (known := workspace.scored("SFT-Train")).exists():
            # Winners alone are few; adding the original training rows prevents forgetting.
            rows = [*with_winner(read_rows(known, ScoredRow, torn="drop")), *rows]
        data: Rows = {"train": rows}
        if (validation := workspace.scored(VALIDATION_SPLIT)).exists():
            data["val"] = list(read_rows(validation, ScoredRow, torn="drop"))
        run_id = f"{rounds.name}-round-{number}"
        choices = Choices(rounds.method, run_id, adapter, overrides=rounds.overrides)
        how = StartOptions(yes=True, spend=rounds.context.spend, agreed=True)
        train_one(settings, choices, how, data, self.executor if isinstance(self.executor, RayExecutor) else None)
        return run_id


def _first_failure(room: Workspace) -> str:
    """Return the message of a failed row, to append to another message; empty if none failed."""
    files = (room.failures("score"), room.failures("configs"))
    lines = (line for file in files if file.exists() for _, line in read_lines(file, torn="drop"))
    return next((f": {line.get('message')}" for line in lines), "")


def _report(rounds: Rounds, done: list[Round], found: Verdict) -> None:
    """Write the table and the picture of the rounds so far."""
    best = found.best.model if found.best else None
    lines = table(done, rounds.judge, rounds.guide)
    document = {"judge": rounds.judge, "guide": rounds.guide, "best": best, "stopped": found.stop, "rounds": lines}
    replace_json(rounds.folder / TABLE_FILE, document)
    series = {
        f"judge: {rounds.judge}": rounds.judge,
        f"guide: {rounds.guide}": rounds.guide,
        "label entropy": "entropy",
    }
    picture = panels(
        f"rounds of {rounds.name}", {shown: [line[name] for line in lines] for shown, name in series.items()}
    )
    replace_bytes(rounds.folder / PICTURE_FILE, [picture.encode()])


def _summed_up(summary: Summary, rounds: Rounds, done: list[Round], found: Verdict) -> Summary:
    best = found.best or done[0]
    change = against(done[0], best, rounds.judge) if best.number else None
    summary.fresh = summary.done == 0
    summary.details = {
        "best": best.model,
        "judge": "no round is better than the start" if change is None else change.in_words(),
        "stopped": found.stop or f"all {rounds.settings.improve.rounds} rounds are made",
        "rounds": table(done, rounds.judge, rounds.guide),
    }
    summary.outputs = [str(rounds.folder / name) for name in (TABLE_FILE, PICTURE_FILE)]
    start = f" --source local:{rounds.start}=start" if best.number else ""
    summary.next_step = f"lsdata bench --source local:{best.model}{start} --source baseline:lookup"
    return summary


def known_rounds(workspace: Workspace) -> list[JsonObject]:
    """Return the contents of all files ``rounds.json`` of a workspace, with the ``name`` of the rounds, sorted by name."""
    files = sorted(workspace.improve_dir.glob(f"*/{TABLE_FILE}"))
    return [{**_known(file), "name": file.parent.name} for file in files]


def _known(file: Path) -> dict[str, Any]:
    """Read a table of rounds whose best model has a line. Raises :class:`InputError` for an invalid file."""
    remedy = "delete it: lsdata improve writes it again"
    held = read_object(file, remedy)
    lines = held.get("rounds")
    if (
        not isinstance(held.get("judge"), str)
        or not isinstance(lines, list)
        or not all(isinstance(line, dict) and isinstance(line.get("model"), str) for line in lines)
        or held.get("best") not in [line["model"] for line in lines]
    ):
        raise InputError(f"{file} is damaged (it contains no table of rounds)", remedy)
    return held


def preflight(settings: Settings) -> list[LsdataError]:
    """Return the errors that would stop the rounds before they start."""
    return list(raised_by(lambda: check(Rounds(settings))))


def run_stage(settings: Settings, context: RunContext) -> Summary:
    """Run the rounds of the settings on the executor ``train.on``."""
    with closing(make_executor(settings.train.on, settings, say)) as executor:
        return run_improve(Rounds(settings, context=context), executor)


STAGE = Stage("improve", lambda settings, workspace: [], preflight, run_stage)
