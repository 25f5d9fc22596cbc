"""Estimates of the time and cost of remote runs, with their basis, and the cost cap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.settings import ModalSettings, ScoringSettings
from latentscore_data.core.models.spec import TrainSpec
from latentscore_data.core.scoring.executor import START_SECONDS, RemoteJobEstimate
from latentscore_data.core.training.audit import Audit

PRICES_AS_OF = "2026-11"

GPUS: dict[str, tuple[float, float]] = {
    "T4": (0.59, 65.0),
    "L4": (0.80, 121.0),
    "A10": (1.10, 125.0),
    "L40S": (1.95, 362.0),
    "A100-40GB": (2.10, 312.0),
    "A100-80GB": (2.50, 312.0),
    "H100": (3.95, 989.0),
    "H200": (4.54, 989.0),
    "B200": (6.25, 2250.0),
}
"""List price in US dollars per hour, and peak bfloat16 TFLOP/s (float16 for T4)."""

CPU_CORES, MEMORY_GIB = 4, 16
CPU_CORE_PER_HOUR, MEMORY_GIB_PER_HOUR = 0.0473, 0.0080

BEST_USE, WORST_USE = 0.30, 0.03
"""Share of the peak that the training of small models reaches, for full batches and for many small steps."""

DECODE_TOKENS_PER_SECOND = 25.0
"""Tokens per second that are added to each sequence of a batch, for decoding driven by Python on a GPU."""


SOUND_CPU_SECONDS, CLIP_CPU_SECONDS, CLAP_CPU_SECONDS = 0.010, 0.025, 0.15
"""Core-seconds per second of audio: rendering and measuring, encoding a clip, embedding with CLAP."""


def estimate_scoring(
    sounds: int, scoring: ScoringSettings, scorers: Sequence[str], *, clips: bool, cores: int
) -> RemoteJobEstimate:
    """Estimate rendering and scoring of ``sounds`` on workers with this number of cores."""
    each = SOUND_CPU_SECONDS + (CLIP_CPU_SECONDS if clips else 0.0) + (CLAP_CPU_SECONDS if "clap" in scorers else 0.0)
    core_seconds = each * scoring.seconds
    return RemoteJobEstimate(
        "sounds", sounds, None, core_seconds / cores, 3 * core_seconds / cores,
        f"{core_seconds:.2f} core-seconds a sound on {cores} core{'s' if cores > 1 else ''}, and three times that",
    )  # fmt: skip


def estimate_answering(label: str, count: int, tokens: int, at_once: int, gpu: str | None) -> RemoteJobEstimate:
    """Estimate ``count`` answers of a local model, of ``tokens`` each, decoded ``at_once`` at a time."""
    decoding = tokens / DECODE_TOKENS_PER_SECOND / at_once
    return RemoteJobEstimate(
        f"answers of {label}", count, check_gpu(gpu) if gpu else None, decoding / 3, decoding * 3,
        f"{tokens} tokens for each {at_once} at a time at {DECODE_TOKENS_PER_SECOND:.0f} a second "
        f"on {f'an {gpu}' if gpu else 'a GPU'}, a third to three times that",
    )  # fmt: skip


@dataclass(frozen=True)
class RunEstimate:
    """Seconds and US dollars of one remote run. ``cap_usd`` is time-out x price, its maximum cost without retries."""

    gpu: str
    price_per_hour: float
    low_seconds: float
    high_seconds: float
    low_usd: float
    high_usd: float
    cap_usd: float
    basis: str


MOST_GPUS = 8


def check_gpu(gpu: str) -> str:
    """Return the name of a GPU; ``L4:2`` means two in one container. Raises :class:`InputError` if Modal does not have it."""
    name, colon, count = gpu.partition(":")
    if name not in GPUS:
        raise InputError(f"unknown GPU {gpu!r}", f"GPUs are {', '.join(GPUS)}")
    if colon and not (count.isdecimal() and 1 <= int(count) <= MOST_GPUS):
        raise InputError(f"{gpu!r} is not a number of GPUs", f"write {name}:N with N from 1 to {MOST_GPUS}")
    return gpu


def gpu_count(gpu: str) -> int:
    """Return the number of GPUs in a name such as ``L4:2``. Raises :class:`InputError`."""
    return int(check_gpu(gpu).partition(":")[2] or 1)


def price_per_hour(modal: ModalSettings, gpu: str | None) -> float:
    """Return the price of one container-hour: GPU, cores and memory, or the price in the settings."""
    if modal.price_per_hour is not None:
        return modal.price_per_hour
    rest = CPU_CORES * CPU_CORE_PER_HOUR + MEMORY_GIB * MEMORY_GIB_PER_HOUR
    return rest + (gpu_count(gpu) * GPUS[gpu.partition(":")[0]][0] if gpu else 0.0)


def cap_usd(modal: ModalSettings, gpu: str | None, containers: int = 1) -> float:
    """Return the maximum cost of a remote run, over all its containers and retries: time-out x price."""
    return modal.timeout_hours * price_per_hour(modal, gpu) * containers


def estimate_run(spec: TrainSpec, report: Audit, modal: ModalSettings) -> RunEstimate:
    """Estimate the range of time and cost of a run from its rows, tokens and parameters.

    Training takes 6 operations per parameter and token (Kaplan et al. 2020), 4 with a frozen base. GRPO adds the sampling,
    token by token, and a forward pass of the reference; DPO reads two answers, each twice.
    """
    gpu = check_gpu(modal.gpu)
    hourly = price_per_hour(modal, gpu)
    per_token = 6.0 if spec.method == "full" else 4.0
    if spec.kind != "grpo":
        tokens = report.steps * spec.batch_size * report.row_tokens["p50"]
        decoding = 0.0
        if spec.kind == "dpo":
            # Two answers to each prompt, and for both a forward pass of the reference.
            tokens, per_token = 2 * tokens, per_token + 2.0
    else:
        tokens = report.steps * spec.batch_size * (report.prompt_tokens["p50"] + report.max_completion_tokens)
        per_token += 4.0
        decoding = report.steps * report.max_completion_tokens / DECODE_TOKENS_PER_SECOND
    flops = tokens * per_token * report.all_parameters
    peak = gpu_count(gpu) * GPUS[gpu.partition(":")[0]][1] * 1e12
    low = START_SECONDS / 3 + flops / (peak * BEST_USE) + decoding / 3
    high = START_SECONDS + flops / (peak * WORST_USE) + decoding * 3
    basis = (
        f"{report.steps} steps, {tokens / 1e6:.1f} M tokens x {per_token:.0f} FLOP x {report.all_parameters / 1e6:.1f} M "
        f"parameters at {WORST_USE:.0%} to {BEST_USE:.0%} of an {gpu}'s peak"
        + (f", {report.max_completion_tokens} tokens sampled per step" if spec.kind == "grpo" else "")
        + f", start included; ${hourly:.2f} per hour with {CPU_CORES} cores and {MEMORY_GIB} GiB "
        + ("(your price)" if modal.price_per_hour is not None else f"(list prices as of {PRICES_AS_OF})")
    )
    return RunEstimate(gpu, hourly, low, high, low / 3600 * hourly, high / 3600 * hourly, cap_usd(modal, gpu), basis)
