"""Blind listening tests: write a pack of pairs, and evaluate the answers.

A pack is a folder with a page: two sounds for each vibe, and the answers A, B and no difference. The sources of A and B
are in ``key.json``, which the page does not read. One pair in ten is a catch trial: a piece against the same piece
under noise, which detects most listeners who answer at random. Strengths of the sources come from :mod:`.strengths`.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from latentscore import Audio
from latentscore.files import read_whole, why_no_file
from latentscore.json_search import JsonObject
from latentscore.seeds import digest, rng_for, unit_hash
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.jsonl import replace_bytes, replace_json
from latentscore_data.core.base.rows import BenchRow
from latentscore_data.core.bench.report import json_for_html
from latentscore_data.core.bench.strengths import Game, fit
from latentscore_data.core.scoring.clips import without_tags, write_mp3

Choice = str
"""``a``, ``b`` or ``tie``."""

CHOICES = ("a", "b", "tie")
SHEET_FILE = "answers.csv"
NAMELESS = "anonymous"
"""The page's name for a listener who gave none."""
CATCH_SHARE = 0.1
"""Number of catch trials, as a share of the pairs."""
CATCH_NEEDED = 0.75
"""Listeners with a smaller share of correct catch trials are excluded."""
NOISE_OVER_MUSIC = 2.0
"""RMS of the noise in a catch trial, relative to the music."""


@dataclass(frozen=True)
class Pair:
    """Two sounds for one vibe. ``catch`` is the correct side of a catch trial, None in other pairs."""

    id: str
    vibe: str
    document: str
    a: str
    b: str
    audio_a: str
    audio_b: str
    catch: Choice | None = None


def choose_pairs(rows: Sequence[BenchRow], count: int, seed: int) -> list[Pair]:
    """Return up to ``count`` pairs of different sounds for one vibe.

    Each two sources are paired about equally often. Rows and sides depend on ``seed`` alone.
    """
    by_vibe: dict[str, list[BenchRow]] = {}
    for row in rows:
        if row.audio_file and row.scores:
            by_vibe.setdefault(row.row_id, []).append(row)
    meetings: Counter[tuple[str, str]] = Counter()
    candidates = [
        (one, two)
        for samples in by_vibe.values()
        for one, two in itertools.combinations(samples, 2)
        if one.audio_file != two.audio_file
    ]
    candidates.sort(key=lambda pair: unit_hash(seed, pair[0].row_id, pair[0].source, pair[1].source))
    pairs: list[Pair] = []
    while candidates and len(pairs) < count:
        at = min(range(len(candidates)), key=lambda i: (meetings[_names(candidates[i])], i))
        one, two = candidates.pop(at)
        meetings[_names((one, two))] += 1
        if unit_hash(seed, one.row_id, one.source, two.source, "side") < 0.5:
            one, two = two, one
        pairs.append(
            Pair(
                digest(seed, one.row_id, one.source, two.source)[:10],
                one.vibe_original,
                one.source_id,
                one.source,
                two.source,
                str(one.audio_file),
                str(two.audio_file),
            )
        )
    return pairs


def _names(pair: tuple[BenchRow, BenchRow]) -> tuple[str, str]:
    one, two = sorted((pair[0].source, pair[1].source))
    return one, two


def write_pack(rows: Sequence[BenchRow], run_folder: Path, count: int, seed: int) -> Path:
    """Write the pack to ``human/`` in the run's folder: page, sounds without source names, answer sheet and key.

    Returns the path of the page. Raises :class:`MissingError` if no vibe has two different sounds.
    """
    pairs = choose_pairs(rows, count, seed)
    if not pairs:
        raise MissingError("there are no two different sounds of one vibe to compare", "name two sources that answer")
    folder = run_folder / "human"
    trials = pairs + _catch_trials(pairs, seed)
    trials.sort(key=lambda pair: unit_hash(seed, pair.id, "order"))
    shown: list[JsonObject] = []
    for pair in trials:
        sides = {"a": pair.audio_a, "b": pair.audio_b}
        for side, name in sides.items():
            target = folder / "audio" / f"{pair.id}-{side}.mp3"
            if pair.catch is not None and side != pair.catch:
                _write_buried(run_folder / name, target, seed)
            else:
                replace_bytes(target, [without_tags((run_folder / name).read_bytes())])
        shown.append({"id": pair.id, "vibe": pair.vibe})
    replace_json(folder / "key.json", {"run": run_folder.name, "pairs": [vars(pair) for pair in trials]})
    # For people without the page: one line per pair, to be completed with a, b or tie.
    sheet = ["pair,choice\n", *(f"{pair.id},\n" for pair in trials)]
    replace_bytes(folder / SHEET_FILE, [line.encode() for line in sheet])
    page = _page(run_folder.name, shown)
    replace_bytes(folder / "index.html", [page.encode("utf-8", "replace")])
    return folder / "index.html"


