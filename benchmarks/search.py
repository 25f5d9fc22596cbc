"""Compare search with random configs and with Best-of-8, guided by the acoustic scorer, on held-out vibes.

    python benchmarks/search.py [--vibes 40] [--renders 64] [--judge FILE.py:FN] [--cache scores.sqlite]
    python benchmarks/search.py --optimizers [--vibes 40]

The vibes are pairs of the starter set, half of them naming fields. Those pairs are taken out of the set, so that neither the
offline model nor the map knows them. Judges that did not guide:

* reference: how near the sound comes to that of the config which was written for the vibe (mean distance of the 18
  descriptors, in standard deviations, negated; and their cosine);
* acoustic-2: the acoustic scorer on another seed of the piece and 20 s of it;
* whatever --judge names.

Best-of-64 random is drawn from the configs that the surrogate is fitted on. Seconds of the processor are given beside those of the
clock, which other programs make longer. --optimizers compares methods of proposing configs, 64 evaluations each, on the predictions of a
surrogate in the place of renders: this package's with and without a surrogate of its own (fitted on half of the configs), a
(1+1) evolutionary method and, where the package cmaes is installed, CatCMA (Hamano et al. 2024).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from latentscore import random_config
from latentscore.meaning import starter
from latentscore.meaning.lexicon import parse_vibe
from latentscore.meaning.offline import payload_for
from latentscore.meaning.reading import read
from latentscore.seeds import rng_for
from latentscore_data.core.base.settings import ScoringSettings, SearchSettings
from latentscore_data.core.scoring.acoustic import TYPICAL, AcousticScorer, asked_for
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorer
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.search.method import Method, Prediction
from latentscore_data.core.search.prior import Prior, make_prior, named_fields, share_kept
from latentscore_data.core.search.report import interval as bootstrap
from latentscore_data.core.search.searcher import NO_VIBE, Searcher, one_thread
from latentscore_data.core.search.space import SIZES, STARTS, Codes, Floats, drawn, encode, in_order, mixed
from latentscore_data.core.search.surrogate import Surrogate

CANDIDATES = 8


@dataclass
class Trial:
    """One vibe: the config that was written for it, and the config that each way of answering chose."""

    vibe: str
    written: dict[str, Any]
    chosen: dict[str, dict[str, Any]]
    scores: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vibes", type=int, default=40)
    parser.add_argument("--renders", type=int, default=64)
    parser.add_argument("--near", type=float, default=SearchSettings().near, help="search.near")
    parser.add_argument("--judge", action="append", default=[], help="another scorer, such as ear.py:score or clap")
    parser.add_argument("--cache", type=Path, help="keep what was rendered here")
    parser.add_argument("--optimizers", action="store_true", help="compare methods of proposing configs")
    options = parser.parse_args()
    aside = put_aside(options.vibes)
    search = SearchSettings(renders=options.renders, near=options.near)
    with one_thread(), ScoringService([AcousticScorer()], ScoringSettings(workers=1), options.cache) as service:
        searcher = Searcher(service, search)
        started = time.perf_counter()
        searcher.prepare()
        print(f"surrogate: R2 {searcher.r2:.3f} on held-out configs, {time.perf_counter() - started:.1f} s, once")
        if options.optimizers:
            compare_optimizers(aside, searcher)
            return
        trials = run(aside, searcher)
    report_guide(trials)
    for name, scores in judged(trials, options.judge, options.cache).items():
        report_judge(name, scores)


def put_aside(count: int) -> list[dict[str, Any]]:
    """Pairs of the starter set, half of them naming fields, which from here on are no part of it."""
    every = starter.starter_pairs()
    pairs: list[Any] = [pair for pair in every if asked_for(pair["vibe"])[0]]
    order = np.random.default_rng(0).permutation(len(pairs)).tolist()
    naming = [at for at in order if parse_vibe(pairs[at]["vibe"]).fields][: count // 2]
    silent = [at for at in order if not parse_vibe(pairs[at]["vibe"]).fields][: count - len(naming)]
    aside = [pairs[at] for at in (*naming, *silent)]
    vibes = {pair["vibe"] for pair in aside}
    left = tuple(pair for pair in every if pair["vibe"] not in vibes)
    starter.starter_pairs = lambda: left  # type: ignore[assignment]
    for held in (starter._pairs, starter._shares):
        held.cache_clear()
    return aside


def run(aside: Sequence[dict[str, Any]], searcher: Searcher) -> list[Trial]:
    """Search for each vibe, and what chance and the model alone would have chosen."""
    service = searcher.service
    rng = rng_for("surrogate", searcher.settings.seed)
    crowd = [random_config(rng).model_dump() for _ in range(searcher.settings.surrogate_renders)]
    trials: list[Trial] = []
    wall, own, theirs = 0.0, 0.0, 0.0
    for pair in aside:
        vibe = pair["vibe"]
        model = [
            payload_for(vibe, temperature=0.9, seed=0, sample_idx=at).model_dump(mode="json")
            for at in range(CANDIDATES)
        ]
        started, worked, rendered = time.perf_counter(), time.process_time(), rendering_seconds()
        found = searcher.run(vibe, model)
        wall, own = wall + time.perf_counter() - started, own + time.process_time() - worked
        theirs += rendering_seconds() - rendered
        some = rng_for("crowd", vibe).permutation(len(crowd))[: searcher.settings.renders]
        heard = service.score_all((vibe, crowd[at]) for at in some)
        by_guide = [one.score("acoustic").final_score for one in heard]
        guide = [one.score("acoustic").final_score for one in found.renders]
        best, first = found.best(), found.best("model")
        other = next(at for at in range(CANDIDATES) if at != first)
        top = int(np.argmax(by_guide))
        trials.append(
            Trial(
                vibe,
                pair["config"],
                {
                    "search": found.payloads[best]["config"],
                    "best of 8": found.payloads[first]["config"],
                    "another of 8": found.payloads[other]["config"],
                    "best of 64 random": crowd[some[top]],
                    "random": crowd[some[0]],
                },
                {
                    "search": guide[best],
                    "best of 8": guide[first],
                    "another of 8": guide[other],
                    "best of 64 random": by_guide[top],
                    "random": by_guide[0],
                },
            )
        )
    count = len(aside)
    print(
        f"seconds per vibe, one renderer: {wall / count:.1f} by the clock; processor: {own / count:.1f} here, "
        f"{theirs / count:.1f} rendering"
    )
    return trials


def rendering_seconds() -> float:
    """Seconds of the processor that the rendering processes have used."""
    children = psutil.Process().children(recursive=True)
    return sum(child.cpu_times().user + child.cpu_times().system for child in children)


def report_guide(trials: Sequence[Trial]) -> None:
    """The guide's scores and the share of named fields that are kept, by way of answering."""
    print(f"\nguide (acoustic) over {len(trials)} vibes, and the share of the fields that vibes name")
    for way in trials[0].chosen:
        kept = [share_kept(trial.chosen[way], named_fields(trial.vibe)) for trial in trials]
        known = [one for one in kept if one is not None]
        mean = np.mean([trial.scores[way] for trial in trials])
        moved = np.mean(
            [sum(t.chosen[way][name] != label for name, label in t.chosen["best of 8"].items()) for t in trials]
        )
        print(
            f"  {way:18} {mean:6.3f}   named fields {np.mean(known):5.1%} ({len(known)} vibes), "
            f"{moved:4.1f} of 34 fields unlike the best of 8"
        )
    for other in ("best of 64 random", "best of 8"):
        apart = np.array([trial.scores["search"] - trial.scores[other] for trial in trials])
        print(f"  search - {other}: {apart.mean():+.3f} {interval(apart)}")


