"""What may stand in a recipe's YAML: one dataclass a section, a comment a field. See docs/config.md.

Values are checked in `checks.py`; what a value does is said where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Sample:
    """The bundled synthetic corpus, written into `<run_dir>/sample` when the recipe asks for it."""

    documents: int = 24_000  # over all four sources
    seed: int = 7


@dataclass
class Source:
    """One corpus: where its documents are."""

    path: str = MISSING  # file, folder or glob, local or any fsspec URL: .jsonl, .jsonl.gz, .parquet
    text: str = "text"  # the field or column that holds the text


@dataclass
class Data:
    """From documents to rows."""

    dir: str = "${run_dir}/data"  # prepared shards; many runs may share one folder
    root: str | None = None  # for `${data.root}/...` in the sources' paths
    sources: dict[str, Source] = field(default_factory=dict)
    mixtures: dict[str, dict[str, float]] = field(default_factory=dict)  # name -> source -> share of tokens
    sequence_length: int = 8192  # tokens in a row
    held_out: float = 0.01  # fraction of each source's documents kept out of training
    shuffle_seed: int = 42  # order of rows
    on_error: str = "stop"  # broken records: stop, or skip (counted in the source's report)
    sample: Sample | None = None


@dataclass
class TokenizerTraining:
    """A BPE tokenizer trained on the run's own sources."""

    vocab_size: int = MISSING
    documents: int = 10_000  # taken from each source


@dataclass
class Tokenizer:
    """Exactly one of the two."""

    path: str | None = None  # folder with tokenizer.json, or hub id
    train: TokenizerTraining | None = None


@dataclass
class Model:
    """Where the weights come from: exactly one of the two."""

    base: str | None = None  # Hugging Face folder or hub id to continue from
    config: dict[str, Any] | None = None  # ModernBertConfig keys of a fresh, random model
    attention: str = "auto"  # back end


@dataclass
class Optimizer:
    """Decoupled AdamW; no decay on biases and norms."""

    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 1e-5  # decoupled: the share of a weight lost in one step at the peak rate
    clip_norm: float | None = 1.0  # the paper does not say; null turns clipping off


@dataclass
class Train:
    """How a phase is run; nothing here changes what is learned, but for rounding and `batch_rows`."""

    batch_rows: int = 384  # rows in a step, over all processes
    micro_rows: int | None = None  # rows in one forward on one process; null: all of them
    precision: str = "bf16"  # bf16 (autocast) or fp32
    workers: int = 1  # loader processes for each training process
    checkpoint_every: str = "500Mtok"
    checkpoints_kept: int = 2
    log_every: int = 1  # steps


@dataclass
class Schedule:
    """Learning rate over a phase."""

    name: str = MISSING  # warmup_constant or one_minus_sqrt
    peak: float = MISSING
    warmup: str = "0tok"  # warmup_constant: linear from 0
    floor: float = 0.1  # one_minus_sqrt: where it ends, as a share of the peak


@dataclass
class Phase:
    """One objective for one duration under one schedule, on rows of one mixture."""

    objective: str = MISSING  # clm or mlm
    mixture: str = MISSING
    duration: str = MISSING  # tokens, padding included
    schedule: Schedule = field(default_factory=Schedule)
    mask_rate: float | None = None  # mlm only
    moments: str = "keep"  # the optimizer's: keep those of the phase before, or fresh


@dataclass
class Evaluate:
    """What is measured on held-out text at the end."""

    mask_rate: float = 0.15
    rows: int = 64  # of each source, at most
    fill_masks: int = 6  # sentences of each source shown in the report


@dataclass
class Config:
    """A whole recipe."""

    run_dir: str = MISSING
    seed: int = 17
    data: Data = field(default_factory=Data)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    train: Train = field(default_factory=Train)
    phases: dict[str, Phase] = field(default_factory=dict)
    arms: dict[str, list[str]] = field(default_factory=dict)  # arm -> names of its phases, in order
    evaluate: Evaluate = field(default_factory=Evaluate)
