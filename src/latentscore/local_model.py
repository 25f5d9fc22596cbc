"""A local Hugging Face model or adapter that answers texts with payloads: ``model="local:FOLDER"``."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from latentscore.config import MusicConfigPromptPayload, parse_payload
from latentscore.decoding import Prompt, SchemaDecoder
from latentscore.errors import ModelError
from latentscore.installed import install
from latentscore.prompt import config_system, decoding_schema, vibe_message

MAX_NEW_TOKENS = 2048
NEEDED = ("torch", "transformers", "xgrammar")

RUN_RECORD = "run.json"
"""In a run's folder: what the run was, its spec with the system message among it."""

EXPORT_RECORD = "training.json"
"""The same beside the weights of an exported model."""


class LocalModel:
    """A causal language model from a folder, decoded greedily and held to the payload's schema.

    The folder holds a whole model, or an adapter (then ``peft`` loads its base, from a folder or the hub's local cache). It is
    asked with the system message that its run was trained with. Nothing is downloaded. Raises :class:`ModelError` without the
    ml extra, and for a folder that cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise ModelError(f"local:{folder}: there is no such folder; name one that lsdata export model wrote")
        try:
            import torch
            import transformers
            import xgrammar  # noqa: F401  # looked for here, where the error can name the extra
        except ImportError as error:
            raise ModelError(
                f"local:{folder} needs {', '.join(NEEDED)}, and {error.name} is not installed: {install('ml')}"
            ) from None
        self._system = trained_system(folder) or config_system()
        try:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            # With an adapter's folder this loads the base and puts the adapter on it.
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32
            )
            model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        except Exception as error:  # damaged and foreign folders raise many kinds, a bare Exception among them
            raise ModelError(f"local:{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        self._decoder = SchemaDecoder(model, tokenizer, f"local:{folder}")

    def answer(self, text: str) -> MusicConfigPromptPayload:
        """The payload for a text; the same text always gets the same. Raises :class:`ModelError` for one that was cut."""
        messages = [{"role": "system", "content": self._system}, {"role": "user", "content": vibe_message(text)}]
        (written,) = self._decoder.write([Prompt(messages, MAX_NEW_TOKENS, decoding_schema())])
        try:
            return parse_payload(json.loads(written.text, strict=False))
        except ValueError as error:
            raise ModelError(f"local:{self.folder} gave no usable answer: {error}") from None


def record_file(folder: Path) -> Path | None:
    """The file that says how the model of a folder was trained: an exported model, a run, or a run's ``final/``."""
    places = (folder / EXPORT_RECORD, folder / RUN_RECORD, folder.parent / RUN_RECORD)
    return next((path for path in places if path.is_file()), None)


def trained_system(folder: Path) -> str | None:
    """The system message that the model of a folder was trained with; None for the package's own, and where nothing is known.

    Raises :class:`ModelError` for a record that cannot be read.
    """
    path = record_file(folder.resolve())
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("spec", {}).get("system")
    except (ValueError, AttributeError, OSError) as error:
        raise ModelError(f"local:{folder}: {path} cannot be read ({error}); export the model again") from None


@lru_cache(maxsize=1)
def local_model(folder: str) -> LocalModel:
    """The model of a folder; the last one stays in memory."""
    return LocalModel(Path(folder).expanduser())
