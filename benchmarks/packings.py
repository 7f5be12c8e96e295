"""The usual ways to pack documents into rows, in their simplest form, for comparison with ours.

Each function takes the lengths of documents and the row length. It returns the number of rows, and the number
of documents that it cut although they fit into a row. All of them first cut a document that is longer than a
row into full rows and a remainder.
"""

from __future__ import annotations

import numpy as np

from clm_detour.data.best_fit import pack


def full_rows_and_rests(lengths: np.ndarray, row_length: int) -> tuple[int, np.ndarray]:
    """Return the number of rows that single documents fill, and the remainders of the documents."""
    rests = lengths % row_length
    return int((lengths // row_length).sum()), rests[rests > 0]


def greedy(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """Pack by next fit: take documents in order, and close a row when the next one does not fit."""
    rows, rests = full_rows_and_rests(lengths, row_length)
    room = 0
    for length in rests:
        if length > room:
            rows, room = rows + 1, row_length
        room -= length
    return rows, 0


def first_fit_decreasing(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """Take the longest document first, and put each into the first row with enough room."""
    rows, rests = full_rows_and_rests(lengths, row_length)
    room = np.full(len(rests), row_length)
    for length in -np.sort(-rests):
        room[np.argmax(room >= length)] -= length
    return rows + int((room < row_length).sum()), 0


def best_fit_decreasing(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """Take the longest document first, and put each into the fullest row with enough room."""
    rows, rests = full_rows_and_rests(lengths, row_length)
    room = np.full(len(rests), row_length)
    for length in -np.sort(-rests):
        room[np.argmin(np.where(room >= length, room, row_length + 1))] -= length
    return rows + int((room < row_length).sum()), 0


def concatenate(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """Join all documents, and cut after every `row_length` tokens. Each row ends where a document is cut."""
    ends = np.cumsum(lengths)
    crosses = (ends - lengths) // row_length != (ends - 1) // row_length
    return -(-int(ends[-1]) // row_length), int((crosses & (lengths <= row_length)).sum())


def ours(lengths: np.ndarray, row_length: int) -> tuple[int, int]:
    """Pack with `clm_detour.data.best_fit.pack`."""

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
