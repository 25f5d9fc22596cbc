"""A local Hugging Face model or adapter that answers texts with payloads: ``model="local:FOLDER"``."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from latentscore.config import MusicConfigPromptPayload, parse_payload
from latentscore.errors import ModelError
from latentscore.forms import form_of
from latentscore.installed import install
from latentscore.prompt import vibe_message

MAX_NEW_TOKENS = 2048
NEEDED = ("torch", "transformers", "xgrammar")


class LocalModel:
    """A causal language model from a folder, decoded greedily and held to the grammar of its answers.

    A model that was trained to answer with a line of labels says so in ``latentscore.json``. The folder holds a whole model, or an adapter (then ``peft`` loads its base, from a folder or the hub's local cache).
    Nothing is downloaded. Raises :class:`ModelError` without the ml extra, and for a folder that cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise ModelError(f"local:{folder}: there is no such folder; name one that lsdata export model wrote")
        self._form = form_of(folder)
        try:
            import torch
            import transformers
            import xgrammar
        except ImportError as error:
            raise ModelError(
                f"local:{folder} needs {', '.join(NEEDED)}, and {error.name} is not installed: {install('ml')}"
            ) from None
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            # With an adapter's folder this loads the base and puts the adapter on it.
            self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32
            )
            self._model = self._model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
            declared = self._model.generation_config.eos_token_id or self._tokenizer.eos_token_id
            self._stops = declared if isinstance(declared, list) else [declared]
            tokens = xgrammar.TokenizerInfo.from_huggingface(
                self._tokenizer,
                # Embeddings are often padded beyond the tokenizer: the mask must be as wide as the logits.
                vocab_size=self._model.get_output_embeddings().weight.shape[0],
                stop_token_ids=self._stops,
            )
            compiler, grammar = xgrammar.GrammarCompiler(tokens), self._form.grammar()
            self._grammar = (
                compiler.compile_regex(grammar)
                if isinstance(grammar, str)
                else compiler.compile_json_schema(json.dumps(grammar), any_whitespace=False, separators=(",", ":"))
            )
        except Exception as error:  # damaged and foreign folders raise many kinds, a bare Exception among them
            raise ModelError(f"local:{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error

    def answer(self, text: str) -> MusicConfigPromptPayload:
        """The payload for a text; the same text always gets the same. Raises :class:`ModelError` for one that was cut."""
        import torch
        from xgrammar.contrib.hf import LogitsProcessor

        messages = [{"role": "system", "content": self._form.system()}, {"role": "user", "content": vibe_message(text)}]
        # Models that think are told not to, because only JSON is wanted.
        options = {"enable_thinking": False} if "enable_thinking" in (self._tokenizer.chat_template or "") else {}
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
        batch = self._tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(self._model.device)
        batch.pop("token_type_ids", None)
        with torch.inference_mode():
            out = self._model.generate(
                **batch,
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=self._stops,
                pad_token_id=self._tokenizer.pad_token_id or self._stops[0],
                # A grammar's matcher has a state, so each call needs its own.
                logits_processor=[LogitsProcessor(self._grammar)],
            )
        said = self._tokenizer.decode(out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        try:
            return parse_payload(json.loads(self._form.to_json(said, text), strict=False))
        except ValueError as error:
            raise ModelError(f"local:{self.folder} gave no usable answer: {error}") from None


@lru_cache(maxsize=1)
def local_model(folder: str) -> LocalModel:
    """The model of a folder; the last one stays in memory."""
    return LocalModel(Path(folder).expanduser())
