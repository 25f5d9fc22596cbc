"""GRPO: several answers to each vibe, rewarded and compared within their group, through TRL's ``GRPOTrainer``."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from datasets import Dataset
from transformers import LogitsProcessorList
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from latentscore.decoding import SchemaDecoder
from latentscore.forms import JSON, AnswerForm, prompt_messages
from latentscore.prompt import template_options
from latentscore_data.core.base.errors import InputError, MissingError, install
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.settings import DedupeSettings
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.scoring.rewards import (
    Calibration,
    RewardBook,
    ScorePairs,
    Similarity,
    calibrate,
    finite_rewards,
    part_weights,
)
from latentscore_data.core.training.audit import reference_answers
from latentscore_data.core.training.choice import open_scorer, score_callbacks
from latentscore_data.core.training.context import Say, TrainContext
from latentscore_data.core.training.loop import MetricsCallback, common_arguments, run_trainer, validation_arguments
from latentscore_data.core.training.sft import lora_config
from latentscore_data.core.vibes.dedupe import choose_embedder, load_embedder

Reward = Callable[[Sequence[str], Sequence[str]], Sequence[Any]]
"""One's own reward: (vibes, answers) -> a number for each."""

TrainerReward = Callable[..., list[float | None]]
"""A reward as the trainer calls it. Ours never return None: the trainer would leave such an answer out instead of punishing it."""

FEWEST_SCORES = 20
"""With fewer known scores than this, the percentiles of the audio part are measured anew, on the reference answers."""

MOST_REFERENCES = 64


def train_grpo(context: TrainContext, reward: Reward | None = None) -> tuple[Any, MetricsCallback]:
    """Train on the vibes of ``train``. ``reward`` replaces the spec's. Returns the trainer and what was watched."""
    spec, rollout, loaded, rows = context.spec, context.spec.rollout, context.loaded, context.rows["train"]
    validating = spec.choose_by == "score" and bool(context.rows.get("val"))
    with (
        score_callbacks(context, validating) as scoring,
        reward_functions(spec, rows, reward, context.folder, context.watching.say) as (functions, weights),
    ):
        arguments = GRPOConfig(
            **common_arguments(context),
            **validation_arguments(context, validating),
            **vllm_arguments(spec),
            num_generations=rollout.generations,
            max_completion_length=context.audit.max_completion_tokens,
            beta=rollout.beta,
            loss_type=rollout.loss_type,
            scale_rewards=rollout.scale_rewards,
            epsilon_high=rollout.epsilon_high,
            mask_truncated_completions=rollout.mask_truncated_completions,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            reward_weights=weights,
            multi_objective_aggregation="normalize_then_sum",
            chat_template_kwargs=template_options(loaded.tokenizer.chat_template) or None,
        )

        if rollout.constrained and not rollout.vllm:
            hold_to_schema(context)

        def make(watch: MetricsCallback) -> GRPOTrainer:
            return ScoredTrainer(
                model=loaded.model,
                reward_funcs=[*functions],
                args=arguments,
                train_dataset=prompts(rows, spec),
                eval_dataset=prompts(context.rows["val"], spec) if validating else None,
                processing_class=loaded.tokenizer,
                peft_config=lora_config(spec, loaded.model),
                callbacks=[watch, *scoring(watch)],
            )

        return run_trainer(make, context)


class ScoredTrainer(GRPOTrainer):
    """GRPO whose validation is that of its callbacks. Its own would sample and reward groups of answers once more."""

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """What the callbacks measured."""
        metrics: dict[str, float] = {}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def vllm_arguments(spec: TrainSpec) -> dict[str, Any]:
    """The trainer's arguments for sampling with vLLM; none where transformers samples.

    TRL takes a regular expression by a name of its own and other grammars by vLLM's. Raises :class:`MissingError` without vLLM or
    a GPU.
    """
    rollout = spec.rollout
    if not rollout.vllm:
        return {}
    if find_spec("vllm") is None or not torch.cuda.is_available():
        raise MissingError(
            "grpo.vllm samples with vLLM, but vLLM or an NVIDIA GPU is missing",
            f"{install('vllm')} beside a GPU, or --set grpo.vllm=false",
        )
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": rollout.vllm_memory,
        **vllm_grammar(spec),
    }


def vllm_grammar(spec: TrainSpec) -> dict[str, Any]:
    """What holds vLLM's completions to the grammar of the answers, where the spec asks for it."""
    if not spec.rollout.constrained:
        return {}
    grammar = spec.form.grammar()
    if isinstance(grammar, str):
        return {"vllm_structured_outputs_regex": grammar}
    return {"generation_kwargs": {"structured_outputs": {"json": grammar, "disable_any_whitespace": True}}}


def hold_to_schema(context: TrainContext) -> None:
    """Let the model in training generate under the grammar of its answers, with the mask that bench and configs decode with.

    Completions are then drawn from q = p * mask / Z, with p the model's distribution and Z the share of p that the grammar
    allows. The trainer's log-probabilities, its ratios and the KL penalty remain those of p: the gradient is that of
    log p = log q + log Z - log mask, so a well rewarded answer also raises Z, the probability of the form, and a badly rewarded
    one lowers it. After SFT Z is near 1 at almost every token and the two agree. The exact gradient, of log q, would need
    the mask of every token inside the trainer's fused head; TRL 1.16 has no place for it. From a model that does not know
    the form, train SFT first. This holds transformers' generation; :func:`vllm_grammar` holds vLLM's.
    """
    loaded = context.loaded
    decoder = SchemaDecoder(loaded.model, loaded.tokenizer, context.spec.base_model)
    model = loaded.model.get_base_model() if hasattr(loaded.model, "peft_config") else loaded.model
    generate = model.generate

    def held(*inputs: Any, **options: Any) -> torch.Tensor:
        processors = [*(options.pop("logits_processor", None) or ()), decoder.mask(context.spec.form.grammar())]
        return generate(*inputs, **options, logits_processor=LogitsProcessorList(processors))

    model.generate = held


