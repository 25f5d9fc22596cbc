"""Answer texts with a local Hugging Face model or adapter: ``model="local:FOLDER"``."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from latentscore.config import MusicConfigPromptPayload, parse_payload
from latentscore.decoding import Prompt, SchemaDecoder
from latentscore.errors import ModelError
from latentscore.forms import form_of
from latentscore.installed import install
from latentscore.prompt import vibe_message

MAX_NEW_TOKENS = 2048
NEEDED = ("torch", "transformers", "xgrammar")


class LocalModel:
    """A causal language model from a folder, decoded greedily under the grammar of its answer format.

    The folder holds a model or an adapter (``peft`` then loads its base from a folder or the hub's local cache). Its
    ``latentscore.json`` names the answer format and the system message of its training. Nothing is downloaded. Raises
    :class:`ModelError` without the ml extra, and for a folder that cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise ModelError(f"local:{folder}: the folder does not exist; name one that lsdata export model wrote")
        self._form = form_of(folder)
        try:
            import torch
            import transformers
            import xgrammar  # noqa: F401  # imported here so that the error can name the extra
        except ImportError as error:
            raise ModelError(
                f"local:{folder} needs {', '.join(NEEDED)}, and {error.name} is not installed: {install('ml')}"
            ) from None
        transformers.logging.disable_progress_bar()
        try:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            # For an adapter's folder, this loads the base and attaches the adapter.
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32
            )
            model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        except Exception as error:  # damaged folders and other formats raise many exception types, including Exception
            raise ModelError(f"local:{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        self._decoder = SchemaDecoder(model, tokenizer, f"local:{folder}")

    def answer(self, text: str) -> MusicConfigPromptPayload:
        """Return the payload for a text; deterministic. Raises :class:`ModelError` if the answer was cut."""
        form = self._form
        messages = [{"role": "system", "content": form.system()}, {"role": "user", "content": vibe_message(text)}]
        (written,) = self._decoder.write([Prompt(messages, MAX_NEW_TOKENS, form.grammar())])
        try:
            return parse_payload(json.loads(form.to_json(written.text, text), strict=False))
        except ValueError as error:
            raise ModelError(f"local:{self.folder} gave no usable answer: {error}") from None


@lru_cache(maxsize=1)
def local_model(folder: str) -> LocalModel:
    """Return the model of a folder; the most recent one stays in memory."""
    return LocalModel(Path(folder).expanduser())
