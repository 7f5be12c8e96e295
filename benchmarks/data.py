"""Measure the data pipeline: the order of a large stream, the loader, packing, tokenizing, and other loaders.

python benchmarks/data.py plan
python benchmarks/data.py loader CONFIG [key=value ...]
python benchmarks/data.py packing CONFIG [key=value ...] --papers PAPERS.jsonl.gz
python benchmarks/data.py tokenise TOKENIZER FILE ...
python benchmarks/data.py others CONFIG [key=value ...] --streaming-python PATH

The data of CONFIG must be prepared. Processes that prepare data import this file again, so modules that are
slow to import, such as torch, are imported in the functions that use them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from packings import PACKINGS
from record import record
from rich.console import Console
from rich.table import Table

from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.data.mixture import Mixture
from clm_detour.data.packing import PackedSource, write_packing
from clm_detour.data.prepare import prepare_source
from clm_detour.data.shards import SHARD_TOKENS
from clm_detour.data.sources import read_documents
from clm_detour.data.tokenization import MOST_CHARACTERS
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.recipe.recipe import Recipe
from clm_detour.utils.allocator import keep_freed_memory
from clm_detour.utils.environment import usable_cores
from clm_detour.utils.progress import human

if TYPE_CHECKING:
    from clm_detour.recipe.phases import PhaseRun

BATCH_ROWS = 16
BARE = "tokenizers, encode_batch_fast"
SHARES = {"papers": 0.5, "abstracts": 0.2, "notes": 0.1, "guidelines": 0.1, "general": 0.1}
app = typer.Typer(help=__doc__, add_completion=False)
console = Console(width=120)

ConfigPath = Annotated[str, typer.Argument(metavar="CONFIG", help="A recipe whose data is prepared.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe.")
]
Seconds = Annotated[float, typer.Option(help="Seconds for which each loader runs.")]


@app.command()
def plan(
    tokens: Annotated[float, typer.Option(help="Tokens of the corpus, and of the run.")] = 50e9,
    row_length: Annotated[int, typer.Option(help="Tokens in a row.")] = 8192,
) -> None:
    """Measure how fast the order of a large corpus is computed, and its memory. No data is read."""
    rows = {name: int(share * tokens) // row_length for name, share in SHARES.items()}
    each = SHARD_TOKENS // row_length
    shard_rows = {name: [each] * (count // each) + [count % each] for name, count in rows.items()}
    total = sum(rows.values())
    rng = random.Random(0)
    starts = []
    for _ in range(20):
        position = rng.randrange(total)
        start = time.perf_counter()
        Mixture(SHARES, shard_rows, 42).locate(position)
        starts.append(time.perf_counter() - start)
    tracemalloc.start()
    mixture = Mixture(SHARES, shard_rows, 42)
    for position in range(total // 2, total // 2 + 100):
        mixture.locate(position)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    random_places = [rng.randrange(total) for _ in range(20_000)]
    next_places = range(total // 2, total // 2 + 20_000)
    measured = {
        "tokens": tokens,
        "rows": total,
        "shards": sum(map(len, shard_rows.values())),
        "seconds to start anywhere, mean": np.mean(starts),
        "seconds to start anywhere, most": max(starts),
        "bytes of memory": memory,
        "seconds a look-up, at random": look_up(mixture, random_places),
        "seconds a look-up, one after another": look_up(mixture, next_places),
    }
    report("data-plan", "quantity", {name: {"value": value} for name, value in measured.items()})


def look_up(mixture: Mixture, positions: Any) -> float:
    """Return the mean seconds that it takes to find a row."""
    start = time.perf_counter()
    for position in positions:
        mixture.locate(position)
    return (time.perf_counter() - start) / len(positions)


@app.command()
def loader(config: ConfigPath, overrides: Overrides = None, seconds: Seconds = 2.0) -> None:
    """Measure the tokens per second of our loader, and the time to a first batch anywhere in the stream.

    The last case runs one loader in each of as many processes as there are cores, and adds up their speeds.
    """
    loaded = load_config(config, overrides or ())
    results = {}
    cores = usable_cores()
    for kind in one_phase_each(loaded):
        for workers in (0, 1, 2):
            for first_row in (0, 1_000_000):
                key = f"{kind}, {workers} workers, from row {first_row:,}"
                results[key] = measure(loaded, kind, workers, first_row, seconds)
        with multiprocessing.get_context("spawn").Pool(cores) as pool:
            calls = [(loaded, kind, 0, 1_000_000 * core, seconds) for core in range(cores)]
            together = pool.starmap(measure, calls, chunksize=1)
        results[f"{kind}, {cores} processes"] = {
            "tokens_per_second": sum(one["tokens_per_second"] for one in together),
            "first_batch_seconds": max(one["first_batch_seconds"] for one in together),
        }
    report("data-loader", "loader", results, settings_of(loaded))


def one_phase_each(config: Config) -> dict[str, PhaseRun]:
    """Return the last phase of each objective."""
    return {run.phase.objective: run for run in Recipe(config).phases.values()}


def measure(config: Config, kind: str, workers: int, first_row: int, seconds: float) -> dict[str, float]:
    """Return the speed of the stream of an objective, and the seconds until its first batch."""
    from clm_detour.data.batch_size import StepRows
    from clm_detour.data.loader import StepBatches, make_loader

    keep_freed_memory()
    recipe, run = Recipe(config), one_phase_each(config)[kind]
    assert recipe.tokenizer  # loaded before the clock starts
    start = time.perf_counter()
    stream = recipe.stream(run)
    batches = iter(make_loader(StepBatches(stream, first_row, StepRows.constant(BATCH_ROWS)), workers))
    next(batches)
    first = time.perf_counter()
    tokens = 0
    while time.perf_counter() - first < seconds:
        tokens += next(batches)["input_ids"].numel()
    rate = tokens / (time.perf_counter() - first)
    return {"tokens_per_second": rate, "first_batch_seconds": first - start}


@app.command()
def packing(
    config: ConfigPath,
    overrides: Overrides = None,
    papers: Annotated[
        Path | None, typer.Option(help="Papers whose titles and abstracts are packed too.")
    ] = None,
    documents: Annotated[int, typer.Option(help="Number of documents packed from each source.")] = 40_000,
) -> None:
    """Compare our packing with the usual ones: full rows, documents cut without need, and speed.

    Lengths are sampled from those of each source with replacement, so many that the last row, which is never
    full, does not count. In the last case each source is packed as `prepare` packs it: shards are read and
    verified, and rows are checked and written.
    """
    recipe = Recipe(load_config(config, overrides or ()))
    row_length, results = recipe.config.data.sequence_length, {}
    folders = {name: Path(recipe.prepared.folder(name), "train") for name in recipe.config.data.sources}
    lengths = {
        name: PackedSource.open(folder, row_length).shards.lengths(0) for name, folder in folders.items()
    }
    if papers is not None:
        lengths["abstracts"] = lengths_of_abstracts(papers, recipe.tokenizer)
    for name, found in lengths.items():
        sample = np.random.default_rng(0).choice(found.astype(np.int64), documents)
        for method, packed in PACKINGS.items():
            start = time.perf_counter()
            rows, cut = packed(sample, row_length)
            results[f"{name}: {method}"] = {
                "fullness": sample.sum() / (rows * row_length),
                "cut_needlessly": cut / documents,
                "tokens_per_second": sample.sum() / (time.perf_counter() - start),
            }
    for name, folder in folders.items():
        with tempfile.TemporaryDirectory() as copied:
            shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("rows-*"), dirs_exist_ok=True)
            start = time.perf_counter()
            write_packing(Path(copied), row_length, seed=42)
            seconds = time.perf_counter() - start
            source = PackedSource.open(Path(copied), row_length)
        results[f"{name}: all of it, to disk"] = {
            "fullness": source.fullness,
            "cut_needlessly": source.cut / source.documents,
            "tokens_per_second": source.num_tokens / seconds,
        }
    report("data-packing", "packing", results, {**settings_of(recipe.config), "documents": documents})


def lengths_of_abstracts(papers: Path, tokenizer: Tokenizer) -> np.ndarray:
    """Return the number of tokens in the title and abstract of each paper."""
    texts = [text.split("BODY.")[0] for text in read_documents(str(papers))]
    return np.array([len(ids) for ids in tokenizer.encode_batch(texts)])


@app.command()
def tokenise(
    tokenizer: Annotated[str, typer.Argument(help="Folder with tokenizer.json, or hub id.")],
    files: Annotated[list[str], typer.Argument(help="Files of documents, all of the same format.")],
    documents: Annotated[int, typer.Option(help="Largest number of documents from each file.")] = 1500,
    rounds: Annotated[int, typer.Option(help="Number of rounds, in which both take turns.")] = 3,
) -> None:
    """Compare `prepare`, from files to packed rows, with the tokenizers library alone on texts in memory.

    Ours also starts processes, reads, checks, packs and writes. The texts are in one file, and then in one
    file per core. The library gets batches as large as ours: with all texts at once it is slower, since it
    cannot use freed memory again.
    """
    loaded = load_tokenizer(tokenizer)
    texts = [text for file in files for text in islice(read_documents(file), documents)]
    cores, found = usable_cores(), defaultdict(list)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for core in range(cores):
                write_texts(Path(folder) / f"{core}.jsonl", texts[core::cores])
            write_texts(Path(folder) / "one.jsonl", texts)
            cases = {"a file a core": f"{folder}/[0-9]*.jsonl", "one file": f"{folder}/one.jsonl"}
            for case, path in cases.items():
                with timed(found[f"prepare, {case}"]):
                    done = prepare_source("all", path, Path(folder) / case, loaded, 8192, 42, 0.01)
        for name in ("encode_batch", "encode_batch_fast"):
            encode = getattr(loaded.tokenizer, name)
            with timed(found[f"tokenizers, {name}"]):
                for batch in batches(texts):
                    encode(batch)
    tokens = sum(split.tokens for split in done.splits.values())
    rates = {}
    for name, measured in found.items():
        seconds, cpu = zip(*measured, strict=True)
        beside = [one / other for (one, _), (other, _) in zip(found[BARE], measured, strict=True)]
        rates[name] = {
            "tokens_per_second": tokens / np.median(seconds),
            "least": tokens / max(seconds),
            "most": tokens / min(seconds),
            "of_the_bare_rate_same_round": np.median(beside),
            "cpu_seconds_a_million_tokens": np.median(cpu) / tokens * 1e6,
        }
    settings = {
        "files": [Path(file).name for file in files], "documents": len(texts), "cores": cores,
        "rounds": rounds, "characters": sum(map(len, texts)),
    }  # fmt: skip
    report("data-tokenise", "tokenizing", rates, settings)


@contextmanager
def timed(found: list[tuple[float, float]]) -> Iterator[None]:
    """Append the seconds of the block, and the processor seconds of this process and its ended children."""
    start, cpu = time.perf_counter(), sum(os.times()[:4])
    yield
    found.append((time.perf_counter() - start, sum(os.times()[:4]) - cpu))


def batches(texts: list[str]) -> Iterator[list[str]]:
    """Yield batches that end with the text that reaches MOST_CHARACTERS."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if sum(map(len, batch)) >= MOST_CHARACTERS:
            yield batch
            batch = []
    yield batch