def judged(trials: Sequence[Trial], judges: Sequence[str], cache: Path | None) -> dict[str, dict[str, list[float]]]:
    """Scores by judge and way of answering."""
    found: dict[str, dict[str, list[float]]] = {}
    acoustic, names = AcousticScorer(), list(trials[0].chosen)
    with ScoringService([acoustic], ScoringSettings(workers=1), cache) as service:

        def sound(config: dict[str, Any]) -> Any:
            service.score_one(NO_VIBE, config)
            vector = service.vector(acoustic, config)
            assert vector is not None
            mean, spread = np.array(list(TYPICAL.values())).T
            return np.clip((vector - mean) / spread, -3, 3)

        found["reference"] = {
            way: [-float(abs(sound(t.chosen[way]) - sound(t.written)).mean()) for t in trials] for way in names
        }
        found["reference, cosine"] = {
            way: [cosine(sound(t.chosen[way]), sound(t.written)) for t in trials] for way in names
        }
    others = [("acoustic-2", acoustic, ScoringSettings(workers=1, seed=1, seconds=20.0))]
    deps = ScorerDeps(ScoringSettings(), trusted=frozenset(judges))
    others += [(name, make_scorer(name, deps), ScoringSettings(workers=1)) for name in judges]
    for name, scorer, settings in others:
        with ScoringService([scorer], settings, cache) as service:
            found[name] = {
                way: [
                    one.score(scorer.name).final_score
                    for one in service.score_all((t.vibe, t.chosen[way]) for t in trials)
                ]
                for way in names
            }
    return found


def cosine(ours: Floats, theirs: Floats) -> float:
    return float(ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs)))


def report_judge(name: str, scores: dict[str, list[float]]) -> None:
    print(f"\njudge {name}: " + ", ".join(f"{way} {np.mean(values):.3f}" for way, values in scores.items()))
    for way, other in (
        ("best of 8", "another of 8"),
        ("best of 8", "random"),
        ("search", "another of 8"),
        ("search", "random"),
        ("search", "best of 64 random"),
        ("search", "best of 8"),
    ):
        apart = np.array(scores[way]) - np.array(scores[other])
        won = np.mean((apart > 0) + 0.5 * (apart == 0))
        print(f"  {way:10} against {other:18} {apart.mean():+.3f} {interval(apart)}, better in {won:.0%} of vibes")


