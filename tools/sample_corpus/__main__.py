"""Write the sample corpus and the sample tasks into the package.

    PYTHONPATH=tools python -m sample_corpus               # the files that are committed, in some minutes
    PYTHONPATH=tools python -m sample_corpus --seed 18 --documents 100000 --into /tmp/sample

The same arguments give the same text. `tests/tools` compares the committed files with it.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from clm_detour.data.sample import DOCUMENTS, SEED, counts_of
from sample_corpus.documents import generate
from sample_corpus.tasks import TASKS

PACKAGE = Path(__file__).parents[2] / "src" / "clm_detour"


def write_corpus(folder: Path, documents: int, seed: int) -> None:
    """Write `<source>.jsonl.zst` of every source: one object a line, as `generate` gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    codec = pa.Codec("zstd", compression_level=19)
    for source, count in counts_of(documents).items():
        content = as_lines(generate(source, count, seed))
        (folder / f"{source}.jsonl.zst").write_bytes(codec.compress(content, asbytes=True))


def write_tasks(folder: Path) -> None:
    """Write `<task>.jsonl.gz` of every task."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in TASKS.items():
        content = as_lines(documents())
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(content, 9, mtime=0))


def as_lines(records: Iterable[dict[str, Any]]) -> bytes:
    """Return records as JSON lines in UTF-8."""
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the sample corpus and the sample tasks.")
    parser.add_argument("--into", type=Path, help="Folder for another corpus, instead of the package.")
    parser.add_argument(
        "--documents", type=int, default=DOCUMENTS, help="Number of documents of all sources."
    )
    parser.add_argument("--seed", type=int, default=SEED, help="Seed of the corpus.")
    arguments = parser.parse_args()
    write_corpus(arguments.into or PACKAGE / "data" / "sample", arguments.documents, arguments.seed)
    if arguments.into is None:
        write_tasks(PACKAGE / "evaluate" / "sample")
