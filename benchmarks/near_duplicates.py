"""Measure the search for near copies: its time, its recall, and what it finds in corpora.

python benchmarks/near_duplicates.py speed TOKENIZER FILE ...
python benchmarks/near_duplicates.py found TOKENIZER --corpus FOLDER
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from record import ResultName, record, version
from rich.console import Console
from rich.table import Table

from clm_detour.config.schema import NearDuplicates, Source
from clm_detour.data.copies import Searched, search_copies
from clm_detour.data.origin import origin
from clm_detour.data.prepare import chosen_groups, searched_source, tokenize_groups
from clm_detour.data.shingles import BANDS, SLOTS
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenization import PART_TOKENS, Settings
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer

SHARES = (0, 0.05, 0.1, 0.2, 0.4)
PACKAGES = ("rensa", "datasketch", "numpy", "tokenizers")
app = typer.Typer(help=__doc__, add_completion=False)
console = Console(width=120)
TokenizerPath = Annotated[
    str, typer.Argument(metavar="TOKENIZER", help="Folder with tokenizer.json, or hub id.")
]


@app.command()
def speed(
    tokenizer: TokenizerPath,
    files: Annotated[list[str], typer.Argument(help="Files of documents.")],
    rounds: Annotated[int, typer.Option(help="Number of rounds, in which all take turns.")] = 3,
    theirs: Annotated[int, typer.Option(help="Number of documents that datasketch gets.")] = 2000,
    name: ResultName = "near-duplicates",
) -> None:
    """Compare the search for near copies with tokenizing the same file on one core, and with datasketch.

    Both read the file; tokenizing also writes shards. datasketch gets texts in memory, with as many slots and
    bands. Processor seconds are compared, since other programs may use the core as well.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    loaded = load_tokenizer(tokenizer)
    results = {}
    for file in files:
        texts = list(read_documents(file))
        times: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                near, plain = (
                    searched(file, Path(folder) / kind, loaded, rule)
                    for kind, rule in (("near", NearDuplicates(near=0.5)), ("plain", False))
                )
                clocked(times, "near copies", partial(search_copies, [near], NearDuplicates(near=0.5)))
                clocked(times, "tokenizing", partial(tokenized, plain))
        middle = {kind: statistics.median(cpu for _, cpu in each) for kind, each in times.items()}
        words = sum(len(text.split()) for text in texts)
        results[Path(file).name] = {
            "documents": len(texts),
            "words": words,
            "wall_and_processor_seconds": times,
            "near_copies_over_tokenizing": middle["near copies"] / middle["tokenizing"],
            "microseconds_a_word": middle["near copies"] / words * 1e6,
            "datasketch_microseconds_a_word": datasketch_seconds(texts[:theirs]),
            "recall_by_share_of_edited_words": recall(texts, loaded),
        }
    report(results)
    if name:
        console.print(f"Wrote {record(name, results, PACKAGES)}")


def searched(file: str, folder: Path, tokenizer: Tokenizer, rule: bool | NearDuplicates) -> Searched:
    """Return a source of one file, to be prepared in one process."""
    source = Source(path=file, deduplicate=rule)
    settings = Settings(source, tokenizer, 0.01, "stop", PART_TOKENS)
    (folder / "parts").mkdir(parents=True)
    return searched_source("a", settings, folder, origin(source, tokenizer, 0.01, "stop"), processes=1)


def tokenized(source: Searched) -> None:
    """Tokenize a source."""
    tokenize_groups(source.name, source.settings, source.folder, chosen_groups(source), processes=1)


