"""Check the rules that join several keys of a config.

What a single key can be is in its annotation in `schema.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from clm_detour.config.expressions.conditions import Condition
from clm_detour.config.expressions.fields import Field
from clm_detour.config.expressions.formats import FORMATS, guess
from clm_detour.config.expressions.templates import Template
from clm_detour.config.protocols import Protocol
from clm_detour.config.schema import (
    BatchWarmup,
    Canaries,
    Config,
    Data,
    Evaluation,
    FineTuning,
    Freeze,
    Model,
    Phase,
    Schedule,
    Source,
    Tokenizer,
    Train,
)
from clm_detour.config.units import parse_tokens
from clm_detour.config.validation import validate
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of, require

Parsed = TypeVar("Parsed", Template, Condition)

MOST_CANARIES = 1000
SCHEDULES = {  # the settings that have an effect under each schedule
    "warmup_constant": ("warmup",),
    "one_minus_sqrt": ("floor",),
    "wsd": ("warmup", "decay", "floor"),
    "cosine": ("warmup", "floor"),
    "linear": ("warmup", "floor"),
}


def check_config(config: Config) -> None:
    """Raise a UserError for the first rule that a recipe breaks."""
    check_data(config.data)
    check_origins(config.tokenizer, config.model)
    check_train(config.train, config.phases)
    if config.evaluate.general is not None:
        one_of(config.evaluate.general, config.data.sources, "evaluate.general")
    if config.evaluate.tasks is not None:
        check_fine_tuning(config.evaluate.tasks, "evaluate.tasks.")
    for name, phase in config.phases.items():
        check_phase(f"phases.{name}", phase, config.data, config.train)
    check_arms(config.arms, config.phases)


def check_evaluation(evaluation: Evaluation) -> None:
    """Raise a UserError for the first rule that a file of `clm-detour evaluate` breaks."""
    check_fine_tuning(evaluation, "")
    require(bool(evaluation.models), "There is no model to evaluate; add --model name=path.")


def check_data(data: Data) -> None:
    """Check that mixtures name sources, and check each source."""
    require(bool(data.sources), "data.sources is empty; name at least one source with a path.")
    for name, source in data.sources.items():
        check_source(f"data.sources.{name}", source)
    for name in data.prepared:
        one_of(name, data.sources, "data.prepared")
    check_across(data)
    if data.canaries is not None:
        check_canaries(data.canaries, data)
    for name, shares in data.mixtures.items():
        require(bool(shares), f"data.mixtures.{name} is empty; give a share of tokens for each source.")
        for sampled in shares:
            one_of(sampled, data.sources, f"data.mixtures.{name}")


def check_across(data: Data) -> None:
    """Check that copies are searched for either in one source or across all, and that all texts are there."""
    if not data.deduplicate:
        return
    for name, source in data.sources.items():
        require(
            not source.deduplicate,
            f"data.sources.{name}.deduplicate has no effect beside data.deduplicate, which holds for all "
            "sources; remove one of them.",
        )
    require(
        not data.prepared,
        "data.deduplicate compares the texts of all sources, and those of data.prepared have only tokens; "
        "remove one of them.",
    )


def check_canaries(canaries: Canaries, data: Data) -> None:
    """Check that canaries have a source that is prepared here, and names enough."""
    one_of(canaries.source, data.sources, "data.canaries.source")
    require(
        canaries.source not in data.prepared,
        f"data.canaries.source: {canaries.source} is prepared already (data.prepared); name a source that "
        "this recipe prepares, or remove data.canaries.",
    )
    require(
        canaries.each * (len(canaries.copies) + 1) <= MOST_CANARIES,
        f"data.canaries asks for more than {MOST_CANARIES} sentences; lower each, or give fewer copies.",
    )


def check_source(where: str, source: Source) -> None:
    """Check that a source's settings fit its format and each other, and that its expressions can be read."""
    check_effect(where, source)
    for low, high in (("min_characters", "max_characters"), ("min_words", "max_words")):
        least, most = getattr(source, low), getattr(source, high)
        require(
            least is None or most is None or least <= most,
            f"{where}: {low} ({least}) is above {high} ({most}).",
        )
    check_names(where, source)


def check_effect(where: str, source: Source) -> None:
    """Check that each setting of a source has an effect."""
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
    """Check that template and conditions can be read, and name fields that the format has."""
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
    """Return a template or a condition; a UserError names its key."""
    try:
        return kind.parse(text)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def check_origins(tokenizer: Tokenizer, model: Model) -> None:
    """Check that tokenizer and model come from one origin each."""
    require(
        (tokenizer.path is None) != (tokenizer.train is None),
        "tokenizer: give either path (a folder or hub id) or train (vocab_size), not both and not neither.",
    )
    require(
        (model.base is None) != (model.config is None),
        "model: give either base (a folder or hub id to continue from) or config (a new model), "
        "not both and not neither.",
    )


