"""A recipe's prepared data as the stream of one phase."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, cast

from clm_detour.config.schema import Config
from clm_detour.data.loader import RowStream
from clm_detour.data.mixture import Mixture
from clm_detour.data.objectives import Objective, Vocabulary
from clm_detour.data.packing import PackedSource
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.train.recipe import PhaseRun


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """What masking must know of the tokenizer."""
    return Vocabulary(tokenizer.vocab_size, tokenizer.pad, tokenizer.mask, tokenizer.special_ids)


def open_sources(
    config: Config, names: Iterable[str], split: str, tokenizer: Tokenizer
) -> dict[str, PackedSource]:
    """Open prepared sources; `split` is train or held_out.

    Raises:
        UserError: a source is not prepared, damaged, or made with another tokenizer.
    """
    folder = Path(config.data.dir)
    return {
        name: PackedSource.open(folder / name / split, config.data.sequence_length, tokenizer.fingerprint)
        for name in names
    }


def open_stream(config: Config, run: PhaseRun, tokenizer: Tokenizer) -> RowStream:
    """The rows of `run`, with its objective's labels."""
    shares = config.data.mixtures[run.phase.mixture]
    sources = open_sources(config, shares, "train", tokenizer)
    rows = {name: len(source) for name, source in sources.items()}
    return RowStream(
        mixture=Mixture(shares, rows, config.data.shuffle_seed),
        sources=sources,
        objective=Objective(cast(Literal["clm", "mlm"], run.phase.objective), run.phase.mask_rate),
        vocabulary=vocabulary_of(tokenizer),
        sequence_length=config.data.sequence_length,
        seed=config.seed,
    )
