"""GRPO: several answers to each vibe, rewarded and compared within their group, with TRL's ``GRPOTrainer``."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from transformers import LogitsProcessorList, TrainerCallback
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
from latentscore_data.core.training.choice import open_scorer
from latentscore_data.core.training.context import Say, TrainContext
from latentscore_data.core.training.loop import MetricsCallback, common_arguments, run_trainer, validation_arguments
from latentscore_data.core.training.sft import lora_config
from latentscore_data.core.vibes.dedupe import choose_embedder, load_embedder

Reward = Callable[[Sequence[str], Sequence[str]], Sequence[Any]]
"""A user's reward: (vibes, answers) -> a number for each answer."""

TrainerReward = Callable[..., list[float | None]]
"""A reward as the trainer calls it. It never returns None, because the trainer ignores such an answer."""

FEWEST_SCORES = 20
"""If the rows hold fewer scores, the percentiles of the audio part are measured on the reference answers."""

MOST_REFERENCES = 64
"""The largest number of reference answers that are scored for this."""


def train_grpo(context: TrainContext) -> tuple[Any, MetricsCallback]:
    """Train on the vibes of ``train``. Return the trainer and the run's metrics."""
    spec, rollout, loaded, rows = context.spec, context.spec.rollout, context.loaded, context.rows["train"]
    validating = spec.choose_by == "score" and bool(context.rows.get("val"))
    with reward_functions(spec, rows, context.folder, context.watching.say) as (functions, weights):
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
            multi_objective_aggregation=aggregation(rollout.scale_rewards),
            chat_template_kwargs=template_options(loaded.tokenizer.chat_template) or None,
        )

        if rollout.constrained and not rollout.vllm:
            constrain_generation(context)

        def make(callbacks: list[TrainerCallback]) -> GRPOTrainer:
            return ScoredTrainer(
                model=loaded.model,
                reward_funcs=[*functions],
                args=arguments,
                train_dataset=prompts(rows, spec),
                eval_dataset=prompts(context.rows["val"], spec) if validating else None,
                processing_class=loaded.tokenizer,
                peft_config=lora_config(spec, loaded.model),
                callbacks=callbacks,
            )

        return run_trainer(make, context, validating)


def aggregation(scale_rewards: str) -> str:
    """Return how TRL combines the parts of the reward for this ``scale_rewards``.

    ``group``: each part is standardized within its group, then the parts are summed with their weights (GDPO,
    arXiv 2601.05242). ``batch`` and ``none``: the parts are summed first, because TRL ignores these values otherwise.
    """
    return "normalize_then_sum" if scale_rewards == "group" else "sum_then_normalize"


def equal_groups(rewards: torch.Tensor, generations: int) -> float:
    """Return the share of groups whose completions have equal rewards in every part: they give no gradient.

    ``rewards`` has the shape (completions, parts); the completions of a group follow each other.
    """
    groups = rewards.view(-1, generations, rewards.shape[1])
    return float((groups.amax(dim=1) == groups.amin(dim=1)).all(dim=1).float().mean())


