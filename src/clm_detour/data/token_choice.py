"""The choice of tokens to add to a vocabulary: those that save most tokens on given texts.

BPE and unigram: adjacent tokens of a word are joined, the commonest pair first, as in the training of BPE.
Each joined pair becomes a token, which can be part of the next pair. BPE applies the new merges after all
others, and a unigram model gives a new token the sum of the scores of its parts (and a little more). So every
text is divided as before, and then joined further: no text has more tokens than before.

WordPiece takes the longest token that a word begins with, so only whole words are added. Other words that
begin with an added word are divided anew. An addition that would lengthen any word of the given texts is not
made; for words that are not in these texts, nothing is guaranteed.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from tokenizers import models

from clm_detour.data.tokenizer import Tokenizer

Word = tuple[int, ...]
Pair = tuple[int, int]
WithTokens = Callable[[Sequence[str]], models.WordPiece]
JoinNames = Callable[[str, str], str | None]
BATCH = 1000  # texts that are encoded at a time
LONGEST_WORD = 64  # tokens; longer ones are no words but data, such as sequences of a genome
FEWEST = 2  # occurrences for which a token is added


def count_words(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[Word]:
    """Return how often each word of two or more tokens occurs.

    Raises:
        UserError: If the tokens do not show where a word begins.
    """
    marks = tokenizer.vocabulary_of_words.words
    assert marks is not None
    left_out = {*tokenizer.special_ids, *added_ids(tokenizer)}
    counts: Counter[Word] = Counter()
    for batch in batched(texts):
        for ids in tokenizer.encode_batch(batch):
            starts = np.flatnonzero(marks.starts(ids))
            ends = np.append(starts[1:], len(ids))
            long = (ends - starts > 1) & (ends - starts <= LONGEST_WORD)
            listed = ids.tolist()
            counts.update(
                tuple(listed[start:end]) for start, end in zip(starts[long], ends[long], strict=True)
            )
    return Counter({word: count for word, count in counts.items() if left_out.isdisjoint(word)})


def added_ids(tokenizer: Tokenizer) -> set[int]:
    """Return the ids of tokens that are found in a text before it is divided into words."""
    return set(tokenizer.tokenizer.get_added_tokens_decoder())


def batched(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of texts."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def best_pairs(
    words: Mapping[Word, int], count: int, names: Mapping[int, str], join_names: JoinNames
) -> list[Pair]:
    """Return the pairs to join, in order: each is the commonest pair after those before it are joined.

    Pairs that are equally common are taken in the order of their ids.

    Args:
        words: How often each word occurs.
        count: Largest number of pairs.
        names: Id -> token. In later pairs, joined pairs have the ids after the largest, in order.
        join_names: Function that returns the token of two tokens, or None if they must not be joined. A token
            that exists already is not made.
    """
    names, known, first = dict(names), set(names.values()), max(names) + 1
    sequences, counts = [list(word) for word in words], list(words.values())
    pairs: Counter[Pair] = Counter()
    places: dict[Pair, set[int]] = defaultdict(set)
    for place, (sequence, times) in enumerate(zip(sequences, counts, strict=True)):
        for pair in pairwise(sequence):
            pairs[pair] += times
            places[pair].add(place)
    heap = [(-times, pair) for pair, times in pairs.items()]
    heapq.heapify(heap)
    chosen: list[Pair] = []
    while heap and len(chosen) < count:
        times, pair = heapq.heappop(heap)
        if -times != pairs[pair]:  # it has become rarer since
            if pairs[pair] >= FEWEST:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        if -times < FEWEST:
            break
        name = join_names(names[pair[0]], names[pair[1]])
        if name is None or name in known:
            continue
        joined = first + len(chosen)
        chosen.append(pair)
        names[joined] = name
        known.add(name)
        new: set[Pair] = set()
        for place in places.pop(pair):
            before, times_of_word = sequences[place], counts[place]
            after = join(before, pair, joined)
            for each in pairwise(before):
                pairs[each] -= times_of_word
            for each in pairwise(after):
                pairs[each] += times_of_word
                places[each].add(place)
                if joined in each:
                    new.add(each)
            sequences[place] = after
        for each in new:
            heapq.heappush(heap, (-pairs[each], each))
    return chosen


def join(sequence: Sequence[int], pair: Pair, joined: int) -> list[int]:
    """Return a word with each occurrence of a pair joined, from left to right."""
    after: list[int] = []
    place = 0
    while place < len(sequence):
        if place + 1 < len(sequence) and (sequence[place], sequence[place + 1]) == pair:
            after.append(joined)
            place += 2
        else:
            after.append(sequence[place])
            place += 1
    return after


def best_words(
    words: Mapping[Word, int], count: int, text_of: Callable[[Word], str], with_tokens: WithTokens
) -> list[Word]:
    """Return the words to add to the vocabulary of a WordPiece model, those that save most tokens first.

    Args:
        words: How often each word occurs.
        count: Largest number of words.
        text_of: Function that returns the text of a word.
        with_tokens: Function that returns the model with further tokens.
    """
    texts = {word: text_of(word) for word in words}
    candidates = [word for word, times in words.items() if times >= FEWEST]
    candidates.sort(key=lambda word: (-words[word] * (len(word) - 1), word))
    refused: set[str] = set()
    while True:
        chosen = [word for word in candidates if texts[word] not in refused][:count]
        added = {texts[word] for word in chosen}
        tokenize = with_tokens([texts[word] for word in chosen]).tokenize
        lengthened = [word for word, text in texts.items() if len(tokenize(text)) > len(word)]
        if not lengthened:
            return chosen
        refused |= {
            texts[word][:end]
            for word in lengthened
            for end in range(1, len(texts[word]) + 1)
            if texts[word][:end] in added
        }
