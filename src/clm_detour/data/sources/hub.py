"""Datasets of the Hugging Face hub, and local copies of their repositories, through `datasets`.

With `streaming`, nothing is stored and a unit is one of the dataset's files. Without it, the dataset is first
downloaded into the cache of `datasets`, and a unit is a range of rows.
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
NEVER_QUOTING = (OSError, ImportError, RuntimeError)  # raised about files, splits and packages


def units(file: str, format: str, source: Source) -> list[Unit]:
    """Return the dataset's files, or ranges of its rows."""
    dataset = load(file, source)
    if source.streaming:
        return [Unit(file, format, 0, shard, shard + 1) for shard in range(dataset.num_shards)]
    starts = range(0, len(dataset), ROWS_PER_UNIT)
    return [Unit(file, format, 0, start, min(start + ROWS_PER_UNIT, len(dataset)), start) for start in starts]


def records(
    unit: Unit, source: Source, fields: Sequence[Field] | None, on_bytes: OnBytes
) -> Iterator[Record | BadRecord]:
    """Yield a record for each row."""
    dataset = load(unit.file, source)
    end = unit.start if unit.end is None else unit.end
    with readable_errors(unit.file):
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
        with readable_errors(f"{place} after row {number}"):
            row = next(rows, None)
        if row is None:
            return
        number += 1
        yield Record(f"{place} row {number}", row)


def stamp(source: Source) -> list[dict[str, Any]]:
    """Return what shows whether a dataset has changed: its commit, or the files of a local copy.

    Raises:
        UserError: If the hub cannot tell the commit.
    """
    where = {"path": source.path, "subset": source.subset, "split": source.split}
    if Path(source.path).is_dir():
        fs, root = filesystem(source.path)
        return [where, *(file_stamp(name) for name in sorted(fs.find(root)))]
    return [{**where, "revision": commit(source.path, source.revision)}]


@lru_cache
def commit(path: str, revision: str | None) -> str:
    """Return the commit of `revision`, which stays the same while this process lives."""
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
            f"The hub has no dataset {path} that you can access ({hub_reason(error)}); check its name, its "
            "revision, and `hf auth login` if it is gated."
        ) from error
    except Exception as error:  # of the network, by the library that huggingface_hub uses
        raise UserError(
            f"The hub cannot be reached for {path} ({on_one_line(error)}); "
            "without a network, give a full commit as revision."
        ) from error


def load(path: str, source: Source) -> Any:
    """Return the dataset, described but not read."""
    revision = None if Path(path).is_dir() else commit(path, source.revision)
    return load_cached(path, source.subset, source.split or "train", revision, source.streaming)


@lru_cache(maxsize=4)
def load_cached(path: str, subset: str | None, split: str, revision: str | None, streaming: bool) -> Any:
    """Return a dataset, from memory if possible: to describe a large one takes `datasets` seconds."""
    import datasets

    with readable_errors(path):
        return datasets.load_dataset(path, subset, split=split, revision=revision, streaming=streaming)


@contextmanager
def readable_errors(place: str) -> Iterator[None]:
    """Turn an exception of `datasets` into a UserError with its reason."""
    try:
        yield
    except (BadRecord, UserError):
        raise
    except Exception as error:
        raise UserError(f"{place} cannot be read: {reason_and_remedy(error)}") from error


def reason_and_remedy(error: BaseException) -> str:
    """Return why `datasets` failed, and what to do.

    Messages about splits, columns, files and packages are shown. Messages that come from reading a file may
    quote it, so only the type of the error is shown.
    """
    from datasets.exceptions import DatasetGenerationError

    if type(error) is DatasetGenerationError and error.__cause__ is not None:  # it has no message of its own
        return reason_and_remedy(error.__cause__)
    message = on_one_line(error)
    if SCRIPT.search(message):
        return (
            f"{message}. The hub has converted most such datasets: set revision: refs/convert/parquet, or "
            "download its files and read them by their own format."
        )
    if NAMES.match(message):
        return f"{message}."
    reason = message if isinstance(error, NEVER_QUOTING) else type(error).__name__
    return (
        f"{reason}. Try again; if a file of it is damaged, download it and read it by its own format, which "
        "can leave bad records out."
    )
