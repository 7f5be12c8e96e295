"""The keys of a recipe: one dataclass for each section, with a comment for each key.

The annotations say what each value can be; `validation.py` checks them, and docs/config.md is made from them
and from the comments. Rules that join several keys are in `checks.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from clm_detour.config.values import (
    Bytes,
    Fraction,
    Layers,
    Name,
    NonNegativeInt,
    NonNegativeNumber,
    PhaseName,
    PositiveInt,
    PositiveNumber,
    PositiveTokens,
    Seed,
    Seeds,
    Tokens,
    check_distinct,
)


@dataclass
class Sample:
    """The bundled synthetic corpus, which a run writes into `<run_dir>/sample` if this section is there."""

    documents: Annotated[int, Field(ge=100)] = 24_000  # number of documents over all four sources
    seed: int = 7  # seed of the generated text


@dataclass
class NearDuplicates:
    """Near copies of an earlier text, which are left out together with equal texts.

    Two texts are near copies if they share enough of their runs of three words. See docs/data.md.
    """

    # Smallest Jaccard index of the runs of three words of near copies: 0.5 finds texts in which up to a tenth
    # of the words differ; 1 finds those that differ in punctuation and case only.
    near: Annotated[float, Field(ge=0.5, le=1)]
    # What is compared and left out: whole documents, or paragraphs of 20 or more words, which are cut out of
    # their documents.
    by: Literal["document", "paragraph"] = "document"


@dataclass
class Source:
    """One corpus: where its documents are, how they are read, which are kept, and how often each is used.

    A setting that has no effect on the source's format is an error. See docs/data.md for examples.
    """

    # A file, a folder or a glob, on this machine or at any fsspec URL; with `format: hub` the id of a
    # dataset.
    path: str
    # The format of the files. null: the format that the file names tell.
    format: Literal["jsonl", "parquet", "csv", "tsv", "text", "pubmed", "arrow", "hub"] | None = None
    text: str = "text"  # the field or column that holds the text
    # A text made of several fields, like "{title}\n\n{abstract?}". A field with `?` may be missing. Used
    # instead of `text`.
    template: str | None = None
    document: Literal["file", "line", "paragraph"] = "file"  # for `text` files: what counts as one document
    quoted: bool = True  # for csv and tsv: whether cells may be in double quotes
    subset: str | None = None  # for hub: the configuration of the dataset
    split: str | None = None  # for hub: null means train; for arrow: one of several splits saved together
    revision: str | None = None  # for hub: a branch, tag or commit
    streaming: bool = True  # for hub: read over the network; false downloads the whole dataset first
    where: str | None = None  # the condition that a record must meet, like `educational_score >= 3`
    min_characters: PositiveInt | None = None  # shorter documents are left out
    max_characters: PositiveInt | None = None  # longer documents are left out
    min_words: PositiveInt | None = None  # documents with fewer words are left out
    max_words: PositiveInt | None = None  # documents with more words are left out
    # Text that replaces the marks of deidentification, `[** ... **]` and `___`; "" removes the marks.
    deidentified: str | None = None
    # Keep only the first of equal documents of this source (true), or also of near copies, like
    # `{near: 0.5}`.
    deduplicate: bool | NearDuplicates = False
    # Files of evaluation data. Documents that share `ngram` consecutive words with one of their texts are
    # left out.
    decontaminate: list[str] = field(default_factory=list)
    ngram: PositiveInt = 13  # for `decontaminate`: number of consecutive words
    # Condition -> number of copies of each document that meets it. The first condition that holds counts.
    repeat: dict[str, PositiveNumber] = field(default_factory=dict)
    # Largest number of passes over this source in the rows of one mixture; a recipe that needs more is an
    # error.
    max_epochs: PositiveNumber | None = None
    description: str | None = None  # what the documents are, for the model card
    license: str | None = None  # the license of the documents, for the model card


@dataclass
class Canaries:
    """Made-up sentences with random secrets, by which `clm-detour audit` measures what a model remembers.

    They become training documents, so every model that is trained on them may give their secrets away. The
    secrets are random numbers that mean nothing. See docs/audit.md.
    """

    source: str  # the source whose training documents they join
    each: PositiveInt = 8  # number of sentences for each number of copies, and of those that are left out
    # Numbers of copies of a sentence.
    copies: Annotated[list[PositiveInt], Field(min_length=1), AfterValidator(check_distinct)] = field(
        default_factory=lambda: [1, 2, 4, 8, 16, 32, 64]
    )
    seed: NonNegativeInt = 7  # seed of names and secrets


@dataclass
class Data:
    """The documents, and the rows of tokens that are made of them."""

    # Folder of the prepared shards, which several runs may share. Any fsspec URL, if the data is only read.
    dir: str = "${run_dir}/data"
    # Source -> its folder, if it is not `<dir>/<source>`.
    prepared: dict[str, str] = field(default_factory=dict)
    cache_dir: str | None = None  # folder for copies of shards that are read from a URL; runs may share it
    cache_limit: Bytes = "100GB"  # largest total size of these copies
    root: str | None = None  # a folder of your own, for `${data.root}/...` in the paths of sources
    sources: dict[Name, Source] = field(default_factory=dict)  # name -> source
    # As `deduplicate` of a source, but over all sources, in the order in which they are listed.
    deduplicate: bool | NearDuplicates = False
    # Name of a mixture -> source -> share of tokens. The shares are divided by their sum.
    mixtures: dict[str, dict[str, PositiveNumber]] = field(default_factory=dict)
    # Made-up sentences with secrets, added to a source to measure what a model remembers. null: none.
    canaries: Canaries | None = None
    sequence_length: Annotated[int, Field(ge=8)] = 8192  # number of tokens in a row
    held_out: Fraction = 0.01  # fraction of the documents of each source that is kept out of training
    shuffle_seed: NonNegativeInt = 42  # seed of the order of rows
    # What to do with a record that cannot be read. skip: leave it out and count it in the source's card.json.
    on_error: Literal["stop", "skip"] = "stop"
    processes: PositiveInt | None = None  # processes that prepare a source; null: one for each core
    sample: Sample | None = None  # the bundled corpus; null: it is not written


@dataclass
class TokenizerTraining:
    """The training of a byte-level BPE tokenizer on the run's own sources."""

    vocab_size: Annotated[int, Field(ge=300)]  # size of the vocabulary, in which 256 tokens are single bytes
    documents: PositiveInt = 10_000  # number of documents taken from each source


