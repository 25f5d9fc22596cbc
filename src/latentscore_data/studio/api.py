"""The API of the studio's page: one handler for each of :data:`ROUTES`.

A handler raises an error of :mod:`~latentscore_data.core.base.errors` for a call that fails; the page shows its
message.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from latentscore import RENDERER_VERSION, MusicConfig, MusicConfigPrompt, parse_config, parse_payload, starter_pairs
from latentscore.json_search import JsonObject
from latentscore.labels import FIELDS, beats_per_minute
from latentscore.seeds import rng_for
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.marks import VERDICTS, Mark, read_preferences
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.scoring.acoustic import nothing_asked
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorers, scorer_plans
from latentscore_data.core.scoring.service import ScoredRender, ScoringService
from latentscore_data.studio.answers import Answers, variations
from latentscore_data.studio.exchange import Call, Reply, as_json
from latentscore_data.studio.kept import LONGEST_BLOCK_SECONDS, Streams
from latentscore_data.studio.places import Places
from latentscore_data.studio.playlists import Playlists
from latentscore_data.studio.preferences import by_source
from latentscore_data.studio.renders import FORMATS, PLAYED, Renders, SharedRenderer, Sound
from latentscore_data.studio.rows import SORTS, Rows, Wanted
from latentscore_data.studio.searches import Searches

LONGEST_VIBE = 4000
LONGEST_SECONDS = 300.0
MOST_CANDIDATES = 8
LONGEST_EXCERPT = 20.0
MOST_SEARCHED = 1000
HIGHEST_SEED = 2**32 - 1

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Time": ("tempo", "swing", "syncopation", "human", "phrase_len_bars", "tension_curve"),
    "Harmony": ("root", "mode", "harmony_style", "chord_change_bars", "chord_extensions", "chromatic_prob",
                "cadence_strength"),
    "Layers": ("density", "bass", "pad", "melody", "rhythm", "texture", "accent", "depth"),
    "Melody": ("melody_engine", "melody_density", "motif_repeat_prob", "step_bias", "register_min_oct",
               "register_max_oct"),
    "Space": ("space", "stereo", "echo", "brightness"),
    "Feel": ("motion", "attack", "grain"),
}  # fmt: skip
"""The groups of fields on the page; every field is in one group."""


class Studio:
    """The state that handlers share: renderers, scoring service, models. Use it as a context manager.

    Entering raises :class:`InputError` for a scorer that costs money, :class:`MissingError` for one that cannot run.
    """

    def __init__(self, settings: Settings, trusted: frozenset[str] = frozenset()) -> None:
        self.settings, self.workspace = settings, Workspace(settings.paths.root)
        self._trusted = trusted
        self._open = ExitStack()

    def __enter__(self) -> Studio:
        with ExitStack() as opened:
            root, scoring = self.workspace, self.settings.scoring
            scoring = scoring.model_copy(update={"scorers": scoring.scorers[:1]})
            cache = opened.enter_context(ScoreCache(root.score_cache if root.root.is_dir() else None))
            needs = ScorerDeps(scoring, self.settings.llm, cache, self._trusted, root.llm_cache, root.ledger)
            if any(plan.spends for plan in scorer_plans(1, needs)):
                raise InputError(
                    f"the scorer {scoring.scorers[0]} costs money, and the studio scores every candidate without asking",
                    "add --scorer acoustic or --scorer clap",
                )
            scorers = make_scorers(needs)
            self.renders = Renders(scoring.workers)
            opened.callback(self.renders.close)
            make = partial(SharedRenderer, self.renders)
            self.service = opened.enter_context(ScoringService(scorers, scoring, cache, make_renderer=make))
            self.rows, self.places = Rows(root, self.settings), Places(root)
            self.playlists, self.streams = Playlists(root.root), Streams()
            self.searches = Searches(self.service, self.settings.search)
            self.answers = Answers(self.settings, root, cache)
            self._open = opened.pop_all()
        self.renders.warm()
        self.service.submit("rain", MusicConfig().to_prompt().model_dump())
        threading.Thread(target=self.answers.warm, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


Handler = Callable[[Studio, Call], Awaitable[Reply]]


async def setup(studio: Studio, call: Call) -> Reply:
    """Return the data for the start of the page: fields and their groups, models, limits."""
    fields = {
        name: {
            "kind": spec.kind,
            "labels": spec.labels,
            "numbers": spec.numbers or None,
            "default": spec.nearest_label(spec.default),
            "meaning": spec.meaning,
            "ordered": spec.ordered,
        }
        for name, spec in FIELDS.items()
    }
    tempo = FIELDS["tempo"]
    return as_json(
        {
            "fields": fields,
            "groups": GROUPS,
            "bpm": {str(label): beats_per_minute(float(tempo.number(label))) for label in tempo.labels},
            "models": [asdict(source) for source in await asyncio.to_thread(studio.answers.sources)],
            "scorer": studio.service.scorers[0].name,
            "scored_seed": studio.settings.scoring.seed,
            "scored_seconds": studio.settings.scoring.seconds,
            "workspace": str(studio.workspace.root),
            "renderer": RENDERER_VERSION,
            "longest_seconds": LONGEST_SECONDS,
        }
    )


async def answer(studio: Studio, call: Call) -> Reply:
    """Return the candidates of a vibe with their scores, the best first."""
    started = time.perf_counter()
    vibe = _vibe(call)
    n, seed = call.whole("n", 1, MOST_CANDIDATES, 4), call.whole("seed", 0, HIGHEST_SEED, 0)
    source = studio.answers.source(call.text("model", 300))
    if source.id.startswith("hosted:"):
        cap = call.number("cap_usd", 0.0, 1000.0, 0.0) if "cap_usd" in call.data else None
        payloads = await studio.answers.ask_hosted(vibe, source, n, cap)
    else:
        payloads = await asyncio.to_thread(studio.answers.answer, vibe, source, n, seed)
    candidates = await _ranked(studio, call, vibe, payloads)
    took = round(time.perf_counter() - started, 3)
    return as_json({"vibe": vibe, "candidates": candidates, "note": _note(studio, vibe), "seconds": took})


async def price(studio: Studio, call: Call) -> Reply:
    """Return the price of a vibe's candidates, without a call of the model."""
    source = studio.answers.source(call.text("model", 300))
    plan = await asyncio.to_thread(studio.answers.price, _vibe(call), source, call.whole("n", 1, MOST_CANDIDATES, 4))
    return as_json({**plan.to_dict(), "spends": plan.spends})


