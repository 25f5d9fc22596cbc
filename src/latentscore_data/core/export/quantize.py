"""GGUF files of every type, K-quants with llama.cpp's ``llama-quantize``, and the files that servers need."""

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
    """Raise :class:`InputError` for an unknown type, and for a K-quant if ``llama-quantize`` is not installed."""
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
    model_folder: Path, path: Path, quantization: str, name: str, tokenizer_from: Path | None
) -> str | None:
    """Write a saved model as a GGUF file of any type; return the version of ``llama-quantize`` if it was used.

    A K-quant is made from a temporary float32 file, so that weights are rounded only once. Raises what
    :func:`write_gguf` and :func:`check_quantization` raise, and :class:`VerificationError` if the tool fails or writes
    another type.
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
    """Run ``llama-quantize``. Return its version, or "unknown"."""
    command = [shutil.which(TOOL) or TOOL, str(source.resolve()), str(target.resolve()), quantization.upper()]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    except OSError as error:
        raise InputError(f"{command[0]} cannot be run ({error.strerror})", "check the path") from None
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    if done.returncode != 0 or not target.is_file():
        last = lines[-1].strip()[:200] if lines else "it printed nothing"
        raise VerificationError(f"{TOOL} failed with exit code {done.returncode} ({last})", "choose another type")
    version = (re.match(r"(?:main: )?(?:version:|build\s*=)\s*(.+)", line) for line in lines)
    return next((found[1].strip()[:100] for found in version if found), "unknown")


def _check_type(path: Path, quantization: str) -> None:
    import gguf

    try:
        field = gguf.GGUFReader(path).fields.get("general.file_type")
        found = gguf.LlamaFileType(int(field.contents())) if field is not None else None
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise VerificationError(f"the file of {TOOL} cannot be read ({error})", "try another version of it") from None
    if found is not gguf.LlamaFileType[f"MOSTLY_{quantization.upper()}"]:
        what = "a file without a type" if found is None else found.name.removeprefix("MOSTLY_").lower()
        raise VerificationError(f"{TOOL} was asked for {quantization} and wrote {what}", "try another version of it")


def write_modelfile(folder: Path, name: str, gguf: str) -> None:
    """Write ``Modelfile`` for ``ollama create``, and ``question.json`` for ``/api/chat`` with the schema as ``format``.

    Ollama supports no grammar but a JSON schema. For a model that answers with labels there is no ``format``;
    ``answer.gbnf`` is the grammar for llama.cpp's server. ``gguf`` is the path of the file, relative to ``folder``.
    """
    settings, form = ConfigsSettings(), form_of(folder)
    question = {"model": name, "stream": False, "messages": prompt_messages("rain on a tin roof", form=form)}
    if form.name == LABELS.name:
        replace_text(folder / "answer.gbnf", labels_gbnf() + "\n")
    else:
        question["format"] = decoding_schema()
    lines = [f"FROM ./{gguf}"]
    lines += [f"PARAMETER {key} {value}" for key, value in (("num_ctx", 8192), ("num_predict", settings.max_tokens))]
    lines += [f"PARAMETER temperature {settings.temperature}", *_system_lines(form.system())]
    replace_bytes(folder / "Modelfile", ["\n".join(lines).encode() + b"\n"])
    replace_json(folder / "question.json", question)


def _system_lines(system: str) -> list[str]:
    """Return the SYSTEM line. A Modelfile cannot hold a text with three quotes, or with spaces at its ends."""
    if '"""' in system or system.endswith('"') or system != system.strip():
        return ["# No SYSTEM: a Modelfile cannot hold this message. Send it with each request, as question.json does."]
    return [f'SYSTEM """{system}"""']
