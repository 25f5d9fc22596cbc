"""A local Hugging Face model or adapter that answers texts with payloads: ``model="local:FOLDER"``."""

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
    """A causal language model from a folder, decoded greedily and held to the grammar of its answers.

    The folder holds a whole model, or an adapter (then ``peft`` loads its base, from a folder or the hub's local cache). Its
    ``latentscore.json`` says in which form it answers, and which system message it was trained with. Nothing is downloaded. Raises :class:`ModelError` without the ml extra, and for a folder that cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise ModelError(f"local:{folder}: there is no such folder; name one that lsdata export model wrote")
        self._form = form_of(folder)
        try:
            import torch
            import transformers
            import xgrammar  # noqa: F401  # looked for here, where the error can name the extra
        except ImportError as error:
            raise ModelError(
                f"local:{folder} needs {', '.join(NEEDED)}, and {error.name} is not installed: {install('ml')}"
            ) from None
        transformers.logging.disable_progress_bar()
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
        form = self._form
        messages = [{"role": "system", "content": form.system()}, {"role": "user", "content": vibe_message(text)}]
        (written,) = self._decoder.write([Prompt(messages, MAX_NEW_TOKENS, form.grammar())])
        try:
            return parse_payload(json.loads(form.to_json(written.text, text), strict=False))
        except ValueError as error:
            raise ModelError(f"local:{self.folder} gave no usable answer: {error}") from None


@lru_cache(maxsize=1)
def local_model(folder: str) -> LocalModel:
    """The model of a folder; the last one stays in memory."""
    return LocalModel(Path(folder).expanduser())
