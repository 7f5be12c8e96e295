"""The usual ways to put documents into rows, written plainly, to compare ours with.

Each takes lengths and the row length and gives the number of rows and how many documents it cut though they would have fitted a row.
A document longer than a row is first cut into full rows and a rest, in all of them.
"""

from __future__ import annotations

import numpy as np

from clm_detour.data.best_fit import pack


def full_rows_and_rests(lengths: np.ndarray, row_length: int) -> tuple[int, np.ndarray]:
    """Rows that long documents fill alone, and what is left of each document."""
    rests = lengths % row_length
    return int((lengths // row_length).sum()), rests[rests > 0]


def greedy(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """Next fit: documents in order; a row is closed when the next one does not fit."""
    rows, rests = full_rows_and_rests(lengths, row_length)
    room = 0
    for length in rests:
        if length > room:
            rows, room = rows + 1, row_length
        room -= length
    return rows, 0


def first_fit_decreasing(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """The longest first, each into the first row with room."""
    rows, rests = full_rows_and_rests(lengths, row_length)
    room = np.full(len(rests), row_length)
    for length in -np.sort(-rests):
        room[np.argmax(room >= length)] -= length
    return rows + int((room < row_length).sum()), 0


def best_fit_decreasing(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """The longest first, each into the fullest row with room."""
    rows, rests = full_rows_and_rests(lengths, row_length)
    room = np.full(len(rests), row_length)
    for length in -np.sort(-rests):
        room[np.argmin(np.where(room >= length, room, row_length + 1))] -= length
    return rows + int((room < row_length).sum()), 0


def concatenate(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """All documents end to end, cut every `row_length` tokens: no gaps, and a document cut at each row's end."""
    ends = np.cumsum(lengths)
    crosses = (ends - lengths) // row_length != (ends - 1) // row_length
    return -(-int(ends[-1]) // row_length), int((crosses & (lengths <= row_length)).sum())


def ours(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """`clm_detour.data.best_fit.pack`."""
    packed = pack(lengths, row_length, seed=42)
    pieces = np.bincount(packed.piece_document, minlength=len(lengths))
    return len(packed), int(((pieces > 1) & (lengths <= row_length)).sum())


PACKINGS = {
    "ours": ours,
    "greedy (next fit)": greedy,
    "first fit, decreasing": first_fit_decreasing,
    "best fit, decreasing": best_fit_decreasing,
    "concatenate and cut": concatenate,
}