def write_texts(file: Path, texts: list[str]) -> None:
    """Write texts as JSON lines."""
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


@app.command()
def others(
    config: ConfigPath,
    overrides: Overrides = None,
    streaming_python: Annotated[
        str | None, typer.Option(help="Python of an environment with mosaicml-streaming.")
    ] = None,
    seconds: Seconds = 3.0,
    rows: Annotated[int, typer.Option(help="Number of rows that all loaders read.")] = 2000,
) -> None:
    """Compare our loader with `datasets` and mosaicml-streaming on the same rows.

    The others mask with transformers' collator (mlm), or only stack the rows (clm). Ours also shifts labels
    and returns where documents end.
    """
    loaded = load_config(config, [*(overrides or ()), "phases.decay.mask_rate=0.3"])
    recipe, runs = Recipe(loaded), one_phase_each(loaded)
    pythons = {"datasets": sys.executable, "streaming": streaming_python}
    results: dict[str, dict[str, float]] = {}
    versions: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npy"
        stream = recipe.stream(runs["clm"])
        np.save(file, np.stack([stream.example(row).input_ids for row in range(rows)]).astype(np.uint16))
        for kind in ("mlm", "clm"):
            for workers in (0, 1):
                case = f"{kind}, {workers} workers"
                results[f"ours, {case}"] = measure(loaded, kind, workers, 0, seconds)
                for name, python in pythons.items():
                    if python is not None:
                        words = [name, file, recipe.tokenizer_path, kind, workers, BATCH_ROWS, seconds]
                        measured = measure_other(python, words)
                        results[f"{name}, {case}"], versions[name] = measured["numbers"], measured["versions"]
    report("data-others", "loader", results, {**settings_of(loaded), "rows": rows, "versions": versions})


def measure_other(python: str, words: list[Any]) -> dict[str, Any]:
    """Run other_loaders.py with another Python, and return what it prints."""
    script = str(Path(__file__).parent / "other_loaders.py")
    done = subprocess.run([python, script, *map(str, words)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def settings_of(config: Config) -> dict[str, Any]:
    """Return the settings on which the numbers depend."""
    return {
        "sequence_length": config.data.sequence_length,
        "batch_rows": BATCH_ROWS,
        "sources": list(config.data.sources),
    }


def report(
    name: str, label: str, results: dict[str, dict[str, Any]], settings: dict[str, Any] | None = None
) -> None:
    """Print a table of results, and write them to benchmarks/results."""
    columns = list(dict.fromkeys(key for row in results.values() for key in row))
    table = Table(label, *columns, box=None)
    for key, row in results.items():
        table.add_row(key, *(short(row[column]) if column in row else "" for column in columns))
    console.print(table)
    plain = json.loads(json.dumps(results, default=float))
    console.print(f"Wrote {record(name, {'settings': settings or {}, 'cases': plain})}")


def short(number: float) -> str:
    """Return a number in short form for the table."""

    return human(number) if number >= 1000 else f"{number:.4g}"


if __name__ == "__main__":
    app()
