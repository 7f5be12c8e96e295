"""Needle in a haystack for masked language models: whether a model finds a made-up fact in a long text.

A needle is "The code of KEY is VALUE."; it stands in running text (other documents, one after another), and
the text ends with "The code of KEY is [MASK]." KEY is two words and VALUE is one, all of them single tokens.
Every model with the same tokenizer gets the same haystacks. The results are `needles.json`, a
`records.needles.NeedlesRecord`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table

from clm_detour.data.tokenizer import Tokenizer
from clm_detour.figures.wording import short_names
from clm_detour.measure.encoder import check_fills_masks
from clm_detour.measure.scorer import open_masked
from clm_detour.model import ModernBertForPretraining
from clm_detour.model.precision import best_device, fp32_products
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import Advance, progress

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
CANDIDATES = 20
WORD = re.compile(r" [a-z]{4,}")
Haystack = tuple[np.ndarray, int]  # ids, and the index of the right candidate


class HaystackParts(NamedTuple):
    """The parts from which haystacks are made.

    Args:
        tokenizer: The tokenizer of the models.
        flow: Ids of running text, (T,).
        keys, values: Ids of the words in needles.
    """

    tokenizer: Tokenizer
    flow: np.ndarray
    keys: Sequence[int]
    values: Sequence[int]


def parse_lengths(text: str) -> list[int]:
    """Return the numbers in a text such as '128,512'.

    Raises:
        UserError: If they are not numbers, or too small.
    """
    lengths = [int(part) if part.strip().isdigit() else 0 for part in text.split(",")]
    if min(lengths) < 64:
        raise UserError(f"--lengths {text}: give numbers of tokens from 64 up, like 128,512.")
    return lengths


@fp32_products(tf32=False)
def find_needles(
    models: Sequence[str], texts: Sequence[str], lengths: Sequence[int], trials: int, seed: int = 0
) -> dict[str, Any]:
    """Test every model, and return the content of `needles.json`.

    Raises:
        UserError: If a model is not a ModernBERT, there is too little text, or a tokenizer has too few whole
            words.
    """
    for path in models:
        check_fills_masks(path)
    total = len(models) * len(lengths) * (len(POSITIONS) + 1) * trials
    accuracy, control = {}, {}
    with progress("Needles", total, "haystacks") as advance:
        for path in models:
            network, tokenizer = open_masked(path)
            torch.nn.Module.to(network, best_device())
            words = whole_words(tokenizer, seed)
            shares = []
            for length in lengths:
                flow = running_text(partial(_ids_of, tokenizer), texts, length)
                parts = HaystackParts(tokenizer, flow, keys=words[CANDIDATES:], values=words[:CANDIDATES])
                shares.append(_shares(network, parts, length, trials, seed, advance))
            accuracy[path] = [row[:-1] for row in shares]
            control[path] = [row[-1] for row in shares]
    return {
        "models": list(models), "lengths": list(lengths), "positions": list(POSITIONS), "trials": trials,
        "candidates": CANDIDATES, "accuracy": accuracy, "chance": 1 / CANDIDATES, "control": control,
    }  # fmt: skip


def _shares(
    network: ModernBertForPretraining,
    parts: HaystackParts,
    length: int,
    trials: int,
    seed: int,
    advance: Advance,
) -> list[float]:
    """Return the share of right answers at each position, and without a needle, for one model and length."""
    return [
        _right(network, parts, haystacks(parts, length, at, trials, seed), advance) / trials
        for at in (*POSITIONS, None)
    ]


def whole_words(tokenizer: Tokenizer, seed: int) -> list[int]:
    """Return the ids of words with their leading space, in random order.

    Raises:
        UserError: If there are too few.
    """
    decode = tokenizer.tokenizer.decode
    words = [
        i
        for i in range(tokenizer.vocab_size)
        if i not in tokenizer.special_ids and WORD.fullmatch(decode([i]))
    ]
    if len(words) < 3 * CANDIDATES:
        raise UserError(f"The tokenizer has only {len(words)} whole words; the probe needs {3 * CANDIDATES}.")
    return [words[i] for i in np.random.default_rng(seed).permutation(len(words))]


def haystacks(
    parts: HaystackParts, length: int, position: float | None, trials: int, seed: int
) -> Iterator[Haystack]:
    """Yield `trials` haystacks of one length and needle position, None for no needle.

    The running text of trial i is the same at every position.
    """

    tokenizer, flow, keys, values = parts

    def ids(text: str) -> list[int]:
        return [int(i) for i in tokenizer.encode_batch([text])[0][1:-1]]

    opening, link, end = ids(" The code of"), ids(" is"), ids(".")
    for trial in range(trials):
        rng = np.random.default_rng((seed, length, trial))
        right = int(rng.integers(len(values)))
        fact = [*opening, *(int(key) for key in rng.choice(keys, 2, replace=False)), *link]
        needle = [] if position is None else [*fact, values[right], *end]
        query = [*fact, tokenizer.mask, *end]
        room = length - 2 - len(query) - len(needle)
        start = int(rng.integers(len(flow) - length + 1))
        hay = [int(i) for i in flow[start : start + room]]
        at = 0 if position is None else round(position * room)
        yield np.array([tokenizer.cls, *hay[:at], *needle, *hay[at:], *query, tokenizer.sep]), right


def _ids_of(tokenizer: Tokenizer, text: str) -> np.ndarray:
    return tokenizer.encode_batch([text])[0][1:-1]


def running_text(
    encode: Callable[[str], Sequence[int] | np.ndarray], texts: Sequence[str], length: int
) -> np.ndarray:
    """Return token ids of the first texts, one after another, (T,): 20 times `length`, or all.

    Args:
        encode: Returns the ids of a text without special tokens.

    Raises:
        UserError: If there are fewer than `length`.
    """
    parts, total = [], 0
    for text in texts:
        parts.append(np.asarray(encode(text), dtype=np.int64))
        total += len(parts[-1])
        if total > 20 * length:
            break
    if total < length:
        raise UserError(f"The texts have {total} tokens in all; haystacks of {length} need more.")
    return np.concatenate(parts)


@torch.no_grad()
def _right(
    network: ModernBertForPretraining, parts: HaystackParts, stacks: Iterator[Haystack], advance: Advance
) -> int:
    right = 0
    for ids, answer in stacks:
        rows = torch.from_numpy(ids)[None].to(best_device())
        hidden, _ = network.encode(rows)
        place = int(np.flatnonzero(ids == parts.tokenizer.mask)[-1])
        logits = network.decoder(network.head(hidden[place]))[list(parts.values)]
        right += int(logits.argmax()) == answer
        advance(1)
    return right


def needles_table(result: Mapping[str, Any]) -> Table:
    """Return a table with a row for each model and length."""
    margin = 196 * (0.25 / result["trials"]) ** 0.5  # for a share near one half
    title = f"Needles found (%; chance {100 * result['chance']:.0f} %; 95 % interval at most ± {margin:.0f})"
    table = Table(title=title)
    for column in ("model", "tokens", *(f"at {100 * p:.0f} %" for p in result["positions"]), "no needle"):
        table.add_column(column, justify="left" if column == "model" else "right")
    names = short_names(result["models"])
    for model in result["models"]:
        for i, length in enumerate(result["lengths"]):
            cells = (
                f"{100 * value:.0f}" for value in [*result["accuracy"][model][i], result["control"][model][i]]
            )
            table.add_row(names[model], str(length), *cells)
    return table