Objective = Callable[[Codes], Floats]
EVALUATIONS = 64


def compare_optimizers(aside: Sequence[dict[str, Any]], searcher: Searcher) -> None:
    """The gain (score minus the prior's cost) of the best of 64 evaluations by each method, mean over the vibes."""
    guide, service = AcousticScorer(), searcher.service
    rng = rng_for("surrogate", searcher.settings.seed)
    crowd = [random_config(rng).model_dump() for _ in range(searcher.settings.surrogate_renders)]
    vectors = np.stack([service.vector(guide, config) for config in crowd]).astype(float)
    codes = encode(crowd)
    half = Surrogate.fit(codes[::2], vectors[::2])
    assert searcher.surrogate is not None
    gains: dict[str, list[float]] = {}
    for pair in aside:
        vibe = pair["vibe"]
        model = [
            payload_for(vibe, temperature=0.9, seed=0, sample_idx=at).config.model_dump() for at in range(CANDIDATES)
        ]
        near = [one["config"] for one in starter.neighbours(read(vibe)).pairs[: searcher.settings.neighbours]]
        prior = make_prior(vibe, model, near, searcher.settings.keep, searcher.settings.near)

        def scored(by: Surrogate, some: Codes, vibe: str = vibe) -> Floats:
            outcomes = guide.compare([vibe] * len(some), by.predict(some).astype(np.float32))
            return np.array([one.final_score for one in outcomes])

        truth = partial(scored, searcher.surrogate)
        starts = encode([*model, *near])
        prediction = Prediction(partial(scored, half), half.uncertainty)
        for name, values in {
            "prior alone": by_prior(prior, truth, starts, vibe),
            "own, surrogate": by_own(prior, truth, starts, vibe, prediction),
            "own, no surrogate": by_own(prior, truth, starts, vibe, None),
            "(1+1) evolution": by_one_plus_one(prior, truth, starts, vibe),
            "CatCMA": by_catcma(prior, truth, starts, vibe),
        }.items():
            if len(values):
                gains.setdefault(name, []).append(float(values.max()))
    for name, found in gains.items():
        apart = np.array(found) - np.array(gains["own, no surrogate"])
        print(f"  {name:18} {np.mean(found):.3f}   against own, no surrogate: {apart.mean():+.3f} {interval(apart)}")


def by_prior(prior: Prior, truth: Objective, starts: Codes, vibe: str) -> Floats:
    new = drawn(prior.chances, EVALUATIONS - len(starts), rng_for("prior alone", vibe))
    codes = np.vstack([starts, new])
    return truth(codes) - prior.cost(codes)


def by_own(prior: Prior, truth: Objective, starts: Codes, vibe: str, prediction: Prediction | None) -> Floats:
    method = Method(prior, rng_for("own", vibe))
    method.tell(starts, truth(starts))
    while (left := EVALUATIONS - len(method.codes)) > 0:
        codes = method.ask(min(12, left), prediction)
        method.tell(codes, truth(codes))
    return method.gains


def by_one_plus_one(prior: Prior, truth: Objective, starts: Codes, vibe: str) -> Floats:
    """Each child changes two fields of the best so far on average."""
    rng = rng_for("one plus one", vibe)
    gains = (truth(starts) - prior.cost(starts)).tolist()
    best, highest = starts[int(np.argmax(gains))], max(gains)
    while len(gains) < EVALUATIONS:
        child = mixed(best[None], 1, prior.chances, rng)
        gains.append(float((truth(child) - prior.cost(child))[0]))
        if gains[-1] >= highest:
            best, highest = child[0], gains[-1]
    return np.array(gains)


def by_catcma(prior: Prior, truth: Objective, starts: Codes, vibe: str) -> Floats:
    """CatCMA with two idle numbers, because it needs a continuous part, from the prior's chances."""
    try:
        from cmaes import CatCMA
    except ImportError:
        return np.empty(0)
    widest = max(SIZES)
    chances = np.zeros((len(SIZES), widest))
    for at, (start, size) in enumerate(zip(STARTS, SIZES, strict=True)):
        chances[at, :size] = prior.chances[start : start + size]
    seed = int(rng_for("catcma", vibe).integers(2**31))
    method = CatCMA(
        mean=np.zeros(2), sigma=1.0, cat_num=np.array(SIZES), cat_param=chances, population_size=12, seed=seed
    )
    gains = (truth(starts) - prior.cost(starts)).tolist()
    while len(gains) < EVALUATIONS:
        asked = [method.ask() for _ in range(12)]
        codes = in_order(np.array([choice.argmax(axis=1) for _, choice in asked], dtype=np.int8))
        new = truth(codes) - prior.cost(codes)
        method.tell([(one, -float(gain)) for one, gain in zip(asked, new, strict=True)])
        gains += new.tolist()
    return np.array(gains[:EVALUATIONS])


def interval(values: np.ndarray) -> str:
    low, high = bootstrap(values, [str(at) for at in range(len(values))])
    return "" if low is None else f"[{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
