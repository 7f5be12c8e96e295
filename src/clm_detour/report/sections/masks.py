"""Filled masks: sentences with a gap, and what each model would put there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from clm_detour.report import wording
from clm_detour.report.arms import colour_slot
from clm_detour.report.markup import Section, join, key, paragraph, render
from clm_detour.report.records import FilledMask, Guess, Run
from clm_detour.report.tables import Row, number, table

MASK = re.compile(r"\[MASK\]|<mask>")  # as tokenizers write it
SHOWN = 5


@dataclass(frozen=True)
class Line:
    """One guess as shown."""

    text: str
    share: str
    score: str
    hit: bool


def masks_section(run: Run) -> Section | None:
    """The sentences of `evaluation/fill_mask.json`, by source."""
    if not run.filled_masks:
        return None
    sources = list(dict.fromkeys(item.source for item in run.filled_masks))
    groups = {
        source: [card(run, item) for item in run.filled_masks if item.source == source] for source in sources
    }
    text = (
        "A few held-out sentences with one token masked; the answer is what stood there. Bars are "
        "probabilities, a tick marks the answer, ## a token with no space before it. These are examples, not "
        "a measurement."
    )
    body = join(paragraph(text), hits(run), render("masks.html", groups=groups))
    return Section("masks", "Filled masks", body)


def card(run: Run, item: FilledMask) -> dict[str, object]:
    """What the template shows of one sentence."""
    before, *after = MASK.split(item.text, maxsplit=1)
    answer = item.answer
    models = [
        (key(colour_slot(run, model), model), [line(guess, answer) for guess in guesses[:SHOWN]])
        for model, guesses in item.models.items()
        if guesses
    ]
    return {
        "before": before,
        "after": "".join(after),
        "found": bool(after),
        "answer": visible(answer, plain=True),
        "models": models,
    }


def line(guess: Guess, answer: str) -> Line:
    """One guess."""
    share = f"{100 * min(max(guess.score, 0.0), 1.0):.1f}"
    shown = visible(guess.token, plain=not answer.startswith(" "))
    return Line(shown, share, f"{guess.score:.0%}", guess.token == answer)


def visible(token: str, plain: bool) -> str:
    """A token without its leading space, marked where it has none unless `plain`; white space as signs."""
    if not token.strip():
        return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "(empty)"
    joined = not plain and not token.startswith(" ") and token[:1].isalnum()
    return f"##{token}" if joined else token.strip()


def hits(run: Run) -> Markup:
    """How often the answer is among the guesses."""
    models = list(dict.fromkeys(model for item in run.filled_masks for model in item.models))
    rows = []
    for model in models:
        items = [item for item in run.filled_masks if item.models.get(model)]
        ranks = [[guess.token for guess in item.models[model][:SHOWN]] for item in items]
        first = sum(tokens[:1] == [item.answer] for tokens, item in zip(ranks, items, strict=True))
        among = sum(item.answer in tokens for tokens, item in zip(ranks, items, strict=True))
        if items:
            counts = [number(count, wording.count) for count in (first, among, len(items))]
            rows.append(Row([key(colour_slot(run, model), model), *counts]))
    return table("Answers found", ["Model", "first guess", f"among {SHOWN}", "sentences"], rows)
