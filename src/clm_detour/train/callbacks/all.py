"""Which callbacks a phase has, in the order in which Composer calls them."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from composer.core import Callback

from clm_detour.config.schema import Config
from clm_detour.config.units import parse_tokens
from clm_detour.data.loader import StepBatches
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.evaluate.held_out import HeldOut
from clm_detour.model.precision import best_device, computed_precision
from clm_detour.progress import Advance
from clm_detour.run_folder import PhaseFolder
from clm_detour.train.callbacks.checkpoint import Checkpoints, Position
from clm_detour.train.callbacks.dropout import Dropout
from clm_detour.train.callbacks.export import Exports
from clm_detour.train.callbacks.gradients import Gradients
from clm_detour.train.callbacks.held_out import HeldOutLoss
from clm_detour.train.callbacks.learning_rate import LearningRate
from clm_detour.train.callbacks.metrics import Metrics
from clm_detour.train.callbacks.preemption import Preemption
from clm_detour.train.callbacks.throughput import Throughput, peak_flops
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.export import about_phase, tokenizer_path
from clm_detour.train.finish import shares_so_far
from clm_detour.train.recipe import PhaseRun
from clm_detour.train.schedules import phase_rate
from clm_detour.train.stream import open_sources, vocabulary_of


class PhaseCallbacks(NamedTuple):
    """All of them, and the two that the phase itself speaks to."""

    all: list[Callback]
    checkpoints: Checkpoints
    preemption: Preemption


def make_callbacks(
    config: Config,
    run: PhaseRun,
    folder: PhaseFolder,
    model: PretrainingModel,
    batches: StepBatches,
    tokenizer: Tokenizer,
    position: Position | None,
    advance: Advance,
) -> PhaseCallbacks:
    """Those of one phase.

    Raises:
        UserError: there are no held-out rows to score on.
    """
    train, network, stream = config.train, model.network, batches.stream
    every = parse_tokens(train.checkpoint_every, "train.checkpoint_every")
    checkpoints = Checkpoints(folder.checkpoints, network, every, train.checkpoints_kept)
    checkpoints.skipped = 0 if position is None else position.skipped
    clip = config.optimizer.clip_norm
    gradients = Gradients(clip, train.on_bad_loss, train.bad_loss_above, batches, checkpoints)
    precision, _ = computed_precision(train.precision, best_device())
    throughput = Throughput(model, tokenizer.pad, peak_flops(precision))
    shares = partial(shares_so_far, run, stream)
    export_at = [parse_tokens(at, "train.export_at") for at in train.export_at]
    preemption = Preemption(checkpoints)
    callbacks: list[Callback] = [
        LearningRate(phase_rate(run.phase)),
        Dropout(run.seed, run.first_row),
        gradients,
        throughput,
        Metrics(folder.metrics, train.log_every, advance, shares, gradients, throughput),
        Exports(folder.exports, network, tokenizer_path(config), export_at, about_phase(config, run)),
        checkpoints,
        preemption,
    ]
    if train.evaluate_every is not None:
        judges = held_out_judges(config, run, tokenizer)
        tokens = parse_tokens(train.evaluate_every, "train.evaluate_every")
        callbacks.insert(5, HeldOutLoss(folder.held_out, network, judges, tokens, train.precision == "bf16"))
    return PhaseCallbacks(callbacks, checkpoints, preemption)


def held_out_judges(config: Config, run: PhaseRun, tokenizer: Tokenizer) -> list[HeldOut]:
    """Masked and causal, on the held-out rows of the phase's own mixture."""
    sources = open_sources(config, config.data.mixtures[run.phase.mixture], "held_out", tokenizer)
    return [
        HeldOut(
            sources=sources,
            vocabulary=vocabulary_of(tokenizer),
            sequence_length=config.data.sequence_length,
            mask_rate=config.evaluate.mask_rate,
            rows=config.evaluate.rows,
            seed=config.seed,
            kind=kind,
        )
        for kind in ("mlm", "clm")
    ]