def check_train(train: Train, phases: Mapping[str, Phase]) -> None:
    """Check that a phase reaches each export."""
    longest = max((parse_tokens(phase.duration) for phase in phases.values()), default=0)
    for at in train.export_at:
        require(
            parse_tokens(at) <= longest,
            f"train.export_at: {at} is reached in no phase (the longest has {longest:,} tokens); remove it.",
        )


def check_phase(where: str, phase: Phase, data: Data, train: Train) -> None:
    """Check one phase."""
    one_of(phase.mixture, data.mixtures, f"{where}.mixture")
    if phase.objective == "mlm":
        require(
            phase.mask_rate is not None,
            f"{where}.mask_rate is not set; the paper uses 0.3 in phase 1 and 0.15 in the decay.",
        )
    else:
        require(phase.mask_rate is None, f"{where}.mask_rate has no effect in a clm phase; remove it.")
        require(
            phase.mask_unit == Phase.mask_unit,
            f"{where}.mask_unit has no effect in a clm phase; remove it.",
        )
    check_schedule(f"{where}.schedule", phase.schedule, phase.duration)
    if phase.batch_warmup is not None:
        check_batch_warmup(f"{where}.batch_warmup", phase.batch_warmup, phase.duration, train.batch_rows)
    require(
        not (phase.reset_head and phase.separate_head),
        f"{where}: reset_head and separate_head name two heads to start with; choose one.",
    )
    if phase.freeze is not None:
        check_freeze(where, phase.freeze, phase.reset_head)


def check_schedule(where: str, schedule: Schedule, duration: str) -> None:
    """Check that a phase's schedule fits into the phase, and that each of its settings has an effect."""
    for key in ("warmup", "decay", "floor"):
        require(
            key in SCHEDULES[schedule.name] or getattr(schedule, key) == getattr(Schedule, key),
            f"{where}.{key} has no effect under {schedule.name}; remove it.",
        )
    warmup, decay, whole = (parse_tokens(text) for text in (schedule.warmup, schedule.decay, duration))
    require(
        warmup <= whole,
        f"{where}.warmup ({schedule.warmup}) is longer than the phase ({duration}); shorten it.",
    )
    require(
        schedule.name != "wsd" or decay > 0,
        f"{where}.decay is not set; give wsd the tokens of its decay.",
    )
    require(
        warmup + decay <= whole,
        f"{where}: warmup ({schedule.warmup}) and decay ({schedule.decay}) are longer than the phase "
        f"({duration}).",
    )


def check_batch_warmup(where: str, warmup: BatchWarmup, duration: str, full: int) -> None:
    """Check that a phase's steps grow to `full` rows in equal increments before the phase ends."""
    require(
        warmup.rows < full and full % warmup.rows == 0,
        f"{where}.rows: {warmup.rows} rows do not grow to train.batch_rows ({full}) in equal increments; "
        "use a smaller divisor of it.",
    )
    require(
        parse_tokens(warmup.duration) <= parse_tokens(duration),
        f"{where}.duration ({warmup.duration}) is longer than the phase ({duration}); shorten it.",
    )


def check_freeze(where: str, freeze: Freeze, reset_head: bool) -> None:
    """Check that a phase freezes something, and does not freeze a head that it resets."""
    require(
        freeze.layers is not None or freeze.embeddings or freeze.head,
        f"{where}.freeze names nothing; give layers, embeddings or head, or leave it out.",
    )
    require(
        not (freeze.head and reset_head),
        f"{where}: reset_head and freeze.head would leave a random head untrained; choose one.",
    )


def check_arms(arms: Mapping[str, list[str]], phases: Mapping[str, Phase]) -> None:
    """Check that arms name phases, each once."""
    require(bool(arms), "arms is empty; name at least one arm with its phases.")
    for arm, names in arms.items():
        require(bool(names), f"arms.{arm} has no phases.")
        require(
            len(set(names)) == len(names), f"arms.{arm} names a phase twice; give the second its own name."
        )
        for name in names:
            one_of(name, phases, f"arms.{arm}")


def check_fine_tuning(settings: FineTuning, where: str) -> None:
    """Check that groups and protocols name tasks, and that changes to a protocol are possible.

    Args:
        where: The start of its keys, like `evaluate.tasks.`.
    """
    require(bool(settings.tasks), f"{where}tasks is empty; `clm-detour tasks` lists the tasks.")
    for group, names in settings.groups.items():
        require(bool(names), f"{where}groups.{group} is empty; name its tasks.")
        for name in names:
            one_of(name, settings.tasks, f"{where}groups.{group}")
    check_changes(settings.protocol, f"{where}protocol")
    for task, changes in settings.protocols.items():
        one_of(task, settings.tasks, f"{where}protocols")
        check_changes(changes, f"{where}protocols.{task}")


def check_changes(changes: Mapping[str, Any], where: str) -> None:
    """Check the keys and values of changes to a protocol."""
    require(
        "seeds" not in changes,
        f"{where}.seeds: seeds have a key of their own; set `seeds` beside `protocol`.",
    )
    validate(Protocol, changes, where)
