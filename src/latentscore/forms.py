"""The two answer formats of a model: one JSON object, or one line of labels.

``json`` is the complete payload. ``labels`` is the 34 labels of the config in the order of the table, separated by
single spaces. Its grammar allows only the labels of the current field. The rest of the payload is derived from the
vibe: see :func:`latentscore.api.answers.line_to_json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from latentscore.errors import ModelError
from latentscore.labels import FIELDS, Label
from latentscore.prompt import PAYLOAD_ORDER, config_system, decoding_schema, labels_system, vibe_message

Grammar = dict[str, Any] | str
"""The constraint of an answer during decoding: a JSON schema or a regular expression."""

FormName = Literal["json", "labels"]

FORM_FILE = "latentscore.json"
"""A file beside a model's weights: ``{"answer": "labels", "system": null}``. Without it, the model answers in JSON."""

LABELS_MOST_TOKENS = 512
"""Token limit of a line: the longest has 301 characters, and a tokenizer may need a token for each."""


@dataclass(frozen=True)
class AnswerForm:
    """An answer format: its system message, how it is written, and how it is converted to a payload."""

    name: FormName
    system: Callable[[], str]
    """Returns the system message that requests this format."""
    write: Callable[[Mapping[str, Any]], str]
    """Converts a payload to the text that a model should write."""
    grammar: Callable[[], Grammar]
    """Returns the constraint. It is the same object at each call, so that questions with the same format can be grouped."""
    openings: tuple[str, ...]
    """The possible beginnings of an answer."""
    most_tokens: int | None = None
    """Maximum number of tokens of an answer; None if the format has no limit."""


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
    """Return a payload as the JSON object that a model should write, in the schema's order and without spaces."""
    ordered = {name: payload[name] for name in PAYLOAD_ORDER if name in payload}
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def labels_line(payload: Mapping[str, Any]) -> str:
    """Return the labels of a payload's config in the table's order, separated by single spaces."""
    return " ".join(spell(payload["config"][name]) for name in FIELDS)


def spell(label: Label) -> str:
    """Return a label as it is written in a line: switches in lower case, as in JSON."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def labels_of(line: str) -> dict[str, Label | str]:
    """Return field -> label for the words of a line, in order; a word that is not a label of its field is kept as text."""
    words = zip(FIELDS.values(), line.strip().split(" "), strict=False)
    return {spec.name: _spelled(spec.name).get(word, word) for spec, word in words}


@cache
def _spelled(field: str) -> dict[str, Label]:
    return {spell(label): label for label in FIELDS[field].labels}


@cache
def labels_pattern() -> str:
    """Return a regular expression for a line of labels. The two registers form one group, so that the highest is not below
    the lowest."""
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
    """Return the same grammar in llama.cpp's notation (GBNF)."""
    return "root ::= " + " ".join(f'"{token}"' if token not in "(|)" else token for token in _tokens(labels_pattern()))


def _tokens(pattern: str) -> list[str]:
    """Split the pattern into parentheses, bars and the texts between them."""
    tokens: list[str] = []
    for sign in pattern:
        if sign in "(|)" or not tokens or tokens[-1] in ("(", "|", ")"):
            tokens.append(sign)
        else:
            tokens[-1] += sign
    return tokens


JSON = AnswerForm("json", lambda: config_system(), json_text, cache(decoding_schema), ("{",))
LABELS = AnswerForm(
    "labels",
    labels_system,
    labels_line,
    labels_pattern,
    tuple(spell(label) for label in next(iter(FIELDS.values())).labels),
    LABELS_MOST_TOKENS,
)


def form_named(name: FormName) -> AnswerForm:
    """Return the format with this name."""
    return LABELS if name == "labels" else JSON


def form_of(place: Path | None) -> AnswerForm:
    """Return the answer format of the model in a folder or GGUF file, with the system message that it was trained with.

    The default is JSON. Raises :class:`ModelError` for a ``latentscore.json`` that cannot be read.
    """
    # An exported GGUF file is in a subfolder of the model's folder.
    folders = [] if place is None else [place] if place.is_dir() else [place.parent, place.parent.parent]
    for folder in folders:
        path = folder / FORM_FILE
        if path.is_file():
            return _read_form(path)
    return JSON


def _read_form(path: Path) -> AnswerForm:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        form = {"json": JSON, "labels": LABELS}[said["answer"]]
        system = said.get("system")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path} does not name the model's answer format ({error}); train or export it again"
        ) from None
    return replace(form, system=lambda: system) if isinstance(system, str) else form
