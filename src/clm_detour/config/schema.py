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
    """One corpus: where its documents are, how they are read, which of them are kept, and how often. See docs/guide.md."""

    path: str = MISSING  # file, folder or glob, local or any fsspec URL; with `format: hub` a dataset's id
    format: str | None = None  # jsonl, parquet, csv, tsv, text, pubmed, arrow, hub; null: as files are named
    text: str = "text"  # the field or column that holds the text
    template: str | None = None  # instead of `text`: fields in braces; `{input?}` may be missing
    document: str = "file"  # text: a document is a file, a line or a paragraph
    quoted: bool = True  # csv, tsv: a cell may stand in double quotes
    subset: str | None = None  # hub: the dataset's configuration
    split: str | None = None  # hub: null means train; arrow: one of those that were saved together
    revision: str | None = None  # hub: branch, tag or commit
    streaming: bool = True  # hub: read over the network; false: download everything first
    where: str | None = None  # which records are kept, like `educational_score >= 3`
    min_characters: int | None = None
    max_characters: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    deidentified: str | None = None  # written for the marks `[** ... **]` and `___`; "" removes them
    deduplicate: bool = False  # of equal texts in the source only the first is kept
    decontaminate: list[str] = field(default_factory=list)  # files of evaluations whose texts must not occur
    ngram: int = 13  # decontaminate: words in a row that make a text contaminated
    repeat: dict[str, float] = field(default_factory=dict)  # condition -> copies; the first that holds counts
    max_epochs: float | None = None  # of any one stream; a recipe that needs more is refused


@dataclass
class Data:
    """From documents to rows."""

    dir: str = "${run_dir}/data"  # prepared shards, shared or not; to read only, any fsspec URL
    prepared: dict[str, str] = field(default_factory=dict)  # source -> its folder, if not <dir>/<source>
    cache_dir: str | None = None  # copies of shards that lie at a URL; runs may share it
    cache_limit: str = "100GB"  # what the copies may take
    root: str | None = None  # for `${data.root}/...` in the sources' paths
    sources: dict[str, Source] = field(default_factory=dict)
    mixtures: dict[str, dict[str, float]] = field(default_factory=dict)  # name -> source -> share, normalised
    sequence_length: int = 8192  # tokens in a row
    held_out: float = 0.01  # fraction of each source's documents kept out of training
    shuffle_seed: int = 42  # order of rows
    on_error: str = "stop"  # broken records: stop, or skip (counted in the source's report)
    processes: int | None = None  # that prepare a source; null: as many as there are cores
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

    base: str | None = None  # folder or hub id of a masked LM (or causal decoder) to continue from
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
    """How a phase is run; nothing here changes what is learned, but for rounding, `batch_rows`, and the steps that
    `on_bad_loss` and `bad_loss_above` leave out."""

    batch_rows: int = 384  # rows in a step, over all processes
    micro_rows: int | str | None = None  # rows in one forward on a process; null: all; auto: as many as fit
    parallel: str = "ddp"  # ddp: every process has the whole model; fsdp: a share of it
    precision: str = "bf16"  # bf16 (autocast; fp32 on a CPU that is slow in bf16, which is said) or fp32
    compile: bool = False  # torch.compile for the layers: a minute at the start, then faster steps
    activation_checkpointing: bool = False  # a third more computation for a fraction of the memory
    workers: int = 1  # loader processes for each training process
    checkpoint_every: str = "500Mtok"
    checkpoints_kept: int = 2
    log_every: int = 1  # steps
    evaluate_every: str | None = None  # tokens between held-out losses, masked and causal, while training
    export_at: list[str] = field(default_factory=list)  # tokens of a phase: keep a model of each
    ema_half_life: str | None = None  # tokens; a moving average of the weights is kept beside them
    on_bad_loss: str = "stop"  # a loss that is not finite: stop with a checkpoint, or skip the step
    bad_loss_above: float | None = None  # nats; so is a loss above it
    loggers: dict[str, dict[str, Any]] = field(default_factory=dict)  # tensorboard, wandb, mlflow


