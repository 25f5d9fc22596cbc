"""Extraction: questions about texts, and the conversion of answers to vibe rows, one for each wording."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from latentscore.json_search import JsonObject
from latentscore.seeds import digest
from latentscore_data.core.base.jsonl import Line, read_rows
from latentscore_data.core.base.row_index import read_newest
from latentscore_data.core.base.rows import SourceText, VibeRow, source_id, vibe_row_id
from latentscore_data.core.base.settings import VibesSettings
from latentscore_data.core.llm.prompts import paginate, vibes_prompt_hash, vibes_question
from latentscore_data.core.llm.types import LLM
from latentscore_data.core.vibes.schema import Ladder, TextVibes, answer_type, vibe_schema_hash


def text_key(text: SourceText) -> str:
    """Return the key of a text's line in ``extracted.jsonl``."""
    return source_id(text.dataset, text.id_in_dataset)


def usable_fingerprints(
    text: SourceText, version: str, settings: VibesSettings, api_base: str | None = None
) -> tuple[str, ...]:
    """Return the fingerprints of usable answers for a text, beginning with that of the current question. Without
    characters, an answer with characters is also usable."""
    kinds = [settings] if settings.characters else [settings, settings.model_copy(update={"characters": True})]
    return tuple(text_fingerprint(text, version, kind, api_base) for kind in kinds)


def text_fingerprint(text: SourceText, version: str, settings: VibesSettings, api_base: str | None = None) -> str:
    """Return the fingerprint of the answer for a text: the text, the model's version and address, the prompt, the
    schema, the sampling.

    Without an ``api_base`` it is the same as in older versions, so that older answers stay usable.
    """
    return digest(
        text.text,
        version,
        vibes_prompt_hash(settings.characters),
        vibe_schema_hash(settings.characters),
        settings.max_vibes,
        settings.page_words,
        settings.max_input_words,
        settings.temperature,
        settings.max_tokens,
        settings.seed,
        *([api_base] if api_base else []),
    )[:32]


async def ask_for_vibes(text: SourceText, llm: LLM, settings: VibesSettings) -> Line:
    """Return one line of ``extracted.jsonl`` with the complete answer, so that rows can be rebuilt without asking."""
    answer = await llm.ask(vibes_question(text.text, settings), answer_type(settings.characters))
    return {
        "source_id": text_key(text),
        "dataset": text.dataset,
        "id_in_dataset": text.id_in_dataset,
        "pages": len(paginate(text.text, settings.page_words, settings.max_input_words)),
        "vibe_model": llm.model,
        "vibes": answer.value.model_dump(mode="json")["vibes"],
    }


def read_texts(files: Iterable[Path], limit: int | None = None) -> Iterator[SourceText]:
    """The sampled texts of all data sets, streamed, at most ``limit``."""
    left = float("inf") if limit is None else limit
    for path in files:
        for text in read_rows(path, SourceText):
            if left <= 0:
                return
            left -= 1
            yield text


def extracted_rows(
    extracted: Path, wanted: Mapping[str, Collection[str] | None], settings: VibesSettings
) -> Iterator[VibeRow]:
    """The vibe rows of the texts in ``wanted`` (key -> fingerprints; None for any answer), in that order, streamed.

    Answers with another fingerprint (a changed text, another model) are left out.
    """
    for line in read_newest(extracted, "source_id", wanted):
        found = wanted[line["source_id"]]
        if found is None or line.get("input_fingerprint") in found:
            yield from rows_of(line, settings)


def rows_of(line: Line, settings: VibesSettings) -> Iterator[VibeRow]:
    """The rows of one answer: its first ``max_vibes`` vibes, their scene, then (if wanted) their characters."""
    answer = TextVibes.model_validate({"vibes": line["vibes"]})
    last_page = max(int(line.get("pages", 1)) - 1, 0)
    for index, vibe in enumerate(answer.vibes[: settings.max_vibes]):
        shared = {
            "dataset": line["dataset"],
            "id_in_dataset": line["id_in_dataset"],
            # Numbered here, because models repeat and skip numbers, and row ids must be unique.
            "vibe_index": index,
            "text_page": min(vibe.text_page, last_page),
            "tags_original": vibe.tags,
            "vibe_model": line["vibe_model"],
        }
        for at, ladder in enumerate(vibe.scene_vibes):
            yield from _ladder_rows(shared, ladder, "scene", str(at), None)
        for person, character in enumerate(vibe.characters if settings.characters else []):
            for at, ladder in enumerate(character.ladders):
                yield from _ladder_rows(shared, ladder, "character", f"{person}.{at}", character.name)


def _ladder_rows(
    shared: JsonObject, ladder: Ladder, scope: str, descriptor: str, name: str | None
) -> Iterator[VibeRow]:
    source = source_id(shared["dataset"], shared["id_in_dataset"])
    for level, wording in ladder.wordings():
        yield VibeRow(
            row_id=vibe_row_id(source, shared["vibe_index"], scope, descriptor, level),
            **shared,
            vibe_scope=scope,
            character_name=name,
            vibe_level=level,
            vibe_original=wording,
        )
