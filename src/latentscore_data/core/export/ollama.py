"""What Ollama needs beside a GGUF file: a Modelfile, and a request with the prompt and the schema of an answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from latentscore.prompt import decoding_schema
from latentscore_data.core.base.jsonl import replace_bytes, replace_json
from latentscore_data.core.base.settings import ConfigsSettings
from latentscore_data.core.llm.prompts import config_question

EXAMPLE_VIBE = "rain on a tin roof"


def write_modelfile(folder: Path, name: str, gguf: str, system: str | None = None) -> None:
    """Write ``Modelfile`` for ``ollama create`` and ``question.json`` for ``/api/chat``, whose ``format`` is the schema.

    ``gguf`` is relative to ``folder``; ``system`` is the system message that the model was trained with, None for the
    package's own.
    """
    settings = ConfigsSettings()
    question = config_question(EXAMPLE_VIBE, settings)
    if system is not None:
        question = replace(question, system=system)
    lines = [f"FROM ./{gguf}"]
    lines += [f"PARAMETER {key} {value}" for key, value in (("num_ctx", 8192), ("num_predict", settings.max_tokens))]
    lines += [f"PARAMETER temperature {settings.temperature}", f'SYSTEM """{question.system}"""']
    replace_bytes(folder / "Modelfile", ["\n".join(lines).encode() + b"\n"])
    replace_json(
        folder / "question.json",
        {"model": name, "stream": False, "messages": question.messages, "format": decoding_schema()},
    )