@dataclass
class TokenAddition:
    """Tokens that are added to a tokenizer: those that save most tokens on the run's own sources."""

    tokens: PositiveInt  # number of tokens to add; unused entries of the vocabulary are filled first
    documents: PositiveInt = 10_000  # number of training documents read from each source to choose them


@dataclass
class Tokenizer:
    """The tokenizer. Give either `path` or `train`."""

    path: str | None = None  # a folder with tokenizer.json, or a hub id
    train: TokenizerTraining | None = None  # train a new one
    # Add tokens to it. `model.base` gets an embedding for each, the mean of those of the tokens it replaces.
    add: TokenAddition | None = None


@dataclass
class Model:
    """The weights to start from. Give either `base` or `config`."""

    # Folder or hub id of a masked language model, or of a causal decoder, to continue from; or a checkpoint
    # (.pt) that Composer wrote in the training of ModernBERT or of a model like it.
    base: str | None = None
    config: dict[str, Any] | None = None  # keys of ModernBertConfig for a new model with random weights
    attention: str = "auto"  # the attention back end: auto, flash, varlen, flex, onednn or portable
    # Dropout after the output projection of each layer's attention. The training code of ModernBERT has 0.1.
    attention_output_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass
class Optimizer:
    """AdamW with decoupled weight decay, which is not applied to biases and norms."""

    # Decay rates of the moving averages of the gradient and of its square.
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.98)
    eps: PositiveNumber = 1e-6  # added to the denominator of an update
    # Share of a weight that is lost in one step at the peak learning rate (decoupled from the learning rate).
    weight_decay: NonNegativeNumber = 1e-5
    # Largest norm of the gradients; larger ones are scaled down. null: no clipping. The paper does not give
    # it.
    clip_norm: PositiveNumber | None = 1.0


