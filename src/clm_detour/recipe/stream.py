"""The prepared data of a recipe as the data stream of one phase."""

from __future__ import annotations

from collections.abc import Mapping

from clm_detour.config.schema import Data, Source
from clm_detour.config.units import parse_bytes
from clm_detour.data.loader import RowStream
from clm_detour.data.mixture import Mixture
from clm_detour.data.packing import PackedSource
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.recipe.phases import PhaseRun
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import human


def make_stream(
    data: Data, run: PhaseRun, sources: Mapping[str, PackedSource], tokenizer: Tokenizer
) -> RowStream:
    """Return the rows of a phase, with inputs and labels of its objective.

    Args:
        data: Section `data` of the recipe.
        sources: Training rows of the sources of the phase's mixture.

    Raises:
        UserError: If a source would be repeated more often than its `max_epochs`, or the cache is too small.
    """
    shard_rows = {name: source.shard_rows for name, source in sources.items()}
    mixture = Mixture(data.mixtures[run.phase.mixture], shard_rows, data.shuffle_seed)
    check_epochs(data.sources, run, mixture)
    check_cache(data.cache_limit, sources)
    return RowStream(
        mixture=mixture,
        sources=sources,
        objective=run.objective,
        vocabulary=tokenizer.vocabulary if run.phase.mask_unit == "token" else tokenizer.vocabulary_of_words,
        sequence_length=data.sequence_length,
        seed=run.seed,
    )


def check_epochs(settings: Mapping[str, Source], run: PhaseRun, mixture: Mixture) -> None:
    """Check that no source is repeated more often than its `max_epochs` by the end of a phase.

    Args:
        settings: Settings of each source.
        mixture: Mixture of the phase, over its prepared rows.

    Raises:
        UserError: If one is.
    """
    for name, wanted in mixture.counts(0, run.next_row).items():
        limit, available = settings[name].max_epochs, mixture.rows[name]
        if limit is not None and wanted > limit * available:
            raise UserError(
                f"Source {name} would be repeated {wanted / available:.2f} times by the end of {run.id} "
                f"({human(wanted * run.row_tokens)} tokens wanted of {human(available * run.row_tokens)}), "
                f"but its max_epochs is {limit:g}: lower its share in data.mixtures.{run.phase.mixture}, "
                "shorten the phase, or raise max_epochs."
            )


def check_cache(limit: str, sources: Mapping[str, PackedSource]) -> None:
    """Raise UserError if the remote shards that are in use at one time exceed the limit of the cache."""
    needed = sum(source.bytes_at_a_time for source in sources.values() if source.is_remote)
    if needed > parse_bytes(limit, "data.cache_limit"):
        raise UserError(
            f"data.cache_limit: {limit} is too small, since {needed / 1e9:.3g} GB are in use at one time; "
            "raise it."
        )
