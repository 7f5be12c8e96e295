"""What a folder's content depends on, written beside it when the work starts, so that it is never continued with other settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json, write_json

SHOWN = 5  # changes that a message names


class Change(NamedTuple):
    """A setting that differs: its dotted key, what it was and what it is; None where it is missing."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        was, now = ("not set" if value is None else value for value in (self.was, self.now))
        return f"{self.key} was {was}, is now {now}"


def agree(path: Path, settings: Mapping[str, Any]) -> None:
    """Write `settings` to `path` (settings.json in the folder it describes), or check that what is there is the same.

    Raises:
        UserError: as `check`.
    """
    if path.exists():
        check(path, settings)
    else:
        write_json(path, settings)


def check(path: Path, settings: Mapping[str, Any]) -> None:
    """Check that a folder, if it was started, was started with these settings.

    Raises:
        UserError: it was started with others; the message names what differs.
    """
    if path.exists() and (found := changes(read_json(path), settings)):
        raise started_otherwise(path.parent, [str(change) for change in found], "choose another run_dir")


def started_otherwise(folder: Path, changed: list[str], remedy: str) -> UserError:
    """The error for a folder whose content was made with other settings.

    Args:
        changed: what differs, in words.
    """
    rest = len(changed) - SHOWN
    named = "; ".join(changed[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
    return UserError(
        f"{folder} was started with other settings ({named}); {remedy}, or delete that folder to make it anew."
    )


def changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[Change]:
    """The settings that differ, those of `here` first; a path is the same however it is written."""
    old, new = dict(flatten(there)), dict(flatten(here))
    keys = dict.fromkeys([*new, *old])
    found = (Change(key, old.get(key), new.get(key)) for key in keys)
    return [change for change in found if settled(change.was) != settled(change.now)]


def settled(value: Any) -> str:
    """A value for comparison; a path, with ~ or relative to the working folder, as an absolute one."""
    return os.path.abspath(os.path.expanduser(value)) if isinstance(value, str) else str(value)


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dicts -> dotted keys."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from flatten(child, f"{key}.{name}" if key else str(name))
    else:
        yield key, list(value) if isinstance(value, tuple) else value
