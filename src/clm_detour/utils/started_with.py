"""Keep the settings that a folder's content depends on, so that it is never continued with other settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json, write_json

SHOWN = 5  # number of changes in a message


class Change(NamedTuple):
    """A setting that differs: its dotted key, its old and its new value; None if it is not set."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        was, now = ("not set" if value is None else value for value in (self.was, self.now))
        return f"{self.key} was {was}, is now {now}"


def check_or_write(path: Path, settings: Mapping[str, Any]) -> None:
    """Write settings to `path`, which is in the folder that they describe, or check them if it is there.

    Raises:
        UserError: As for `check`.
    """
    if path.exists():
        check(path, settings)
    else:
        write_json(path, settings)


def check(path: Path, settings: Mapping[str, Any]) -> None:
    """Check that a folder was started with these settings, or was not started.

    Raises:
        UserError: If it was started with others; the message names the changes.
    """
    if path.exists() and (found := changes(read_json(path), settings)):
        raise other_settings_error(path.parent, [str(change) for change in found], "choose another run_dir")


def other_settings_error(folder: Path, changed: list[str], remedy: str) -> UserError:
    """Return the error for a folder whose content was made with other settings.

    Args:
        folder: The folder.
        changed: The changes, in words.
        remedy: What the user should do.
    """
    rest = len(changed) - SHOWN
    named = "; ".join(changed[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
    return UserError(
        f"{folder} was started with other settings ({named}); {remedy}, or delete that folder to start again."
    )


def changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[Change]:
    """Return the settings that differ, in the order of `here`; paths are compared as absolute ones."""
    old, new = dict(flatten(there)), dict(flatten(here))
    keys = dict.fromkeys([*new, *old])
    found = (Change(key, old.get(key), new.get(key)) for key in keys)
    return [change for change in found if normalized(change.was) != normalized(change.now)]


def normalized(value: Any) -> str:
    """Return a value as text for comparison; a path becomes absolute."""
    return os.path.abspath(os.path.expanduser(value)) if isinstance(value, str) else str(value)


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dictionaries with their dotted keys."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from flatten(child, f"{key}.{name}" if key else str(name))
    else:
        yield key, list(value) if isinstance(value, tuple) else value
