"""The scores that the paper prints (arXiv 2605.12438, F1 in percent; five seeds in English, nine in French), to stand beside ours."""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources

AVERAGE = "average"


@cache
def published_scores(language: str) -> dict[str, dict[str, float]]:
    """Model -> task -> score in percent, with the paper's own `average` over all its tasks; empty for another language than en, fr."""
    file = resources.files(__name__) / f"{language}.csv"
    if not file.is_file():
        return {}
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return {row.pop("model"): {task: float(score) for task, score in row.items()} for row in rows}


def plain(task: str) -> str:
    """A task's name without case and punctuation, so that `ncbi_disease` finds `NCBI-disease`."""
    return re.sub(r"[^a-z0-9]", "", task.lower())
