"""What must hold of a recipe before any work: each rule is one line here and one sentence for the user."""

from __future__ import annotations

import re
from math import inf
from typing import TypeVar

from clm_detour.config.evaluation import check_fine_tuning
from clm_detour.config.expressions.conditions import Condition
from clm_detour.config.expressions.fields import Field
from clm_detour.config.expressions.formats import FORMATS, guess
from clm_detour.config.expressions.templates import Template
from clm_detour.config.schema import Config, Phase, Schedule, Source
from clm_detour.config.units import parse_bytes, parse_layers, parse_tokens
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of, require

Parsed = TypeVar("Parsed", Template, Condition)

SCHEDULES = {  # and which settings have an effect under each
    "warmup_constant": ("warmup",),
    "one_minus_sqrt": ("floor",),
    "wsd": ("warmup", "decay", "floor"),
    "cosine": ("warmup", "floor"),
    "linear": ("warmup", "floor"),
}


def check_config(config: Config) -> None:
    """Raise a UserError for the first rule that `config` breaks."""
    check_data(config)
    check_tokenizer_and_model(config)
    check_train(config)
    for name, phase in config.phases.items():
        check_phase(config, name, phase)
    check_arms(config)


def check_data(config: Config) -> None:
    """Sources, mixtures, rows."""
    data = config.data
    require(bool(data.sources), "data.sources is empty; name at least one source with a path.")
    for name in data.sources:
        usable = re.fullmatch(r"[A-Za-z0-9_-]+", name)
        require(
            bool(usable), f"data.sources.{name}: use letters, digits, - and _ only (it becomes a folder)."
        )
    for name, settings in data.sources.items():
        check_source(f"data.sources.{name}", settings)
    require(
        data.sequence_length >= 8,
        f"data.sequence_length: {data.sequence_length} is too short; use 8 or more.",
    )
    require(
        0 < data.held_out < 1, f"data.held_out: {data.held_out} is not a fraction between 0 and 1, like 0.01."
    )
    check_seed("seed", config.seed)
    require(data.shuffle_seed >= 0, f"data.shuffle_seed: {data.shuffle_seed} may not be negative.")
    require(
        data.processes is None or data.processes > 0,
        f"data.processes: {data.processes} is not positive; leave it out for one a core.",
    )
    for name in data.prepared:
        one_of(name, data.sources, "data.prepared")
    require(parse_bytes(data.cache_limit, "data.cache_limit") > 0, "data.cache_limit must be positive.")
    one_of(data.on_error, ("stop", "skip"), "data.on_error")
    require(data.sample is None or data.sample.documents >= 100, "data.sample.documents: use 100 or more.")
    for name, shares in data.mixtures.items():
        require(bool(shares), f"data.mixtures.{name} is empty; give a share of tokens for each source.")
        for source, share in shares.items():
            one_of(source, data.sources, f"data.mixtures.{name}")
            require(
                0 < share < inf,
                f"data.mixtures.{name}.{source}: {share} is not positive; leave the source out instead.",
            )


def check_seed(where: str, seed: int) -> None:
    """One that the generators of numpy and Composer take."""
    require(
        0 <= seed < 2**32, f"{where}: {seed} is out of range; use a seed from 0 to {2**32 - 1} (below 2**32)."
    )


def check_source(where: str, source: Source) -> None:
    """One source: its settings fit its format and each other, its template and conditions can be read."""
    if source.format is not None:
        one_of(source.format, FORMATS, f"{where}.format")
    one_of(source.document, ("file", "line", "paragraph"), f"{where}.document")
    check_effect(where, source)
    for low, high in (("min_characters", "max_characters"), ("min_words", "max_words")):
        least, most = getattr(source, low), getattr(source, high)
        for key, value in ((low, least), (high, most)):
            require(value is None or value > 0, f"{where}.{key}: {value} is not positive; leave it out.")
        require(
            least is None or most is None or least <= most,
            f"{where}: {low} ({least}) is above {high} ({most}).",
        )
    require(
        source.max_epochs is None or source.max_epochs > 0,
        f"{where}.max_epochs: {source.max_epochs} is not positive; leave the source out of the mixtures instead.",
    )
    require(source.ngram > 0, f"{where}.ngram: {source.ngram} is not a number of words; the usual one is 13.")
    for condition, copies in source.repeat.items():
        require(
            0 < copies < inf,
            f"{where}.repeat: {copies} copies of {condition!r} make no sense; use a positive number.",
        )
    check_names(where, source)


def check_effect(where: str, source: Source) -> None:
    """No setting without effect."""
    format = source.format or guess(source.path)
    for other, kind in FORMATS.items():
        for key in kind.settings:
            understood = format is None or key in FORMATS[format].settings
            require(
                understood or getattr(source, key) == getattr(Source, key),
                f"{where}.{key} is for {other} and has no effect on {format}; remove it.",
            )
    require(
        source.text == Source.text or source.template is None,
        f"{where}: give either text or template, not both.",
    )
    require(
        source.ngram == Source.ngram or bool(source.decontaminate),
        f"{where}.ngram has no effect without decontaminate; remove it or name the evaluation's files.",
    )