async def near(studio: Studio, call: Call) -> Reply:
    """Return variations of a payload and the payload itself, with their scores for the vibe, the best first."""
    payload, vibe = dict(call.mapping("payload")), call.text("vibe", LONGEST_VIBE, "").strip()
    n, seed = call.whole("n", 2, MOST_CANDIDATES, 4), call.whole("seed", 0, HIGHEST_SEED, 0)
    found = variations(payload, n, call.words("locked"), seed)
    return as_json({"vibe": vibe, "candidates": await _ranked(studio, call, vibe or found[0]["title"], found)})


async def better(studio: Studio, call: Call) -> Reply:
    """Start a search for a better config, from a payload."""
    vibe, payload = _vibe(call), parse_payload(call.mapping("payload")).repair().model_dump(mode="json")
    renders, seed = call.whole("renders", 8, MOST_SEARCHED, 128), call.whole("seed", 0, HIGHEST_SEED, 0)
    return as_json(await asyncio.to_thread(studio.searches.open, vibe, payload, call.words("locked"), renders, seed))


async def better_step(studio: Studio, call: Call) -> Reply:
    """Render and score the next configs of a search."""
    name = call.text("search", 40)
    vibe, payloads = await asyncio.to_thread(studio.searches.ask, name)
    renders = await call.wait(*(studio.service.submit(vibe, payload) for payload in payloads))
    return as_json(await asyncio.to_thread(studio.searches.tell, name, renders))


async def surprise(studio: Studio, call: Call) -> Reply:
    """Return a random vibe of the starter set."""
    found = starter_pairs()
    at = int(rng_for("studio surprise", call.whole("seed", 0, HIGHEST_SEED, 0)).integers(len(found)))
    return as_json({"vibe": found[at]["vibe"]})


async def why(studio: Studio, call: Call) -> Reply:
    """Return the contribution of each field: the score minus the score with the field at its default."""
    vibe, config = _vibe(call), _labels(call.mapping("config"))
    changed: dict[str, JsonObject] = {}
    for name, spec in FIELDS.items():
        other = {**config, name: spec.nearest_label(spec.default)}
        if other[name] != config[name] and other["register_min_oct"] <= other["register_max_oct"]:
            changed[name] = other
    futures = [studio.service.submit(vibe, one) for one in (config, *changed.values())]
    base, *others = [_final(one, studio) for one in await call.wait(*futures)]
    if base is None:
        raise InputError("this piece has no score", "change a field and try again")
    carried = {name: base - other for name, other in zip(changed, others, strict=True) if other is not None}
    return as_json({"score": base, "fields": carried, "note": _note(studio, vibe)})


