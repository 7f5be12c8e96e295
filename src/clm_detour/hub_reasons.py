"""Why the Hugging Face hub refuses something, in a few words."""

from __future__ import annotations

from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clm_detour.errors import on_one_line

REASONS: tuple[tuple[type[Exception], str], ...] = (  # a gated repository is also one that is not found
    (GatedRepoError, "its terms must be accepted on its page first"),
    (RepositoryNotFoundError, "there is none of this name, or it is private"),
    (RevisionNotFoundError, "it has no such revision"),
    (LocalEntryNotFoundError, "it is not in the cache, and the hub cannot be reached"),
)


def hub_reason(error: Exception) -> str:
    """Return the reason without its address and request number; an unknown error's own message otherwise."""
    return next((reason for kind, reason in REASONS if isinstance(error, kind)), on_one_line(error))
