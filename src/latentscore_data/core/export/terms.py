"""The licence that a model inherits from its base, and the texts that must be distributed with it."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentscore.files import user_path, why_no_file
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.jsonl import replace_text, writing
from latentscore_data.core.export.merge import public_name
from latentscore_data.core.models.spec import TINY_RANDOM

NOTICE_FILE = "NOTICE"
LICENSE_FILE = "LICENSE"
_TEXT_NAMES = re.compile(r"^(license|licence|notice|copying|.*terms.*|use_policy.*)(\.(txt|md|html|pdf))?$", re.I)


@dataclass(frozen=True)
class Terms:
    """The terms of a family of base models for models made from it."""

    license: str
    """The hub's identifier."""
    notice: str
    """A sentence that the NOTICE file must contain; empty if none is required."""


APACHE = Terms("apache-2.0", "")
GEMMA = Terms(
    "gemma", "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
)

TERMS_BY_TYPE: Mapping[str, Terms] = {"gemma3_text": GEMMA, "gemma3": GEMMA, "qwen3": APACHE}


def terms_of(chain: Sequence[str], model_type: str) -> Terms | None:
    """Return the terms of a model whose ancestors are ``chain``, the first one last; None for unknown terms."""
    # The random model belongs to this package.
    return APACHE if chain[-1] == TINY_RANDOM else TERMS_BY_TYPE.get(model_type)


def ship_terms(folder: Path, terms: Terms | None, chain: Sequence[str], text: Path | None) -> list[str]:
    """Write the licence and the notice into ``folder``; return what is missing before the model may be distributed.

    The text of the licence is the file ``text``, else the files beside the base model's weights, else, for Apache-2.0,
    this package's licence.
    """
    texts = [required(text)] if text is not None else _beside(chain[-1])
    for path in texts:
        with writing(folder):
            shutil.copyfile(path, folder / (path.name if text is None else LICENSE_FILE + path.suffix))
    if not texts and terms is APACHE and (own := _apache_text()) is not None:
        replace_text(folder / LICENSE_FILE, own)
        texts = [folder / LICENSE_FILE]
    if terms is not None and terms.notice:
        made = f"Made from {public_name(chain[-1])}. The weights have been changed by training.\n"
        replace_text(folder / NOTICE_FILE, f"{terms.notice}\n{made}")
    missing: list[str] = []
    if terms is None:
        missing.append(f"the licence of the base model {public_name(chain[-1])} is unknown")
    if not texts:
        missing.append(f"the text of the base model's licence{f' ({terms.license})' if terms else ''} is missing")
    return missing


def required(path: Path) -> Path:
    """Return the file with a licence's text. Raises :class:`InputError` if it is missing."""
    if not path.is_file():
        raise InputError(f"{path} {why_no_file(path)}", "name a file with the licence's text: --terms FILE")
    return path


def _beside(base: str) -> list[Path]:
    """Return the licence texts in the folder of a local base model."""
    path = user_path(base)
    folder = path if path.is_dir() else path.parent if path.is_file() else None
    return (
        sorted(part for part in folder.iterdir() if part.is_file() and _TEXT_NAMES.match(part.name)) if folder else []
    )


def _apache_text() -> str | None:
    """Return this package's licence, which is Apache-2.0, from the source tree or the installed package."""
    in_source = Path(__file__).resolve().parents[4] / LICENSE_FILE
    if in_source.is_file():
        return in_source.read_text(encoding="utf-8")
    files = importlib.metadata.files("latentscore-data") or []
    found = next((file for file in files if file.name == LICENSE_FILE), None)
    return found.read_text(encoding="utf-8") if found is not None else None
