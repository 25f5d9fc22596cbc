"""What servers need beside a GGUF file: Ollama's Modelfile, a request, and llama.cpp's grammar where answers are labels."""

from __future__ import annotations

from pathlib import Path

from latentscore.forms import LABELS, form_of, labels_gbnf
from latentscore.prompt import decoding_schema, vibe_message
from latentscore_data.core.base.jsonl import replace_bytes, replace_json, replace_text
from latentscore_data.core.base.settings import ConfigsSettings

EXAMPLE_VIBE = "rain on a tin roof"
GRAMMAR_FILE = "answer.gbnf"


def write_modelfile(folder: Path, name: str, gguf: str) -> None:
    """Write ``Modelfile`` for ``ollama create`` and ``question.json`` for ``/api/chat``, whose ``format`` is the schema.

    Ollama takes no other grammar than a JSON schema: for a model that answers with labels there is no ``format``, and
    ``answer.gbnf`` holds llama.cpp's server to a line of labels. ``gguf`` is relative to ``folder``.
    """
    settings, form = ConfigsSettings(), form_of(folder)
    messages = [
        {"role": "system", "content": form.system()},
        {"role": "user", "content": vibe_message(EXAMPLE_VIBE)},
    ]
    held = {"format": decoding_schema()} if form.name != LABELS.name else {}
    if not held:
        replace_text(folder / GRAMMAR_FILE, labels_gbnf() + "\n")
    lines = [f"FROM ./{gguf}"]
    lines += [f"PARAMETER {key} {value}" for key, value in (("num_ctx", 8192), ("num_predict", settings.max_tokens))]
    lines += [f"PARAMETER temperature {settings.temperature}", *_system_lines(form.system())]
    replace_bytes(folder / "Modelfile", ["\n".join(lines).encode() + b"\n"])
    replace_json(
        folder / "question.json",
        {"model": name, "stream": False, "messages": messages, **held},
    )


def _system_lines(system: str) -> list[str]:
    """A Modelfile has no way to write three quotes within a text, nor blanks around it: those messages it cannot hold."""
    if '"""' in system or system.endswith('"') or system != system.strip():
        return ["# No SYSTEM: a Modelfile cannot hold this message. Send it with each request, as question.json does."]
    return [f'SYSTEM """{system}"""']
