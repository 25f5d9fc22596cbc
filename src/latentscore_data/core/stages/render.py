"""One typed text to its answer: that of a map, or the one that the stage configs gives."""

from __future__ import annotations

from dataclasses import replace

import latentscore
from latentscore import Answer
from latentscore.errors import InvalidConfigError, MapError
from latentscore.meaning.offline import OFFLINE_MODEL
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages.configs import answer_vibes, for_typed, model_name


def answer_text(vibe: str, settings: Settings, workspace: Workspace, *, map_path: str | None, yes: bool) -> Answer:
    """The answer to a text: that of the map, or the one that ``lsdata configs`` gives with the same settings.

    Raises :class:`InputError`, and :class:`MissingError` where the model gave none.
    """
    if not vibe.strip():
        raise InputError("the vibe is empty", 'lsdata render "rain on a tin roof"')
    try:
        if map_path is not None:
            return latentscore.answer(vibe, map_path)
        settings = for_typed(settings)
        if (
            model_name(settings) == OFFLINE_MODEL
            and settings.configs.n == 1
            and not settings.configs.temperature
            and settings.search.renders is None
        ):
            # What lsdata configs would choose of one, without a scorer.
            return latentscore.answer(vibe)
    except (MapError, InvalidConfigError) as error:
        raise InputError(f"--map {map_path}: {error}", "lsdata export map writes one") from error
    summary = answer_vibes([vibe], settings, workspace, audio=None, trusted=frozenset(), yes=yes)
    found = summary.details["answers"][0]
    if found["config_payload"] is None:
        raise MissingError(f"no config for this vibe ({found['failure']})", "try again, or another --model")
    return replace(latentscore.answer(found["config_payload"]), answered_by=summary.details["model"], text=vibe)