def clocked(times: dict[str, list[tuple[float, float]]], kind: str, work: Callable[[], Any]) -> None:
    """Append the seconds of some work, and the processor seconds that it took."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    times.setdefault(kind, []).append((time.perf_counter() - start, time.process_time() - cpu))


def datasketch_seconds(texts: list[str]) -> float | None:
    """Return the microseconds a word that datasketch takes, or None if it is not installed."""
    if version("datasketch") is None:
        return None
    from datasketch import MinHash, MinHashLSH

    start, words = time.process_time(), 0
    index = MinHashLSH(num_perm=BANDS * SLOTS, params=(BANDS, SLOTS))
    for number, text in enumerate(texts):
        found = re.findall(r"[^\W_]+", text.casefold())
        minhash = MinHash(BANDS * SLOTS)
        minhash.update_batch(
            [" ".join(three).encode() for three in zip(found, found[1:], found[2:], strict=False)]
        )
        index.query(minhash)
        index.insert(number, minhash)
        words += len(text.split())
    return (time.process_time() - start) / words * 1e6


def recall(texts: list[str], tokenizer: Tokenizer, most: int = 500) -> dict[str, float]:
    """Return the share of edited copies that is left out, by the share of words that was replaced.

    The copies are of texts of 50 or more words that are not near to each other.
    """
    rng = random.Random(0)
    some = list(islice((text for text in dict.fromkeys(texts) if len(text.split()) >= 50), most))
    copies = set(left_out(some, tokenizer))
    originals = [text for number, text in enumerate(some, start=1) if number not in copies]
    words = [word for text in originals for word in text.split()]
    rates = {}
    for share in SHARES:
        planted = [edited(rng, text, words, share) for text in originals]
        rates[f"{share:g}"] = len(left_out(originals + planted, tokenizer)) / len(planted)
    return rates


def left_out(texts: list[str], tokenizer: Tokenizer) -> list[int]:
    """Return the numbers, from 1, of texts that are near copies of earlier ones."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        source = searched(str(file), Path(folder) / "a", tokenizer, True)
        search_copies([source], NearDuplicates(near=0.5))
        return [json.loads(line)["document"] for line in source.listing.read_text("utf-8").splitlines()]


def edited(rng: random.Random, text: str, words: list[str], share: float) -> str:
    """Return a text with a share of its words replaced, and all in upper case so that no copy is equal."""
    found = text.split()
    for place in rng.sample(range(len(found)), round(share * len(found))):
        found[place] = rng.choice(words)
    return " ".join(found).upper()


def report(results: dict[str, Any]) -> None:
    """Print what was measured."""
    table = Table(
        "file", "documents", "µs a word", "datasketch", "of tokenizing", *map(str, SHARES), box=None
    )
    for name, one in results.items():
        theirs = one["datasketch_microseconds_a_word"]
        table.add_row(
            name,
            f"{one['documents']:,}",
            f"{one['microseconds_a_word']:.2f}",
            "not installed" if theirs is None else f"{theirs:.1f}",
            f"{one['near_copies_over_tokenizing']:.2f}",
            *(f"{share:.3f}" for share in one["recall_by_share_of_edited_words"].values()),
        )
    console.print(table)
    console.print("The last columns are the recall by the share of edited words.")


@app.command()
def found(
    tokenizer: TokenizerPath,
    corpus: Annotated[Path, typer.Option(help="Folder of corpora, one file each.")],
    near: Annotated[float, typer.Option(help="Smallest Jaccard index of near copies.")] = 0.5,
) -> None:
    """Count the near copies in corpora, by document and by paragraph."""
    loaded = load_tokenizer(tokenizer)
    table = Table("corpus", "documents", "equal", "near copies", "paragraphs that are near copies", box=None)
    for file in sorted(corpus.iterdir()):
        counts = []
        for by in ("document", "paragraph"):
            with tempfile.TemporaryDirectory() as folder:
                source = searched(str(file), Path(folder) / "a", loaded, NearDuplicates(near=near, by=by))
                groups = chosen_groups(source)
                counts.append(len(source.listing.read_text().splitlines()))
                documents = sum(group.digests.stat().st_size for group in groups) // 16
                equal = sum(byte.bit_count() for group in groups for byte in group.repeated)
        table.add_row(file.name, f"{documents:,}", f"{equal:,}", *(f"{count:,}" for count in counts))
    console.print(table)


if __name__ == "__main__":
    app()
