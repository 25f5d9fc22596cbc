"""Every setting: one typed section per subject, each value with a default and a sentence.

Where a value comes from, later wins: default, ``latentscore.toml``, environment (``LSDATA_LLM__MODEL``), flag.
``latentscore.toml.example`` and the reference in the docs are made from these types.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator
from pydantic_settings import EnvSettingsSource, SettingsError

from latentscore.files import why_no_file
from latentscore_data.core.base.addresses import check_address
from latentscore_data.core.base.answerers import kind_of
from latentscore_data.core.base.errors import FLAG, InputError
from latentscore_data.core.base.layers import Layer, Resolved, Values, did_you_mean, leaves, resolve
from latentscore_data.core.base.names import printable

log = logging.getLogger(__name__)

SETTINGS_FILE = "latentscore.toml"
BUILTIN_MODEL = "builtin/keywords"
EXACT_UP_TO = 100_000
OLD_HERE = "local"
"""What ``--on here`` was called in version 0.1."""


class Section(BaseModel):
    """A table of the settings file. Unknown keys are refused; values cannot change under a running command."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_none(cls, values: Any) -> Any:
        """Read an empty text as "not set" wherever a value may be left open: TOML has no null."""
        if not isinstance(values, dict):
            return values
        may_be_none = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        given = cast(Values, values)
        return {name: None if value == "" and name in may_be_none else value for name, value in given.items()}


