"""The sample: a small synthetic corpus of four sources that ships with the package, for offline use.

`general` stands for the text a base model was trained on; `abstracts`, `instructions` and `notes` for the
three kinds of text of a domain. A line of a source is `{"id", "text", "entities": [[start, end, type],
...]}`; `instructions` have "prompt" and "response" too, and `abstracts` a "label". `tools/sample_corpus` has
written it.
"""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path

from clm_detour.data.sources.files import open_raw, unpacked
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write

DOCUMENTS, SEED = 24_000, 7
SHARES = {"general": 0.40, "abstracts": 0.25, "instructions": 0.20, "notes": 0.15}
SOURCES: tuple[str, ...] = tuple(SHARES)


def counts_of(documents: int) -> dict[str, int]:
    """Return the number of documents of each source, at least 1, in a sample of `documents`."""
    return {source: max(1, round(share * documents)) for source, share in SHARES.items()}


def shipped(source: str) -> Path:
    """Return the file of a source in the package."""
    return Path(__file__).parent / f"{source}.jsonl.zst"


def write_sample(folder: str | Path, documents: int = DOCUMENTS, seed: int = SEED) -> dict[str, Path]:
    """Write the first documents of every source to `folder/<source>.jsonl.gz`. Return the paths.

    The same number of documents gives the same bytes.

    Args:
        seed: Seed of the generator; only the text of one seed ships.

    Raises:
        UserError: If the sample has fewer documents or another seed, or the folder cannot be written.
    """
    if documents > DOCUMENTS or seed != SEED:
        raise UserError(
            f"The sample that ships with clm-detour has {DOCUMENTS} documents and the seed {SEED}: set "
            "data.sample.documents to that or less and leave data.sample.seed out, or write other text with "
            "tools/sample_corpus and read it as data.sources."
        )
    paths = {source: Path(folder) / f"{source}.jsonl.gz" for source in SOURCES}
    for source, count in counts_of(documents).items():
        file_name = str(shipped(source))
        with (
            open_raw(file_name) as raw,
            atomic_write(paths[source]) as file,
            gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        ):
            packed.writelines(islice(unpacked(raw, file_name), count))
    return paths
