"""One source from documents to packed rows, done once and skipped from then on.

    <folder>/train/, <folder>/held_out/    shards and rows of the two splits
    <folder>/report.json                   what came out, and what was left out and why

A document goes to the split that a hash of its text decides, so copies of a text are never in both. What
the shards were made from (files with size and time of change, tokenizer, settings) is kept in their index:
while it is the same, they are reused, and only a new row length or seed packs them again. The same inputs
give the same bytes.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clm_detour.config.schema import Source
from clm_detour.data.packing import PackedSource, write_packing
from clm_detour.data.shards import SHARD_TOKENS, ShardWriter, TokenShards
from clm_detour.data.sources import OnError, chosen_settings, read_documents, source_stamps
from clm_detour.data.sources.read import as_source
from clm_detour.data.tokenize import tokenize
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.errors import UserError
from clm_detour.files import write_json
from clm_detour.progress import human, progress

SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Args:
        fullness: tokens over places for tokens in the rows.
        cut: documents cut though no longer than a row, to fill the gaps.
    """

    documents: int
    tokens: int
    rows: int
    fullness: float
    cut: int


@dataclass(frozen=True)
class SourceReport:
    """What came of a source.

    Args:
        splits: of train and held_out.
        dropped: how many records were left out, by reason.
        skipped: everything had been done before.
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
) -> SourceReport:
    """Tokenise and pack the source at `path` into `folder`, which belongs to this source alone.

    Args:
        path: as for `read_documents`: a bare path, or a source with all its settings.
        seed: of the packing; the split into train and held-out documents does not depend on it.
        held_out: fraction of the documents kept out of training, in [0, 1).

    Raises:
        UserError: as `read_documents`; or `folder` cannot be written; or no document is left for training.
    """
    if not 0 <= held_out < 1:
        raise UserError(f"held_out is a fraction of the documents, at least 0 and below 1, not {held_out}.")
    began = time.monotonic()
    source = as_source(path, text_field)
    made_from = {
        "files": source_stamps(source),
        "tokenizer": tokenizer.fingerprint,
        "text_field": source.text,
        "held_out": held_out,
        "on_error": on_error,
        **chosen_settings(source),
    }
    worked = not _is_tokenized(folder, made_from)
    if worked:
        _tokenize_source(name, source, folder, tokenizer, made_from)
    for split in SPLITS:
        worked |= write_packing(folder / split, row_length, seed)
    packed = {split: PackedSource.open(folder / split, row_length, tokenizer.fingerprint) for split in SPLITS}
    report = SourceReport(
        name=name,
        splits={split: _split_report(rows) for split, rows in packed.items()},
        dropped=packed["train"].shards.index["dropped"],
        seconds=round(time.monotonic() - began, 3),
        skipped=not worked,
    )
    if worked or not (folder / "report.json").is_file():
        write_json(folder / "report.json", asdict(report))
    return report


def is_held_out(text: str, held_out: float) -> bool:
    """Whether a document belongs to the held-out split: a matter of its text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < held_out * 2**64


def _is_tokenized(folder: Path, made_from: dict[str, Any]) -> bool:
    # Shards made without skipping anything are right for "skip" as well.
    right = (made_from, {**made_from, "on_error": "stop"})
    try:
        return all(TokenShards.open(folder / split).index["made_from"] in right for split in SPLITS)
    except UserError:
        return False


def _tokenize_source(
    name: str, source: Source, folder: Path, tokenizer: Tokenizer, made_from: dict[str, Any]
) -> None:
    writers = {
        split: ShardWriter(folder / split, tokenizer.fingerprint, tokenizer.vocab_size, SHARD_TOKENS)
        for split in SPLITS
    }
    dropped: Counter[str] = Counter()
    size = sum(file.get("size", 0) for file in made_from["files"])
    last_held_out = None
    documents = tokens = 0
    began = time.monotonic()
    with progress(f"Tokenising {name}", size or None, "B") as advance:

        def show(read: int) -> None:
            rate = tokens / max(time.monotonic() - began, 1e-9)
            advance(
                read, note=f"{human(documents)} documents, {human(tokens)} tokens, {human(rate)} tokens/s"
            )

        texts = read_documents(source, on_error=made_from["on_error"], counts=dropped, on_bytes=show)
        for text, ids in tokenize(texts, tokenizer):
            split = "held_out" if is_held_out(text, made_from["held_out"]) else "train"
            if split == "held_out":
                if source.repeat and text is last_held_out:  # copies are for training
                    continue
                last_held_out = text
            writers[split].add(ids)
            documents += 1
            tokens += len(ids)
        show(0)
        if not writers["train"].documents:
            raise UserError(
                f"All {documents} documents of {source.path} fell into the held-out part: lower held_out."
            )
    for writer in writers.values():
        writer.finish(made_from, dropped)


def _split_report(source: PackedSource) -> SplitReport:
    return SplitReport(
        source.documents, source.num_tokens, len(source), round(source.fullness, 6), source.cut
    )
