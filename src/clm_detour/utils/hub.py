"""Names on the Hugging Face hub, and its errors in words."""

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
    """Return whether a name is opened from the hub. A path that exists on this machine is not."""
    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return not Path(path).exists()


REASONS: tuple[tuple[type[Exception], str], ...] = (  # GatedRepoError is a RepositoryNotFoundError
    (GatedRepoError, "its terms must be accepted on its page first"),
    (RepositoryNotFoundError, "it does not exist, or it is private"),
    (RevisionNotFoundError, "it has no such revision"),
    (LocalEntryNotFoundError, "it is not in the cache, and the hub cannot be reached"),
)


def hub_reason(error: Exception) -> str:
    """Return why the hub refused a request, without addresses; for an unknown error its message."""
    return next((reason for kind, reason in REASONS if isinstance(error, kind)), on_one_line(error))
