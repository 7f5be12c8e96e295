"""What a phase's weights depend on that must not change while it runs, and whether the phase has been trained with just that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clm_detour.config.schema import Config
from clm_detour.data.packing import PackedSource
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.run_folder import RunFolder
from clm_detour.settings import check
from clm_detour.train.export import tokenizer_path
from clm_detour.train.recipe import PhaseRun
from clm_detour.train.stream import open_stream


def is_finished(config: Config, run: PhaseRun) -> bool:
    """Whether `run` is trained to its end.

    Raises:
        UserError: its folder was started with other settings, or its data is not there.
    """
    folder = RunFolder.of(config).phase(run.id)
    tokenizer = load_tokenizer(tokenizer_path(config))
    sources = open_stream(config, run, tokenizer).sources
    check(folder.settings, phase_settings(config, run, sources, tokenizer.fingerprint))
    return folder.finished


def phase_settings(
    config: Config, run: PhaseRun, sources: Mapping[str, PackedSource], tokenizer: str
) -> dict[str, Any]:
    """What decides the weights at the end of `run` and must not change once it has started.

    `on_bad_loss` and `bad_loss_above` decide which steps are left out, but are for changing when a step went bad, so they are
    not here; the record of a finished phase has those that it ended with.

    Args:
        sources: those of the phase's own mixture; its parents' are in theirs.
        tokenizer: its fingerprint.
    """
    return {
        "seed": config.seed,
        "shuffle_seed": config.data.shuffle_seed,
        "sequence_length": config.data.sequence_length,
        "batch_rows": config.train.batch_rows,
        "precision": config.train.precision,
        "ema_half_life": config.train.ema_half_life,
        "tokenizer": tokenizer,
        "model": {"base": config.model.base, "config": config.model.config},
        "optimizer": asdict(config.optimizer),
        "phases": {
            step.name: {**asdict(step.phase), "shares": config.data.mixtures[step.phase.mixture]}
            for step in run.lineage
        },
        "data": {name: source.fingerprint for name, source in sources.items()},
    }
