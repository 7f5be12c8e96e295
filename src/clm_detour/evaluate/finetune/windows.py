"""Token ids of words and texts. Documents longer than the encoder's limit are cut into overlapping windows.

Each word is owned by the window in which it is farthest from a cut edge. It is labelled and predicted in that
window only, so there is exactly one prediction for each word, and no word counts twice in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from transformers import PreTrainedTokenizerBase

from clm_detour.data.tokenizer import EXAMPLE, frame_of
from clm_detour.evaluate.tasks.task import Document, find_words

OVERLAP = 4  # neighboring windows share a quarter of their length
Span = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A sequence of words of a document as token ids.

    Args:
        document: Index of the document in the split.
        ids: Token ids with the special tokens.
        first: Index in the document of the first word.
        starts: Position in `ids` of each word's first sub-word.
        owned: Range [from, to) of words of the document that this window owns.
    """

    document: int
    ids: list[int]
    first: int
    starts: list[int]
    owned: Span

    @property
    def owned_starts(self) -> list[int]:
        """Positions of the first sub-words of the words that the window owns."""
        return self.starts[self.owned[0] - self.first : self.owned[1] - self.first]


def words_of(document: Document) -> tuple[Span, ...]:
    """Return the words that are tagged: those of the data set, or else those found in the text."""
    return document.words or find_words(document.text)


class WordEncoder:
    """A tokenizer applied word by word, so that no token crosses the edge of a word.

    A word after white space, and the first word of a document, is encoded with a space before it (as with
    `add_prefix_space`); a word that directly follows another one is not. A word that the tokenizer drops
    becomes the unknown token. The special tokens around a text are those of training: what the tokenizer
    adds, or else [CLS] and [SEP]. Text that spells a special token is encoded as text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}
        self.opening, self.closing = frame_around(tokenizer)
        unknown = tokenizer.unk_token_id
        self.dropped = [unknown if unknown is not None else tokenizer.mask_token_id]
        self.special = set(tokenizer.all_special_ids) - set(self.dropped)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text without special tokens, not cut."""
        if not texts:
            return []
        found = self.tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        return [ids if self.special.isdisjoint(ids) else self.without_special(ids) for ids in found]

    def without_special(self, ids: list[int]) -> list[int]:
        """Return ids with special tokens, found in text that spells them, replaced by the unknown one."""
        return [self.dropped[0] if id in self.special else id for id in ids]

    def encode(self, document: Document) -> list[list[int]]:
        """Return the ids of each word."""
        text, last, surfaces = document.text, -1, []
        for start, end in words_of(document):
            surfaces.append(text[start:end] if start == last else f" {text[start:end]}")
            last = end
        new = [surface for surface in dict.fromkeys(surfaces) if surface not in self.known]
        self.known.update(zip(new, (ids or self.dropped for ids in self.tokens(new)), strict=True))
        return [self.known[surface] for surface in surfaces]

    def windows(
        self, documents: Sequence[Document], max_tokens: int, by_line: bool = False
    ) -> Iterator[Window]:
        """Yield the windows of all documents in order; a document without words has none.

        Args:
            by_line: Whether no window goes beyond the end of a line.
        """
        room = max_tokens - len(self.opening) - len(self.closing)
        for number, document in enumerate(documents):
            words = [ids[:room] for ids in self.encode(document)]
            lengths = [len(ids) for ids in words]
            for begin, end in lines_of(document) if by_line else [(0, len(words))]:
                ranges = [(begin + a, begin + b) for a, b in cut(lengths[begin:end], room)]
                for (first, last), owned in zip(ranges, owners(ranges), strict=True):
                    pieces = words[first:last]
                    starts = accumulate((len(ids) for ids in pieces[:-1]), initial=len(self.opening))
                    ids = [*self.opening, *(token for piece in pieces for token in piece), *self.closing]
                    yield Window(number, ids, first, list(starts), owned)


def lines_of(document: Document) -> list[Span]:
    """Return the range of words of each line that has words."""
    words, text = words_of(document), document.text
    breaks = [place for place in range(1, len(words)) if "\n" in text[words[place - 1][1] : words[place][0]]]
    return list(pairwise([0, *breaks, len(words)]))


def frame_around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds around a text, or its [CLS] and [SEP] if it adds none."""
    plain, framed = (tokenizer(EXAMPLE, add_special_tokens=add)["input_ids"] for add in (False, True))
    opening, closing = frame_of(plain, framed) or ([], [])
    if opening or closing or tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        return opening, closing
    return [tokenizer.cls_token_id], [tokenizer.sep_token_id]


def cut(lengths: Sequence[int], room: int) -> list[Span]:
    """Return ranges of words of at most `room` tokens, with an overlap of up to a quarter of `room`.

    Args:
        lengths: Number of tokens of each word, at most `room`.
    """
    ranges: list[Span] = []
    first = 0
    while first < len(lengths):
        last, used = first, 0
        while last < len(lengths) and used + lengths[last] <= room:
            used += lengths[last]
            last += 1
        ranges.append((first, last))
        if last == len(lengths):
            break
        back, shared = last, 0
        while back > first + 1 and shared + lengths[back - 1] <= room // OVERLAP:
            back -= 1
            shared += lengths[back]
        first = back
    return ranges


def owners(ranges: Sequence[Span]) -> list[Span]:
    """Return the words that each range owns: neighbors divide their overlap in halves."""
    if not ranges:
        return []
    inner = [(begin + end) // 2 for (_, end), (begin, _) in pairwise(ranges)]
    return list(pairwise([ranges[0][0], *inner, ranges[-1][1]]))


def frame_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int
) -> tuple[list[list[int]], int]:
    """Return the ids of texts with special tokens, cut to `max_tokens`, and the number of texts cut."""
    encoder = WordEncoder(tokenizer)
    room = max_tokens - len(encoder.opening) - len(encoder.closing)
    encoded = encoder.tokens(texts)
    cut_texts = sum(len(ids) > room for ids in encoded)
    return [[*encoder.opening, *ids[:room], *encoder.closing] for ids in encoded], cut_texts