@dataclass
class Train:
    """Settings of training that hold for all phases.

    Only `batch_rows`, `on_bad_loss` and `bad_loss_above` change what is learned, apart from rounding.
    """

    batch_rows: PositiveInt = 384  # rows in a step, over all processes
    # Rows that a process puts through the model at once. auto: on a GPU as many as fit into its memory, found
    # by trial; on a CPU and with `deterministic` a number that follows from the recipe. null: all of them.
    micro_rows: PositiveInt | Literal["auto"] | None = "auto"
    # Whether every process holds the whole model (ddp) or a share of it: over all processes (fsdp), or over
    # those of its machine (hsdp), which then average gradients with the other machines.
    parallel: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    # Precision of the computation; bf16 is autocast, tf32 rounds the inputs of products to 10 bits on a GPU.
    # On a CPU, fp32 is used instead of tf32, and instead of bf16 where that is slow; a message says so.
    precision: Literal["bf16", "tf32", "fp32"] = "bf16"
    # Precision of the residual stream in training under bf16. bf16 moves fewer bytes, mainly with `compile`.
    residual: Literal["bf16", "fp32"] = "bf16"
    # Use only algorithms that give the same bits each time on the same GPUs; slower. On a CPU all do.
    deterministic: bool = False
    # Use torch.compile for the layers: a minute at the start, then faster steps. auto: on a GPU, if torch can
    # compile there.
    compile: bool | Literal["auto"] = "auto"
    activation_checkpointing: bool = False  # compute a third more and use a fraction of the memory
    # Data-loading processes for each training process; 0: load in the training process.
    workers: NonNegativeInt = 1
    checkpoint_every: PositiveTokens = "500Mtok"  # tokens between checkpoints
    checkpoints_kept: PositiveInt = 2  # number of checkpoints kept while a phase runs
    log_every: PositiveInt = 1  # steps between lines of metrics.jsonl
    # Tokens between measurements of the masked and the causal loss on held-out rows. null: not while
    # training.
    evaluate_every: PositiveTokens | None = None
    # Tokens in a phase after which a model is exported.
    export_at: list[PositiveTokens] = field(default_factory=list)
    # Half-life, in tokens, of an exponential moving average of the weights kept beside them. null: no
    # average.
    ema_half_life: PositiveTokens | None = None
    # What to do at a loss or gradient that is not finite. stop: end with a checkpoint; skip: leave out the
    # step.
    on_bad_loss: Literal["stop", "skip"] = "stop"
    # In nats; a loss above it is treated as not finite; null: no loss is.
    bad_loss_above: PositiveNumber | None = None
    # Experiment tracker -> arguments of Composer's logger for it, like `wandb: {project: detour}`.
    loggers: dict[Literal["tensorboard", "wandb", "mlflow"], dict[str, Any]] = field(default_factory=dict)


@dataclass
class Schedule:
    """The learning rate over a phase. A setting that has no effect under the named schedule is an error."""

    name: Literal["warmup_constant", "one_minus_sqrt", "wsd", "cosine", "linear"]  # shape of the schedule
    peak: PositiveNumber  # largest learning rate
    warmup: Tokens = "0tok"  # tokens of linear warm-up from 0; not for one_minus_sqrt
    decay: Tokens = "0tok"  # only for wsd: tokens of the 1-sqrt decay at the end of the phase
    # Learning rate at the end, as a fraction of the peak; not for warmup_constant.
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1


@dataclass
class BatchWarmup:
    """Smaller steps at the start of a phase, which grow in multiples of `rows` to `train.batch_rows`."""

    rows: PositiveInt  # rows in the first step; a divisor of `train.batch_rows`
    duration: PositiveTokens  # tokens until steps have their full size


@dataclass
class Freeze:
    """The weights that a phase does not train: no gradient, no weight decay, no optimizer state.

    The final norm is always trained.
    """

    layers: Layers | None = None  # layers, counted from 0, like `0-7` or `0-3,8`
    embeddings: bool = False  # the token embeddings, and with them the decoder's weights if they are tied
    # The prediction head and the decoder's bias, and the decoder's weights if they are not tied.
    head: bool = False


@dataclass
class Phase:
    """Training with one objective, one schedule and one mixture."""

    objective: Literal["clm", "mlm"]  # causal or masked language modeling
    mixture: str  # a name in `data.mixtures`
    duration: PositiveTokens  # tokens, padding included
    schedule: Schedule
    mask_rate: Fraction | None = None  # fraction of tokens that is masked; required for mlm, an error for clm
    # What `mask_rate` chooses: single tokens, or whole words with all of their tokens. The tokenizer's own
    # pre-tokenizer says what a word is.
    mask_unit: Literal["token", "word"] = "token"
    batch_warmup: BatchWarmup | None = None  # smaller steps at the start; null: every step has its full size
    # Whether the phase starts with the optimizer state of the phase before (keep) or with none (fresh).
    moments: Literal["keep", "fresh"] = "keep"
    freeze: Freeze | None = None  # weights that are not trained; null: all are trained
    reset_head: bool = False  # start with a new random prediction head and decoder bias
    # Start with the prediction head and decoder bias that the arm's last phase of the same objective ended
    # with. Without such a phase they are those of `model.base` in an mlm phase, and new ones in a clm phase.
    separate_head: bool = False
    # Where the phase starts in the data: after the rows that earlier phases took from its mixture (continue),
    # or at the first row of the mixture again (restart).
    position: Literal["continue", "restart"] = "continue"
    # Seed of masks and dropout; null: the recipe's. The order of rows stays the same.
    seed: Seed | None = None