async def sound(studio: Studio, call: Call) -> Reply:
    """Return the sound of a config in one of :data:`FORMATS`, or an excerpt of it in one of :data:`PLAYED`."""
    kind = call.text("format", 10, "pcm")
    if kind not in FORMATS:
        raise InputError(f"format {kind!r} is unknown", f"formats: {', '.join(FORMATS)}")
    wanted = Sound(
        _labels(call.mapping("config")),
        call.whole("seed", 0, HIGHEST_SEED, 0),
        call.number("seconds", 0.5, LONGEST_SECONDS, 60.0),
        kind,
        call.text("title", 200, ""),
        call.number("begin", 0.0, LONGEST_SECONDS, 0.0),
        call.number("length", 0.5, LONGEST_EXCERPT, 8.0) if "length" in call.data else None,
    )
    if wanted.length is not None and kind not in PLAYED:
        raise InputError(f"an excerpt cannot be {kind}", f"formats of an excerpt: {', '.join(PLAYED)}")
    (data,) = await call.wait(studio.renders.sound(wanted))
    return Reply(data, FORMATS[kind])


async def open_stream(studio: Studio, call: Call) -> Reply:
    """Start an endless stream from a config and a seed, and return its name."""
    config, seed = _labels(call.mapping("config")), call.whole("seed", 0, HIGHEST_SEED, 0)
    return as_json({"stream": await asyncio.to_thread(studio.streams.open, config, seed)})


async def read_stream(studio: Studio, call: Call) -> Reply:
    """Return the next block of a stream: 16-bit stereo samples at 48 kHz."""
    seconds = call.number("seconds", 0.05, LONGEST_BLOCK_SECONDS, 0.5)
    return Reply(
        await asyncio.to_thread(studio.streams.read, call.text("stream", 40), seconds), "application/octet-stream"
    )


async def update_stream(studio: Studio, call: Call) -> Reply:
    """Change the config of a stream at its next bar line."""
    await asyncio.to_thread(studio.streams.update, call.text("stream", 40), _labels(call.mapping("config")))
    return as_json({"changed": True})


async def rows(studio: Studio, call: Call) -> Reply:
    """Return a page of the rows that match a filter."""
    texts = {name: call.text(name, 300, "") for name in ("search", "split", "dataset", "level", "state", "verdict")}
    sort = call.text("sort", 20, "file")
    if sort not in SORTS:
        raise InputError(f"rows cannot be sorted by {sort!r}", f"possible: {', '.join(SORTS)}")
    wanted = Wanted(
        **texts,
        least=None if call.data.get("least") is None else call.number("least", -1e9, 1e9, 0.0),
        sort=sort,
        descending=call.data.get("descending") is True,
        field=call.text("field", 60, ""),
        label=call.text("label", 60, ""),
    )
    return as_json(await asyncio.to_thread(studio.rows.page, wanted, call.whole("offset", 0, 10**9, 0)))


async def row(studio: Studio, call: Call) -> Reply:
    """Return one row in full: candidates, question, attempts, mark."""
    return as_json(await asyncio.to_thread(studio.rows.row, call.text("id", 2000)))


async def mark(studio: Studio, call: Call) -> Reply:
    """Append a verdict and a note on a row."""
    verdict = call.text("verdict", 10, "none")
    if verdict not in VERDICTS:
        raise InputError(f"a verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")
    await asyncio.to_thread(studio.rows.mark, call.text("id", 2000), Mark(verdict, call.text("note", 2000, "").strip()))
    return as_json({"marked": True})


async def prefer(studio: Studio, call: Call) -> Reply:
    """Append the answer that one candidate fits better than another, or that there is no difference (``tied``)."""
    better, worse, tied = call.whole("better", 0, 255, 0), call.whole("worse", 0, 255, 0), call.whole("tied", 0, 1, 0)
    await asyncio.to_thread(studio.rows.prefer, call.text("id", 2000), better, worse, tied=tied == 1)
    return as_json({"marked": True})


