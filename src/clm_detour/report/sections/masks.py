"""The section on filled masks: sentences with a gap, and what each model would put there."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from markupsafe import Markup

from clm_detour.figures import wording
from clm_detour.figures.table import Row, number
from clm_detour.records.run import FilledMask, Guess
from clm_detour.report.markup import Section, join, key, paragraph, render, table
from clm_detour.report.run import Run

MASK = re.compile(r"\[MASK\]|<mask>")  # as tokenizers write it
SHOWN = 5  # guesses of a model
UNFOLDED = 3
ENDS = '.!?:;)"”'  # after which a text is whole


@dataclass(frozen=True)
class Line:
    """A guess as the page shows it; `hit` is whether it is the answer."""

    text: str
    share: str
    score: str
    hit: bool


def masks_section(run: Run) -> Section | None:
    """Return a few sentences, the others folded, and how often each model found the answer."""
    if not run.filled_masks:
        return None
    cards = [card(run, item) for item in in_turns(run.filled_masks)]
    text = (
        "Held-out sentences with one token masked. The answer is the token that was masked. Bars are "
        "probabilities, a tick marks the answer, and ## marks a token with no space before it. These are "
        "examples, not a measurement."
    )
    masks = render("masks.html", shown=cards[:UNFOLDED], others=cards[UNFOLDED:])
    return Section("masks", "Filled masks", join(paragraph(text), masks, hits_table(run)))


def in_turns(items: list[FilledMask]) -> list[FilledMask]:
    """Return the items with their sources in turns, so that the first ones are of different sources."""
    seen: Counter[str] = Counter()
    turns = []
    for item in items:
        turns.append(seen[item.source])
        seen[item.source] += 1
    return [item for _, item in sorted(zip(turns, items, strict=True), key=lambda pair: pair[0])]


def card(run: Run, item: FilledMask) -> dict[str, object]:
    """Return what the template shows of one sentence."""
    before, *after = MASK.split(cut_at_word(item.text), maxsplit=1)
    answer = item.answer
    models = [
        (key(run.color_slot(model), model), [line(guess, answer) for guess in guesses[:SHOWN]])
        for model, guesses in item.models.items()
        if guesses
    ]
    return {
        "source": item.source,
        "before": before,
        "after": "".join(after),
        "found": bool(after),
        "answer": visible(answer, plain=True),
        "models": models,
    }


def cut_at_word(text: str) -> str:
    """Return a text without its last word, which may be cut, unless a sentence or the mask ends there."""
    text = text.rstrip()
    if not text or text[-1] in ENDS or MASK.fullmatch(text.split()[-1]):
        return text
    *words, _ = re.split(r"(?<=\s)", text)
    return "".join(words).rstrip() + " …" if words else text


def line(guess: Guess, answer: str) -> Line:
    """Return what the template shows of one guess."""
    share = f"{100 * min(max(guess.score, 0.0), 1.0):.1f}"
    shown = visible(guess.token, plain=not answer.startswith(" "))
    return Line(shown, share, f"{guess.score:.0%}", guess.token == answer)


def visible(token: str, plain: bool) -> str:
    """Return a token without its leading space; white space is shown as symbols.

    Unless `plain`, ## marks a token that has no leading space.
    """
    if not token.strip():
        return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "(empty)"
    joined = not plain and not token.startswith(" ") and token[:1].isalnum()
    return f"##{token}" if joined else token.strip()


def hits_table(run: Run) -> Markup:
    """Return how often the answer is among the guesses of each model."""
    models = list(dict.fromkeys(model for item in run.filled_masks for model in item.models))
    rows = []
    for model in models:
        items = [item for item in run.filled_masks if item.models.get(model)]
        guesses = [[guess.token for guess in item.models[model][:SHOWN]] for item in items]
        first = sum(tokens[:1] == [item.answer] for tokens, item in zip(guesses, items, strict=True))
        among = sum(item.answer in tokens for tokens, item in zip(guesses, items, strict=True))
        if items:
            counts = [number(count, wording.count) for count in (first, among, len(items))]
            rows.append(Row([key(run.color_slot(model), model), *counts]))
    return table("Answers found", ["Model", "first guess", f"among {SHOWN}", "sentences"], rows)
