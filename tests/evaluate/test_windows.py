"""Entities become tokens and come back unchanged, for any words, tokenizer and length of windows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from clm_detour.evaluate.finetune.span_classifier import SpanClassifier, word_spans
from clm_detour.evaluate.finetune.tagger import EntityTagger, read_tags, tag_words
from clm_detour.evaluate.finetune.windows import WordEncoder, cut, frame_text, owners, words_of
from clm_detour.evaluate.tasks.task import Document, Entity

LABELS = ("Drug", "Disease")


@pytest.fixture(scope="module")
def tokenizer(tiny_data):
    return AutoTokenizer.from_pretrained(tiny_data / "tokenizer")


@st.composite
def documents(draw, nested: bool = False):
    pieces = draw(st.lists(st.text("abcXYZ019é-/.", min_size=1, max_size=9), min_size=1, max_size=60))
    gaps = draw(
        st.lists(st.sampled_from([" ", " ", "  ", "\n", ""]), min_size=len(pieces), max_size=len(pieces))
    )
    text, words = "", []
    for gap, piece in zip(gaps, pieces, strict=True):
        text += gap
        words.append((len(text), len(text) + len(piece)))
        text += piece
    entities, after = [], 0
    while after < len(words):
        first = draw(st.integers(after, len(words) - 1))
        last = draw(st.integers(first, min(first + 4, len(words) - 1)))
        entities.append(Entity(draw(st.sampled_from(LABELS)), words[first][0], words[last][1]))
        after = first if nested and last > first else last + 1
        after += draw(st.integers(0, 5)) + (nested and last > first)
    spans = {(e.start, e.end): e for e in entities}
    found = sorted(spans.values(), key=lambda e: (e.start, e.end, e.label))
    return Document("d", text, tuple(words), tuple(found))


@given(documents())
def test_entities_become_tags_and_come_back_without_loss(document):
    tags, inexact = tag_words(document, LABELS)
    assert inexact == 0
    assert read_tags(document, tags, LABELS).entities == document.entities


@settings(max_examples=60, deadline=None)
@given(documents(), st.integers(8, 40))
def test_windows_label_each_word_once_and_read_back_to_the_same_entities(tokenizer, document, max_tokens):
    examples, counts = EntityTagger.examples([document], LABELS, tokenizer, max_tokens)
    assert all(len(example.ids) <= max_tokens for example in examples)
    assert sum(len(example.places) for example in examples) == len(document.words)
    answers = [example.target.tolist() for example in examples]
    (said,) = EntityTagger.read(_Labels, [document], examples, answers)
    assert said.entities == document.entities
    assert counts["documents_in_windows"] == (len(examples) > 1)


class _Labels:
    labels = LABELS

    @classmethod
    def entities(cls, document, spans):
        return SpanClassifier.entities(cls, document, spans)


@settings(max_examples=60, deadline=None)
@given(documents(nested=True))
def test_nested_entities_become_spans_and_come_back_without_loss(tokenizer, document):
    spans, inexact = word_spans(document, LABELS, 32)
    assert inexact == 0
    examples, _ = SpanClassifier.examples([document], LABELS, tokenizer, 2000)
    (example,) = examples
    assert [tuple(row) for row in example.target.tolist()] == spans
    assert SpanClassifier.entities(_Labels, document, spans) == document.entities


@settings(max_examples=60, deadline=None)
@given(st.lists(documents(nested=True), min_size=1, max_size=3), st.integers(8, 40))
def test_each_nested_entity_is_in_one_window_or_counted_as_cut_by_it(tokenizer, some, max_tokens):
    examples, counts = SpanClassifier.examples(some, LABELS, tokenizer, max_tokens)
    spans = {(i, *span) for i, document in enumerate(some) for span in word_spans(document, LABELS, 32)[0]}
    starts = {
        (i, word): ids[0]
        for i, document in enumerate(some)
        for word, ids in enumerate(WordEncoder(tokenizer).encode(document))
    }
    owned, found, cut_off, answers = [], [], set(), []
    for example in examples:
        assert len(example.ids) <= max_tokens
        here = range(example.first, example.first + example.owned)
        owned += [(example.document, word) for word in here]
        for word, place in enumerate(example.places, start=example.first):
            assert example.ids[place] == starts[example.document, word]
        own = [span for span in spans if span[0] == example.document and span[1] in here]
        cut_off |= {span for span in own if span[2] >= example.first + len(example.places)}
        target = example.target.tolist()
        answers.append([(example.first + a, example.first + b, kind) for a, b, kind in target])
        found += [(example.document, *span) for span in answers[-1]]
    assert owned == list(starts)
    assert sorted(found) == sorted(spans - cut_off)
    assert counts["inexact_entities"] == len(cut_off)
    assert (counts["documents_in_windows"] > 0) == (len(examples) > len(some))
    for i, said in enumerate(SpanClassifier.read(_Labels, some, examples, answers)):
        words = [span[1:] for span in spans - cut_off if span[0] == i]
        assert said.entities == SpanClassifier.entities(_Labels, some[i], words)


@given(st.lists(st.integers(1, 10), max_size=80), st.integers(10, 40))
def test_windows_cover_all_words_overlap_and_own_each_word_once(lengths, room):
    ranges = cut(lengths, room)
    owned = [word for begin, end in owners(ranges) for word in range(begin, end)]
    assert owned == list(range(len(lengths)))
    for (first, last), (begin, end) in zip(ranges, owners(ranges), strict=True):
        assert sum(lengths[first:last]) <= room
        assert first <= begin <= end <= last


def test_words_are_encoded_as_in_running_text(tokenizer):
    text = "The patient was given tamoxifen (20 mg/day) for cancer."
    document = Document("d", text)
    pieces = [token for word in WordEncoder(tokenizer).encode(document) for token in word]
    assert tokenizer.decode(pieces).strip() == text
    assert [text[start:end] for start, end in words_of(document)][:5] == [
        "The",
        "patient",
        "was",
        "given",
        "tamoxifen",
    ]


def test_what_words_cannot_say_is_counted():
    text = "antitumor drugs"
    inside = Entity("Drug", 4, 9)
    pieces = Entity("Drug", 0, 15, ((0, 4), (10, 15)))
    assert tag_words(Document("a", text, ((0, 9), (10, 15)), (inside,)), LABELS) == ([1, 0], 1)
    assert tag_words(Document("a", text, ((0, 9), (10, 15)), (pieces, Entity("Drug", 10, 15))), LABELS) == (
        [1, 2],
        2,
    )


def test_a_document_of_60000_tokens_is_read_whole_in_windows_or_cut_and_counted(tokenizer):
    words = 30_000
    document = Document("long", "xy " * words, entities=(Entity("Drug", 3 * (words - 1), 3 * words - 1),))
    examples, counts = EntityTagger.examples([document], LABELS, tokenizer, 512)
    assert sum(len(example.ids) for example in examples) > 60_000
    (said,) = EntityTagger.read(
        _Labels, [document], examples, [example.target.tolist() for example in examples]
    )
    assert said.entities == document.entities
    assert counts["documents_in_windows"] == 1
    ids, cut_texts = frame_text(tokenizer, [document.text, "short"], 512)
    assert (len(ids[0]), cut_texts) == (512, 1)
