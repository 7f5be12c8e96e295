"""The search for copies across all sources of a recipe, before these are prepared one by one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from clm_detour.config.schema import Data
from clm_detour.data.copies import Searched, search_copies, without_copies
from clm_detour.data.origin import canaries_of, origin_in
from clm_detour.data.prepare import OTHER_RUN, is_tokenized, searched_source, wanted_processes
from clm_detour.data.tokenization import PART_TOKENS, Settings
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.utils.files import remove_half_written
from clm_detour.utils.locks import exclusive


def search_across(data: Data, tokenizer: Tokenizer) -> bool:
    """Decide for each source of a recipe which texts are left out, as they occurred earlier in any source.

    Returns:
        Whether there was anything to do.
    """
    sources = [searched_in(data, name, tokenizer) for name in data.sources]
    if all(is_tokenized(source.folder, source.made_from) or without_copies(source) for source in sources):
        return False
    with ExitStack() as locks:
        for source in sources:
            locks.enter_context(exclusive(source.folder, OTHER_RUN))
            remove_half_written(source.folder)
        try:
            search_copies(sources, data.deduplicate)
        except (Exception, KeyboardInterrupt, SystemExit):
            for source in sources:
                remove_half_written(source.folder)  # of worker processes, which are killed
            raise
    return True


def searched_in(data: Data, name: str, tokenizer: Tokenizer) -> Searched:
    """Return a source of a recipe as the search needs it."""
    source, made_from = data.sources[name], origin_in(data, name, tokenizer)
    canaries = canaries_of(data, name)
    settings = Settings(source, tokenizer, data.held_out, data.on_error, PART_TOKENS, canaries)
    processes = wanted_processes(source, made_from, data.processes)
    return searched_source(name, settings, Path(data.dir) / name, made_from, processes)