def _catch_trials(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    wanted = max(2, round(len(pairs) * CATCH_SHARE))
    chosen = sorted(pairs, key=lambda pair: unit_hash(seed, pair.id, "catch"))[:wanted]
    return [
        replace(
            pair,
            id=digest(seed, pair.id, "catch")[:10],
            b=pair.a,
            audio_b=pair.audio_a,
            catch="a" if unit_hash(seed, pair.id, "catch side") < 0.5 else "b",
        )
        for pair in chosen
    ]


def _write_buried(source: Path, target: Path, seed: int) -> None:
    """Write the sound with noise over it, as an MP3."""
    import soundfile

    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    level = float(np.sqrt(np.mean(samples**2))) or 0.05
    hiss = rng_for(seed, target.name).normal(0, level * NOISE_OVER_MUSIC, samples.shape).astype(np.float32)
    stereo = np.repeat(samples, 2, axis=1)[:, :2] if samples.shape[1] == 1 else samples[:, :2]
    target.unlink(missing_ok=True)
    write_mp3(target, Audio(np.clip(stereo + hiss[:, : stereo.shape[1]], -1, 1), rate))


def _page(run: str, trials: Sequence[JsonObject]) -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    template = files("latentscore_data.core.bench").joinpath("human.html.jinja").read_text(encoding="utf-8")
    data = Markup(json_for_html({"run": run, "trials": list(trials)}))
    return Environment(autoescape=True).from_string(template).render(data=data, count=len(trials))


# --- evaluation of the answers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """One listener's answer to one pair."""

    listener: str
    pair: str
    choice: Choice


def read_answers(path: Path) -> tuple[list[Judgement], str | None]:
    """Return the answers in a file (the page's JSON, or a completed sheet) and the run that it names, if any.

    The listener of a sheet is the name of the file. Listeners without a name are identified by the path of their file,
    so that several of them are counted separately. Unanswered pairs are skipped. Raises :class:`InputError` for a file
    without answers.
    """
    if not path.is_file():
        raise InputError(f"{path} {why_no_file(path)}", "name the file that the listening page saved")
    try:
        text = read_whole(path).decode("utf-8-sig")
        if path.suffix == ".json":
            found = json.loads(text)
            run, listener = found.get("run"), (found.get("listener") or "").strip()
            answers = [(item["pair"], item["choice"]) for item in found["answers"]]
            if not all(isinstance(one, str) for one in (run or "", *itertools.chain(*answers))):
                raise TypeError("a run, a pair or a choice is not text")
        else:
            run, listener = None, path.stem if path.name != SHEET_FILE else ""
            answers = [
                (row["pair"].strip(), row["choice"].strip().lower()) for row in csv.DictReader(text.splitlines())
            ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise InputError(
            f"{path} contains no answers ({type(error).__name__}: {error})", "use the file the page saved"
        ) from None
    if listener.casefold() in ("", NAMELESS):
        listener = f"{NAMELESS} ({path})"
    for pair, choice in answers:
        if choice and choice not in CHOICES:
            raise InputError(f"{path}: pair {pair} has the answer {choice!r}", f"answers are {', '.join(CHOICES)}")
    return [Judgement(listener, pair, choice) for pair, choice in answers if choice], run


def evaluate(paths: Sequence[Path], bench_dir: Path, *, seed: int = 0, resamples: int = 400) -> JsonObject:
    """Evaluate the answers in ``paths``, and write the result to ``human/result.json`` in the folder of their run.

    Returns the result of :func:`judge` with ``run`` and ``written`` (the path). Raises :class:`InputError` for files
    without answers, for contradicting answers of one listener, and for answers that belong to no pack.
    """
    judgements: list[Judgement] = []
    named: set[str] = set()
    first_answers: dict[tuple[str, str], tuple[Choice, Path]] = {}
    # A file that is given twice is read once.
    for path in {Path(os.path.realpath(path)): path for path in paths}.values():
        found, run = read_answers(path)
        for answer in found:
            choice, before = first_answers.setdefault((answer.listener, answer.pair), (answer.choice, path))
            if choice != answer.choice and before != path:
                raise InputError(
                    f"{answer.listener} answers pair {answer.pair} with {choice} in {before} and {answer.choice} in {path}",
                    "leave one of the files out, or give each listener a name of their own",
                )
        judgements += found
        named |= {run} if run else set()
    folder, pairs = _pack(bench_dir, named, {judgement.pair for judgement in judgements})
    result = judge(judgements, pairs, seed=seed, resamples=resamples)
    out = folder / "human" / "result.json"
    replace_json(out, result)
    return {**result, "run": folder.name, "written": str(out)}


def _pack(bench_dir: Path, named: set[str], answered: set[str]) -> tuple[Path, dict[str, Pair]]:
    """Return the run folder of the pack that the answers belong to, and its pairs by id.

    The folder is that of the key file. Names in key or answers, which are untrusted, never become a path.
    """
    if len(named) > 1:
        raise InputError(f"the answers are for several runs: {', '.join(sorted(named))}", "evaluate one run at a time")
    for path in sorted(bench_dir.glob("*/human/key.json")):
        folder = path.parent.parent
        if path.resolve() != bench_dir.resolve() / folder.name / "human" / path.name:
            continue  # a link: the result would be written outside the run's folder
        run, pairs = _read_key(path)
        if (not named or named & {run, folder.name}) and answered & pairs.keys():
            return folder, pairs
    raise InputError(f"no listening pack under {bench_dir} has these pairs", "give the --root that wrote the pack")


def _read_key(path: Path) -> tuple[str, dict[str, Pair]]:
    """Return the run that a key names, and its pairs by id. Raises :class:`InputError` for a file that is not a key."""
    try:
        key = json.loads(read_whole(path))
        pairs = {pair.id: pair for pair in (Pair(**found) for found in key["pairs"])}
        for pair in pairs.values():
            texts = [value for value in vars(pair).values() if value is not pair.catch]
            if not all(isinstance(text, str) for text in texts) or pair.catch not in (None, "a", "b"):
                raise TypeError(f"pair {pair.id} is not one")
        return str(key["run"]), pairs
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not the key of a listening pack ({type(error).__name__}: {error})",
            "restore it, or write the pack again with --human-pack",
        ) from None


def judge(
    judgements: Sequence[Judgement], pairs: Mapping[str, Pair], *, seed: int = 0, resamples: int = 1000
) -> JsonObject:
    """Return the strengths of the sources by the answers of the listeners who passed the catch trials.

    ``resamples`` is the number of bootstrap resamples of the intervals. Raises :class:`InputError` for answers to
    unknown pairs, and if no answers are left.
    """
    unknown = sorted({j.pair for j in judgements} - set(pairs))
    if unknown:
        raise InputError(
            f"{len(unknown)} answers are for pairs of another pack ({unknown[0]})", "use this pack's answers"
        )
    by_listener: dict[str, list[Judgement]] = {}
    for judgement in {(j.listener, j.pair): j for j in judgements}.values():
        by_listener.setdefault(judgement.listener, []).append(judgement)
    caught = {name: _catch_score(answers, pairs) for name, answers in by_listener.items()}
    left_out = sorted(name for name, share in caught.items() if share is not None and share < CATCH_NEEDED)
    kept = [
        judgement
        for name, answers in by_listener.items()
        if name not in left_out
        for judgement in answers
        if pairs[judgement.pair].catch is None
    ]
    if not kept:
        raise InputError("no answers are left", "no listener passed the catch trials, or there were no answers")
    games = [
        Game(pair.a, pair.b, CHOICES.index(answer.choice), pair.document)
        for answer in kept
        if (pair := pairs[answer.pair])
    ]
    players, tie = fit(games, seed=seed, resamples=resamples)
    return {
        "answers": len(kept),
        "listeners": len(by_listener),
        "left_out": ", ".join(left_out) or "nobody",
        "catch_trials": caught,
        "tie_parameter": tie,
        "strengths": [player.to_dict() for player in players],
    }


def _catch_score(answers: Sequence[Judgement], pairs: Mapping[str, Pair]) -> float | None:
    """Return the share of correct catch trials; None without any."""
    right = [answer.choice == catch for answer in answers if (catch := pairs[answer.pair].catch) is not None]
    return sum(right) / len(right) if right else None
