"""Words that are found from ids are those of the tokenizers library, which knows the text."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.data.tokenizer_training import train_tokenizer
from clm_detour.data.word_marks import WordMarks, word_marks
from clm_detour.utils.errors import UserError

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
TEXTS = [
    "The patient's fever was 39.5 C; he didn't take 1,200 mg of acetaminophen (twice).",
    "Le patient a reçu de l'aspirine, 100 mg deux fois par jour.\n\nSortie le 12/03/2019.",
    "Follow-up in two weeks.  Don't stop aspirin...   We'll see; they've had it.\n\n\tEnd of report",
    "    four blanks, é, ü, œdème, ½ dose, 日本語 and E. coli O157:H7",
] * 20
PIECES = [
    "aspirin", "acetaminophen", "fièvre", "œdème", "日本", "39", "1200", "½", ".", ",", "...", "(", ")",
    "/", "-", "it's", "don't", "l'eau", " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "x", "A",
]  # fmt: skip


def trained(
    model: models.Model,
    trainer: trainers.Trainer,
    before: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None = None,
) -> tokenizers.Tokenizer:
    """A small tokenizer of this kind."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = before
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def bpe(before: pre_tokenizers.PreTokenizer) -> tokenizers.Tokenizer:
    """BPE of whole characters, or of bytes."""
    alphabet = pre_tokenizers.ByteLevel.alphabet() if "ByteLevel" in str(before) else []
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=sorted(alphabet), show_progress=False
    )
    return trained(models.BPE(unk_token="[UNK]"), trainer, before)


def with_suffix() -> tokenizers.Tokenizer:
    """BPE that marks the ends of words."""
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    model = models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>")
    return trained(model, trainer, pre_tokenizers.BertPreTokenizer())


def word_piece() -> tokenizers.Tokenizer:
    """The tokenizer of BERT."""
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    return trained(
        models.WordPiece(unk_token="[UNK]"),
        trainer,
        pre_tokenizers.BertPreTokenizer(),
        normalizers.BertNormalizer(),
    )


def unigram() -> tokenizers.Tokenizer:
    """The tokenizer of XLM-RoBERTa and CamemBERT."""
    trainer = trainers.UnigramTrainer(
        vocab_size=260, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )
    before = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return trained(models.Unigram(), trainer, before)


def digits_apart() -> tokenizers.Tokenizer:
    """Byte-level BPE in which every digit is a word."""
    before = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return bpe(pre_tokenizers.Sequence(before))


KINDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "byte-level": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "byte-level, blank at the start": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "byte-level, digits apart": digits_apart,
    "WordPiece": word_piece,
    "unigram": unigram,
    "BPE with Metaspace": lambda: bpe(pre_tokenizers.Metaspace()),
    "BPE with ends of words": with_suffix,
}


@pytest.fixture(scope="module", params=list(KINDS))
def marked(request) -> tuple[tokenizers.Tokenizer, WordMarks]:
    """A tokenizer of each kind with its marks."""
    return with_marks(KINDS[request.param]())


def with_marks(tokenizer: tokenizers.Tokenizer) -> tuple[tokenizers.Tokenizer, WordMarks]:
    special = [tokenizer.token_to_id(token) for token in SPECIAL]
    size = max(tokenizer.get_vocab().values()) + 1
    return tokenizer, word_marks(tokenizer, special, special[0], size)


def wrong(tokenizer: tokenizers.Tokenizer, marks: WordMarks, texts: Iterable[str]) -> tuple[int, int]:
    """Number of tokens at which the two disagree whether a word begins, and number of tokens."""
    differ = count = 0
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        if encoding.ids and not (
            getattr(tokenizer.model, "end_of_word_suffix", None)
            and tokenizer.token_to_id("[UNK]") in encoding.ids
        ):
            words = np.array(encoding.word_ids)
            starts = np.concatenate([[True], words[1:] != words[:-1]])
            differ += int((marks.starts(np.array(encoding.ids)) != starts).sum())
            count += len(words)
    return differ, count


def test_words_of_texts_are_those_of_the_library(marked):
    differ, count = wrong(*marked, TEXTS[:4])
    assert count > 50
    assert differ == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_words_are_those_of_the_library_for_any_order_of_blanks_digits_and_signs(marked, text):
    assert wrong(*marked, [text])[0] == 0


@pytest.mark.parametrize("token", ["[SEP]", "[MASK]"])
def test_special_tokens_are_words_of_their_own(marked, token):
    tokenizer, marks = marked
    one, other = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("fever", "pain"))
    ids = np.array([*one, tokenizer.token_to_id(token), *other])
    assert marks.starts(ids)[len(one)]
    assert marks.starts(ids)[len(one) + 1]


def test_a_tokenizer_without_marks_is_refused():
    with pytest.raises(UserError, match="do not; leave both out"):
        with_marks(bpe(pre_tokenizers.Whitespace()))


def test_a_tokenizer_that_divides_text_by_a_rule_of_its_own_is_refused():
    pairs = pre_tokenizers.Split(Regex(r"..|\n"), "isolated")
    before = pre_tokenizers.Sequence(
        [pairs, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    with pytest.raises(UserError, match="a rule of its own"):
        with_marks(bpe(before))


def test_without_a_pre_tokenizer_words_begin_at_blanks_and_lines():
    """The tokenizer of mmBERT divides no text before it merges, so the library knows no words."""
    tokenizer = tokenizers.Tokenizer(
        models.BPE({"▁": 0, "a": 1, "b": 2, "▁a": 3, "\n": 4}, [("▁", "a")], byte_fallback=False)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Replace("▁", " ")
    marks = word_marks(tokenizer, [], -1, 5)
    ids = np.array(tokenizer.encode(" ab a\nbb a").ids)
    assert [tokenizer.id_to_token(id) for id in ids[marks.starts(ids)]] == ["▁a", "▁a", "\n", "b", "▁a"]


def test_words_of_the_bundled_tokenizer_are_those_of_the_library(tmp_path):
    train_tokenizer(TEXTS, 400, tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    marks = tokenizer.vocabulary_of_words.words
    assert wrong(tokenizer.tokenizer, marks, TEXTS[:4])[0] == 0


@pytest.mark.shared
@pytest.mark.parametrize("corpus", ["pubmed", "notes", "general", "french"])
def test_words_of_real_text_are_those_of_the_library(shared_data: Path, corpus: str):
    tokenizer = load_tokenizer(str(shared_data / "tokenizer" / "modernbert"))
    with gzip.open(shared_data / "corpus" / f"{corpus}.jsonl.gz", "rt") as lines:
        texts = [json.loads(line)["text"] for line in islice(lines, 300)]
    differ, count = wrong(tokenizer.tokenizer, tokenizer.vocabulary_of_words.words, texts)
    assert differ < 3e-4 * count  # modifier letters of phonetic script, whose bytes are divided
