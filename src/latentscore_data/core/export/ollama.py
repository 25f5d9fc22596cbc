"""What Ollama needs beside a GGUF file: a Modelfile, and a request with the prompt and the schema of an answer."""

from __future__ import annotations

from pathlib import Path

from latentscore_data.core.base.jsonl import replace_bytes, replace_json
from latentscore_data.core.base.settings import ConfigsSettings
from latentscore_data.core.generators.local import decoding_schema
from latentscore_data.core.llm.prompts import config_question

EXAMPLE_VIBE = "rain on a tin roof"


def write_modelfile(folder: Path, name: str, gguf: str) -> None:
    """Write ``Modelfile`` for ``ollama create`` and ``question.json`` for ``/api/chat``, whose ``format`` is the schema.

    ``gguf`` is relative to ``folder``.
    """
    settings = ConfigsSettings()
    question = config_question(EXAMPLE_VIBE, settings)
    lines = [f"FROM ./{gguf}"]
    lines += [f"PARAMETER {key} {value}" for key, value in (("num_ctx", 8192), ("num_predict", settings.max_tokens))]
    lines += [f"PARAMETER temperature {settings.temperature}", f'SYSTEM """{question.system}"""']
    replace_bytes(folder / "Modelfile", ["\n".join(lines).encode() + b"\n"])
    replace_json(
        folder / "question.json",
        {"model": name, "stream": False, "messages": question.messages, "format": decoding_schema()},
    )
