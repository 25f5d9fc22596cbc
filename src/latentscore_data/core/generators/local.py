"""The generator of local models, ``local:NAME``, on this machine or on a remote executor.

Each batch is decoded greedily twice: without constraints, to measure whether the model writes valid payloads by itself
(``raw_valid``; generation ends early if the first tokens are not those of an answer), and constrained to the answers'
grammar. The second answer counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from latentscore import schema_hash
from latentscore.api.answers import payload_text
from latentscore.decoding import Prompt
from latentscore.files import user_path
from latentscore.forms import JSON, form_of, prompt_messages
from latentscore.json_search import JsonObject
from latentscore.prompt import vibe_message
from latentscore.seeds import digest
from latentscore_data.core.base.jsonl import read_object
from latentscore_data.core.base.ledger import Usage
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import BenchSettings, PromptsSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.generators.simple import checked
from latentscore_data.core.generators.types import (
    AnyGenerator,
    Depends,
    Generated,
    GeneratorDeps,
    KnownRows,
    SourceKind,
    SourceName,
    SourceNote,
)
from latentscore_data.core.llm.prompts import config_prompt_hash, named_system, own_system
from latentscore_data.core.models.engines import engine_for
from latentscore_data.core.models.local_names import place_of, weights_facts
from latentscore_data.core.scoring.executor import Executor, RemoteJobEstimate


class LocalGenerator:
    """``local:NAME``: a folder, an adapter, a training run, a GGUF file, a hub id or ``tiny-random``.

    Raises :class:`MissingError` without the ml extra or the weights, and :class:`InputError` for a model that cannot be
    loaded.
    """

    def __init__(
        self, label: str, name: str, *, batch_size: int, max_new_tokens: int, runs: Path, system: str | None = None
    ) -> None:
        self._engine = engine_for(name, runs, f"the source {label}")
        self.label = label
        self.batch_size = batch_size
        self._max_new_tokens = max_new_tokens
        # A model that writes labels is always asked with the system message of its training.
        self._form = form_of(place_of(name, runs))
        self._system = system if self._form.name == JSON.name else None
        self.fingerprint = answers_fingerprint(name, runs, max_new_tokens, system)

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        """Yield one answer per row. ``seconds`` is the time of constrained decoding only."""
        form, vibes = self._form, [row.vibe_original for row in rows]
        room = min(self._max_new_tokens, form.most_tokens or self._max_new_tokens)
        prompts = [Prompt(prompt_messages(vibe, self._system, form), room, openings=form.openings) for vibe in vibes]
        unconstrained = self._engine.write(prompts)
        started = perf_counter()
        grammar = form.grammar()
        constrained = self._engine.write([replace(prompt, grammar=grammar) for prompt in prompts])
        seconds = (perf_counter() - started) / len(rows)
        for vibe, raw, written in zip(vibes, unconstrained, constrained, strict=True):
            answer = _read(payload_text(form, written.text, vibe), cut=written.cut, strict=False)
            yield Generated(
                payload=answer.payload,
                failure=answer.failure,
                raw_valid=_read(payload_text(form, raw.text, vibe), cut=False, strict=True).payload is not None,
                seconds=seconds,
                tokens_in=written.tokens_in,
                tokens_out=written.tokens_out,
            )


def _read(text: str, *, cut: bool, strict: bool) -> Generated:
    """Return an answer's payload or failure. Unless ``strict``, strings may contain control characters."""
    try:
        value = json.loads(text, strict=strict)
    except (ValueError, RecursionError):
        return Generated(failure="the answer was cut at max_new_tokens" if cut else "the answer is not JSON")
    if not isinstance(value, dict):
        return Generated(failure="the answer is not a JSON object")
    return checked(value)


def answers_fingerprint(name: str, runs: Path, max_new_tokens: int, system: str | None = None) -> str:
    """Return a hash that changes if the model's answers may change. Needs none of the libraries that run the model."""
    place = place_of(name, runs)
    form = form_of(place)
    asked = form.system() if form.name != JSON.name else system
    prompt = config_prompt_hash() if asked is None else digest(asked, vibe_message("vibe"))
    return digest("local", name, *weights_facts(place), prompt, schema_hash(), max_new_tokens)


