"""A recipe's prepared data as the stream of one phase."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, cast

from clm_detour.config.schema import Config
from clm_detour.config.units import parse_bytes
from clm_detour.data.cache import ShardCache, is_remote
from clm_detour.data.loader import RowStream
from clm_detour.data.mixture import Mixture
from clm_detour.data.objectives import Objective, Vocabulary
from clm_detour.data.packing import PackedSource
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.recipe.phases import PhaseRun
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import human


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """What masking must know of the tokenizer."""
    return Vocabulary(tokenizer.vocab_size, tokenizer.pad, tokenizer.mask, tokenizer.special_ids)


def prepared_folder(config: Config, name: str) -> str:
    """Where a source's prepared data lies, a path or a URL: `<data.dir>/<name>`, unless `data.prepared` says otherwise."""
    return config.data.prepared.get(name) or f"{config.data.dir.rstrip('/')}/{name}"


def is_prepared_elsewhere(config: Config, name: str) -> bool:
    """Whether a source is only read, and never prepared by this recipe."""
    return name in config.data.prepared or is_remote(config.data.dir)


def shard_cache(config: Config) -> ShardCache | None:
    """The cache for what lies at a URL."""
    data = config.data
    limit = parse_bytes(data.cache_limit, "data.cache_limit")
    return None if data.cache_dir is None else ShardCache(Path(data.cache_dir), limit)


def open_sources(
    config: Config, names: Iterable[str], split: str, tokenizer: Tokenizer
) -> dict[str, PackedSource]:
    """Open prepared sources; `split` is train or held_out.

    Raises:
        UserError: a source is not prepared, damaged, or made with another tokenizer.
    """
    cache, rows = shard_cache(config), config.data.sequence_length
    folders = {name: f"{prepared_folder(config, name)}/{split}" for name in names}
    return {
        name: PackedSource.open(folder, rows, tokenizer.fingerprint, cache)
        for name, folder in folders.items()
    }


def open_stream(config: Config, run: PhaseRun, tokenizer: Tokenizer) -> RowStream:
    """The rows of `run`, with its objective's labels.

    Raises:
        UserError: as `open_sources`; or a source would be gone through more often than it allows, or the cache is too small.
    """
    shares = config.data.mixtures[run.phase.mixture]
    sources = open_sources(config, shares, "train", tokenizer)
    shard_rows = {name: source.shard_rows for name, source in sources.items()}
    mixture = Mixture(shares, shard_rows, config.data.shuffle_seed)
    check_epochs(config, run, mixture)
    check_cache(config, sources)
    return RowStream(
        mixture=mixture,
        sources=sources,
        objective=Objective(cast(Literal["clm", "mlm"], run.phase.objective), run.phase.mask_rate),
        vocabulary=vocabulary_of(tokenizer),
        sequence_length=config.data.sequence_length,
        seed=run.seed,
    )


def check_epochs(config: Config, run: PhaseRun, mixture: Mixture) -> None:
    """No source may be gone through more often than its `max_epochs`, from the start of the stream to the end of the phase."""
    for name, wanted in mixture.counts(0, run.next_row).items():
        limit, available = config.data.sources[name].max_epochs, mixture.rows[name]
        if limit is not None and wanted > limit * available:
            raise UserError(
                f"Source {name} would be gone through {wanted / available:.2f} times by the end of {run.id} "
                f"({human(wanted * run.row_tokens)} tokens wanted of {human(available * run.row_tokens)}), but its max_epochs is "
                f"{limit:g}: lower its share in data.mixtures.{run.phase.mixture}, shorten the phase, or raise max_epochs."
            )


def check_cache(config: Config, sources: dict[str, PackedSource]) -> None:
    """The cache must hold what is read at a time."""
    needed = sum(source.bytes_at_a_time for source in sources.values() if source.is_remote)
    if needed > parse_bytes(config.data.cache_limit, "data.cache_limit"):
        raise UserError(
            f"data.cache_limit: {config.data.cache_limit} is too small, since {needed / 1e9:.3g} GB are read at a time; raise it."
        )
