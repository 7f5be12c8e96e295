"""The scores of the paper (arXiv 2605.12438), F1 in percent: five seeds in English, nine in French.

Models that are on the hub have their present and their former name in parentheses.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources

AVERAGE = "average"


@cache
def published_scores(language: str) -> dict[str, dict[str, float]]:
    """Return model -> task -> score in percent. `average` is the paper's own, over all tasks of the language.

    The result is empty for a language other than en and fr.
    """
    file = resources.files(__name__) / f"{language}.csv"
    if not file.is_file():
        return {}
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return {row.pop("model"): {task: float(score) for task, score in row.items()} for row in rows}


def normalize_name(task: str) -> str:
    """Return a task's name without case and punctuation, so that `ncbi_disease` finds `NCBI-disease`."""
    return re.sub(r"[^a-z0-9]", "", task.lower())