def check_names(where: str, source: Source) -> None:
    """Template and conditions can be read, and name fields that the format has, where those are fixed."""
    named = {"text": [Field.parse(source.text)]}
    if source.template is not None:
        named["template"] = list(parsed(Template, source.template, f"{where}.template").fields)
    if source.where is not None:
        named["where"] = list(parsed(Condition, source.where, f"{where}.where").fields)
    repeat = [parsed(Condition, text, f"{where}.repeat") for text in source.repeat]
    named["repeat"] = [field for condition in repeat for field in condition.fields]
    format = source.format or guess(source.path)
    known = FORMATS[format].fields if format is not None else ()
    for key, fields in named.items():
        for field in fields if known else ():
            one_of(str(field.path[0]), known, f"{where}.{key}, a field of {format}")


def parsed(kind: type[Parsed], text: str, where: str) -> Parsed:
    """A template or a condition."""
    try:
        return kind.parse(text)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def check_tokenizer_and_model(config: Config) -> None:
    """Exactly one origin for each."""
    tokenizer, model = config.tokenizer, config.model
    require(
        (tokenizer.path is None) != (tokenizer.train is None),
        "tokenizer: give either path (a folder or hub id) or train (vocab_size), not both and not neither.",
    )
    require(
        (model.base is None) != (model.config is None),
        "model: give either base (a folder or hub id to continue from) or config (a fresh model), not both and not neither.",
    )
    if tokenizer.train is not None:
        require(
            tokenizer.train.vocab_size >= 300, "tokenizer.train.vocab_size: use 300 or more (256 are bytes)."
        )
        require(
            tokenizer.train.documents > 0,
            f"tokenizer.train.documents: {tokenizer.train.documents} is not positive.",
        )


def check_train(config: Config) -> None:
    """Batches and units."""
    train = config.train
    require(train.batch_rows > 0, f"train.batch_rows: {train.batch_rows} is not positive.")
    require(
        train.micro_rows in (None, "auto") or (isinstance(train.micro_rows, int) and train.micro_rows > 0),
        f"train.micro_rows: {train.micro_rows} is neither a positive number nor auto; leave it out for one micro-batch.",
    )
    one_of(train.precision, ("bf16", "fp32"), "train.precision")
    require(
        parse_tokens(train.checkpoint_every, "train.checkpoint_every") > 0,
        "train.checkpoint_every must be positive.",
    )
    require(train.checkpoints_kept > 0, "train.checkpoints_kept: keep at least 1.")
    require(train.log_every > 0, "train.log_every: log every 1 step or more.")
    check_watch(config)
    require(train.workers >= 0, "train.workers: use 0 (in the training process) or more.")
    optimizer = config.optimizer
    require(
        all(0 <= beta < 1 for beta in optimizer.betas),
        f"optimizer.betas: {tuple(optimizer.betas)} must lie in [0, 1).",
    )
    require(optimizer.eps > 0, f"optimizer.eps: {optimizer.eps} is not positive.")
    require(optimizer.weight_decay >= 0, f"optimizer.weight_decay: {optimizer.weight_decay} is negative.")
    require(
        optimizer.clip_norm is None or optimizer.clip_norm > 0,
        "optimizer.clip_norm: use a positive number, or null for none.",
    )
    evaluate = config.evaluate
    require(0 < evaluate.mask_rate < 1, f"evaluate.mask_rate: {evaluate.mask_rate} is not between 0 and 1.")
    require(evaluate.rows > 0, f"evaluate.rows: {evaluate.rows} is not positive.")
    require(
        evaluate.fill_masks >= 0,
        f"evaluate.fill_masks: {evaluate.fill_masks} is negative; 0 shows no sentences.",
    )
    if evaluate.tasks is not None:
        check_fine_tuning(evaluate.tasks, "evaluate.tasks.")
    analysis = config.analysis
    require(
        analysis.texts >= 20, f"analysis.texts: a sample of {analysis.texts} says nothing; use 20 or more."
    )
    require(analysis.samples > 0, f"analysis.samples: {analysis.samples} is not positive.")
    require(
        analysis.max_tokens >= 8, f"analysis.max_tokens: {analysis.max_tokens} is too few; use 8 or more."
    )


def check_watch(config: Config) -> None:
    """What is done beside the steps of training."""
    train = config.train
    one_of(train.parallel, ("ddp", "fsdp"), "train.parallel")
    require(
        (train.parallel, train.micro_rows) != ("fsdp", "auto"),
        "train.micro_rows: auto does not go with train.parallel: fsdp; give a number of rows (clm-detour bench finds one), or use ddp.",
    )
    one_of(train.on_bad_loss, ("stop", "skip"), "train.on_bad_loss")
    require(
        train.bad_loss_above is None or train.bad_loss_above > 0,
        f"train.bad_loss_above: {train.bad_loss_above} is not a positive loss; leave it out.",
    )
    require(
        train.evaluate_every is None or parse_tokens(train.evaluate_every, "train.evaluate_every") > 0,
        "train.evaluate_every must be positive; leave it out to score at the end only.",
    )
    require(
        train.ema_half_life is None or parse_tokens(train.ema_half_life, "train.ema_half_life") > 0,
        "train.ema_half_life must be positive; leave it out to keep no average of the weights.",
    )
    longest = max(
        (parse_tokens(p.duration, f"phases.{name}.duration") for name, p in config.phases.items()), default=0
    )
    for at in train.export_at:
        require(
            0 < parse_tokens(at, "train.export_at") <= longest,
            f"train.export_at: {at} is reached in no phase (the longest has {longest:,} tokens); remove it.",
        )
    for name in train.loggers:
        one_of(name, ("tensorboard", "wandb", "mlflow"), "train.loggers")


