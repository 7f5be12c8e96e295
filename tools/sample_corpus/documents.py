"""The documents of the four sources, written from a grammar and tables of facts.

`general` stands for the text a base model was trained on; `abstracts`, `instructions` and `notes` for the
three kinds of text of a domain. Document i of a source depends on (source, seed, i) alone, so a larger corpus
begins with a smaller one. No text is copied from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sample_corpus import abstracts, general, instructions, notes
from sample_corpus.choices import Choices


def write_abstract(choices: Choices) -> dict[str, Any]:
    """Return an abstract with its label, one of `abstracts.LABELS`."""
    document, label = abstracts.write(choices)
    return {**fields(document.text, document.spans), "label": label}


def write_instruction(choices: Choices) -> dict[str, Any]:
    """Return an instruction with its prompt and response; the text is both, on two lines."""
    document, prompt = instructions.write(choices)
    made = fields(document.text, document.spans)
    return {**made, "prompt": made["text"][:prompt], "response": made["text"][prompt + 1 :]}


def write_general(choices: Choices) -> dict[str, Any]:
    """Return a piece of general prose."""
    document = general.write(choices)
    return fields(document.text, document.spans)


def write_note(choices: Choices) -> dict[str, Any]:
    """Return a clinical note."""
    document = notes.write(choices)
    return fields(document.text, document.spans)


def fields(text: str, spans: list[tuple[int, int, str]]) -> dict[str, Any]:
    """Return the text without blanks at its end, and its entities as [start, end, type] in their order."""
    return {"text": text.rstrip(), "entities": [list(span) for span in spans]}


WRITERS: dict[str, Callable[[Choices], dict[str, Any]]] = {
    "general": write_general, "abstracts": write_abstract,
    "instructions": write_instruction, "notes": write_note,
}  # fmt: skip
SOURCES: tuple[str, ...] = tuple(WRITERS)


def generate(source: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the first `count` documents of a source.

    Each is `{"id", "text", "entities": [[start, end, type], ...]}`, where text[start:end] is the entity. The
    types are Disease, Drug, Gene, Anatomy and Symptom, in `general` Person and Place. `instructions` have
    also "prompt" and "response", `abstracts` a "label" (see `abstracts`).

    Raises:
        KeyError: If there is no such source.
    """
    for index in range(count):
        made = WRITERS[source](Choices("clm-detour sample", source, seed, index))
        yield {"id": f"{source}-{seed}-{index:06d}", **made}
