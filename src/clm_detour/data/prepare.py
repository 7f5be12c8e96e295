"""Preparing one source, from documents to packed rows. It is done once, and skipped from then on.

    <folder>/train/, <folder>/held_out/   shards and rows of the two splits
    <folder>/parts/                       records of the groups of files that were tokenized separately
    <folder>/card.json, card.svg          the data card: what came out, what was left out and why, its origin

Groups (`groups.py`) are tokenized by as many processes as there are cores (`tokenization.py`), then joined
into shards in the source's order (`join_shards.py`), which are packed one by one. Each step records what is
done: a process that is killed loses at most one shard, and the final bytes are the same for any number of
processes and interruptions. The index records what the shards were made from (files with size and
modification time, tokenizer, settings). While that is unchanged they are reused; a changed or added file
costs its own group, and a new row length or seed costs only the packing.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_detour.config.schema import Canaries, Source
from clm_detour.data.canaries import UNIT
from clm_detour.data.card import is_card_of, write_card
from clm_detour.data.copies import COPIES, Searched, search_copies, without_copies
from clm_detour.data.groups import Group, largest_first, make_groups
from clm_detour.data.join_shards import finished_record, join_groups, joined_parts
from clm_detour.data.origin import Origin, origin
from clm_detour.data.packing import PackedSource, is_packed_with, write_packing
from clm_detour.data.shards import REMEDY, SHARD_TOKENS, SPLITS, TokenShards, token_dtype, write_index
from clm_detour.data.sources import OnError, units
from clm_detour.data.sources.read import as_source
from clm_detour.data.tokenization import PART_TOKENS, Settings, write_tokens
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import remove_half_written, writable
from clm_detour.utils.locks import exclusive
from clm_detour.utils.parallel import all_cores, parallel_map
from clm_detour.utils.progress import Advance, human, progress

SMALL_BYTES = 2**24  # a smaller source is done before another process would have started
SHOWN_TOKENS = 2**28
OTHER_RUN = "Another run prepares a source"


@dataclass(frozen=True)
class SplitReport:
    """The numbers of one split.

    Args:
        fullness: Number of tokens divided by the number of places in the rows.
        cut: Number of documents that were cut to fill gaps although they are no longer than a row.
    """

    documents: int
    tokens: int
    rows: int
    fullness: float
    cut: int


@dataclass(frozen=True)
class SourceReport:
    """The outcome for a source.

    Args:
        splits: Reports of `train` and `held_out`.
        dropped: Number of records that were left out, by reason.
        skipped: Whether everything had been done before.
    """

    name: str
    splits: dict[str, SplitReport]
    dropped: dict[str, int]
    seconds: float
    skipped: bool


def prepare_source(
    name: str,
    path: str | Source,
    folder: Path,
    tokenizer: Tokenizer,
    row_length: int,
    seed: int,
    held_out: float,
    text_field: str = "text",
    on_error: OnError = "stop",
    processes: int | None = None,
    longest: int | None = None,
    across: Mapping[str, Any] | None = None,
    canaries: Canaries | None = None,
) -> SourceReport:
    """Tokenize and pack the source at `path` into `folder`, which belongs to this source alone.

    Args:
        path: As for `read_documents`: a plain path, or a source with all its settings.
        seed: Seed of the packing; the split into train and held-out documents does not depend on it.
        held_out: Fraction of the documents kept out of training, in [0, 1).
        processes: Largest number of processes; None for as many as there are cores, on a cluster on all
            machines. The result does not depend on it.
        longest: Number of tokens at which documents are cut: the positions of the model, if they are fewer
            than those of a row.
        across: `across` of `origin_in`, if copies were searched for across sources.
        canaries: Sentences that become training documents.

    Raises:
        UserError: As for `read_documents`; or if `folder` cannot be written, or no document is left for
            training.
    """
    if not 0 <= held_out < 1:
        raise UserError(f"held_out is a fraction of the documents, at least 0 and below 1, not {held_out}.")
    began = time.monotonic()
    source = as_source(path, text_field)
    made_from = origin(source, tokenizer, held_out, on_error, canaries)
    made_from |= {"across": across} if across else {}
    settings = Settings(source, tokenizer, held_out, on_error, PART_TOKENS, canaries)
    worked = False
    if not is_done(folder, made_from, row_length, seed, longest):
        count = wanted_processes(source, made_from, processes)
        with exclusive(folder, OTHER_RUN):
            remove_half_written(folder)
            try:
                if not is_tokenized(folder, made_from):
                    tokenize_source(searched_source(name, settings, folder, made_from, count))
                    worked = True
                worked |= pack_source(name, folder, row_length, seed, count, longest)
                remove_half_written(folder)  # of tasks that a cluster has lost and done again
            except (Exception, KeyboardInterrupt, SystemExit):
                remove_half_written(folder)  # of worker processes, which are killed
                raise
            write_card(name, folder, row_length, tokenizer.added)
    packed = {split: PackedSource.open(folder / split, row_length, tokenizer.fingerprint) for split in SPLITS}
    return SourceReport(
        name=name,
        splits={split: split_report(rows) for split, rows in packed.items()},
        dropped=packed["train"].shards.index["dropped"],
        seconds=round(time.monotonic() - began, 3),
        skipped=not worked,
    )


def is_done(folder: Path, made_from: Origin, row_length: int, seed: int, longest: int | None = None) -> bool:
    """Return whether there is nothing left to do."""
    packed = all(is_packed_with(folder / split, row_length, seed, longest) for split in SPLITS)
    return packed and is_tokenized(folder, made_from) and is_card_of(folder, row_length)


def is_tokenized(folder: Path, made_from: Origin) -> bool:
    """Return whether shards made from `made_from` exist."""
    # Shards made without skipping anything are right for "skip" too.
    right = (made_from, {**made_from, "on_error": "stop"})
    try:
        return all(TokenShards.open(folder / split).index["made_from"] in right for split in SPLITS)
    except UserError:
        return False


def wanted_processes(source: Source, made_from: Origin, processes: int | None) -> int:
    """Return the number of processes, which is 1 for a source that is read in a moment."""
    small = source.format != "hub" and sum(file["size"] for file in made_from["files"]) < SMALL_BYTES
    return 1 if small else processes or all_cores()


def searched_source(
    name: str, settings: Settings, folder: Path, made_from: Origin, processes: int
) -> Searched:
    """Return a source in its groups, with all copies."""
    found = [*units(settings.source), *([UNIT] if settings.canaries else [])]
    groups = make_groups(found, made_from, folder / "parts")
    return Searched(name, folder, settings, made_from, groups, processes)


def tokenize_source(source: Searched) -> None:
    """Write the shards of both splits and their index.

    Raises:
        UserError: If the source holds nothing to train on.
    """
    folder, settings, processes = source.folder, source.settings, source.processes
    with writable(folder):
        (folder / "parts").mkdir(parents=True, exist_ok=True)
    groups = chosen_groups(source)
    records = tokenize_groups(source.name, settings, folder, groups, processes)
    dropped: Counter[str] = Counter()
    for record in records.values():
        dropped.update(record["dropped"])
    check_not_empty(settings.source.path, records, dropped)
    tokenizer = settings.tokenizer
    dtype = token_dtype(tokenizer.vocab_size)
    head = {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size}
    tokens = sum(tokens_in(record) for record in records.values())
    with token_progress(f"Joining {source.name}", tokens) as advance:
        for split in SPLITS:
            shards = join_groups(folder, split, dtype.str, records, SHARD_TOKENS, processes, advance)
            write_index(folder / split, shards, head, source.made_from, dropped)
    delete_unused(folder / "parts", groups)


def chosen_groups(source: Searched) -> list[Group]:
    """Return the groups of a source without copies of earlier texts, if these are to be left out.

    Raises:
        UserError: If a source changed after copies were searched for across sources.
    """
    rule, across = source.settings.source.deduplicate, "across" in source.made_from
    if not rule and not across:
        for stale in (source.listing, source.copies):
            stale.unlink(missing_ok=True)
        return source.groups
    groups = without_copies(source)
    if groups is None and across:
        raise UserError(f"{source.name} or a source before it has just changed; run the same command again.")
    if groups is None:
        search_copies([source], rule)
        groups = without_copies(source)
    assert groups is not None
    return groups


def tokenize_groups(
    name: str, settings: Settings, folder: Path, groups: list[Group], processes: int
) -> dict[str, Any]:
    """Return the record of each group, by key, in order. Groups that have been tokenized are skipped."""
    joined = joined_parts(folder)
    records = {group.key: finished_record(group, joined, settings.on_error) for group in groups}
    missing = largest_first([group for group in groups if records[group.key] is None])
    size, left = (sum(group.size for group in some) for some in (groups, missing))
    with progress(f"Tokenizing {name}", size or None, "B") as advance:
        if left < size:
            advance(size - left, earlier=True)
        made = parallel_map(
            write_tokens,
            missing,
            settings,
            processes=processes,
            on_progress=TokenProgress(advance),
            remedy=REMEDY,
        )
    return records | {group.key: record for group, record in zip(missing, made, strict=True)}


class TokenProgress:
    """Totals of what the processes report, for the progress bar."""

    def __init__(self, advance: Advance):
        self.advance = advance
        self.documents = self.tokens = 0
        self.began = time.monotonic()

    def __call__(self, read: int, documents: int, tokens: int) -> None:
        """Add amounts to the totals and show them."""
        self.documents += documents
        self.tokens += tokens
        rate = self.tokens / max(time.monotonic() - self.began, 1e-9)
        self.advance(
            read,
            note=f"{human(self.documents)} documents, {human(self.tokens)} tokens, {human(rate)} tokens/s",
        )


def check_not_empty(path: str, records: dict[str, Any], dropped: Counter[str]) -> None:
    """Check that there is something to train on.

    Raises:
        UserError: If there is no document, or none for training.
    """
    documents = {
        split: sum(shard["documents"] for record in records.values() for shard in record["splits"][split])
        for split in SPLITS
    }
    if not any(documents.values()):
        left_out = ", ".join(f"{count} x {reason}" for reason, count in sorted(dropped.items()))
        raise UserError(f"{path} holds no document ({left_out or 'nothing at all'}).")
    if not documents["train"]:
        raise UserError(
            f"All {documents['held_out']} documents of {path} are in the held-out split: lower held_out."
        )


def delete_unused(parts: Path, groups: list[Group]) -> None:
    """Delete the files of groups that no longer exist, and tokens that have been joined."""
    keys, kept = {group.key for group in groups}, {COPIES, *(group.digests.name for group in groups)}
    with writable(parts):
        for path in parts.iterdir():
            if path.name in keys:
                for split in SPLITS:
                    shutil.rmtree(path / split, ignore_errors=True)
            elif path.is_dir():
                shutil.rmtree(path)
            elif path.name not in kept:
                path.unlink()


def pack_source(
    name: str, folder: Path, row_length: int, seed: int, processes: int, longest: int | None
) -> bool:
    """Pack both splits. Return whether there was anything to do."""
    tokens = sum(TokenShards.open(folder / split).num_tokens for split in SPLITS)
    with token_progress(f"Packing {name}", tokens) as advance:
        packed = [
            write_packing(folder / split, row_length, seed, processes, advance, longest) for split in SPLITS
        ]
    return any(packed)


@contextmanager
def token_progress(description: str, tokens: int) -> Iterator[Advance]:
    """Show a progress bar over tokens, if there are enough of them to see it."""
    if tokens < SHOWN_TOKENS:
        yield lambda *_: None
    else:
        with progress(description, tokens, "tokens") as advance:
            yield lambda tokens, *_: advance(tokens)


def tokens_in(record: dict[str, Any]) -> int:
    """Return the number of tokens of a group in both splits."""
    return sum(shard["tokens"] for shards in record["splits"].values() for shard in shards)


def split_report(source: PackedSource) -> SplitReport:
    """Return the report of a split."""
    return SplitReport(
        source.documents, source.num_tokens, len(source), round(source.fullness, 6), source.cut
    )
