"""GGUF files of every type: those that the ``gguf`` package writes, K-quants by llama.cpp's own ``llama-quantize``, and what
servers need beside them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from latentscore.forms import LABELS, form_of, labels_gbnf, prompt_messages
from latentscore.prompt import decoding_schema
from latentscore_data.core.base.errors import InputError, VerificationError
from latentscore_data.core.base.jsonl import replace_bytes, replace_json, replace_text, writing
from latentscore_data.core.base.settings import ConfigsSettings
from latentscore_data.core.export.gguf import K_QUANTS, QUANTIZATIONS, write_gguf

TOOL = "llama-quantize"


def check_quantization(quantization: str) -> None:
    """Raise :class:`InputError` for a type that cannot be written on this machine."""
    if quantization in QUANTIZATIONS:
        return
    if quantization not in K_QUANTS:
        raise InputError(
            f"a GGUF of type {quantization!r} cannot be written here",
            f"choose {', '.join(QUANTIZATIONS)}, or a K-quant ({', '.join(K_QUANTS)})",
        )
    if shutil.which(TOOL) is None:
        raise InputError(
            f"a GGUF of type {quantization!r} is made by llama.cpp's {TOOL}, which is not on the path",
            f"install llama.cpp, or choose {', '.join(QUANTIZATIONS)}",
        )


def write_quantized(
    model_folder: Path, path: Path, quantization: str, name: str, tokenizer_from: Path | None = None
) -> str | None:
    """Write a saved model as a GGUF file of any type; returns what the tool calls its version, where one was needed.

    A K-quant starts from a float32 file, so that nothing is rounded twice; that file is gone afterwards. Raises what
    :func:`write_gguf` and :func:`check_quantization` raise, and :class:`VerificationError` when the tool fails or writes
    something else than it was asked for.
    """
    check_quantization(quantization)
    if quantization in QUANTIZATIONS:
        write_gguf(model_folder, path, quantization, name, tokenizer_from)
        return None
    exact, draft = path.with_suffix(".f32.tmp"), path.with_suffix(".quantized.tmp")
    try:
        write_gguf(model_folder, exact, "f32", name, tokenizer_from)
        version = _run(exact, draft, quantization)
        _check_type(draft, quantization)
        with writing(path):
            draft.replace(path)
    finally:
        exact.unlink(missing_ok=True)
        draft.unlink(missing_ok=True)
    return version


def _run(source: Path, target: Path, quantization: str) -> str:
    """Let the tool do it. Returns its version as it says it, or "unknown"."""
    command = [shutil.which(TOOL) or TOOL, str(source.resolve()), str(target.resolve()), quantization.upper()]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    except OSError as error:
        raise InputError(f"{command[0]} cannot be run ({error.strerror})", "check the path") from None
    said = done.stdout.decode("utf-8", "replace").strip().splitlines()
    if done.returncode != 0 or not target.is_file():
        last = said[-1].strip()[:200] if said else "it printed nothing"
        raise VerificationError(f"{TOOL} failed with exit code {done.returncode} ({last})", "choose another type")
    version = (re.match(r"(?:main: )?(?:version:|build\s*=)\s*(.+)", line) for line in said)
    return next((found[1].strip()[:100] for found in version if found), "unknown")


def _check_type(path: Path, quantization: str) -> None:
    import gguf

    try:
        field = gguf.GGUFReader(path).fields.get("general.file_type")
        found = gguf.LlamaFileType(int(field.contents())) if field is not None else None
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise VerificationError(f"what {TOOL} wrote cannot be read ({error})", "try another version of it") from None
    if found is not gguf.LlamaFileType[f"MOSTLY_{quantization.upper()}"]:
        what = "a file that does not say its type" if found is None else found.name.removeprefix("MOSTLY_").lower()
        raise VerificationError(f"{TOOL} was asked for {quantization} and wrote {what}", "try another version of it")


EXAMPLE_VIBE = "rain on a tin roof"
GRAMMAR_FILE = "answer.gbnf"


def write_modelfile(folder: Path, name: str, gguf: str) -> None:
    """Write ``Modelfile`` for ``ollama create`` and ``question.json`` for ``/api/chat``, whose ``format`` is the schema.

    Ollama takes no other grammar than a JSON schema: for a model that answers with labels there is no ``format``, and
    ``answer.gbnf`` holds llama.cpp's server to a line of labels. ``gguf`` is relative to ``folder``.
    """
    settings, form = ConfigsSettings(), form_of(folder)
    messages = prompt_messages(EXAMPLE_VIBE, form=form)
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
