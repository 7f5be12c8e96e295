"""The bundled synthetic corpus: four sources of English text, written from a grammar and tables of facts.

`general` stands for what a base model was trained on; `abstracts`, `instructions` and `notes` for the three
kinds of text of a domain. Document i of a source depends on (source, seed, i) alone, so a larger corpus
begins with a smaller one. No text is copied from anywhere, and nothing is downloaded: the quickstart and the
tests run on it offline.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clm_detour.data.sample import abstracts, general, instructions, notes
from clm_detour.data.sample.dice import Dice
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write
from clm_detour.utils.progress import progress

SHARES = {"general": 0.40, "abstracts": 0.25, "instructions": 0.20, "notes": 0.15}
SOURCES: tuple[str, ...] = tuple(SHARES)


def write_abstract(dice: Dice) -> dict[str, Any]:
    """An abstract with its label, one of `abstracts.LABELS`."""
    document, label = abstracts.write(dice)
    return {**fields(document.text, document.spans), "label": label}


def write_instruction(dice: Dice) -> dict[str, Any]:
    """An instruction with its prompt and response; the text is both, with a line break between them."""
    document, prompt = instructions.write(dice)
    made = fields(document.text, document.spans)
    return {**made, "prompt": made["text"][:prompt], "response": made["text"][prompt + 1 :]}


def write_general(dice: Dice) -> dict[str, Any]:
    """A piece of general prose."""
    document = general.write(dice)
    return fields(document.text, document.spans)


def write_note(dice: Dice) -> dict[str, Any]:
    """A clinical note."""
    document = notes.write(dice)
    return fields(document.text, document.spans)


def fields(text: str, spans: list[tuple[int, int, str]]) -> dict[str, Any]:
    """The text without blanks at its end, and its entities as [start, end, type] in their order."""
    return {"text": text.rstrip(), "entities": [list(span) for span in spans]}


WRITERS: dict[str, Callable[[Dice], dict[str, Any]]] = {
    "general": write_general, "abstracts": write_abstract,
    "instructions": write_instruction, "notes": write_note,
}  # fmt: skip


def generate(source: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the first `count` documents of a source.

    Each is `{"id", "text", "entities": [[start, end, type], ...]}`, where text[start:end] is the entity. The
    types are Disease, Drug, Gene, Anatomy and Symptom, in `general` Person and Place. `instructions` have
    also "prompt" and "response", `abstracts` a "label" (see `abstracts`).

    Raises:
        UserError: there is no such source.
    """
    if source not in WRITERS:
        raise UserError(f"There is no sample source {source!r}; choose one of {', '.join(SOURCES)}.")
    for index in range(count):
        made = WRITERS[source](Dice("clm-detour sample", source, seed, index))
        yield {"id": f"{source}-{seed}-{index:06d}", **made}


def write_sample(folder: str | Path, documents: int = 24_000, seed: int = 17) -> dict[str, Path]:
    """Write `folder/<source>.jsonl.gz` for every source and return the paths.

    The documents are divided over the sources as `SHARES` says, each source with at least one. The same
    arguments give the same bytes. The default is about three million words, in 10 to 15 seconds.

    Raises:
        UserError: the folder cannot be written.
    """
    counts = {source: max(1, round(share * documents)) for source, share in SHARES.items()}
    paths = {source: Path(folder) / f"{source}.jsonl.gz" for source in SOURCES}
    with progress("Writing the sample corpus", sum(counts.values()), "documents") as advance:
        for source, count in counts.items():
            with atomic_write(paths[source]) as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
                for document in generate(source, count, seed):
                    packed.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
                    advance(1, note=source)
    return paths
