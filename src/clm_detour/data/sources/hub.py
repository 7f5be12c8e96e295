"""Datasets of the Hugging Face hub, and local copies of their repositories, through `datasets`.

With `streaming` nothing is stored and a unit is one of the set's files; without it the set is downloaded into the
cache of `datasets` first and a unit is a stretch of rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from clm_detour.config.expressions.fields import Field
from clm_detour.config.schema import Source
from clm_detour.data.sources.columns import needed_columns
from clm_detour.data.sources.files import file_stamp, filesystem
from clm_detour.data.sources.records import BadRecord, OnBytes, Record, Unit
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.hub import hub_reason

ROWS_PER_UNIT = 2**17
COMMIT = re.compile(r"[0-9a-f]{40}")
NAMES = re.compile(r"Bad split|BuilderConfig|Unknown split|Config name is missing")
SCRIPT = re.compile(r"dataset scripts?\b|custom code|trust_remote_code", re.IGNORECASE)
NEVER_QUOTING = (OSError, ImportError, RuntimeError)  # what datasets raises about files, splits and packages


def units(file: str, format: str, source: Source) -> list[Unit]:
    """Files of the set, or stretches of its rows."""
    dataset = load(file, source)
    if source.streaming:
        return [Unit(file, format, 0, shard, shard + 1) for shard in range(dataset.num_shards)]
    starts = range(0, len(dataset), ROWS_PER_UNIT)
    return [Unit(file, format, 0, start, min(start + ROWS_PER_UNIT, len(dataset)), start) for start in starts]


def records(
    unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
) -> Iterator[Record | BadRecord]:
    """A record for each row."""
    dataset = load(unit.file, source)
    end = unit.start if unit.end is None else unit.end
    with understood(unit.file):
        if source.streaming:
            part, place = dataset.shard(dataset.num_shards, unit.start), f"{unit.file} shard {unit.start + 1}"
        else:
            part, place = dataset.select(range(unit.start, end)), unit.file
        names = dataset.column_names
        if names is not None:
            part = part.select_columns(needed_columns(unit.file, names, fields))
        rows = iter(part)
    number = unit.before
    while True:
        with understood(f"{place} after row {number}"):
            row = next(rows, None)
        if row is None:
            return
        number += 1
        yield Record(f"{place} row {number}", row)


def stamp(source: Source) -> list[dict[str, Any]]:
    """What tells whether a dataset has changed: the commit, or the files of a local copy.

    Raises:
        UserError: the hub cannot say what the commit is.
    """
    where = {"path": source.path, "subset": source.subset, "split": source.split}
    if Path(source.path).is_dir():
        fs, root = filesystem(source.path)
        return [where, *(file_stamp(name) for name in sorted(fs.find(root)))]
    return [{**where, "revision": commit(source.path, source.revision)}]


@lru_cache
def commit(path: str, revision: str | None) -> str:
    """The commit that `revision` means now, and for as long as this process lives."""
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return str(HfApi().dataset_info(path, revision=revision).sha)
    except HFValidationError:
        raise UserError(f"{path} is neither a folder nor the id of a dataset, like user/name.") from None
    except HfHubHTTPError as error:
        raise UserError(
            f"The hub has no dataset {path} for you ({hub_reason(error)}); check its name, its "
            "revision, and `hf auth login` if it is gated."
        ) from error
    except Exception as error:  # the network, in the words of whichever library huggingface_hub uses for it
        raise UserError(
            f"The hub cannot be asked for {path} ({on_one_line(error)}); "
            "where there is no network, give a whole commit as revision."
        ) from error


def load(path: str, source: Source) -> Any:
    """The dataset, described but not read."""
    revision = None if Path(path).is_dir() else commit(path, source.revision)
    return load_cached(path, source.subset, source.split or "train", revision, source.streaming)


@lru_cache(maxsize=4)
def load_cached(path: str, subset: str | None, split: str, revision: str | None, streaming: bool) -> Any:
    """`datasets` takes seconds to describe a large set, and every unit needs it."""
    import datasets

    with understood(path):
        return datasets.load_dataset(path, subset, split=split, revision=revision, streaming=streaming)


@contextmanager
def understood(place: str) -> Iterator[None]:
    """Turn what `datasets` raises into one sentence with its reason."""
    try:
        yield
    except (BadRecord, UserError):
        raise
    except Exception as error:
        raise UserError(f"{place} cannot be read: {reason_and_remedy(error)}") from error


def reason_and_remedy(error: BaseException) -> str:
    """Return why `datasets` failed, and what to do.

    Messages about splits, columns, files and packages are shown. Those that stem from reading a file may quote it, so of them only
    the kind is.
    """
    from datasets.exceptions import DatasetGenerationError

    if (
        type(error) is DatasetGenerationError and error.__cause__ is not None
    ):  # which says only that there is a cause
        return reason_and_remedy(error.__cause__)
    said = on_one_line(error)
    if SCRIPT.search(said):
        return (
            f"{said}. The hub has converted most such datasets: set revision: refs/convert/parquet, or download its files and "
            "read them by their own format."
        )
    if NAMES.match(said):
        return f"{said}."
    reason = said if isinstance(error, NEVER_QUOTING) else type(error).__name__
    return f"{reason}. Try again; if a file of it is damaged, download it and read it by its own format, which can leave bad records out."