Changes = dict[str, Any]  # keys of `protocols.Protocol` and their new values


@dataclass
class FineTuning:
    """Tasks on which models are fine-tuned and compared, with the paper's protocols and changes to them."""

    # Names of tasks, as `clm-detour tasks` lists them.
    tasks: Annotated[list[str], AfterValidator(check_distinct)] = field(default_factory=list)
    # Name -> a task of your own in a standard format; see docs/tasks.md.
    own_tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: str | None = None  # a folder with one folder for each task's data set
    groups: dict[str, list[str]] = field(default_factory=dict)  # name -> tasks whose average is shown as well
    seeds: Seeds | None = None  # one run for each seed; null: the seeds of each task's protocol
    # Changes to the protocol of every task, like `{epochs: 3}`.
    protocol: Changes = field(default_factory=dict)
    protocols: dict[str, Changes] = field(default_factory=dict)  # task -> further changes to its protocol
    # Learning rates to try; each run uses the one with the best validation score. Empty: the protocol's.
    learning_rates: list[PositiveNumber] = field(default_factory=list)
    patience: PositiveInt | None = None  # stop after this many epochs without a better validation score
    # How a text becomes one vector; null: as each model's config says.
    pooling: Literal["cls", "mean"] | None = None
    # Precision of the computation; bf16 is autocast. tf32 and bf16 are several times faster on a GPU. On a
    # CPU, fp32 is used instead of tf32, and instead of bf16 where that is slow; a message says so.
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    # Number of documents taken from each split, to try things out; null: all.
    documents: PositiveInt | None = None
    # Number of runs at a time, each in its own process, over all GPUs; null: 1, or as many as a cluster has
    # room for (`--engine ray`).
    jobs: PositiveInt | None = None
    # Test whether models differ by less than this many points. null: no test of equivalence.
    equivalence_points: Annotated[float, Field(gt=0, lt=100)] | None = None
    paper_bootstrap: bool = False  # add the paper's bootstrap test, which is too optimistic with few tasks


@dataclass(kw_only=True)
class Evaluation(FineTuning):
    """The file of `clm-detour evaluate`: all keys of `evaluate.tasks`, and these."""

    name: str  # title of the tables
    run_dir: str  # folder of the results
    models: dict[str, str] = field(default_factory=dict)  # name -> folder or hub id; or `--model name=path`


@dataclass
class Evaluate:
    """Measurements at the end of a run: the loss on held-out text, and scores on tasks if there are any."""

    mask_rate: Fraction = 0.15  # fraction of held-out tokens that is masked
    rows: PositiveInt = 64  # held-out rows scored for each source; all of them if there are fewer
    # Source of general text that is scored at the end of every phase too, to show what was forgotten. It does
    # not count as text of the domain, also where it is a part of the mixture. null: not measured.
    general: str | None = None
    fill_masks: NonNegativeInt = 6  # sentences of each source in which the report shows filled masks
    tasks: FineTuning | None = None  # fine-tuning on tasks; null: none


@dataclass
class Analysis:
    """Comparison of the arms `detour` and `twin` by CKA on held-out texts, at the end of a run that has both.

    The arm `control`, if there is one, gives the noise floor.
    """

    texts: Annotated[int, Field(ge=20)] = 500  # texts in a sample, or all held-out texts if there are fewer
    samples: PositiveInt = 3  # number of samples
    max_tokens: Annotated[int, Field(ge=8)] = 512  # number of tokens after which a text is cut


@dataclass
class Config:
    """A whole recipe."""

    run_dir: str  # folder of everything that the run writes
    seed: Seed = 17  # seed of new weights, masks and dropout
    data: Data = field(default_factory=Data)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    train: Train = field(default_factory=Train)
    phases: dict[PhaseName, Phase] = field(default_factory=dict)  # name -> phase
    arms: dict[Name, list[str]] = field(default_factory=dict)  # name -> the arm's phases, in order
    evaluate: Evaluate = field(default_factory=Evaluate)
    analysis: Analysis = field(default_factory=Analysis)
