"""Download models from the hub, on request only: safetensors and their accompanying files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentscore_data.core.base.errors import InputError, MissingError, one_line

Told = Callable[[str, int], None]
"""A callback with (file, bytes) during the download."""

# Pickles (.bin, .pt) are never downloaded.
WANTED = re.compile(r"^(?:1_Pooling/)?[\w.-]+\.(?:json|txt|safetensors|model)$")


def fetch_model(model: str, on_progress: Told | None = None, endpoint: str | None = None) -> Path:
    """Download a model's files from the hub into its cache; existing files are not downloaded again.

    Returns the folder. Raises :class:`MissingError` when the hub cannot be reached or has no such model in safetensors.
    """
    import httpx
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HFValidationError

    if Path(model).exists():
        raise InputError(f"{model} is a local file or folder", "nothing needs to be fetched")
    try:
        files = [name for name in HfApi(endpoint=endpoint).list_repo_files(model) if WANTED.match(name)]
        if "model.safetensors" not in files:
            raise MissingError(f"{model} has no model.safetensors", "choose another model")
        paths = {
            name: hf_hub_download(model, name, endpoint=endpoint, tqdm_class=_telling(name, on_progress))
            for name in files
        }
    except (httpx.HTTPError, HFValidationError, OSError) as error:  # the hub's other errors are an OSError's children
        raise MissingError(
            f"{model} cannot be fetched ({one_line(error)})", "check the connection and the name"
        ) from None
    return Path(paths["model.safetensors"]).parent


def _telling(name: str, on_progress: Told | None) -> Any:
    """Return a tqdm class that calls ``on_progress`` instead of drawing."""
    from tqdm import tqdm

    class Telling(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if on_progress is not None and n:
                on_progress(name, int(n))
            return super().update(n)

    return Telling
