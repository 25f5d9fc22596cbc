"""Names that stand in more than one file are the same in each. A failure names the file to edit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import pytest

from latentscore_data.commands._train_options import RECIPE_HELP
from latentscore_data.core.base import answerers
from latentscore_data.core.base.settings import ExportSettings, Place, Recipe, ScoringSettings
from latentscore_data.core.compute.registry import EXECUTORS
from latentscore_data.core.llm.answerers import ANSWERERS
from latentscore_data.core.scoring.registry import spellings
from latentscore_data.core.stages.export import EXPORTS
from latentscore_data.core.texts import corpus, kinds
from latentscore_data.core.training.run import RECIPES

EXPORT_KINDS = get_args(get_args(ExportSettings.model_fields["kinds"].annotation)[0])


@pytest.mark.parametrize(
    ("table", "named", "where"),
    [
        (EXECUTORS, get_args(Place), "Place in core/base/settings.py"),
        (RECIPES, get_args(Recipe), "Recipe in core/base/settings.py"),
        (RECIPES, RECIPE_HELP, "RECIPE_HELP in commands/_train_options.py"),
        (EXPORTS, EXPORT_KINDS, "export.kinds in core/base/settings.py"),
        (ANSWERERS, [kind.name for kind in answerers.KINDS], "KINDS in core/base/answerers.py"),
        (kinds.KINDS, get_args(corpus.Kind), "Kind in core/texts/corpus.py"),
    ],
)
def test_a_table_and_the_other_list_of_its_names_agree(table: Iterable[str], named: Iterable[str], where: str) -> None:
    differ = sorted(set(table) ^ set(named))
    assert not differ, f"{differ} are in only one of the table and {where}: add them to the other one"


def test_the_setting_names_every_scorer() -> None:
    said = ScoringSettings.model_fields["scorers"].description or ""
    missing = [name for name in spellings() if name not in said]
    assert not missing, f"add {missing} to the description of scoring.scorers in core/base/settings.py"
