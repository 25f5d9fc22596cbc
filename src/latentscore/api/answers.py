"""Convert a text, a payload, a config or a mapping to one :class:`Answer`, which can be rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from latentscore.config import (
    MusicConfig,
    MusicConfigPrompt,
    MusicConfigPromptPayload,
    MusicConfigUpdate,
    Palette,
    convert_config,
    invalid_config,
)
from latentscore.errors import InvalidConfigError
from latentscore.forms import AnswerForm, labels_of
from latentscore.labels import FIELDS
from latentscore.meaning.offline import OFFLINE_MODEL, dressed, payload_for
from latentscore.vibe_map import VibeMap, load_map, lookup, text_in

Config = MusicConfig | MusicConfigPrompt
Given = str | MusicConfigPromptPayload | Config | Mapping[str, Any]
"""The types that :func:`to_answer` accepts, besides :class:`Answer`."""

UNTITLED = "Untitled"
GIVEN = "config"
"""The value of ``answered_by`` if a config was given."""


@dataclass(frozen=True)
class Answer:
    """A config with title, reasons and palettes; ``answered_by`` names the model or map that it comes from."""

    config: Config
    title: str = UNTITLED
    reasons: str = ""
    palettes: tuple[Palette, ...] = ()
    answered_by: str = GIVEN
    text: str | None = None

    def updated(self, update: MusicConfigUpdate | Mapping[str, Any] | None) -> Answer:
        """Return the answer with a changed config. Raises :class:`InvalidConfigError`."""
        return self if update is None else replace(self, config=to_update(update).apply(self.config))


ANSWERABLE = (str, Mapping, MusicConfig, MusicConfigPrompt, MusicConfigPromptPayload, Answer)
"""The types that :func:`to_answer` accepts, for ``isinstance``."""


def to_answer(given: Given | Answer, vibe_map: VibeMap | str | Path | None = None) -> Answer:
    """Return the answer for ``given``.

    A text is answered by the offline model, or looked up in ``vibe_map`` (a map, its folder or file, or "starter"),
    which returns its nearest row unchanged. A payload, a config of labels or numbers, and a mapping of fields or of a
    payload are converted; fields missing in a mapping have their defaults. Raises :class:`InvalidConfigError` and
    :class:`MapError`.
    """
    match given:
        case Answer():
            return given
        case str():
            return _read(given) if vibe_map is None else _looked_up(given, vibe_map)
        case MusicConfig() | MusicConfigPrompt():
            return Answer(given)
        case MusicConfigPromptPayload():
            return Answer(given.config, given.title, given.thinking, tuple(given.palettes))
        case Mapping():
            return _from_mapping(given)
    raise InvalidConfigError("what", f"must be a text, a payload, a config or a mapping, not {type(given).__name__}")


def is_payload(given: Mapping[str, Any]) -> bool:
    """Return whether a mapping holds a config, or a row's payload, instead of fields."""
    return not {"config", "config_payload"}.isdisjoint(given)


def to_update(given: MusicConfigUpdate | Mapping[str, Any]) -> MusicConfigUpdate:
    """Return the changes of a mapping of fields. Raises :class:`InvalidConfigError`."""
    if isinstance(given, Mapping):
        return MusicConfigUpdate(**{str(name): value for name, value in given.items()})
    if not isinstance(given, MusicConfigUpdate):
        raise InvalidConfigError("update", f"must be a MusicConfigUpdate or a mapping, not {type(given).__name__}")
    return given


def _read(text: str) -> Answer:
    if not text.strip():
        raise InvalidConfigError("text", 'it is empty; give at least one word, such as "rain on a tin roof"')
    payload = payload_for(text, temperature=0.0, seed=0, sample_idx=0)
    return replace(to_answer(payload), answered_by=OFFLINE_MODEL, text=text)


def _looked_up(text: str, vibe_map: VibeMap | str | Path) -> Answer:
    vibe_map = vibe_map if isinstance(vibe_map, VibeMap) else load_map(vibe_map)
    match = lookup(vibe_map, text)
    reasons = f"nearest in the map: “{match.vibe}” (cosine {match.similarity:.2f})"
    written = text_in(match.row, "thinking")
    return Answer(
        match.config, match.title or UNTITLED, f"{reasons}; {written}" if written else reasons, _palettes(match.row.get("palettes")),
        f"map:{vibe_map.path}", text,
    )  # fmt: skip


def _from_mapping(given: Mapping[str, Any]) -> Answer:
    payload = given.get("config_payload")
    if isinstance(payload, Mapping):
        return _from_mapping(cast("Mapping[str, Any]", payload))
    config = given.get("config")
    if not isinstance(config, Mapping | MusicConfig | MusicConfigPrompt):
        return Answer(convert_config(given)[0])
    # Only the config must be valid, because it determines the sound; title and palettes are used if they exist.
    return Answer(
        convert_config(config)[0],
        text_in(given, "title") or UNTITLED,
        text_in(given, "thinking"),
        _palettes(given.get("palettes")),
    )


def _palettes(given: Any) -> tuple[Palette, ...]:
    try:
        return tuple(TypeAdapter(list[Palette]).validate_python(given or []))
    except ValidationError as error:
        found = invalid_config(error)
        raise InvalidConfigError(f"palettes.{found.field}", found.reason) from None


def payload_text(form: AnswerForm, text: str, vibe: str) -> str:
    """Return the payload (JSON) in what a model wrote in this format. A text that is not a complete answer is returned
    unchanged."""
    return text if form.name == "json" else line_to_json(text, vibe)


def line_to_json(line: str, vibe: str) -> str:
    """Return the payload (JSON) of a line of labels, with title and palettes derived from the vibe; an incomplete line is
    returned unchanged."""
    if len(line.strip().split(" ")) != len(FIELDS):
        return line
    try:
        return dressed(vibe, MusicConfigPrompt(**labels_of(line))).model_dump_json()
    except InvalidConfigError:
        return line
