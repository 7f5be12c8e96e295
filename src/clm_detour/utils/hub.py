"""Names of the Hugging Face hub, which a path of two parts may look like."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from clm_detour.utils.errors import on_one_line


def is_hub_id(path: str) -> bool:
    """Return whether a model or data set is opened from the hub: what lies here is not, whatever its name."""
    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return not Path(path).exists()


REASONS: tuple[tuple[type[Exception], str], ...] = (  # a gated repository is also one that is not found
    (GatedRepoError, "its terms must be accepted on its page first"),
    (RepositoryNotFoundError, "there is none of this name, or it is private"),
    (RevisionNotFoundError, "it has no such revision"),
    (LocalEntryNotFoundError, "it is not in the cache, and the hub cannot be reached"),
)


def hub_reason(error: Exception) -> str:
    """Return the reason without its address and request number; an unknown error's own message otherwise."""
    return next((reason for kind, reason in REASONS if isinstance(error, kind)), on_one_line(error))
