"""All settings: one typed section per subject, each value with a default and a description.

Later sources win: default, ``latentscore.toml``, environment (``LSDATA_LLM__MODEL``), flag.
``latentscore.toml.example`` and the reference in the docs are made from these types.
"""

from __future__ import annotations

import ast
import inspect
import logging
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from latentscore.files import why_no_file
from latentscore_data.core.base.answerers import kind_of
from latentscore_data.core.base.errors import FLAG, InputError
from latentscore_data.core.base.layers import Layer, Resolved, Values, common, did_you_mean, leaves, merged, resolve
from latentscore_data.core.base.names import printable
from latentscore_data.core.base.proxies import check_address
from latentscore_data.core.base.rows import SPLITS, Split

log = logging.getLogger(__name__)

SETTINGS_FILE = "latentscore.toml"
BUILTIN_MODEL = "builtin/keywords"
EXACT_UP_TO = 100_000
Place = Literal["here", "modal", "ray"]
"""Where work runs: the values of ``--on``, and the names in ``core/compute/registry.py``."""
PLACES: tuple[Place, ...] = get_args(Place)
Recipe = Literal["sft", "grpo", "dpo"]
"""The kinds of training; the names in ``RECIPES`` of ``core/training/run.py``."""
OLD_HERE = "local"
"""The name of ``--on here`` in version 0.1."""
OLD_EMBEDDER = "hashing"
"""The offline embedder of version 0.1."""


