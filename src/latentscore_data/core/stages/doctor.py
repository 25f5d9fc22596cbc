"""The checks of ``lsdata doctor``: the program, extras, keys, weights, prices, disk, and the needs of each stage."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from latentscore import RENDERER_VERSION
from latentscore.embed import MINILM
from latentscore.files import user_path
from latentscore.installed import install
from latentscore_data import __version__
from latentscore_data.core.base.display import PLAIN_LINE_SECONDS, can_be_live, clean, say
from latentscore_data.core.base.errors import InputError, LsdataError
from latentscore_data.core.base.proxies import LOOPBACK_HOSTS, is_called_directly, no_proxy, proxy_variables
from latentscore_data.core.base.secrets import read_dotenv
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.weights import fetch_model
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.llm.cache import AnswerCache
from latentscore_data.core.llm.openrouter_prices import fetch_list, newest_list
from latentscore_data.core.scoring.clap import clap_missing
from latentscore_data.core.stages.base import STAGES, stage_named
from latentscore_data.core.vibes.dedupe import minilm_missing


@dataclass(frozen=True)
class Finding:
    """The result of one check. ``state`` is ok, absent (not needed) or missing (needed)."""

    subject: str
    name: str
    state: str
    detail: str
    fix: str = ""


EXTRAS: dict[str, tuple[str, ...]] = {
    "hub": ("datasets", "pyarrow"),
    "ml": ("torch", "transformers", "sentence_transformers", "trl", "peft", "xgrammar", "gguf"),
    "modal": ("modal",),
    "ray": ("ray",),
    "play": ("sounddevice",),
    "dedupe": ("faiss",),
    "laion-clap": ("laion_clap",),
}
KEYS = (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY",
    "DEEPSEEK_API_KEY", "HF_TOKEN", "MODAL_TOKEN_ID", "WANDB_API_KEY",
)  # fmt: skip


def examine(settings: Settings, stage: str | None) -> Iterator[Finding]:
    """Run all checks, without network and cost."""
    yield from _program()
    yield from _extras()
    yield from _keys()
    yield from _proxies(settings)
    yield from _weights(settings)
    yield _prices(settings)
    yield from _modal()
    yield from _disk(settings)
    yield from _needs(settings, stage)


def _version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _program() -> Iterator[Finding]:
    yield Finding(
        "program", "lsdata", "ok", f"{__version__}, Python {sys.version.split()[0]}, renderer {RENDERER_VERSION}"
    )
    for name in ("litellm", "numpy", "scipy", "soundfile"):
        if found := _version_of(name):
            yield Finding("program", name, "ok", found)
        else:
            yield Finding("program", name, "missing", "not installed", f"pip install {name}")
    yield from _namesakes()


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """Return the installed distributions by package. Reads the file list of each distribution."""
    return packages_distributions()


def _namesakes() -> Iterator[Finding]:
    """Check for another distribution with a package ``latentscore``, which would shadow this one or be shadowed."""
    others = sorted(set(_distributions().get("latentscore", [])) - {"latentscore-data"})
    if others:
        names = ", ".join(others)
        yield Finding(
            "program",
            "latentscore",
            "missing",
            f"{names} installs a package of the same name over ours",
            f"pip uninstall {' '.join(others)}, then pip install --force-reinstall --no-deps latentscore-data; "
            "or keep the two in separate environments",
        )


def _extras() -> Iterator[Finding]:
    distributions = _distributions()
    for extra, modules in EXTRAS.items():
        absent = [module for module in modules if find_spec(module) is None]
        if absent:
            yield Finding("extra", extra, "absent", f"without {', '.join(absent)}", install(extra))
        else:
            versions = ", ".join(f"{module} {_version_of(distributions[module][0])}" for module in modules)
            yield Finding("extra", extra, "ok", versions)


def _keys() -> Iterator[Finding]:
    """Check which keys are set, without showing them."""
    dotenv = Path(".env")
    if dotenv.is_file() and dotenv.stat().st_mode & 0o077:
        yield Finding("keys", ".env", "absent", "others on this machine can read it", "chmod 600 .env")
    read_dotenv()
    there = [name for name in KEYS if os.environ.get(name)]
    said = f"{', '.join(there)} set" if there else "none set (none is needed offline)"
    yield Finding("keys", "environment and .env", "ok", said)


def _proxies(settings: Settings) -> Iterator[Finding]:
    """Check which calls go through a proxy. Its address may contain a password, so it is not shown."""
    names = proxy_variables()
    if not names:
        yield Finding("network", "proxy", "ok", "none set")
        return
    direct = ", ".join(dict.fromkeys([*LOOPBACK_HOSTS, *no_proxy()]))
    yield Finding("network", "proxy", "ok", f"{', '.join(names)} set; called without it: {direct}")
    base = settings.llm.api_base
    if base:
        way = "without the proxy" if is_called_directly(base) else "through the proxy"
        fix = "" if is_called_directly(base) else "to call it directly, add its host to NO_PROXY"
        yield Finding("network", "llm.api_base", "ok", f"{base} is called {way}", fix)


def _weights(settings: Settings) -> Iterator[Finding]:
    for name, why in (("clap", clap_missing(settings.scoring)), ("minilm", minilm_missing())):
        if why is None:
            yield Finding("weights", name, "ok", "there")
        else:
            yield Finding("weights", name, "absent", why.message, why.remedy)


def _prices(settings: Settings) -> Finding:
    fetched = newest_list(settings.paths.price_lists)
    if fetched is None:
        return Finding("prices", "OpenRouter", "absent", "no list fetched", "lsdata doctor --fetch prices")
    return Finding("prices", "OpenRouter", "ok", f"{len(fetched.models):,} models, list of {fetched.date}")


def _modal() -> Iterator[Finding]:
    if find_spec("modal") is None:
        return
    if os.environ.get("MODAL_TOKEN_ID") or user_path("~/.modal.toml").exists():
        yield Finding("modal", "account", "ok", "set up")
    else:
        yield Finding("modal", "account", "absent", "not set up", "modal setup")


def _disk(settings: Settings) -> Iterator[Finding]:
    workspace = Workspace(settings.paths.root)
    place = workspace.root
    while not place.exists():
        place = place.parent
    free_gb = shutil.disk_usage(place).free / 1e9
    writable = os.access(place, os.W_OK)
    state, fix = ("ok", "") if writable and free_gb > 1 else ("missing", "choose another folder with --root")
    detail = f"{free_gb:.0f} GB free" if writable else f"{place} cannot be written"
    yield Finding("disk", str(Path(os.path.relpath(workspace.root))), state, detail, fix)
    if workspace.llm_cache.exists():
        yield _answer_cache(workspace.llm_cache)


def _answer_cache(path: Path) -> Finding:
    try:
        cache = AnswerCache(path)
        facts = cache.facts()
        cache.close()
    except LsdataError as error:
        return Finding("disk", "answer cache", "missing", error.message, error.remedy)
    said = f"{facts['answers']:,} answers, {facts['bytes'] / 1e6:.1f} MB, {facts['hits']:,} hits"
    return Finding("disk", "answer cache", "ok", said)


def _needs(settings: Settings, stage: str | None) -> Iterator[Finding]:
    """Check the needs of the given stage; without a stage, those of the configured chain, as a hint."""
    for name in [stage] if stage else STAGES:
        problems = stage_named(name).preflight(settings)
        for problem in problems:
            yield Finding("stage", name, "missing" if stage else "absent", problem.message, problem.remedy)
        if not problems:
            yield Finding("stage", name, "ok", "can run with these settings")


def fetch_prices(settings: Settings) -> None:
    """Fetch OpenRouter's public model list into a dated file of the workspace."""
    path, count = fetch_list(settings.paths.price_lists)
    say(f"prices: {count:,} models in {path}")


def fetch_weights(name: str, settings: Settings) -> None:
    """Download weights with progress; no other command downloads these weights."""
    models = {"clap": settings.scoring.clap_model, "minilm": MINILM}
    if name not in models:
        raise InputError(f"{name!r} cannot be fetched", f"one of: {', '.join(models)}, prices")
    say(f"fetching {models[name]} ...")
    folder = fetch_model(models[name], _fetching())
    say(f"{name}: in {folder}")


def _fetching() -> Callable[[str, int], None]:
    """Return a callback that prints the received bytes: a line that redraws itself in a terminal, otherwise a line every ten
    seconds."""
    live, said, sums = can_be_live(), time.monotonic(), dict[str, int]()

    def on_progress(name: str, count: int) -> None:
        nonlocal said
        sums[name] = sums.get(name, 0) + count
        line = clean(f"{name}: {sums[name] / 1e6:.1f} MB")
        if live:
            sys.stderr.write(f"\r{line:60}")
        elif time.monotonic() - said > PLAIN_LINE_SECONDS:
            said = time.monotonic()
            say(line)

    return on_progress
