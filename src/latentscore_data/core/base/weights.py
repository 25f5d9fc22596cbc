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


def fetched_file(repo: str, file: str) -> Path | None:
    """Return the file of a hub model in the local cache, as ``huggingface_hub.try_to_load_from_cache`` does; None if it is
    not there.

    Importing that function takes a tenth of a second, in every command that asks for the default scorer or embedder.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        path = folder / "snapshots" / commit / file
        return path if path.is_file() else None
    except (OSError, ValueError):
        return None


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