@cache
def _descriptions(module: str) -> Mapping[str, Mapping[str, str]]:
    """The text below each field, by class and field, of a module's classes.

    One parse of the file serves all its classes; pydantic's ``use_attribute_docstrings`` parses for each class, which
    took 25 ms of every command's start.
    """
    return {
        node.name: {
            field.target.id: inspect.cleandoc(text.value.value)
            for field, text in pairwise(node.body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for node in ast.parse(inspect.getsource(sys.modules[module])).body
        if isinstance(node, ast.ClassDef)
    }


class Section(BaseModel):
    """A table of the settings file. Unknown keys are refused, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        for name, text in _descriptions(cls.__module__).get(cls.__name__, {}).items():
            cls.model_fields[name].description = text

    @model_validator(mode="before")
    @classmethod
    def _texts_as_meant(cls, values: Any) -> Any:
        """Treat an empty text as "not set" for every optional value, because TOML has no null, and replace a ``~`` at the
        beginning of a path by the home folder."""
        if not isinstance(values, dict):
            return values
        may_be_none = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        given = cast(Values, values)
        return {name: None if value == "" and name in may_be_none else _in_home(value) for name, value in given.items()}


def _in_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_home(item) for item in cast("list[Any]", value)]
    return os.path.expanduser(value) if isinstance(value, str | Path) else value


class PathsSettings(Section):
    root: Path = Path("data_work")
    """The data root: the folder that every stage reads and writes."""

    @field_validator("root", mode="before")
    @classmethod
    def _is_a_folder(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("a folder must be named; . is this one")
        return value

    @property
    def price_lists(self) -> Path:
        """The folder that ``doctor --fetch prices`` writes to."""
        return self.root / ".cache" / "prices"


class PriceSettings(Section):
    """The price of one model, or of all models whose names match a pattern."""

    input: float = Field(ge=0)
    """US dollars per million prompt tokens; 0 for a free server."""
    output: float = Field(ge=0)
    """US dollars per million answer tokens."""
    cached_input: float | None = Field(default=None, ge=0)
    """US dollars per million prompt tokens that the provider had cached; empty for the value of input."""
    audio_input: float | None = Field(default=None, ge=0)
    """US dollars per million audio tokens in the prompt; empty for the value of input."""


class LLMSettings(Section):
    model: str = BUILTIN_MODEL
    """Model: builtin/keywords (offline, free, English only), a LiteLLM name such as provider/model, or local:NAME (a
    hub id, folder, run or GGUF file that runs on this machine)."""
    api_base: str | None = None
    """Address of an OpenAI-compatible server (http://HOST:PORT/v1) that replaces the provider's server."""
    api_key_env: str | None = None
    """Name of the environment variable with the key for api_base; without it no key is sent."""
    labels: list[str] = []
    """Served models that were trained to answer with labels (train.answer = "labels"); servers do not report this."""
    max_concurrency: int = Field(default=16, ge=1, le=4096)
    """Maximum number of calls in flight; the actual number adapts below it."""
    max_qps: float | None = Field(default=None, gt=0)
    """Maximum number of calls started per second; empty for no limit."""
    max_tokens_per_minute: int | None = Field(default=None, gt=0)
    """Maximum number of tokens (prompts and answers) per minute; empty for no limit."""
    max_cost: float | None = Field(default=None, ge=0)
    """Cap in US dollars on a whole run, which includes all models, calls in flight and remote containers; a run whose
    containers could exceed it is refused before it starts; empty to be asked before money is spent."""
    prices: dict[str, PriceSettings] = {}
    """Your own prices by model name or pattern (openrouter/*), which replace those of all price lists; the longest
    pattern wins."""
    batch: bool = False
    """Send the questions of vibes, configs and bench to the provider's batch API: half the price, answers within a day.
    Judges are always called directly."""
    batch_wait: bool = False
    """Wait until the open batches have ended; otherwise the command returns, and collects the answers when it runs again."""
    batch_poll_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Seconds between two queries of the batches' progress while waiting."""
    timeout_seconds: float = Field(default=120.0, gt=0, le=3600)
    """Time-out of one call, in seconds."""
    max_attempts: int = Field(default=6, ge=1, le=50)
    """Maximum number of attempts of a call if the server or the network fails."""
    retry_cap_seconds: float = Field(default=60.0, gt=0)
    """Maximum wait before a retry, in seconds, even if the server requests a longer one."""

    _price_lists: Path | None = PrivateAttr(default=None)

    @field_validator("api_base")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value:
            check_address(value)
        return value

    def base_for(self, model: str) -> str | None:
        """What identifies a model besides its name: the server's address and the answer format. None for the provider's
        own server, and for models on this machine."""
        if kind_of(model).here:
            return None
        return f"{self.api_base}, asked for labels" if model in self.labels else self.api_base

    @property
    def price_lists(self) -> Path | None:
        """The folder of fetched price lists; None for settings without a workspace."""
        return self._price_lists

    def look_prices_up_in(self, folder: Path) -> None:
        """Set the folder of fetched price lists."""
        self._price_lists = folder


class DownloadSettings(Section):
    datasets: list[str] = [
        "common-pile/news_filtered",
        "common-pile/pressbooks_filtered",
        "common-pile/project_gutenberg_filtered",
    ]
    """Data sets to sample: on the hub (owner/name[:config]), folders or files of .txt/.md/.jsonl/.csv/.tsv/.parquet, or
    builtin."""
    sample_size: int = Field(default=1000, ge=1)
    """Number of texts to keep from each data set."""
    text_field: str | None = None
    """The column that holds the text; empty to search for a known name (text, content, body, ...)."""
    encoding: str | None = None
    """Encoding of local files that are not UTF-8, such as latin-1 or cp1252; empty to skip them."""
    shards: int = Field(default=8, ge=1)
    """Number of files of a hub data set, drawn with the seed, that the sample comes from."""
    oversample: int = Field(default=4, ge=1, le=1000)
    """Texts read from the start of each such file per kept text; a larger value downloads more and gives a wider
    sample."""
    seed: int = 0
    """Seed of the sample."""

    @field_validator("encoding")
    @classmethod
    def _is_encoding(cls, value: str | None) -> str | None:
        try:
            "x".encode(value or "utf-8")
        except (LookupError, ValueError):
            raise ValueError("unknown text encoding; examples are latin-1, cp1252 and utf-16") from None
        return value


class VibesSettings(Section):
    model: str | None = None
    """Model for this stage; empty for llm.model."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Sampling temperature of the model; a model that takes only its own is asked without."""
    max_tokens: int = Field(default=4096, ge=1)
    """Longest answer, in tokens."""
    limit: int | None = Field(default=None, ge=1)
    """Ask about at most this many texts, from the start; existing answers about other texts are kept."""
    max_vibes: int = Field(default=3, ge=1, le=50)
    """Maximum number of vibes per text."""
    max_input_words: int = Field(default=4000, ge=1)
    """Cut a text after this many words."""
    page_words: int = Field(default=1000, ge=1)
    """Words per page; each vibe names its page."""
    characters: bool = True
    """Also request and keep the moods of a text's characters, not only those of its scenes."""
    seed: int = 0
    """Seed given to the model."""


def _known_embedder(name: str | None) -> str | None:
    if name == OLD_EMBEDDER:
        raise ValueError(f"{OLD_EMBEDDER} was removed in version 0.2; use words or auto")
    return name


class DedupeSettings(Section):
    model: Annotated[str, AfterValidator(_known_embedder)] = "auto"
    """Embedder: auto (MiniLM if installed and fetched, otherwise words), minilm, words (the package's vectors), or a
    sentence-transformers id."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """A vibe at least this similar (cosine) to a kept one is dropped; empty for the embedder's default."""
    exact_up_to: int = Field(default=EXACT_UP_TO, ge=0)
    """Up to this many rows, all pairs are compared; above it an index is used (extra dedupe), which misses a few."""


class SplitsSettings(Section):
    split_by: Literal["source", "row"] = "source"
    """Draw splits by source text, so that wordings of a scene stay together; row exists for compatibility with older
    data."""
    test: float = Field(default=0.15, ge=0, lt=1)
    """Share of sources for TEST."""
    val: float = Field(default=0.05, ge=0, lt=1)
    """Share of sources for SFT-Val."""
    grpo: float = Field(default=0.25, ge=0, lt=1)
    """Share of sources for GRPO, the most diverse ones first."""
    seed: int = 0
    """Seed of the draw."""

    @model_validator(mode="after")
    def _are_shares_of_one_whole(self) -> Self:
        total = self.test + self.val + self.grpo
        if total > 1 + 1e-9:
            raise ValueError(f"test, val and grpo are shares of all sources and add up to {total:g}, more than 1")
        return self


class NoiseSettings(Section):
    rate: float = Field(default=0.15, ge=0, le=1)
    """Share of vibes with typing errors; they are for training."""
    seed: int = 0
    """Seed of the noise."""


class PromptsSettings(Section):
    system: str | None = None
    """System prompt for configs: a text file, or v1; empty for the package's own (v1)."""
    examples: int = Field(default=0, ge=0, le=20)
    """Number of starter pairs in the prompt as examples."""


class ConfigsSettings(Section):
    model: str | None = None
    """Model for this stage; empty for llm.model."""
    n: int = Field(default=5, ge=1, le=256)
    """Number of candidates per vibe."""
    temperature: float = Field(default=0.9, ge=0, le=2)
    """Sampling temperature of the model; a model that takes only its own is asked without."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; empty for the provider's default."""
    max_tokens: int = Field(default=3000, ge=1)
    """Longest answer, in tokens."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of vibe rows; they are spread over splits and texts."""
    splits: list[Split] = list(SPLITS)
    """Splits to make configs for."""
    vibes_per_call: int = Field(default=1, ge=1, le=64)
    """Packing: number of vibes in one call; more saves tokens, and a failed call is repeated vibe by vibe."""
    seed: int = 0
    """Seed given to the model."""


class ScoringSettings(Section):
    scorers: list[str] = ["auto"]
    """Scorers: auto, acoustic, clap, judge:MODEL, path/to/file.py:fn or module:fn. The first one selects the winner."""
    seconds: float = Field(default=10.0, ge=0.5, le=600)
    """Seconds of audio rendered per candidate."""
    seed: int = 0
    """Seed of the rendering."""
    workers: int | None = Field(default=None, ge=1, le=256)
    """Number of rendering processes; empty for one per core."""
    clap_backend: Literal["transformers", "laion-clap"] = "transformers"
    """The library that runs CLAP."""
    clap_model: str = "laion/clap-htsat-unfused"
    """CLAP weights: a hub id or a folder; a .pt file for the laion-clap backend."""
    clap_sha256: str | None = None
    """SHA-256 of a .pt file that you trust; it is then loaded although loading can run code."""


class SearchSettings(Section):
    renders: int | None = Field(default=None, ge=1, le=100_000)
    """Total number of configs rendered per vibe, including the model's candidates; empty for no search."""
    judge: str | None = None
    """A scorer that must confirm the gain over the whole run before found configs replace the model's candidates."""
    keep: float = Field(default=1.0, ge=0, le=10)
    """Penalty, in score units, for changing a field that the vibe names; 0 for none."""
    near: float = Field(default=1.5, ge=0, le=100)
    """Penalty, in score units, for a config without any label of the candidates or of the map's neighbours; in
    proportion to the number of such fields. Low values favour the guide's score, high values stay close to the
    candidates."""
    neighbours: int = Field(default=6, ge=0, le=40)
    """Number of starts from maps: the configs of the nearest vibes of the bundled starter set, and of search.map."""
    map: Path | None = None
    """An exported map whose nearest vibes are also starts; it must name the embedder that made it."""
    chance: int = Field(default=4, ge=0)
    """Number of random starts, drawn from the prior."""
    batch: int = Field(default=12, ge=1, le=1024)
    """Number of configs rendered in one generation."""
    surrogate_renders: int = Field(default=600, ge=0, le=100_000)
    """Number of random configs that are rendered once to fit the surrogate, which ranks configs without rendering; 0
    for no surrogate."""
    surrogate_min_r2: float = Field(default=0.4, ge=0, le=1)
    """The surrogate is not used if its R² on unseen configs is lower than this."""
    seed: int = 0
    """Seed of the search."""


class OptimSettings(Section):
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Highest learning rate; empty for the recipe's (2e-4 for SFT, 1e-5 for GRPO and DPO)."""
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Schedule of the learning rate."""
    warmup: float = Field(default=0.06, ge=0)
    """Warm-up: a value below 1 is a share of all steps, a value from 1 a number of steps."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    """Weight decay of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    epochs: float | None = Field(default=None, gt=0)
    """Epochs over the rows; empty for the recipe's (3 for SFT, 1 for GRPO and DPO)."""
    max_steps: int | None = Field(default=None, ge=1)
    """Exact number of optimizer steps; empty to follow the epochs."""


class BatchSettings(Section):
    size: int | None = Field(default=None, ge=1)
    """Rows (SFT), completions (GRPO) or pairs (DPO) per step; empty for the recipe's (16, 32 and 16)."""
    per_device: int | None = Field(default=None, ge=1)
    """Micro-batch size: how many of them are in one forward pass, with gradient accumulation; empty for at most 8."""


class LoraSettings(Section):
    rank: int = Field(default=32, ge=1, le=1024)
    """Rank of the adapter."""
    alpha: int = Field(default=32, ge=1)
    """Scale of the adapter: alpha / rank, or alpha / sqrt(rank) with use_rslora."""
    use_rslora: bool = False
    """Rank-stabilised LoRA: scale by alpha / sqrt(rank), which keeps the updates of high ranks large enough (arXiv
    2312.03732)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout inside the adapter."""


class CheckpointSettings(Section):
    every_steps: int | None = Field(default=None, ge=1)
    """Save and validate after this many steps; empty for ten times per run, at intervals of 5 to 100 steps."""
    keep: int = Field(default=2, ge=1)
    """Number of checkpoints to keep."""
    early_stopping_patience: int | None = Field(default=3, ge=1)
    """Stop SFT or DPO after this many validations without a better score or eval_loss; empty for no early stopping."""


class SftSettings(Section):
    packing: bool = False
    """Pack several rows into one sequence of at most batch.per_device times max_tokens tokens, instead of padding each
    row; rows do not attend to each other."""


class GrpoSettings(Section):
    generations: int = Field(default=8, ge=2, le=256)
    """Completions per prompt (the group size)."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL penalty against the initial policy; 0 needs no copy of it in memory."""
    constrained: bool = False
    """Decode completions under the grammar of the answers, as bench and configs do; the weights of format and schema
    are then added to audio."""
    vllm: bool = False
    """Sample completions with vLLM on the training GPU (TRL's colocate mode)."""
    vllm_memory: float = Field(default=0.3, gt=0, lt=1)
    """Share of the GPU's memory for vLLM."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """Loss, as TRL's loss_type."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """group standardizes each part of the reward within its group before the weighted sum; batch and none use the
    weighted sum, scaled by its standard deviation over the batch or not at all."""
    epsilon_high: float | None = Field(default=None, gt=0)
    """Upper clipping bound; empty for the lower bound (0.2)."""
    mask_truncated_completions: bool = False
    """Exclude completions that were cut at the length limit from the loss."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature of the completions."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling of the completions."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """Longest completion, in tokens; empty for 1.25 x the 99th percentile of the reference answers."""
    reward: str = "standard"
    """standard (the weighted parts), or your own path/to/file.py:fn or module:fn with fn(vibes, answers) -> rewards."""
    scorer: str = "auto"
    """Scorer of the audio part; auto for the first one of [scoring]."""
    seconds: float = Field(default=5.0, ge=0.5, le=60)
    """Seconds of audio rendered per completion."""
    format_weight: float = Field(default=0.15, ge=0, le=1)
    """Weight of the format part: one JSON object and nothing else."""
    schema_weight: float = Field(default=0.30, ge=0, le=1)
    """Weight of the schema part: the share of valid fields and palettes."""
    audio_weight: float = Field(default=0.45, ge=0, le=1)
    """Weight of the audio part: the score of the sound against the vibe; 0 trains without rendering."""
    title_weight: float = Field(default=0.10, ge=0, le=1)
    """Weight of the title part: a title that fits the vibe without copying it."""
    penalty_weight: float = Field(default=0.10, ge=0, le=1)
    """Maximum penalty for equal colours, over-long answers and repetition together."""


class DpoSettings(Section):
    beta: float = Field(default=0.1, gt=0)
    """Beta of DPO: larger values keep the model closer to its start."""
    sft_weight: float = Field(default=0.0, ge=0, le=10)
    """Weight of an additional supervised loss on the better answer; 0 for none."""
    margin: float = Field(default=1.0, ge=0, le=10)
    """Minimum difference of a pair's scores, in standard deviations of the scores of one vibe's candidates; 0 keeps
    near-ties."""
    length_ratio: float | None = Field(default=1.25, ge=1)
    """Maximum ratio of the lengths, in characters, of the longer and the shorter answer of a pair; empty for no limit."""
    split: Literal["SFT-Train", "GRPO"] = "GRPO"
    """Split whose rows give the pairs; the vibes of GRPO are not used in SFT."""
    marks: Literal["no", "also", "only"] = "no"
    """Pairs from the studio's answers to "which fits better?" on rows of the split: no, also (they precede those by
    score) or only."""


class ModalSettings(Section):
    gpu: str = "L4"
    """GPU of a remote run: T4, L4, A10, L40S, A100-40GB, A100-80GB, H100, H200, B200; L4:2 for two GPUs."""
    timeout_hours: float = Field(default=4.0, gt=0, le=24)
    """Time-out of a remote run, in hours; time-out x price is its cost cap."""
    retries: int = Field(default=2, ge=0, le=10)
    """Number of restarts of a remote run after a crash; it resumes from its newest checkpoint."""
    max_containers: int = Field(default=16, ge=1, le=1000)
    """Maximum number of containers at once for configs or bench on Modal."""
    shard_rows: int = Field(default=64, ge=1)
    """Rows per shard for configs or bench on Modal."""
    max_cost: float | None = Field(default=None, ge=0)
    """Refuse a remote run (or sweep) whose cost cap is above this many US dollars; empty to be asked."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """Your price of one container-hour in US dollars; empty for the built-in list price."""
    secrets: list[str] = []
    """Names of Modal secrets for the containers, for example a Hugging Face token for gated models."""


class ComputeSettings(Section):
    ray_address: str | None = None
    """Ray cluster for --on ray: HOST:PORT, or auto for the cluster of this node; empty to start one on this machine."""
    ray_cpus: int | None = Field(default=None, ge=1)
    """Number of CPUs of a Ray cluster that is started on this machine; empty for all cores."""
    ray_shard_rows: int = Field(default=16, ge=1)
    """Rows per shard on Ray."""
    ray_retries: int = Field(default=3, ge=0, le=100)
    """Number of retries of a shard after its worker on Ray has died."""
    ray_timeout_hours: float | None = Field(default=None, gt=0)
    """Time-out of work on Ray, in hours; empty for no limit."""


class TrainSettings(Section):
    skip: bool = False
    """Skip this stage in run-all."""
    recipes: list[Recipe] = ["sft"]
    """Recipes that run-all trains, in this order."""
    on: Place = "here"
    """Where training runs: on this machine, on Modal or on a Ray cluster."""
    base_model: str = "gemma3-270m"
    """Base model: a short name (gemma3-270m, qwen3-600m, tiny-random), a hub id, a folder, a GGUF file or a run."""
    method: Literal["lora", "full"] | None = None
    """Train an adapter or all weights; empty for lora (full for tiny-random, because its frozen random weights are
    useless)."""
    quantize: Literal["none", "4bit"] = "none"
    """Load the frozen base in 4 bits while an adapter is trained (QLoRA, arXiv 2305.14314); needs an NVIDIA GPU and
    bitsandbytes."""
    processes: int = Field(default=1, ge=1, le=64)
    """Number of processes for data-parallel training, one per GPU of this machine; on Modal use --gpu L4:2 instead."""
    answer: Literal["json", "labels"] = "json"
    """Answer format: the payload as JSON, or only the 34 labels in one line (a tenth of the tokens; title and palettes
    are then derived from the vibe, and there is no thinking)."""
    presets: list[str] = []
    """Bundled presets as FAMILY:NAME, such as lora_rank:r32."""
    max_tokens: int | None = Field(default=None, ge=16)
    """Longest row in tokens; empty for the 99th percentile, rounded up to a multiple of 64. Longer rows are left out
    and counted."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most this many training rows, spread over the texts."""
    seed: int = 0
    """Seed of training."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; auto uses a GPU if there is one."""
    tracker: Literal["none", "trackio", "wandb"] = "none"
    """Tracker that gets the metrics in addition to metrics.jsonl."""
    optim: OptimSettings = OptimSettings()
    """The optimizer."""
    batch: BatchSettings = BatchSettings()
    """Batch sizes."""
    lora: LoraSettings = LoraSettings()
    """The adapter."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Checkpoints and early stopping."""
    choose_by: Literal["score", "eval_loss"] | None = None
    """Criterion for the best checkpoint: score (answers to validation rows are decoded, rendered and scored by clap or
    acoustic at each validation) or eval_loss (no extra cost; GRPO has none and keeps the last checkpoint); empty for
    the recipe's: eval_loss for SFT, score for DPO and for GRPO with an audio reward."""
    choose_rows: int = Field(default=32, ge=1, le=4096)
    """Number of validation rows, from the start, that are answered and scored at each validation if choose_by is score."""
    sft: SftSettings = SftSettings()
    """Settings of SFT only."""
    grpo: GrpoSettings = GrpoSettings()
    """Additional settings of GRPO."""
    dpo: DpoSettings = DpoSettings()
    """Additional settings of DPO, and of its pairs."""
    modal: ModalSettings = ModalSettings()
    """Remote runs."""

    @field_validator("on", mode="before")
    @classmethod
    def _old_name_of_here(cls, value: Any) -> Any:
        if value == OLD_HERE:
            log.warning('train.on = "local" is now "here"; the old name will be removed in version 0.3')
            return "here"
        return value


class ImproveSettings(Section):
    rounds: int = Field(default=3, ge=1, le=100)
    """Maximum number of rounds; they end earlier if the judge's score no longer improves or the answers become similar."""
    method: Literal["dpo", "sft"] = "dpo"
    """Training in a round: dpo continues the model on pairs of best and worst answers, sft trains the base model on
    SFT-Train and the best answers."""
    model: str | None = None
    """Run or folder to improve; empty for the newest SFT run of train.base_model, none for the base model itself."""
    n: int = Field(default=8, ge=2, le=256)
    """Number of answers to each GRPO vibe in a round."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most this many GRPO vibes, spread over the texts."""
    validation: int = Field(default=32, ge=1)
    """Number of SFT-Val vibes that each round's model answers for the judge, spread over the texts."""
    judge: str | None = None
    """Scorer that decides whether a round was better; must differ from the first of scoring.scorers, which selects the
    training answers."""
    min_entropy: float = Field(default=0.8, ge=0, le=1)
    """Stop if the label entropy of the answers falls below this share of its value before the first round."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    """Name of the rounds' folder and runs; empty to derive it from their settings, so that the same command resumes."""


class BenchSettings(Section):
    sources: list[str] = ["dataset:config_payload", "baseline:random", "baseline:lookup"]
    """Sources to compare: KIND:NAME[=LABEL]."""
    split: Split = "TEST"
    """Split whose rows the sources answer."""
    suite: str | None = None
    """Prompts to use instead of a split: short, typo, out-of-domain, controllability, or your own JSONL file."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most this many rows, spread over the texts."""
    baseline: str | None = None
    """Label of the source that the others are compared with; empty for baseline:random if it is a source."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    """Name of the run's folder; empty to derive it from the sources and rows, so that the same command resumes."""
    keep_audio: bool = False
    """Also write FLAC files; the page plays MP3 files."""
    resamples: int = Field(default=4000, ge=200, le=1_000_000)
    """Number of bootstrap resamples for each interval."""
    batch_size: int = Field(default=8, ge=1, le=1024)
    """Batch size of a local model."""
    max_new_tokens: int = Field(default=1600, ge=64, le=16_384)
    """Longest answer of a local model, in tokens."""
    human_pairs: int = Field(default=40, ge=4, le=1000)
    """Number of pairs in a listening pack."""
    seed: int = 0
    """Seed of generators, rendering and resampling."""


class CheckSettings(Section):
    max_duplicates: float = Field(default=0.01, ge=0, le=1)
    """Largest share of vibes that are exact or near-duplicates (cosine of dedupe.threshold)."""
    max_same_config: float = Field(default=0.05, ge=0, le=1)
    """Largest share of winners with the same config as another vibe's winner."""
    min_entropy: float = Field(default=0.2, ge=0, le=1)
    """Smallest label entropy of a field, as a share of the maximum."""
    max_contaminated: float = Field(default=0.0, ge=0, le=1)
    """Largest share of training rows that are also in TEST or in a suite, exactly or nearly."""
    suites: list[Path] = []
    """Your own prompt files (JSON lines with a vibe) that training rows must not contain, in addition to the bundled
    suites."""
    hair: float = Field(default=0.005, ge=0)
    """A winner whose score is less than this above the next candidate's has a very small lead."""
    max_by_a_hair: float = Field(default=0.5, ge=0, le=1)
    """Largest share of winners with a very small lead (less than hair)."""
    max_unread: float = Field(default=0.2, ge=0, le=1)
    """Largest share of vibes without any word that the scorer can interpret."""
    max_tagged: float = Field(default=0.0, ge=0, le=1)
    """Largest share of vibes with a tag: empty, long, language, encoding, email, phone or link."""
    sounds: int = Field(default=24, ge=0, le=10_000)
    """Number of winners that are rendered to check silence, clipping and loudness."""
    allow_restricted_models: bool = False
    """Accept rows of models whose terms forbid training competing models on their answers."""


class ExportSettings(Section):
    kinds: list[Literal["map", "dataset", "chat", "model", "report"]] = ["map", "dataset"]
    """Exports that run-all makes."""
    splits: list[Split] = list(SPLITS)
    """Splits in maps, data sets and chat files; exclude TEST from a map that a benchmark uses for look-up."""
    map_kind: Literal["text", "audio"] = "text"
    """Embeddings of a map: text (of the vibe) or audio (CLAP, of the winner's sound)."""
    embedder: Annotated[str | None, AfterValidator(_known_embedder)] = None
    """Embedder of text maps: auto, minilm, words, a sentence-transformers id or folder; empty for dedupe.model."""
    parquet: Literal["auto", "always", "never"] = "auto"
    """Also write data sets as Parquet; auto does so if the hub extra is installed."""
    leave_out_bad: bool = False
    """Leave out the rows that are marked bad in the studio."""
    marks: bool = False
    """For preference pairs of data sets and chat files, the studio's answers to "which fits better?" precede scores."""
    audio: bool = False
    """Add a column with FLAC audio to data sets, which datasets.Audio decodes and viewers play; needs the hub extra."""
    name: str = "LatentScore vibes and music configs"
    """Title of the cards of maps and data sets."""
    license: str | None = None
    """Licence of an exported data set, as the hub spells it; empty for the licence that all sources share, otherwise
    other."""
    exclude: list[Literal["empty", "long", "language", "encoding", "email", "phone", "link"]] = []
    """Leave rows with these tags out of an exported data set."""
    source_licenses: list[str] = []
    """DATASET=LICENCE for sources whose texts have no stated licence."""
    model: str | None = None
    """Run id or folder of the model to export; empty for the newest finished run."""
    gguf: list[
        Literal[
            "q8_0", "q5_0", "q4_0", "f16", "bf16",
            "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k",
        ]
    ] = []  # fmt: skip
    """GGUF types to write in addition to a model's safetensors; the K-quants need llama.cpp's llama-quantize on the
    path."""
    adapter_only: bool = False
    """Export only the adapter of a model, without merging it into its base."""
    terms: Path | None = None
    """File with the text of the base model's licence, which must accompany a model made from it."""
    tokenizer: Path | None = None
    """A GGUF of the base model to take the tokenizer's keys from; empty to make them from the model's tokenizer."""


class RunAllSettings(Section):
    skip: list[Literal["download", "vibes", "configs", "train", "bench", "export"]] = []
    """Stages to skip."""


class Settings(BaseModel):
    """All sections. Made by :func:`load_settings`, which merges file, environment and flags."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: PathsSettings = PathsSettings()
    llm: LLMSettings = LLMSettings()
    download: DownloadSettings = DownloadSettings()
    vibes: VibesSettings = VibesSettings()
    dedupe: DedupeSettings = DedupeSettings()
    splits: SplitsSettings = SplitsSettings()
    noise: NoiseSettings = NoiseSettings()
    prompts: PromptsSettings = PromptsSettings()
    configs: ConfigsSettings = ConfigsSettings()
    scoring: ScoringSettings = ScoringSettings()
    search: SearchSettings = SearchSettings()
    compute: ComputeSettings = ComputeSettings()
    train: TrainSettings = TrainSettings()
    improve: ImproveSettings = ImproveSettings()
    bench: BenchSettings = BenchSettings()
    check: CheckSettings = CheckSettings()
    export: ExportSettings = ExportSettings()
    run_all: RunAllSettings = RunAllSettings()

    _typed: Values = PrivateAttr(default_factory=dict)
    _replaced: Values = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any) -> None:
        # Code that calls a model has only the section llm, and needs the price lists.
        self.llm.look_prices_up_in(self.paths.price_lists)

    def changed(self, **sections: Values) -> Self:
        """Return the settings with other values in these sections; they are not validated."""
        update = {name: getattr(self, name).model_copy(update=values) for name, values in sections.items()}
        return self.model_copy(update=update)

    def model_of(self, stage: Literal["vibes", "configs"]) -> str:
        """The model that the stage asks."""
        return (self.vibes if stage == "vibes" else self.configs).model or self.llm.model

    def remember(self, flags: Mapping[str, Values], below: Values) -> None:
        """Store the sections of values that came from flags, and those that they replaced in ``below``, the values of the
        settings file and the environment."""
        self._typed.update(flags)
        self._replaced = common(below, self.typed)

    @property
    def typed(self) -> Values:
        """The sections and values that came from flags, except the data root; a stage's manifest stores them."""
        return {section: values for section, values in self._typed.items() if section != "paths" and values}

    @property
    def replaced(self) -> Values:
        """The values of the settings file and the environment that flags replaced; a stage's manifest stores them."""
        return self._replaced


def chosen(**flags: Any) -> Values:
    """The flags that were given. ``None`` and an empty list mean "not given", so that the file's value is used."""
    return {name: value for name, value in flags.items() if value is not None and value != []}


def load_settings(config: Path | None = None, **flags: Values) -> Settings:
    """Return the effective settings. ``flags`` are sections of given values: ``configs={"n": 8}``.

    Raises :class:`InputError` for a missing file, an unknown key (with the nearest known one), a value of the wrong
    type, or a secret key in the file.
    """
    return resolve_settings(config, **flags).value


def resolve_settings(config: Path | None = None, **flags: Values) -> Resolved[Settings]:
    """Return the effective settings with the origin of each value. Raises the errors of :func:`load_settings`."""
    layers = list(_layers(config, flags))
    resolved = resolve(Settings, layers, "see latentscore.toml.example")
    resolved.value.remember(flags, merged(layers[:-1]))
    return resolved


def _layers(config: Path | None, flags: Mapping[str, Values]) -> Iterator[Layer]:
    path = settings_file(config)
    if path is not None:
        yield Layer(str(path), _read_toml(path))
    yield Layer("environment", _read_environment())
    yield Layer(FLAG, {section: values for section, values in flags.items() if values})


def settings_file(config: Path | None) -> Path | None:
    """Return the settings file: ``config``, which must exist, or ``latentscore.toml`` in the working directory if it
    exists."""
    if config is not None:
        if not config.is_file():
            raise InputError(f"settings file {config} {why_no_file(config)}", "check --config")
        return config
    here = Path(SETTINGS_FILE)
    return here if here.is_file() else None


def _read_toml(path: Path) -> Values:
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"settings file {path} cannot be read ({error.strerror})", "check its permissions") from None
    except UnicodeDecodeError as error:
        raise InputError(f"settings file {path}: not UTF-8 at byte {error.start}", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"settings file {path}: {error}", "correct the TOML") from None
    except RecursionError:
        raise InputError(f"settings file {path}: nested too deeply", "correct the TOML") from None
    _refuse_secrets(path, values)
    return values


_SECRET_NAME = re.compile(r"(^|_)(api_?key|secret|token|password)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"^(sk-|hf_|ak-|as-|gsk_|xai-|AIza)[A-Za-z0-9_-]{12,}")


def _refuse_secrets(path: Path, values: Values) -> None:
    for name, value in leaves(values):
        key = name.rsplit(".", 1)[-1]
        if _SECRET_NAME.search(key) or (isinstance(value, str) and _SECRET_VALUE.match(value)):
            raise InputError(
                f"settings file {path}: {name} looks like a secret key; settings must not contain keys",
                "put it into the environment or into .env (NAME_API_KEY=...) and remove it from the file",
            )


def _read_environment() -> Values:
    if not any(variable.upper().startswith("LSDATA_") for variable in os.environ):
        return {}
    from pydantic_settings import EnvSettingsSource, SettingsError

    try:
        # Settings is a plain model: load_settings merges the sources itself, because it records the origin of each
        # value.
        source = EnvSettingsSource(
            cast(Any, Settings), env_prefix="LSDATA_", env_nested_delimiter="__", env_ignore_empty=True
        )
        values = source()
    except SettingsError as error:
        raise InputError(f"environment: {error}", "write lists and tables in variables as JSON") from None
    known = {f"LSDATA_{name.upper()}" for name in Settings.model_fields}
    for variable, value in os.environ.items():
        if variable.startswith("LSDATA_") and printable(value) != value and not os.path.lexists(value):
            raise InputError(f"environment: {variable} is not UTF-8: {printable(value)}", "set it again as UTF-8")
        if variable.startswith("LSDATA_") and variable.split("__")[0].upper() not in known:
            raise InputError(
                f"environment variable {variable} is not a setting{did_you_mean(variable.split('__')[0], sorted(known))}",
                "write settings as LSDATA_SECTION__NAME",
            )
    return values
