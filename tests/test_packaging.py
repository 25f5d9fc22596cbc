"""The dependencies of pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]


def requirements(extra: str) -> list[Requirement]:
    """Return what the base and an extra require, with the extras that this extra names."""
    found = list(map(Requirement, PROJECT["dependencies"]))
    wanted = [extra]
    for name in wanted:
        for one in map(Requirement, PROJECT["optional-dependencies"][name]):
            if one.name == PROJECT["name"]:
                wanted += sorted(one.extras)
            else:
                found.append(one)
    return found


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_an_extra_can_be_installed_with_the_base(extra: str) -> None:
    bounds: dict[str, SpecifierSet] = {}
    for one in requirements(extra):
        name = canonicalize_name(one.name)
        bounds[name] = bounds.get(name, one.specifier) & one.specifier
    for name, specifier in bounds.items():
        lowest = ["0", *(bound.version for bound in specifier)]  # one of these fits, if any version does
        assert any(map(specifier.contains, lowest)), f"no version of {name} is {specifier}"