async def preferences(studio: Studio, call: Call) -> Reply:
    """Return what the answers to "which fits better?" show: strengths of sources, and the scorer's agreement."""
    return as_json(await asyncio.to_thread(lambda: by_source(read_preferences(studio.workspace.root, ties=True))))


async def places(studio: Studio, call: Call) -> Reply:
    """Return the training runs, benchmarks and reports of the workspace."""
    return as_json(await asyncio.to_thread(studio.places.listed))


async def open_place(studio: Studio, call: Call) -> Reply:
    """Return an address at which the page of a benchmark or report can be opened now."""
    return as_json({"address": await asyncio.to_thread(studio.places.open, call.text("id", 300))})


async def playlists(studio: Studio, call: Call) -> Reply:
    """Return the saved playlists."""
    return as_json({"playlists": await asyncio.to_thread(studio.playlists.names)})


async def playlist(studio: Studio, call: Call) -> Reply:
    """Load, save or delete one playlist, depending on ``do``."""
    name, do = call.text("name", 200), call.text("do", 10, "load")
    if do == "save":
        pieces = call.data.get("pieces")
        await asyncio.to_thread(studio.playlists.save, name, pieces if isinstance(pieces, list) else [])
    elif do == "delete":
        await asyncio.to_thread(studio.playlists.delete, name)
    else:
        return as_json(await asyncio.to_thread(studio.playlists.load, name))
    return as_json({"playlists": await asyncio.to_thread(studio.playlists.names)})


def _vibe(call: Call) -> str:
    vibe = call.text("vibe", LONGEST_VIBE).strip()
    if not vibe:
        raise InputError("the vibe is empty", "type a few words, such as: slow rain on a tin roof")
    return vibe


def _labels(config: Mapping[str, Any]) -> JsonObject:
    """Return a complete config of labels. Raises :class:`InvalidConfigError`."""
    parsed = parse_config(config)
    return (parsed if isinstance(parsed, MusicConfigPrompt) else parsed.to_prompt()).model_dump()


async def _ranked(studio: Studio, call: Call, vibe: str, payloads: Sequence[Mapping[str, Any]]) -> list[JsonObject]:
    """Return the payloads with score, parts and failure, the best first and those without a score last.

    Raises :class:`MissingError` without payloads.
    """
    valid = [parse_payload(payload).repair().model_dump(mode="json") for payload in payloads]
    if not valid:
        raise MissingError("this model gave no candidate", "use another model of the menu")
    scored = await call.wait(*(studio.service.submit(vibe, payload) for payload in valid))
    name = studio.service.scorers[0].name
    found: list[JsonObject] = []
    for payload, render in zip(valid, scored, strict=True):
        score, missing = render.score(name), render.unscored(name)
        found.append(
            {
                "payload": payload,
                "score": score.final_score if score else None,
                "parts": score.parts if score else {},
                "failure": missing.reason if missing else None,
            }
        )
    return sorted(found, key=lambda one: -1e9 if one["score"] is None else one["score"], reverse=True)


def _final(render: ScoredRender, studio: Studio) -> float | None:
    score = render.score(studio.service.scorers[0].name)
    return score.final_score if score else None


def _note(studio: Studio, vibe: str) -> str | None:
    """Return a note if the scorer cannot interpret the vibe; else None."""
    if studio.service.scorers[0].name != "acoustic" or nothing_asked(vibe) is None:
        return None
    return "The scorer cannot interpret these words, so the order of the candidates means nothing."


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/api/setup"): setup,
    ("POST", "/api/answer"): answer,
    ("POST", "/api/price"): price,
    ("POST", "/api/near"): near,
    ("POST", "/api/better"): better,
    ("POST", "/api/better/step"): better_step,
    ("POST", "/api/surprise"): surprise,
    ("POST", "/api/why"): why,
    ("POST", "/api/sound"): sound,
    ("POST", "/api/stream"): open_stream,
    ("POST", "/api/stream/read"): read_stream,
    ("POST", "/api/stream/update"): update_stream,
    ("POST", "/api/rows"): rows,
    ("POST", "/api/row"): row,
    ("POST", "/api/mark"): mark,
    ("POST", "/api/prefer"): prefer,
    ("GET", "/api/preferences"): preferences,
    ("GET", "/api/places"): places,
    ("POST", "/api/open"): open_place,
    ("GET", "/api/playlists"): playlists,
    ("POST", "/api/playlist"): playlist,
}
"""The handlers by method and path."""