class ScoredTrainer(GRPOTrainer):
    """GRPO that validates only with its callbacks. TRL's validation generates and rewards groups of answers.

    It logs ``equal_groups``, because TRL's ``frac_reward_zero_std`` is 1 only if all groups of a step are equal, when
    the parts are standardized first.
    """

    def _calculate_rewards(self, *given: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards(*given)
        self._metrics["train"]["equal_groups"].append(equal_groups(rewards, self.num_generations or 1))
        return rewards

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the metrics of the callbacks."""
        metrics: dict[str, float] = {}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def vllm_arguments(spec: TrainSpec) -> dict[str, Any]:
    """Return the trainer's arguments for sampling with vLLM; empty if transformers samples.

    Raises :class:`MissingError` without vLLM or a GPU.
    """
    rollout = spec.rollout
    if not rollout.vllm:
        return {}
    if importlib.util.find_spec("vllm") is None or not torch.cuda.is_available():
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
    """Return the arguments that constrain vLLM's completions to the answers' grammar; empty if the spec does not.

    TRL has its own argument for a regular expression. A JSON schema is passed through to vLLM.
    """
    if not spec.rollout.constrained:
        return {}
    grammar = spec.form.grammar()
    if isinstance(grammar, str):
        return {"vllm_structured_outputs_regex": grammar}
    return {"generation_kwargs": {"structured_outputs": {"json": grammar, "disable_any_whitespace": True}}}


def constrain_generation(context: TrainContext) -> None:
    """Constrain transformers' generation to the answers' grammar, with the mask that bench and configs use.

    Completions are then drawn from q = p * mask / Z, where p is the model's distribution and Z the share of p that the
    grammar allows. The trainer's log-probabilities, ratios and KL penalty remain those of p: the gradient is that of
    log p = log q + log Z - log mask, so an answer with a high reward also raises Z, and one with a low reward lowers
    it. After SFT, Z is near 1 at almost every token and the two gradients agree. The exact gradient, of log q, needs
    the mask of every token inside the trainer's fused head, which TRL 1.16 does not support. Train a model that does
    not know the form with SFT first. For vLLM see :func:`vllm_grammar`.
    """
    loaded = context.loaded
    decoder = SchemaDecoder(loaded.model, loaded.tokenizer, context.spec.base_model)
    model = loaded.model.get_base_model() if hasattr(loaded.model, "peft_config") else loaded.model
    generate = model.generate

    def constrained(*inputs: Any, **options: Any) -> torch.Tensor:
        processors = [*(options.pop("logits_processor", None) or ()), decoder.mask(context.spec.form.grammar())]
        return generate(*inputs, **options, logits_processor=LogitsProcessorList(processors))

    model.generate = constrained


def prompts(rows: Sequence[ScoredRow], spec: TrainSpec) -> Dataset:
    """Return the training vibe of each row as the prompt, and its original vibe for the reward."""
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
    spec: TrainSpec, rows: Sequence[ScoredRow], folder: RunFolder, say: Say
) -> Iterator[tuple[list[TrainerReward], list[float]]]:
    """The trainer's reward functions and their weights: the user's function, or the standard reward's parts."""
    if (own := own_reward(spec.rollout.reward)) is not None:
        yield [_named("own", _checked(own, spec.rollout.reward))], [1.0]
        return
    weights = {name: weight for name, weight in part_weights(spec.rollout, spec.form).items() if weight}
    with make_book(spec, rows, say) as book:
        folder.note(calibration=vars(book.calibration), reward_scorer=book.calibration.scorer)
        yield [_named(name, partial(book.part, name)) for name in weights], list(weights.values())


def _checked(own: Reward, name: str) -> Callable[[Sequence[str], Sequence[str]], list[float]]:
    """Return the user's reward; it raises :class:`InputError` if it fails or does not give each answer a number."""
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
    """Return a reward as the trainer calls it, which logs it as ``name``."""

    def function(completions: Sequence[Any], vibe: Sequence[str], **_: Any) -> list[float | None]:
        answers = [
            completion[0]["content"] if isinstance(completion, list) else completion for completion in completions
        ]
        return [*score(vibe, answers)]

    function.__name__ = name
    return function


def own_reward(name: str) -> Reward | None:
    """Return the user's function for ``path/to/file.py:fn`` or ``module:fn``; None for the standard reward.

    Raises :class:`InputError` for any other name, and for a function that cannot be loaded.
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
    """The standard reward, calibrated on the rows' scores; its scorer's rendering workers run inside the block."""
    if spec.rollout.audio_weight == 0:
        yield RewardBook(
            calibrate("none", [], _reference_answers(rows, spec.form)), title_similarity(say), form=spec.form
        )
        return
    with open_scorer(spec.scoring, spec.rollout.scorer, spec.rollout.seconds) as (name, why, score_pairs):
        say(f"audio reward: {name}{f' ({why})' if why else ''}")
        scale = measure_scale(name, rows, score_pairs, spec.form)
        yield RewardBook(scale, title_similarity(say), score_pairs, spec.form)


def _reference_answers(rows: Sequence[ScoredRow], form: AnswerForm) -> list[str]:
    return [form.write(row.config_payload) for row in rows if row.config_payload is not None]


def measure_scale(
    scorer: str, rows: Sequence[ScoredRow], score_pairs: ScorePairs, form: AnswerForm = JSON
) -> Calibration:
    """Return the range of the scorer's values, from the rows' scores or, if too few, from scoring answers."""
    known = [value for row in rows for value in row.candidate_scores.get(scorer, []) if value is not None]
    if len(known) < FEWEST_SCORES:
        references = [(row.vibe_original, row.config_payload["config"]) for row in rows if row.config_payload]
        known = [value for value in score_pairs(references[:MOST_REFERENCES]) if value is not None]
    return calibrate(scorer, known, _reference_answers(rows, form))


def title_similarity(say: Say) -> Similarity:
    """Return the cosine of a title and a vibe as a function: MiniLM if installed, else word vectors."""
    choice = choose_embedder(DedupeSettings(model="auto"))
    embedder = load_embedder(choice)
    say(f"title reward: {choice.name} ({choice.why})")

    def similarity(pairs: Sequence[tuple[str, str]]) -> list[float]:
        titles, vibes = zip(*pairs, strict=True)
        return (embedder.embed(titles) * embedder.embed(vibes)).sum(axis=1).tolist()

    return similarity