def prompts(rows: Sequence[ScoredRow], spec: TrainSpec) -> Dataset:
    """The noisy wording as the prompt, the original one for the reward."""
    return Dataset.from_list(
        [
            {
                "prompt": prompt_messages(row.vibe_for_training, spec.system, spec.form),
                "vibe": row.vibe_original,
                "row_id": row.row_id,
            }
            for row in rows
        ]
    )


@contextlib.contextmanager
def reward_functions(
    spec: TrainSpec, rows: Sequence[ScoredRow], reward: Reward | None, folder: RunFolder, say: Say
) -> Iterator[tuple[list[TrainerReward], list[float]]]:
    """The functions that the trainer calls, and their weights: one's own, or the parts of the standard reward."""
    own = reward or own_reward(spec.rollout.reward)
    if own is not None:
        name = spec.rollout.reward if reward is None else getattr(reward, "__name__", repr(reward))
        yield [_named("own", _checked(own, name))], [1.0]
        return
    weights = {name: weight for name, weight in part_weights(spec.rollout, spec.form).items() if weight}
    with make_book(spec, rows, say) as book:
        folder.note(calibration=vars(book.calibration), reward_scorer=book.calibration.scorer)
        yield [_named(name, partial(book.part, name)) for name in weights], list(weights.values())


def _checked(own: Reward, name: str) -> Callable[[Sequence[str], Sequence[str]], list[float]]:
    """One's own reward, which raises :class:`InputError` under its name when it fails or does not reward each answer."""
    remedy = "correct the function: it takes (vibes, answers) and returns a number for each answer"

    def score(vibes: Sequence[str], answers: Sequence[str]) -> list[float]:
        try:
            values: Any = own(vibes, answers)
            found = None if values is None else finite_rewards([*values])
        except Exception as error:
            raise InputError(f"reward {name} failed ({type(error).__name__}: {error})", remedy) from error
        if found is None or len(found) != len(answers):
            returned = "nothing" if found is None else f"{len(found)} rewards"
            raise InputError(f"reward {name} returned {returned} for {len(answers)} answers", remedy)
        return found

    return score


def _named(name: str, score: Callable[[Sequence[str], Sequence[str]], list[float]]) -> TrainerReward:
    """A reward as the trainer calls it; it is logged under its name."""

    def function(completions: Sequence[Any], vibe: Sequence[str], **_: Any) -> list[float | None]:
        answers = [
            completion[0]["content"] if isinstance(completion, list) else completion for completion in completions
        ]
        return [*score(vibe, answers)]

    function.__name__ = name
    return function


def own_reward(name: str) -> Reward | None:
    """The user's function for ``path/to/file.py:fn`` or ``module:fn``; None for the standard reward.

    Raises :class:`InputError` when there is none.
    """
    if name == "standard":
        return None
    where, colon, attribute = name.rpartition(":")
    if not colon:
        raise InputError(f"unknown reward {name!r}", "rewards are standard, path/to/file.py:fn and module:fn")

    try:
        if where.endswith(".py"):
            found = importlib.util.spec_from_file_location("lsdata_own_reward", where)
            if found is None or found.loader is None:
                raise ImportError(where)
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
        return getattr(module, attribute)
    except (ImportError, OSError, AttributeError) as error:
        raise InputError(
            f"reward {name} cannot be loaded ({error})", "check the file and the function's name"
        ) from None


@contextlib.contextmanager
def make_book(spec: TrainSpec, rows: Sequence[ScoredRow], say: Say) -> Iterator[RewardBook]:
    """The standard reward, with its scorer's scale measured on the rows."""
    answers = reference_answers(rows, spec.form)
    if spec.rollout.audio_weight == 0:
        yield RewardBook(calibrate("none", [], answers), title_similarity(say), form=spec.form)
        return
    with open_scorer(spec.scoring, spec.rollout.scorer, spec.rollout.seconds) as (name, why, score_pairs):
        say(f"audio reward: {name}{f' ({why})' if why else ''}")
        yield RewardBook(
            measure_scale(name, rows, score_pairs, spec.form), title_similarity(say), score_pairs, spec.form
        )


def measure_scale(
    scorer: str, rows: Sequence[ScoredRow], score_pairs: ScorePairs, form: AnswerForm = JSON
) -> Calibration:
    """Where the scorer's values lie: from the scores the rows hold, or else by scoring their answers."""
    known = [value for row in rows for value in row.candidate_scores.get(scorer, []) if value is not None]
    if len(known) < FEWEST_SCORES:
        some = [row for row in rows if row.config_payload is not None][:MOST_REFERENCES]
        measured = score_pairs([(row.vibe_original, (row.config_payload or {})["config"]) for row in some])
        known = [value for value in measured if value is not None and math.isfinite(value)]
    return calibrate(scorer, known, reference_answers(rows, form))


def title_similarity(say: Say) -> Similarity:
    """Cosine of the two texts' embeddings: MiniLM where it is here, the package's word vectors elsewhere."""
    choice = choose_embedder(DedupeSettings(model="auto"))
    embedder = load_embedder(choice)
    say(f"title reward: {choice.name} ({choice.why})")

    def similarity(pairs: Sequence[tuple[str, str]]) -> list[float]:
        titles, vibes = zip(*pairs, strict=True)
        return (embedder.embed(titles) * embedder.embed(vibes)).sum(axis=1).tolist()

    return similarity
