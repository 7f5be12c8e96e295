"""The origin of the shards of a source, which is compared to tell whether they have to be made again."""

from __future__ import annotations

import dataclasses
import json
from itertools import takewhile
from typing import Any

from clm_detour.config.schema import Canaries, Data, NearDuplicates, Source
from clm_detour.data.shards import checksum
from clm_detour.data.sources import OnError, chosen_settings, source_stamps
from clm_detour.data.tokenizer import Tokenizer

Origin = dict[str, Any]


def origin(
    source: Source,
    tokenizer: Tokenizer,
    held_out: float,
    on_error: OnError,
    canaries: Canaries | None = None,
) -> Origin:
    """Return the present origin of a source's shards; `made_from` in their index is their own.

    Raises:
        UserError: If the source has no file.
    """
    return {
        "files": source_stamps(source),
        "tokenizer": tokenizer.fingerprint,
        "text_field": source.text,
        "held_out": held_out,
        "on_error": on_error,
        **chosen_settings(source),
        **({"canaries": dataclasses.asdict(canaries)} if canaries else {}),
    }


def origin_in(data: Data, name: str, tokenizer: Tokenizer) -> Origin:
    """Return the origin of a source in a recipe.

    With `data.deduplicate` its documents depend on all sources before it, so a hash of theirs is added.

    Raises:
        UserError: If one of these sources has no file.
    """
    own = origin(data.sources[name], tokenizer, data.held_out, data.on_error, canaries_of(data, name))
    if not data.deduplicate:
        return own
    before = takewhile(lambda other: other != name, data.sources)
    earlier = [
        origin(data.sources[other], tokenizer, data.held_out, "stop", canaries_of(data, other))
        for other in before
    ]
    rule = data.deduplicate
    across = {
        "deduplicate": dataclasses.asdict(rule) if isinstance(rule, NearDuplicates) else rule,
        "earlier": checksum(json.dumps(earlier, sort_keys=True).encode()),
    }
    return {**own, "across": across}


def canaries_of(data: Data, name: str) -> Canaries | None:
    """Return the canaries that join a source of a recipe, or None."""
    return data.canaries if data.canaries is not None and data.canaries.source == name else None