@dataclass
class Schedule:
    """Learning rate over a phase."""

    name: str = MISSING  # warmup_constant, one_minus_sqrt, wsd, cosine or linear
    peak: float = MISSING
    warmup: str = "0tok"  # all but one_minus_sqrt: linear from 0
    decay: str = "0tok"  # wsd: the 1-sqrt decay at the end of the phase
    floor: float = 0.1  # all but warmup_constant: where it ends, as a share of the peak


@dataclass
class BatchWarmup:
    """Steps start small and grow, in a straight line and in multiples of `rows`, to `train.batch_rows`."""

    rows: int = MISSING  # in the first step; divides train.batch_rows
    duration: str = MISSING  # tokens until the full size


@dataclass
class Freeze:
    """What a phase leaves as it is, to the bit: no gradient, no moments; the final norm is always trained."""

    layers: str | None = None  # like 0-7, or 0-3,8
    embeddings: bool = False  # with the decoder's weights where they are tied to them
    head: bool = False  # with the decoder's bias, and its weights where they are not tied


@dataclass
class Phase:
    """One objective for one duration under one schedule, on rows of one mixture."""

    objective: str = MISSING  # clm or mlm
    mixture: str = MISSING
    duration: str = MISSING  # tokens, padding included
    schedule: Schedule = field(default_factory=Schedule)
    mask_rate: float | None = None  # mlm only
    batch_warmup: BatchWarmup | None = None  # smaller steps at the start
    moments: str = "keep"  # the optimizer's: keep those of the phase before, or fresh
    freeze: Freeze | None = None
    reset_head: bool = False  # start with a fresh prediction head and decoder bias
    seed: int | None = None  # of masks and dropout; null: the recipe's. Rows keep their order


@dataclass
class FineTuning:
    """Tasks on which models are fine-tuned and compared, each with the paper's protocol but for what is changed here."""

    tasks: list[str] = field(default_factory=list)  # names as `clm-detour tasks` lists them
    own_tasks: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # tasks from YAML alone; see docs/guide.md
    data: str | None = None  # a folder with a folder for each task's data set
    groups: dict[str, list[str]] = field(default_factory=dict)  # averages besides that over all tasks
    seeds: list[int] | None = None  # null: those of each task's protocol
    protocol: dict[str, Any] = field(default_factory=dict)  # changes for every task, like {epochs: 3}
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)  # task -> further changes
    learning_rates: list[float] = field(default_factory=list)  # a grid; each run takes the best on validation
    patience: int | None = None  # stop a run after so many rounds without a better one
    pooling: str | None = None  # cls or mean; null: as each model is made for
    precision: str = "fp32"  # or bf16 (autocast)
    documents: int | None = None  # so many of each split, spread over it, to try things out
    jobs: int = 1  # runs at a time, each in a process; over the GPUs if there are several
    equivalence_points: float | None = None  # test whether models differ by less; null: no test
    paper_bootstrap: bool = False  # also the paper's test, too sure with few tasks


@dataclass
class Evaluation(FineTuning):
    """The file of `clm-detour evaluate`: all keys of `evaluate.tasks`, and these."""

    name: str = MISSING
    run_dir: str = MISSING
    models: dict[str, str] = field(default_factory=dict)  # name -> folder or hub id; also --model name=path


@dataclass
class Evaluate:
    """What is measured at the end: on held-out text, and on tasks if there are any."""

    mask_rate: float = 0.15
    rows: int = 64  # of each source; all where there are fewer
    fill_masks: int = 6  # sentences of each source shown in the report
    tasks: FineTuning | None = None


@dataclass
class Analysis:
    """CKA of the arms `detour` and `twin` on held-out texts, at the end of a run that has both; `control` is the noise floor."""

    texts: int = 500  # in a sample; at most those that there are
    samples: int = 3
    max_tokens: int = 512  # of a text


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
    analysis: Analysis = field(default_factory=Analysis)