def check_phase(config: Config, name: str, phase: Phase) -> None:
    """One phase."""
    where = f"phases.{name}"
    require("." not in name, f"{where}: a phase's name may not hold a dot.")
    one_of(phase.objective, ("clm", "mlm"), f"{where}.objective")
    one_of(phase.mixture, config.data.mixtures, f"{where}.mixture")
    one_of(phase.moments, ("keep", "fresh"), f"{where}.moments")
    if phase.seed is not None:
        check_seed(f"{where}.seed", phase.seed)
    duration = parse_tokens(phase.duration, f"{where}.duration")
    require(duration > 0, f"{where}.duration must be positive.")
    if phase.objective == "mlm":
        rate = phase.mask_rate
        require(
            rate is not None,
            f"{where}.mask_rate is not set; the paper uses 0.3 in phase 1 and 0.15 in the decay.",
        )
        require(rate is not None and 0 < rate < 1, f"{where}.mask_rate: {rate} is not between 0 and 1.")
    else:
        require(phase.mask_rate is None, f"{where}.mask_rate has no effect in a clm phase; remove it.")
    check_schedule(where, phase, duration)
    check_batch_warmup(config, where, phase, duration)
    check_freeze(where, phase)


def check_freeze(where: str, phase: Phase) -> None:
    """What the phase leaves as it is."""
    freeze = phase.freeze
    if freeze is None:
        return
    if freeze.layers is not None:
        parse_layers(freeze.layers, f"{where}.freeze.layers")
    require(
        freeze.layers is not None or freeze.embeddings or freeze.head,
        f"{where}.freeze names nothing; give layers, embeddings or head, or leave it out.",
    )
    require(
        not (freeze.head and phase.reset_head),
        f"{where}: reset_head and freeze.head would leave a random head untrained; choose one.",
    )


def check_batch_warmup(config: Config, where: str, phase: Phase, duration: int) -> None:
    """The growth of the phase's steps."""
    warmup, full = phase.batch_warmup, config.train.batch_rows
    if warmup is None:
        return
    require(
        0 < warmup.rows < full and full % warmup.rows == 0,
        f"{where}.batch_warmup.rows: {warmup.rows} rows do not grow to train.batch_rows ({full}) in equal increments; use a smaller divisor of it.",
    )
    over = parse_tokens(warmup.duration, f"{where}.batch_warmup.duration")
    require(
        0 < over <= duration,
        f"{where}.batch_warmup.duration ({warmup.duration}) must be positive and no longer than the phase ({phase.duration}).",
    )


def check_schedule(where: str, phase: Phase, duration: int) -> None:
    """The phase's learning rate."""
    schedule = phase.schedule
    one_of(schedule.name, SCHEDULES, f"{where}.schedule.name")
    for key in ("warmup", "decay", "floor"):
        require(
            key in SCHEDULES[schedule.name] or getattr(schedule, key) == getattr(Schedule, key),
            f"{where}.schedule.{key} has no effect under {schedule.name}; remove it.",
        )
    require(schedule.peak > 0, f"{where}.schedule.peak: {schedule.peak} is not positive.")
    require(
        0 <= schedule.floor <= 1,
        f"{where}.schedule.floor: {schedule.floor} is not a share of the peak between 0 and 1.",
    )
    warmup = parse_tokens(schedule.warmup, f"{where}.schedule.warmup")
    require(
        warmup <= duration,
        f"{where}.schedule.warmup ({schedule.warmup}) is longer than the phase ({phase.duration}).",
    )
    if schedule.name == "wsd":
        decay = parse_tokens(schedule.decay, f"{where}.schedule.decay")
        require(decay > 0, f"{where}.schedule.decay is not set; give wsd the tokens of its decay.")
        require(
            warmup + decay <= duration,
            f"{where}.schedule: warmup ({schedule.warmup}) and decay ({schedule.decay}) are longer than the phase ({phase.duration}).",
        )


def check_arms(config: Config) -> None:
    """Arms name phases."""
    require(bool(config.arms), "arms is empty; name at least one arm with its phases.")
    for arm, phases in config.arms.items():
        require(bool(re.fullmatch(r"[A-Za-z0-9_-]+", arm)), f"arms.{arm}: use letters, digits, - and _ only.")
        require(bool(phases), f"arms.{arm} has no phases.")
        require(
            len(set(phases)) == len(phases), f"arms.{arm} names a phase twice; give the second its own name."
        )
        for phase in phases:
            one_of(phase, config.phases, f"arms.{arm}")
