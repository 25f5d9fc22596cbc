"""Typed texts to their answers: those of a map, or the ones that the stage configs gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import latentscore
from latentscore import Answer
from latentscore.errors import InvalidConfigError, MapError
from latentscore.meaning.offline import OFFLINE_MODEL
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages.base import RunContext
from latentscore_data.core.stages.configs import answer_vibes, for_typed


def answer_texts(
    vibes: Sequence[str], settings: Settings, workspace: Workspace, *, map_path: str | None, yes: bool
) -> list[Answer]:
    """Return the answer to each text: from the map, or as ``lsdata configs`` answers with the same settings.

    All calls of a model share one plan and one cap. Raises :class:`InputError`, and :class:`MissingError` if the model gave no
    answer.
    """
    if not all(vibe.strip() for vibe in vibes):
        raise InputError("the vibe is empty", 'lsdata render "rain on a tin roof"')
    try:
        if map_path is not None:
            return [latentscore.answer(vibe, map_path) for vibe in vibes]
        settings = for_typed(settings)
        if (
            settings.model_of("configs") == OFFLINE_MODEL
            and settings.configs.n == 1
            and not settings.configs.temperature
            and settings.search.renders is None
        ):
            # The only candidate is the winner, so no scorer is needed.
            return [latentscore.answer(vibe) for vibe in vibes]
    except (MapError, InvalidConfigError) as error:
        raise InputError(f"--map: {error}", "name the folder of a map that lsdata export map wrote") from error
    summary = answer_vibes(list(vibes), settings, workspace, RunContext(yes))
    answers = []
    for vibe, found in zip(vibes, summary.details["answers"], strict=True):
        if found["config_payload"] is None:
            raise MissingError(f"no config for {vibe!r} ({found['failure']})", "try again, or another --model")
        given = latentscore.answer(found["config_payload"])
        answers.append(replace(given, answered_by=summary.details["model"], text=vibe))
    return answers