class RemoteGenerator:
    """``local:NAME`` on a remote executor; ``NAME`` is a hub id or a training run.

    Its fingerprint is that of :class:`LocalGenerator`. Rows, prompts and settings are sent as JSON text. The cost of an
    answer is its share of the seconds that a worker needed for its shard. Raises :class:`MissingError` if the executor
    cannot be used, :class:`InputError` for a model that its workers cannot load, and the error of a failed shard.
    """

    def __init__(
        self,
        label: str,
        name: str,
        bench: BenchSettings,
        executor: Executor,
        runs: Path,
        system: str | None = None,
        book: Callable[[str, Sequence[Generated]], None] = lambda model, answers: None,
    ) -> None:
        executor.require()
        executor.check_model(name, runs)
        self.label = label
        self.batch_size = executor.at_once
        self.fingerprint = answers_fingerprint(name, runs, bench.max_new_tokens, system)
        self._system = system
        self._name, self._bench, self._executor, self._runs = name, bench, executor, runs
        self._book, self.usage = book, Usage()
        self._sent = False

    def generate(self, rows: Sequence[VibeRow]) -> Iterator[Generated]:
        """Yield one answer per row, in order, when its shard is done."""
        if not self._sent:
            self._executor.send_model(self._name, self._runs)
            self._sent = True
        common = {
            "source": f"local:{self._name}",
            "bench": self._bench.model_dump(mode="json"),
            "system": self._system,
        }
        plain = [row.model_dump(mode="json", include={*VibeRow.model_fields}) for row in rows]
        for part in self._executor.map("generate_shard", "rows", plain, common):
            cost = self._executor.price_per_second(gpu=True) * part["seconds"] / len(part["generated"])
            answers = [Generated(**{**answer, "cost_usd": cost}) for answer in part["generated"]]
            self._book(f"local:{self._name}", answers)
            for one in answers:
                self.usage.add(Usage.of_call(one.tokens_in or 0, one.tokens_out or 0, cost))
            yield from answers


class LocalKind(SourceKind):
    """``local:NAME``."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        bench, system = deps.bench, system_of(source.name, deps.runs, deps.prompts)
        if deps.executor is not None and deps.executor.remote:
            return RemoteGenerator(source.label, source.name, bench, deps.executor, deps.runs, system, deps.book)
        return LocalGenerator(
            source.label,
            source.name,
            batch_size=bench.batch_size,
            max_new_tokens=bench.max_new_tokens,
            runs=deps.runs,
            system=system,
        )

    def depends(self, source: SourceName, settings: Settings, workspace: Workspace) -> Depends:
        # A model that was trained again has the same name, but different weights.
        system = system_of(source.name, workspace.train_dir, settings.prompts)
        weights = answers_fingerprint(source.name, workspace.train_dir, settings.bench.max_new_tokens, system)
        return Depends(versions={f"source {source.label}": weights})

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        record = run_record(source.name, known.runs)
        if not record:
            return SourceNote(named_system(known.prompts))
        trained = f"{record.get('kind', '?')} of {record.get('base_model', '?')}"
        if record.get("spec", {}).get("system"):
            trained += ", asked with the system prompt it was trained with"
        return SourceNote(trained, taught_by(source.name, known.runs))

    def estimate(
        self, source: SourceName, rows: int, settings: Settings, executor: Executor
    ) -> list[RemoteJobEstimate]:
        bench = settings.bench
        # Each answer is generated twice: without and with constraints.
        found = executor.estimate_answers(source.label, rows, 2 * bench.max_new_tokens, bench.batch_size)
        return [replace(one, booked=True) for one in found]


def run_record(name: str, runs: Path) -> JsonObject:
    """Return the record of a run for its id or the path of its folder, model or export; empty without a record."""
    named = user_path(name)
    places = (runs / name, *((named, named.parent) if named.exists() else ()))
    # An exported model has the record of its run as training.json.
    for path in (folder / record for folder in places for record in ("run.json", "training.json")):
        if path.is_file():
            return read_object(path, "delete it; the run's record is then unknown")
    return {}


def system_of(name: str, runs: Path, prompts: PromptsSettings) -> str | None:
    """Return a model's system message: a run's own, else that of the settings; None for the package's own.

    Raises :class:`InputError` for a damaged record or prompt file.
    """
    if record := run_record(name, runs):
        return record.get("spec", {}).get("system")
    return own_system(prompts)


def taught_by(name: str, runs: Path) -> tuple[str, ...]:
    """Return the scorers that chose training rows of a model or rewarded it, with those of the runs it continues."""
    found: dict[str, None] = {}
    names = [name]
    for one in names:
        record = run_record(one, runs)
        found |= dict.fromkeys(record.get("chosen_by", []))
        if (scorer := record.get("calibration", {}).get("scorer", "none")) != "none":
            found[str(scorer)] = None
        before = [str(record[key]) for key in ("adapter", "base_model") if record.get(key)]
        names += [start for start in before if start not in names]
    return tuple(found)
