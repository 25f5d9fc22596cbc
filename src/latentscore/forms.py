"""The two forms in which a model writes its answer: one JSON object, or one line of labels.

``json`` is the whole payload. ``labels`` is the 34 labels of the config in the order of the table, with one blank between
them and nothing else; a decoder's grammar lets through only the labels of the field whose turn it is. The rest of the payload
is made from the vibe: see :func:`latentscore.meaning.offline.dressed`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from latentscore.config import MusicConfigPrompt
from latentscore.errors import InvalidConfigError, ModelError
from latentscore.labels import FIELDS, Label
from latentscore.meaning.offline import dressed
from latentscore.prompt import PAYLOAD_ORDER, config_system, decoding_schema, labels_system, vibe_message

Grammar = dict[str, Any] | str
"""What an answer is held to while it is decoded: a JSON schema, or a regular expression."""

FormName = Literal["json", "labels"]

FORM_FILE = "latentscore.json"
"""Beside a model's weights: ``{"answer": "labels", "system": null}``. A folder without it holds a model that answers in JSON."""

LABELS_MOST_TOKENS = 512
"""Room for the longest line: 301 characters, should a tokenizer take one token for each."""


@dataclass(frozen=True)
class AnswerForm:
    """How a model is asked, what it writes, and how that becomes a payload."""

    name: FormName
    system: Callable[[], str]
    """The system message that asks for this form."""
    write: Callable[[Mapping[str, Any]], str]
    """A payload as the text that a model is to write."""
    to_json: Callable[[str, str], str]
    """(text, vibe) -> the payload as JSON. A text that is no whole answer comes back as it is."""
    grammar: Callable[[], Grammar]
    """What an answer is held to; the same object at each call, by which questions of one kind are known."""
    openings: tuple[str, ...]
    """What every answer begins with, one of them."""
    most_tokens: int | None = None
    """The most tokens that an answer can have; None where the form sets no end."""


Message = dict[str, str]


def prompt_messages(vibe: str, system: str | None = None, form: AnswerForm | None = None) -> list[Message]:
    """What a model is asked: the task as the system message (by default that of the form), the vibe as the user's."""
    return [
        {"role": "system", "content": (form or JSON).system() if system is None else system},
        {"role": "user", "content": vibe_message(vibe)},
    ]


def completion_messages(payload: Mapping[str, Any], form: AnswerForm | None = None) -> list[Message]:
    """The answer that a model learns, in the form in which it is to write."""
    return [{"role": "assistant", "content": (form or JSON).write(payload)}]


def json_text(payload: Mapping[str, Any]) -> str:
    """A payload as the one JSON object that a model is to write, in the schema's order and without blanks."""
    ordered = {name: payload[name] for name in PAYLOAD_ORDER if name in payload}
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def labels_line(payload: Mapping[str, Any]) -> str:
    """The labels of a payload's config in the table's order, with one blank between them."""
    return " ".join(spell(payload["config"][name]) for name in FIELDS)


def spell(label: Label) -> str:
    """A label as it stands in a line: switches in lower case, as in JSON."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def labels_of(line: str) -> dict[str, Label | str]:
    """Field -> label for the words of a line, in order; a word that is no label of its field stays a word."""
    words = zip(FIELDS.values(), line.strip().split(" "), strict=False)
    return {spec.name: _spelled(spec.name).get(word, word) for spec, word in words}


@cache
def _spelled(field: str) -> dict[str, Label]:
    return {spell(label): label for label in FIELDS[field].labels}


def line_to_json(line: str, vibe: str) -> str:
    """The payload of a line of labels, with title and palettes made from the vibe; the line itself if it is not whole."""
    if len(line.strip().split(" ")) != len(FIELDS):
        return line
    try:
        return dressed(vibe, MusicConfigPrompt(**labels_of(line))).model_dump_json()
    except InvalidConfigError:
        return line


@cache
def labels_pattern() -> str:
    """A regular expression for a line of labels. The two registers are one group, so that the highest is not below the lowest."""
    low, high = "register_min_oct", "register_max_oct"
    parts: list[str] = []
    for name, spec in FIELDS.items():
        if name == low:
            octaves = FIELDS[high].labels
            pairs = [f"{one} ({'|'.join(map(spell, octaves[at:]))})" for at, one in enumerate(spec.labels)]
            parts.append(f"({'|'.join(pairs)})")
        elif name != high:
            parts.append(f"({'|'.join(map(spell, spec.labels))})")
    return " ".join(parts)


def labels_gbnf() -> str:
    """The same grammar in the notation of llama.cpp."""
    return "root ::= " + " ".join(f'"{token}"' if token not in "(|)" else token for token in _tokens(labels_pattern()))


def _tokens(pattern: str) -> list[str]:
    """The pattern as parentheses, bars and the texts between them."""
    tokens: list[str] = []
    for sign in pattern:
        if sign in "(|)" or not tokens or tokens[-1] in ("(", "|", ")"):
            tokens.append(sign)
        else:
            tokens[-1] += sign
    return tokens


JSON = AnswerForm("json", lambda: config_system(), json_text, lambda text, _: text, cache(decoding_schema), ("{",))
LABELS = AnswerForm(
    "labels",
    labels_system,
    labels_line,
    line_to_json,
    labels_pattern,
    tuple(spell(label) for label in next(iter(FIELDS.values())).labels),
    LABELS_MOST_TOKENS,
)


def form_named(name: FormName) -> AnswerForm:
    """The form of that name."""
    return LABELS if name == "labels" else JSON


def form_of(place: Path | None) -> AnswerForm:
    """The form that the model of a folder or GGUF file answers in, with the system message that it was trained with.

    JSON where nothing says otherwise. Raises :class:`ModelError` for a ``latentscore.json`` that cannot be read.
    """
    for folder in _folders(place):
        path = folder / FORM_FILE
        if path.is_file():
            return _read_form(path)
    return JSON


def _folders(place: Path | None) -> list[Path]:
    # An exported GGUF file lies in a folder of its own below that of the model.
    return [] if place is None else [place] if place.is_dir() else [place.parent, place.parent.parent]


def _read_form(path: Path) -> AnswerForm:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        form = {"json": JSON, "labels": LABELS}[said["answer"]]
        system = said.get("system")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} does not say how the model answers ({error}); train or export it again") from None
    return replace(form, system=lambda: system) if isinstance(system, str) else form
