"""Two small tasks that ship with the package, for trials without any data; `tools/sample_corpus` has written
them.

Their texts are in no corpus. `SampleEntities`: lines of abstracts, notes and instructions with the diseases,
drugs, symptoms, genes and organs in them. `SampleVerdict`: the last two sentences of an abstract, and the
verdict on the treatment. A few hundred short documents each, so that many names of the test are not among the
training examples.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

from clm_detour.config.protocols import Protocol
from clm_detour.evaluate.tasks.task import SPLITS, Document, Entity, Reading, Splits, Task, find_words

LABELS = ("effective", "not effective", "mixed", "not assessed")
TYPES = ("Anatomy", "Disease", "Drug", "Gene", "Symptom")
PROTOCOL = Protocol(learning_rate=8e-4, epochs=4, max_tokens=128, warmup=0.1, seeds=(42, 43, 44))


@cache
def read_entities(folder: Path) -> Reading:
    """Return the documents of SampleEntities, which ship with the package; `folder` is not read."""
    return read_shipped("SampleEntities")


@cache
def read_verdicts(folder: Path) -> Reading:
    """Return the documents of SampleVerdict, which ship with the package; `folder` is not read."""
    return read_shipped("SampleVerdict")


def read_shipped(name: str) -> Reading:
    """Return the documents of a task from its file in the package."""
    splits: Splits = {split: [] for split in SPLITS}
    with gzip.open(Path(__file__).parent / "sample" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for made in map(json.loads, lines):
            text = made["text"]
            if "label" in made:
                document = Document(made["id"], text, labels=(made["label"],))
            else:
                entities = tuple(Entity(kind, start, end) for start, end, kind in made["entities"])
                document = Document(made["id"], text, find_words(text), entities)
            splits[made["split"]].append(document)
    return Reading(splits)


SAMPLE_TASKS = {
    task.name: task
    for task in (
        Task(
            "SampleEntities",
            "en",
            "entities",
            TYPES,
            "micro_f1",
            read_entities,
            elsewhere=True,
            protocol=PROTOCOL,
        ),
        Task(
            "SampleVerdict",
            "en",
            "single_label",
            LABELS,
            "macro_f1",
            read_verdicts,
            elsewhere=True,
            protocol=PROTOCOL,
        ),
    )
}