class PathsSettings(Section):
    root: Path = Path("data_work")
    """The data root: every stage reads and writes below it."""

    @field_validator("root", mode="before")
    @classmethod
    def _is_a_folder(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("a folder must be named; . is this one")
        return Path(value).expanduser() if isinstance(value, str | Path) else value

    @property
    def price_lists(self) -> Path:
        """Where ``doctor --fetch prices`` writes."""
        return self.root / ".cache" / "prices"


class PriceSettings(Section):
    """The price of one model, or of all whose names match a pattern."""

    input: float = Field(ge=0)
    """US dollars per million tokens of the prompt; 0 for a server that costs nothing."""
    output: float = Field(ge=0)
    """US dollars per million tokens of the answer."""
    cached_input: float | None = Field(default=None, ge=0)
    """US dollars per million tokens of the prompt that the provider had cached; empty for input."""
    audio_input: float | None = Field(default=None, ge=0)
    """US dollars per million tokens of sound in the prompt; empty for input."""


class LLMSettings(Section):
    model: str = BUILTIN_MODEL
    """Model: builtin/keywords (offline, free, English only), a LiteLLM name such as provider/model, or local:NAME (a hub id,
    folder, run or GGUF file, answered on this machine)."""
    api_base: str | None = None
    """Address of an OpenAI-compatible server (http://HOST:PORT/v1) to send calls to, instead of the provider's own."""
    api_key_env: str | None = None
    """Name of the environment variable whose key goes to api_base; without it no key is sent there."""
    labels: list[str] = []
    """Served models that learned to answer with labels (train.answer), which no server says of itself: they are asked so."""
    max_concurrency: int = Field(default=16, ge=1, le=4096)
    """Most calls in flight at once; the real number adapts below this."""
    max_qps: float | None = Field(default=None, gt=0)
    """Most calls started per second; empty for no limit."""
    max_tokens_per_minute: int | None = Field(default=None, gt=0)
    """Most tokens (in and out) per minute; empty for no limit."""
    max_cost: float | None = Field(default=None, ge=0)
    """Cap in US dollars on one whole run: all models, calls in flight and remote containers, which are refused beforehand where
    they could exceed it; empty to be asked before money is spent."""
    prices: dict[str, PriceSettings] = {}
    """Prices of your own by model name or pattern (openrouter/*), before all price lists; the longest pattern wins."""
    batch: bool = False
    """Send the questions of vibes, configs and bench to the provider's batch API: half the price, answers within a day. Judges
    are asked directly."""
    batch_wait: bool = False
    """Stay until the open batches have ended, instead of returning."""
    batch_poll_seconds: float = Field(default=30.0, gt=0, le=3600)
    """How often the provider is asked how far the batches are, while waiting for them."""
    timeout_seconds: float = Field(default=120.0, gt=0, le=3600)
    """How long one call may take."""
    max_attempts: int = Field(default=6, ge=1, le=50)
    """How often a call is tried when the server or the network is at fault."""
    retry_cap_seconds: float = Field(default=60.0, gt=0)
    """The longest wait before another try, also when the server asks for more."""

    _price_lists: Path | None = PrivateAttr(default=None)

    @field_validator("api_base")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value:
            check_address(value)
        return value

    def base_for(self, model: str) -> str | None:
        """What decides, beside its name, which model answers: the address that its questions go to, and the form in which it is
        asked; None for a provider's own, and for the model that needs none."""
        if kind_of(model).here:
            return None
        return f"{self.api_base}, asked for labels" if model in self.labels else self.api_base

    @property
    def price_lists(self) -> Path | None:
        """The folder of fetched price lists; None for settings that belong to no workspace."""
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
    """What to sample: hub data sets (owner/name[:config]), folders or files of .txt/.md/.jsonl/.csv/.tsv/.parquet, or builtin."""
    sample_size: int = Field(default=1000, ge=1)
    """Texts to keep from each data set."""
    text_field: str | None = None
    """The column that holds the text; empty to find it (text, content, body, ...)."""
    encoding: str | None = None
    """Encoding of local files that are not UTF-8, such as latin-1 or cp1252; empty to leave them out."""
    shards: int = Field(default=8, ge=1)
    """Number of a hub data set's files, drawn by the seed, that the sample is taken from."""
    oversample: int = Field(default=4, ge=1, le=1000)
    """Texts read from the start of each such file per text that is kept; a larger value fetches more and samples wider."""
    seed: int = 0
    """Seed of the sample."""

    @field_validator("encoding")
    @classmethod
    def _is_encoding(cls, value: str | None) -> str | None:
        try:
            "x".encode(value or "utf-8")
        except (LookupError, ValueError):
            raise ValueError("Python knows no such text encoding; latin-1, cp1252 and utf-16 are some") from None
        return value


class VibesSettings(Section):
    model: str | None = None
    """Model for this stage; empty for llm.model."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Sampling temperature of the model; a model that takes only its own is asked without."""
    max_tokens: int = Field(default=4096, ge=1)
    """Longest answer, in tokens."""
    limit: int | None = Field(default=None, ge=1)
    """Ask about at most this many texts, from the start; earlier answers about others stay."""
    max_vibes: int = Field(default=3, ge=1, le=50)
    """Most vibes to keep from one text."""
    max_input_words: int = Field(default=4000, ge=1)
    """Cut a text after this many words."""
    page_words: int = Field(default=1000, ge=1)
    """Words on a page; each vibe names the page it comes from."""
    characters: bool = True
    """Ask for and keep the moods of a text's characters, too, not only of its scenes."""
    seed: int = 0
    """Seed given to the model."""


class DedupeSettings(Section):
    model: str = "auto"
    """Embedder: auto (MiniLM where installed and fetched, else words), minilm, words (the package's own vectors), or a sentence-transformers id."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """A vibe at least this similar (cosine) to a kept one is dropped; empty for the embedder's own default."""
    exact_up_to: int = Field(default=EXACT_UP_TO, ge=0)
    """Compare every pair of up to this many rows; more are searched with an index (extra dedupe), which misses a few."""


class SplitsSettings(Section):
    split_by: Literal["source", "row"] = "source"
    """Draw splits by source text, so that wordings of one scene never part; row exists for parity with older data."""
    test: float = Field(default=0.15, ge=0, lt=1)
    """Share of sources for TEST."""
    val: float = Field(default=0.05, ge=0, lt=1)
    """Share of sources for SFT-Val."""
    grpo: float = Field(default=0.25, ge=0, lt=1)
    """Share of sources for GRPO, the most different ones first."""
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
    """Share of vibes that get typing noise for training."""
    seed: int = 0
    """Seed of the noise."""


class PromptsSettings(Section):
    system: str | None = None
    """What models are told before a vibe when they are asked for a config: a text file, or v1; empty for the package's own (v1)."""
    examples: int = Field(default=0, ge=0, le=20)
    """Pairs of the starter set that are shown to models as examples."""


class ConfigsSettings(Section):
    model: str | None = None
    """Model for this stage; empty for llm.model."""
    n: int = Field(default=5, ge=1, le=256)
    """Candidates asked for per vibe."""
    temperature: float = Field(default=0.9, ge=0, le=2)
    """Sampling temperature of the model; a model that takes only its own is asked without."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; empty for the provider's default."""
    max_tokens: int = Field(default=3000, ge=1)
    """Longest answer, in tokens."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many vibe rows, spread over splits and texts."""
    splits: list[Literal["SFT-Train", "SFT-Val", "GRPO", "TEST"]] = ["SFT-Train", "SFT-Val", "GRPO", "TEST"]
    """Splits to make configs for."""
    vibes_per_call: int = Field(default=1, ge=1, le=64)
    """Packing: vibes asked for in one call; more saves tokens, and a call that failed is asked again vibe by vibe."""
    seed: int = 0
    """Seed given to the model."""


class ScoringSettings(Section):
    scorers: list[str] = ["auto"]
    """Scorers: auto, acoustic, clap, judge:MODEL, path/to/file.py:fn or module:fn. The first one chooses the winner."""
    seconds: float = Field(default=10.0, ge=0.5, le=600)
    """Seconds of audio rendered per candidate."""
    seed: int = 0
    """Seed of the rendering."""
    workers: int | None = Field(default=None, ge=1, le=256)
    """Processes that render; empty for one per core."""
    clap_backend: Literal["transformers", "laion-clap"] = "transformers"
    """Which library runs CLAP."""
    clap_model: str = "laion/clap-htsat-unfused"
    """CLAP weights: a hub id or a folder; a .pt file for the laion-clap backend."""
    clap_sha256: str | None = None
    """SHA-256 of a .pt file that you trust: it is then loaded although loading it can run code."""


class SearchSettings(Section):
    renders: int | None = Field(default=None, ge=1, le=100_000)
    """Configs rendered per vibe in all, the model's candidates included; empty for no search."""
    judge: str | None = None
    """A scorer that must agree, over the whole run, before what the search found replaces the model's candidates."""
    keep: float = Field(default=1.0, ge=0, le=10)
    """What a field costs, in score units, that leaves what the vibe names; 0 lets the search move it freely."""
    near: float = Field(default=1.5, ge=0, le=100)
    """What a config costs, in score units, whose labels neither the candidates nor the map's neighbours have; a config shares the
    cost by its fields. Low values please the guide, high values stay near to what the model and people chose."""
    neighbours: int = Field(default=6, ge=0, le=40)
    """Starts from the map: the configs of this many nearest vibes of the bundled starter set, and of search.map."""
    map: Path | None = None
    """An exported map whose nearest vibes are starts, too; it must name the embedder that made it."""
    chance: int = Field(default=4, ge=0)
    """Starts by chance, drawn by the prior."""
    batch: int = Field(default=12, ge=1, le=1024)
    """Configs rendered in one generation."""
    surrogate_renders: int = Field(default=600, ge=0, le=100_000)
    """Random configs rendered once to fit the surrogate, which then ranks configs without rendering; 0 for no surrogate."""
    surrogate_min_r2: float = Field(default=0.4, ge=0, le=1)
    """The surrogate is not used if it explains less than this share of the variance of configs that it has not seen."""
    seed: int = 0
    """Seed of the search."""


class OptimSettings(Section):
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Highest learning rate; empty for the recipe's (2e-4 for SFT, 1e-5 for GRPO and DPO)."""
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """How the learning rate falls."""
    warmup: float = Field(default=0.06, ge=0)
    """Warm-up: below 1 a share of all steps, from 1 a number of steps."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    """Weight decay of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the rows; empty for the recipe's (3 for SFT, 1 for GRPO and DPO)."""
    max_steps: int | None = Field(default=None, ge=1)
    """Exact number of optimizer steps; empty to follow the epochs."""


class BatchSettings(Section):
    size: int | None = Field(default=None, ge=1)
    """Rows (SFT), completions (GRPO) or pairs (DPO) per step; empty for the recipe's (16, 32 and 16)."""
    per_device: int | None = Field(default=None, ge=1)
    """How many of them go through the model at once, the rest is accumulated; empty for at most 8."""


class LoraSettings(Section):
    rank: int = Field(default=32, ge=1, le=1024)
    """Rank of the adapter."""
    alpha: int = Field(default=32, ge=1)
    """Scale of the adapter: alpha / rank, or alpha / sqrt(rank) with use_rslora."""
    use_rslora: bool = False
    """Rank-stabilised LoRA: scale by alpha / sqrt(rank), so that an adapter of high rank is not held back (arXiv 2312.03732)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout inside the adapter."""


class CheckpointSettings(Section):
    every_steps: int | None = Field(default=None, ge=1)
    """Save (and validate) after this many steps; empty for ten times in a run, 5 to 100 steps apart."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints to keep."""
    early_stopping_patience: int | None = Field(default=3, ge=1)
    """Stop SFT or DPO after this many validations without a better score or eval_loss; empty for no early stopping."""


class SftSettings(Section):
    packing: bool = False
    """Put several rows into one sequence, as many as fit into batch.per_device times max_tokens, instead of padding each; rows
    do not see each other."""


class GrpoSettings(Section):
    generations: int = Field(default=8, ge=2, le=256)
    """Completions per prompt: the group that is compared."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL penalty against the start policy; 0 keeps no copy of it in memory."""
    constrained: bool = False
    """Decode completions under the grammar of the answers, as bench and configs do; the weights of form then go to the sound."""
    vllm: bool = False
    """Sample completions with vLLM on the training GPU (TRL's colocate mode)."""
    vllm_memory: float = Field(default=0.3, gt=0, lt=1)
    """Share of the GPU's memory that vLLM takes beside the training."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """TRL's form of the loss."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What rewards are scaled by: the standard deviation within a group, over the batch, or nothing."""
    epsilon_high: float | None = Field(default=None, gt=0)
    """Upper bound of clipping; empty for the lower one (0.2)."""
    mask_truncated_completions: bool = False
    """Leave completions that were cut at the limit out of the loss."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature of the completions."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling of the completions."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """Longest completion; empty for 1.25 x the 99th percentile of the reference answers."""
    reward: str = "standard"
    """standard (the weighted parts), or one's own path/to/file.py:fn or module:fn with fn(vibes, answers) -> rewards."""
    scorer: str = "auto"
    """Scorer of the audio part; auto takes the first one of [scoring]."""
    seconds: float = Field(default=5.0, ge=0.5, le=60)
    """Seconds of audio rendered per completion."""
    format_weight: float = Field(default=0.15, ge=0, le=1)
    """Weight of: one JSON object and nothing else."""
    schema_weight: float = Field(default=0.30, ge=0, le=1)
    """Weight of: the share of fields and palettes that are valid."""
    audio_weight: float = Field(default=0.45, ge=0, le=1)
    """Weight of: how well the sound fits the vibe; 0 trains without rendering."""
    title_weight: float = Field(default=0.10, ge=0, le=1)
    """Weight of: a title that fits the vibe without copying it."""
    penalty_weight: float = Field(default=0.10, ge=0, le=1)
    """Most that equal colours, over-long answers and repetition can cost together."""


class DpoSettings(Section):
    beta: float = Field(default=0.1, gt=0)
    """How strongly DPO holds on to the model that it starts from."""
    sft_weight: float = Field(default=0.0, ge=0, le=10)
    """Weight of a supervised loss on the better answer beside the preference loss; 0 for none."""
    margin: float = Field(default=1.0, ge=0, le=10)
    """Least difference of a pair's scores, in standard deviations of the scores of one vibe's candidates; 0 keeps near-ties."""
    length_ratio: float | None = Field(default=1.25, ge=1)
    """The longer answer of a pair has at most this many times the characters of the shorter one; empty for any lengths."""
    split: Literal["SFT-Train", "GRPO"] = "GRPO"
    """Split whose rows give the pairs; SFT has not seen the vibes of GRPO."""
    marks: Literal["no", "also", "only"] = "no"
    """Pairs from the studio's answers to "which fits better?" on rows of the split: also takes them before those by score."""


class ModalSettings(Section):
    gpu: str = "L4"
    """GPU of a remote run: T4, L4, A10, L40S, A100-40GB, A100-80GB, H100, H200, B200; L4:2 for two that train together."""
    timeout_hours: float = Field(default=4.0, gt=0, le=24)
    """A remote run is stopped after so long: time-out x price is its cap."""
    retries: int = Field(default=2, ge=0, le=10)
    """How often a remote run is started again after a crash; it resumes from its newest checkpoint."""
    max_containers: int = Field(default=16, ge=1, le=1000)
    """Most containers at once when configs or bench are mapped over Modal."""
    shard_rows: int = Field(default=64, ge=1)
    """Rows in one piece of work when configs or bench are mapped over Modal."""
    max_cost: float | None = Field(default=None, ge=0)
    """Refuse a remote run (or sweep) whose cap is above this many US dollars; empty to be asked."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """Your price of one container-hour in US dollars; empty for the list price we know."""
    secrets: list[str] = []
    """Names of Modal secrets that the containers get (a Hugging Face token for gated models, say)."""


class ComputeSettings(Section):
    ray_address: str | None = None
    """Ray cluster that --on ray uses: HOST:PORT, or auto for that of this node; empty to start one on this machine."""
    ray_cpus: int | None = Field(default=None, ge=1)
    """CPUs of a Ray cluster that is started on this machine; empty for all cores."""
    ray_shard_rows: int = Field(default=16, ge=1)
    """Rows in one piece of work on Ray."""
    ray_retries: int = Field(default=3, ge=0, le=100)
    """How often a piece of work is done again after its worker on Ray has died."""
    ray_timeout_hours: float | None = Field(default=None, gt=0)
    """Stop work on Ray after so many hours; empty for no limit."""


class TrainSettings(Section):
    skip: bool = False
    """Leave this stage out of run-all."""
    recipes: list[Literal["sft", "grpo", "dpo"]] = ["sft"]
    """What run-all trains, in this order."""
    on: Literal["here", "modal", "ray"] = "here"
    """Where training runs: on this machine, on Modal or on a Ray cluster."""
    base_model: str = "gemma3-270m"
    """Base model: a short name (gemma3-270m, qwen3-600m, tiny-random), a hub id, a folder, a GGUF file or a run."""
    method: Literal["lora", "full"] | None = None
    """Train an adapter or all weights; empty for lora (full for tiny-random, whose frozen base would learn nothing)."""
    quantize: Literal["none", "4bit"] = "none"
    """Hold the frozen base in 4 bits while an adapter is trained (QLoRA, arXiv 2305.14314); needs an NVIDIA GPU and bitsandbytes."""
    processes: int = Field(default=1, ge=1, le=64)
    """Processes that train one run together, one for each GPU of this machine; on Modal --gpu L4:2 says it."""
    answer: Literal["json", "labels"] = "json"
    """What the model learns to write: the payload as JSON, or only the 34 labels in one line, with a tenth of the tokens; title
    and palettes then come from the vibe, and there is no thinking."""
    presets: list[str] = []
    """FAMILY:NAME of the bundled presets, such as lora_rank:r32."""
    max_tokens: int | None = Field(default=None, ge=16)
    """Longest row in tokens; empty for the 99th percentile rounded up to 64. Longer rows are left out and counted."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most this many training rows, spread over the texts."""
    seed: int = 0
    """Seed of everything random in training."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the tensors; auto takes a GPU where there is one."""
    tracker: Literal["none", "trackio", "wandb"] = "none"
    """Where the metrics go besides metrics.jsonl."""
    optim: OptimSettings = OptimSettings()
    """The optimizer."""
    batch: BatchSettings = BatchSettings()
    """Batch sizes."""
    lora: LoraSettings = LoraSettings()
    """The adapter."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Checkpoints and early stopping."""
    choose_by: Literal["score", "eval_loss"] | None = None
    """What the best checkpoint is chosen by: how its answers to validation rows sound (auto: clap or acoustic; takes a decoding
    and a rendering of them at each validation), or the validation loss (free; GRPO has none and keeps the last checkpoint);
    empty for the recipe's: eval_loss for SFT, score for DPO and for GRPO that is rewarded for sound."""
    choose_rows: int = Field(default=32, ge=1, le=4096)
    """Validation rows that are answered and scored at each validation, from the start, where score chooses."""
    sft: SftSettings = SftSettings()
    """What SFT alone has."""
    grpo: GrpoSettings = GrpoSettings()
    """What GRPO has beyond SFT."""
    dpo: DpoSettings = DpoSettings()
    """What DPO has beyond SFT, and how its pairs are made."""
    modal: ModalSettings = ModalSettings()
    """Remote runs."""

    @field_validator("on", mode="before")
    @classmethod
    def _old_name_of_here(cls, value: Any) -> Any:
        if value == OLD_HERE:
            log.warning('train.on = "local" is now "here"; the old name goes in version 0.3')
            return "here"
        return value


class ImproveSettings(Section):
    rounds: int = Field(default=3, ge=1, le=100)
    """Rounds at most; they end before where the judge no longer improves or answers become alike."""
    method: Literal["dpo", "sft"] = "dpo"
    """How a round trains: dpo goes on from the model on best against worst answers, sft trains the base model anew on SFT-Train and
    the best answers."""
    model: str | None = None
    """Run or folder that is improved; empty for the newest SFT run of train.base_model, none for the base model itself."""
    n: int = Field(default=8, ge=2, le=256)
    """Answers to each GRPO vibe in a round."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most this many GRPO vibes, spread over the texts."""
    validation: int = Field(default=32, ge=1)
    """SFT-Val vibes that each round's model answers for the judge, spread over the texts."""
    judge: str | None = None
    """Scorer that says whether a round was better; not the first of scoring.scorers, which chooses the answers that are learned."""
    min_entropy: float = Field(default=0.8, ge=0, le=1)
    """Stop where the label entropy of the answers falls below this share of what it was before the first round."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    """Name of the rounds' folder and runs; empty for one made from what decides them, so that the same command resumes."""


class BenchSettings(Section):
    sources: list[str] = ["dataset:config_payload", "baseline:random", "baseline:lookup"]
    """Sources that are compared: KIND:NAME[=LABEL]."""
    split: Literal["SFT-Train", "SFT-Val", "GRPO", "TEST"] = "TEST"
    """Split whose rows the sources answer."""
    suite: str | None = None
    """Prompts to use instead of a split: short, typo, out-of-domain, controllability, or a JSONL file of your own."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most this many rows, spread over the texts."""
    baseline: str | None = None
    """Label of the source that the others are compared with; empty for baseline:random where there is one."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    """Name of the run's folder; empty for one made from what is compared, so that the same command resumes."""
    keep_audio: bool = False
    """Also write FLAC files beside the MP3 files that the page plays."""
    resamples: int = Field(default=4000, ge=200, le=1_000_000)
    """Bootstrap resamples behind each interval."""
    batch_size: int = Field(default=8, ge=1, le=1024)
    """Batch size of a local model."""
    max_new_tokens: int = Field(default=1600, ge=64, le=16_384)
    """Longest answer of a local model, in tokens."""
    human_pairs: int = Field(default=40, ge=4, le=1000)
    """Pairs in a listening pack."""
    seed: int = 0
    """Seed of generators, rendering and resampling."""


class CheckSettings(Section):
    max_duplicates: float = Field(default=0.01, ge=0, le=1)
    """Largest share of vibes that are said twice, exactly or nearly (cosine of dedupe.threshold)."""
    max_same_config: float = Field(default=0.05, ge=0, le=1)
    """Largest share of winners that another vibe has as well."""
    min_entropy: float = Field(default=0.2, ge=0, le=1)
    """Smallest label entropy of a field, as a share of the largest possible one."""
    max_contaminated: float = Field(default=0.0, ge=0, le=1)
    """Largest share of training rows that stand in TEST or in a suite, exactly or nearly."""
    suites: list[Path] = []
    """Prompt files of your own (JSON lines with a vibe) that training rows must not hold, besides the bundled suites."""
    hair: float = Field(default=0.005, ge=0)
    """A winner less than this ahead of the next candidate is chosen by a hair."""
    max_by_a_hair: float = Field(default=0.5, ge=0, le=1)
    """Largest share of winners chosen by a hair."""
    max_unread: float = Field(default=0.2, ge=0, le=1)
    """Largest share of vibes without a word that the scorer knows."""
    max_tagged: float = Field(default=0.0, ge=0, le=1)
    """Largest share of vibes with a tag: empty, long, language, encoding, email, phone or link."""
    sounds: int = Field(default=24, ge=0, le=10_000)
    """Winners that are rendered to look for silence, clipping and loudness."""
    allow_restricted_models: bool = False
    """Accept rows of models whose terms forbid training competing models on their answers."""


class ExportSettings(Section):
    kinds: list[Literal["map", "dataset", "chat", "model", "report"]] = ["map", "dataset"]
    """What run-all exports."""
    splits: list[Literal["SFT-Train", "SFT-Val", "GRPO", "TEST"]] = ["SFT-Train", "SFT-Val", "GRPO", "TEST"]
    """Splits in maps, data sets and chat files; leave TEST out of a map that a benchmark uses for look-up."""
    map_kind: Literal["text", "audio"] = "text"
    """Embeddings of a map: text (of the vibe) or audio (CLAP, of the winner's sound)."""
    embedder: str | None = None
    """Embedder of text maps: auto, minilm, words, a sentence-transformers id or folder; empty for dedupe.model."""
    parquet: Literal["auto", "always", "never"] = "auto"
    """Write data sets as Parquet beside JSONL: auto does where the hub extra is installed."""
    leave_out_bad: bool = False
    """Leave the rows that are marked bad in the studio out of an exported data set."""
    marks: bool = False
    """In preference pairs of data sets and chat files, the studio's answers to "which fits better?" come before scores."""
    audio: bool = False
    """Add a column of FLAC to data sets, which datasets.Audio decodes and viewers play; needs the hub extra."""
    name: str = "LatentScore vibes and music configs"
    """Title of the cards of maps and data sets."""
    license: str | None = None
    """Licence of an exported data set, as the hub spells it; empty for the one that all sources share, or other."""
    exclude: list[Literal["empty", "long", "language", "encoding", "email", "phone", "link"]] = []
    """Leave rows with these tags out of an exported data set."""
    source_licenses: list[str] = []
    """DATASET=LICENCE for sources whose texts do not say theirs."""
    model: str | None = None
    """Run id or folder of the model to export; empty for the newest finished run."""
    gguf: list[
        Literal[
            "q8_0", "q5_0", "q4_0", "f16", "bf16",
            "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k",
        ]
    ] = []  # fmt: skip
    """GGUF files to write beside a model's safetensors; the K-quants need llama.cpp's llama-quantize on the path."""
    adapter_only: bool = False
    """Export the adapter of a model as it is, without merging it into its base."""
    terms: Path | None = None
    """File with the text of the base model's licence, which has to travel with a model made from it."""
    tokenizer: Path | None = None
    """A GGUF of the base model to take the tokenizer's keys from; empty to make them from the model's tokenizer."""


class RunAllSettings(Section):
    skip: list[Literal["download", "vibes", "configs", "train", "bench", "export"]] = []
    """Stages left out."""


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

    def model_post_init(self, context: Any) -> None:
        # Prices are looked up wherever a model is asked, with the settings of the calls alone at hand.
        self.llm.look_prices_up_in(self.paths.price_lists)

    def remember(self, flags: Mapping[str, Values]) -> None:
        """Note the sections of values that came from flags."""
        self._typed.update(flags)

    @property
    def typed(self) -> Values:
        """The sections and values that came from flags, the data root aside: a stage's manifest remembers them."""
        return {section: values for section, values in self._typed.items() if section != "paths" and values}


def chosen(**flags: Any) -> Values:
    """The flags that were given: ``None`` means "not given", so the file's value survives."""
    return {name: value for name, value in flags.items() if value is not None and value != []}


def load_settings(config: Path | None = None, **flags: Values) -> Settings:
    """The effective settings. ``flags`` are sections of given values: ``configs={"n": 8}``.

    Raises :class:`InputError` for a missing file, an unknown key (the nearest known one is named), a value of the wrong
    type, or a key that belongs into the environment.
    """
    return resolve_settings(config, **flags).value


def resolve_settings(config: Path | None = None, **flags: Values) -> Resolved[Settings]:
    """The effective settings with the origin of each value. Raises what :func:`load_settings` raises."""
    resolved = resolve(Settings, list(_layers(config, flags)), "see latentscore.toml.example")
    resolved.value.remember(flags)
    return resolved


def _layers(config: Path | None, flags: Mapping[str, Values]) -> Iterator[Layer]:
    path = settings_file(config)
    if path is not None:
        yield Layer(str(path), _read_toml(path))
    yield Layer("environment", _read_environment())
    yield Layer(FLAG, {section: values for section, values in flags.items() if values})


def settings_file(config: Path | None) -> Path | None:
    """The file that is read: the one named, which must exist, or ``latentscore.toml`` here where there is one."""
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
        raise InputError(f"settings file {path}: {error}", "mend the TOML") from None
    except RecursionError:
        raise InputError(f"settings file {path}: nested too deeply", "mend the TOML") from None
    _refuse_secrets(path, values)
    return values


_SECRET_NAME = re.compile(r"(^|_)(api_?key|secret|token|password)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"^(sk-|hf_|ak-|as-|gsk_|xai-|AIza)[A-Za-z0-9_-]{12,}")


def _refuse_secrets(path: Path, values: Values) -> None:
    for name, value in leaves(values):
        key = name.rsplit(".", 1)[-1]
        if _SECRET_NAME.search(key) or (isinstance(value, str) and _SECRET_VALUE.match(value)):
            raise InputError(
                f"settings file {path}: {name} looks like a key; keys do not belong into settings",
                "put it into the environment or into .env (NAME_API_KEY=...) and take it out of the file",
            )


def _read_environment() -> Values:
    try:
        # Settings is a plain model: load_settings merges the sources itself, because it must know where each value came from.
        source = EnvSettingsSource(
            cast(Any, Settings), env_prefix="LSDATA_", env_nested_delimiter="__", env_ignore_empty=True
        )
        values = source()
    except SettingsError as error:
        raise InputError(f"environment: {error}", "lists and tables in variables are written as JSON") from None
    known = {f"LSDATA_{name.upper()}" for name in Settings.model_fields}
    for variable, value in os.environ.items():
        if variable.startswith("LSDATA_") and printable(value) != value and not os.path.lexists(value):
            raise InputError(f"environment: {variable} is not UTF-8: {printable(value)}", "set it again as UTF-8")
        if variable.startswith("LSDATA_") and variable.split("__")[0].upper() not in known:
            raise InputError(
                f"environment variable {variable} is no setting{did_you_mean(variable.split('__')[0], sorted(known))}",
                "settings are written LSDATA_SECTION__NAME",
            )
    return values
