"""What a folder's content depends on, written beside it when the work starts, so that it is never continued with other settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clm_detour.errors import UserError
from clm_detour.files import read_json, write_json


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
        UserError: it was started with others; names the first that differs.
    """
    if not path.exists():
        return
    there, here = dict(flatten(read_json(path))), dict(flatten(settings))
    for key in [*here, *there]:
        if str(there.get(key)) != str(here.get(key)):
            raise UserError(
                f"{path.parent} was started with other settings ({key} was {there.get(key)}, is now {here.get(key)}); "
                "choose another run_dir, or delete that folder to make it anew."
            )


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dicts -> dotted keys."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from flatten(child, f"{key}.{name}" if key else str(name))
    else:
        yield key, list(value) if isinstance(value, tuple) else value
