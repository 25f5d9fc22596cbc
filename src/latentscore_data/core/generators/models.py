"""The generator of hosted models, ``litellm:MODEL``."""

from __future__ import annotations

from collections.abc import Sequence

from latentscore import MusicConfigPromptPayload, schema_hash
from latentscore.seeds import digest
from latentscore_data.core.base.loop import RowFailure
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import ConfigsSettings, PromptsSettings, Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.generators.types import (
    AnyGenerator,
    Depends,
    Generated,
    GeneratorDeps,
    KnownRows,
    SourceKind,
    SourceName,
    SourceNote,
)
from latentscore_data.core.llm.builtin import version_of
from latentscore_data.core.llm.plan import Plan, example_answer, make_plan
from latentscore_data.core.llm.prices import costs_nothing
from latentscore_data.core.llm.prompts import OWN, config_prompt_hash, config_question, named_system
from latentscore_data.core.llm.routes import check_route
from latentscore_data.core.llm.types import LLM


class LLMGenerator:
    """Asks a hosted model (or ``builtin/...``) the question of ``lsdata configs``, once for each row."""

    def __init__(
        self,
        label: str,
        llm: LLM,
        settings: ConfigsSettings,
        max_concurrency: int,
        api_base: str | None = None,
        prompts: PromptsSettings = OWN,
    ) -> None:
        self.label = label
        self.llm = llm
        self.batch_size = max_concurrency
        self._settings, self._prompts = settings, prompts
        sampling = (settings.temperature, settings.top_p, settings.max_tokens, settings.seed)
        # The same name at another server may be another model.
        where = [api_base] if api_base else []
        self.fingerprint = digest("litellm", llm.model, config_prompt_hash(prompts), schema_hash(), sampling, *where)

    async def ask(self, row: VibeRow) -> Generated:
        """Return the answer to one row. If no answer was valid, that is the result; other failures are raised as
        :class:`RowFailure`."""
        question = config_question(row.vibe_original, self._settings, 0, self._prompts)
        try:
            answer = await self.llm.ask(question, MusicConfigPromptPayload)
        except RowFailure as failure:
            if failure.kind == "answer":
                return Generated(failure=f"no valid answer: {failure.message}"[:300])
            raise
        return Generated(
            payload=answer.value.model_dump(mode="json"),
            seconds=answer.seconds,
            tokens_in=answer.tokens_in,
            tokens_out=answer.tokens_out,
            cost_usd=answer.cost_usd,
        )


SAMPLING = ("temperature", "top_p", "max_tokens", "seed")


class HostedKind(SourceKind):
    """``litellm:MODEL``."""

    def make(self, source: SourceName, deps: GeneratorDeps) -> AnyGenerator:
        llm, base = deps.connect(source.name), deps.base_for(source.name)
        return LLMGenerator(source.label, llm, deps.configs, deps.max_concurrency, base, deps.prompts)

    def check(self, source: SourceName, settings: Settings) -> None:
        check_route(source.name, settings.llm)

    def describe(self, source: SourceName, known: KnownRows) -> SourceNote:
        return SourceNote(named_system(known.prompts))

    def depends(self, source: SourceName, settings: Settings, workspace: Workspace) -> Depends:
        sampling = {f"configs.{name}": getattr(settings.configs, name) for name in SAMPLING}
        return Depends(
            {**sampling, f"api_base of {source.label}": settings.llm.base_for(source.name)},
            {"prompt": config_prompt_hash(settings.prompts), f"source {source.label}": version_of(source.name)},
        )

    def plan(
        self, source: SourceName, rows: Sequence[VibeRow], settings: Settings, workspace: Workspace
    ) -> Plan | None:
        if costs_nothing(source.name, settings.llm):
            return None
        questions = ([config_question(row.vibe_original, settings.configs, 0, settings.prompts)] for row in rows)
        return make_plan(source.name, questions, MusicConfigPromptPayload, example_answer(), settings.llm, workspace)
