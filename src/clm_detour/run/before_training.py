"""The steps before training: the bundled sample, the tokenizer, and the prepared rows of each source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from clm_detour.config.schema import Data, Sample, TokenizerTraining
from clm_detour.data.across import search_across
from clm_detour.data.origin import canaries_of, origin_in
from clm_detour.data.prepare import prepare_source
from clm_detour.data.sample import SOURCES, write_sample
from clm_detour.data.sources import chosen_settings, read_documents
from clm_detour.data.tokenization import is_held_out
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.data.tokenizer_training import set_max_length, train_tokenizer
from clm_detour.recipe.prepared import PreparedData
from clm_detour.records.run_folder import RunFolder
from clm_detour.run.engine import Step, StepRunner
from clm_detour.utils.progress import progress, warn


def count_steps(data: Data, training: TokenizerTraining | None, prepared: PreparedData) -> int:
    """Return the number of steps that `prepare_tokenizer` and `prepare_sources` run."""
    sources = [name for name in data.sources if not prepared.is_elsewhere(name)]
    across = bool(data.deduplicate and sources)
    return (data.sample is not None) + (training is not None) + across + len(sources)


def prepare_tokenizer(
    runner: StepRunner, data: Data, training: TokenizerTraining | None, folder: RunFolder
) -> None:
    """Write the sample and train the tokenizer, if the recipe asks for them."""
    if data.sample is not None:
        runner.run(sample_step(data.sample, folder.sample))
    if training is not None:
        runner.run(tokenizer_step(training, data, folder.tokenizer))
        set_max_length(folder.tokenizer, data.sequence_length)


def prepare_sources(
    runner: StepRunner, prepared: PreparedData, tokenizer: Tokenizer, longest: int | None
) -> None:
    """Tokenize and pack the sources that this recipe prepares itself.

    Args:
        longest: Number of tokens at which documents are cut for the model, None if there is no limit.
    """
    names = [name for name in prepared.settings.sources if not prepared.is_elsewhere(name)]
    if names and prepared.settings.deduplicate:
        work = partial(search_across, prepared.settings, tokenizer)
        runner.run(Step("copies", "Search for copies across sources", work))
    for name in names:
        runner.run(source_step(name, prepared.settings, tokenizer, longest))


def sample_step(sample: Sample, folder: Path) -> Step:
    """Return the step that writes the bundled corpus to `folder`."""

    def work() -> None:
        write_sample(folder, sample.documents, sample.seed)

    return Step(
        "sample",
        "Write the sample",
        work,
        outputs=[folder / f"{source}.jsonl.gz" for source in SOURCES],
        settings={"documents": sample.documents, "seed": sample.seed},
        settings_file=folder / "settings.json",
        fixed=True,
    )


def tokenizer_step(training: TokenizerTraining, data: Data, folder: Path) -> Step:
    """Return the step that trains a tokenizer on the first documents of each source."""

    def work() -> None:
        total = training.documents * len(data.sources)
        with progress("Reading documents", total, "documents") as advance:
            texts = first_documents(data, training.documents, advance)
            train_tokenizer(texts, training.vocab_size, folder, data.sequence_length)

    return Step(
        "tokenizer",
        "Train the tokenizer",
        work,
        outputs=[folder / "tokenizer.json"],
        settings={
            "vocab_size": training.vocab_size,
            "documents": training.documents,
            **sources_as_read(data),
        },
        settings_file=folder / "settings.json",
        fixed=True,
    )


def sources_as_read(data: Data) -> dict[str, Any]:
    """Return the settings on which `read_documents` depends, which leaves out equal texts only."""
    read = {
        name: replace(source, deduplicate=bool(source.deduplicate)) for name, source in data.sources.items()
    }
    return {
        "sources": {name: source.path for name, source in read.items()},
        "chosen": {name: chosen_settings(source) for name, source in read.items()},
    }


def first_documents(
    data: Data, count: int, advance: Callable[..., None], held_out: float = 0
) -> Iterator[str]:
    """Yield the first `count` documents of each source, without the share `held_out` of its documents."""
    for source in data.sources.values():
        documents = read_documents(source, on_error=data.on_error)
        for text in islice((text for text in documents if not is_held_out(text, held_out)), count):
            advance(1)
            yield text


def source_step(name: str, data: Data, tokenizer: Tokenizer, longest: int | None) -> Step:
    """Return the step that tokenizes and packs a source. The prepared data has records of its own."""

    def work() -> bool:
        report = prepare_source(
            name=name,
            path=data.sources[name],
            folder=Path(data.dir) / name,
            tokenizer=tokenizer,
            row_length=data.sequence_length,
            seed=data.shuffle_seed,
            held_out=data.held_out,
            on_error=data.on_error,
            processes=data.processes,
            longest=longest,
            across=origin_in(data, name, tokenizer)["across"] if data.deduplicate else None,
            canaries=canaries_of(data, name),
        )
        for reason, count in report.dropped.items():
            warn(f"{name}: {count} left out ({reason})")
        return not report.skipped

    return Step(f"prepare {name}", f"Prepare {name}", work)
