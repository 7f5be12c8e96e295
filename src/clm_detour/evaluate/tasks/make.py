"""A task out of what its family says of it."""

from __future__ import annotations

from typing import Any

from clm_detour.config.protocols import Kind
from clm_detour.evaluate.formats.form import Form
from clm_detour.evaluate.tasks.reading import Reader
from clm_detour.evaluate.tasks.task import Task

READING = ("rename", "overlaps", "held_out", "most_frequent")


def make_task(
    name: str,
    language: str,
    kind: Kind,
    labels: tuple[str, ...],
    *forms: Form,
    metric: str = "micro_f1",
    **more: Any,
) -> Task:
    """A task that is read in any of some forms.

    Args:
        more: fields of `Task`, and of its `Reader`.
    """
    reading = {key: more.pop(key) for key in READING if key in more}
    reader = Reader(name, kind, labels, forms, **reading)
    return Task(name, language, kind, labels, metric, reader, **more)
