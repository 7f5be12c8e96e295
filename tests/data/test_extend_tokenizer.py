"""Tokens that are added to a tokenizer: texts come back, none gets longer, and the rest stays."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from clm_detour.data.added_tokens import AddedTokens
from clm_detour.data.auto_tokenizer import check_auto_tokenizer
from clm_detour.data.extend_tokenizer import extend_tokenizer
from clm_detour.data.token_characters import count_characters
from clm_detour.data.token_choice import best_pairs
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import write_json

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
UNUSED = [f"[unused{number}]" for number in range(3)]
GENERAL = [
    "The house on the hill was sold to a family from the city, who painted it white.",
    "He didn't see why the train was late; 24 people waited on platform 3.",
    "Une maison blanche, près de la gare (à vendre).",
] * 10
DOMAIN = [
    "The patient received acetaminophen 500 mg and ibuprofen for the pericarditis.",
    "Pericarditis resolved; acetaminophen was stopped, colchicine continued.",
    "Colchicine and ibuprofen are given in pericarditis, acetaminophen in fever.",
] * 10
ALL = GENERAL + DOMAIN


def byte_level() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(GENERAL, trainer)
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL + UNUSED, show_progress=False)
    tokenizer.train_from_iterator(ALL, trainer)
    return tokenizer


def unigram() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=SPECIAL + UNUSED, unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(ALL, trainer)
    return tokenizer


def word_piece() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=110, special_tokens=SPECIAL + UNUSED, show_progress=False)
    tokenizer.train_from_iterator(ALL, trainer)
    return tokenizer


KINDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "byte-level": byte_level, "Metaspace": metaspace, "unigram": unigram, "WordPiece": word_piece,
}  # fmt: skip


def save(tokenizer: tokenizers.Tokenizer, folder: Path) -> Path:
    """Write a tokenizer as ModernBERT's, with special and unused tokens after a byte-level vocabulary."""
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken(name, normalized=True) for name in UNUSED])
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL}
    unused = {
        str(tokenizer.token_to_id(name)): {"content": name, "special": False, "normalized": True,
                                           "lstrip": False, "rstrip": False, "single_word": False}
        for name in UNUSED
    }  # fmt: skip
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": unused, **names}
    write_json(folder / "tokenizer_config.json", {**config, "clean_up_tokenization_spaces": False})
    return folder


Pair = tuple[Tokenizer, Tokenizer, Path]


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def extended(kind, tmp_path_factory) -> Pair:
    """A tokenizer of each kind before and after eight tokens are added, three of them in unused entries."""
    root = tmp_path_factory.mktemp("extended")
    before = save(KINDS[kind](), root / "before")
    extend_tokenizer(str(before), root / "after", DOMAIN, 8)
    return load_tokenizer(str(before)), load_tokenizer(str(root / "after")), root / "after"


def test_the_words_that_save_most_tokens_are_added_and_the_texts_become_shorter(extended):
    before, after, _ = extended
    assert len(after.added.pieces) == 8
    old, new = (sum(map(len, tokenizer.encode_batch(DOMAIN))) for tokenizer in (before, after))
    assert new < old
    assert sum(map(after.added.count_before, after.encode_batch(DOMAIN))) == old


def test_unused_entries_are_filled_before_the_vocabulary_grows_and_other_ids_stay(extended):
    before, after, _ = extended
    unused = [before.tokenizer.token_to_id(name) for name in UNUSED]
    assert list(after.added.pieces) == [*unused, *range(before.vocab_size, before.vocab_size + 5)]
    assert after.vocab_size == before.vocab_size + 5
    names = before.tokenizer.get_vocab(with_added_tokens=True)
    now = after.tokenizer.get_vocab(with_added_tokens=True)
    assert {name: id for name, id in now.items() if id not in after.added.pieces} == {
        name: id for name, id in names.items() if name not in UNUSED
    }


def test_fewer_tokens_than_unused_entries_leave_the_size_as_it_is(kind, tmp_path):
    before = save(KINDS[kind](), tmp_path / "before")
    extend_tokenizer(str(before), tmp_path / "after", DOMAIN, 2)
    old, new = load_tokenizer(str(before)), load_tokenizer(str(tmp_path / "after"))
    assert new.vocab_size == old.vocab_size
    assert new.special_ids == old.special_ids
    assert new.tokenizer.token_to_id("[unused2]") == old.tokenizer.token_to_id("[unused2]")


WORDS = ["acetaminophen", "pericarditis", "ibuprofen", "colchicine", "the", "house", "fever", "a"]
ENDS = ["", "s", "-", " ", "  ", "\n", ".", "24", "itis"]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(WORDS + ENDS), max_size=10).map("".join))
def test_every_text_comes_back_and_what_is_joined_is_divided_as_before(extended, kind, text):
    before, after, _ = extended
    (old,), (new,) = before.encode_batch([text]), after.encode_batch([text])
    assert after.tokenizer.decode(new.tolist()) == before.tokenizer.decode(old.tolist())
    if kind != "WordPiece":
        np.testing.assert_array_equal(after.added.divide(new), old)


def test_texts_of_other_domains_are_no_longer_than_before(extended):
    before, after, _ = extended
    for old, new in zip(before.encode_batch(GENERAL), after.encode_batch(GENERAL), strict=True):
        assert len(new) <= len(old)


def test_offsets_of_new_tokens_are_those_of_their_text(extended):
    _, after, _ = extended
    encoding = after.tokenizer.encode(DOMAIN[0], add_special_tokens=False)
    new = [place for place, id in enumerate(encoding.ids) if id in after.added.pieces]
    assert new
    for place in new:
        start, end = encoding.offsets[place]
        name = after.tokenizer.id_to_token(encoding.ids[place]).strip("▁Ġ")
        assert name in DOMAIN[0][start:end].lower().strip() or name in DOMAIN[0][start:end]


def test_transformers_reads_the_extended_tokenizer_as_training_does(extended):
    _, after, folder = extended
    check_auto_tokenizer(str(folder), after)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs(DOMAIN[1])["input_ids"] == after.encode_batch(DOMAIN[1:2])[0].tolist()
    assert len(theirs) == after.vocab_size


def test_the_addition_is_the_same_each_time(kind, tmp_path):
    before = save(KINDS[kind](), tmp_path / "before")
    for name in "ab":
        extend_tokenizer(str(before), tmp_path / name, iter(DOMAIN), 8)
    one, other = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab")
    assert one == other


def test_pairs_are_joined_in_the_order_of_what_they_save():
    words = Counter({(0, 1, 2): 5, (1, 2): 4, (0, 1): 3, (3, 3, 3): 2})
    names = {0: "a", 1: "b", 2: "c", 3: "d"}
    assert best_pairs(words, 9, names, operator.add) == [(1, 2), (0, 4), (3, 3), (0, 1), (6, 3)]
    assert best_pairs(words, 2, {**names, 4: "bc"}, operator.add) == [(0, 1), (5, 2)]


@given(st.lists(st.integers(0, 9), max_size=30))
def test_dividing_puts_the_pieces_in_the_place_of_each_added_token(ids):
    added = AddedTokens({7: (1, 2, 3), 9: (4, 5)})
    expected = [piece for id in ids for piece in added.pieces.get(id, (id,))]
    array = np.array(ids, dtype=np.uint32)
    assert added.divide(array).tolist() == expected
    assert added.count_before(array) == len(expected)


def test_a_tokenizer_of_whole_words_is_refused(tmp_path):
    tokenizer = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(GENERAL, trainers.WordLevelTrainer(special_tokens=SPECIAL))
    with pytest.raises(UserError, match="cannot be added to a WordLevel tokenizer"):
        extend_tokenizer(str(save(tokenizer, tmp_path / "before")), tmp_path / "after", DOMAIN, 8)


def test_texts_without_a_divided_word_are_refused(tmp_path):
    before = save(byte_level(), tmp_path / "before")
    with pytest.raises(UserError, match="no word of the sources"):
        extend_tokenizer(str(before), tmp_path / "after", ["a b c", ""], 8)
    assert not (tmp_path / "after" / "tokenizer.json").exists()


@pytest.mark.shared
def test_the_83_unused_entries_of_modernbert_are_filled(shared_data: Path, tmp_path):
    path = str(shared_data / "tokenizer" / "modernbert")
    (tmp_path / "after").mkdir()
    extend_tokenizer(path, tmp_path / "after", DOMAIN * 5, 83)
    before, after = load_tokenizer(path), load_tokenizer(str(tmp_path / "after"))
    assert after.vocab_size == before.vocab_size == 50368
    assert set(after.added.pieces) <= set(range(50285, 50368))
    kept = json.loads((tmp_path / "after" / "tokenizer.json").read_text())["added_tokens"]
    assert len(kept) == 116 - len(after.added.pieces)


def test_the_characters_of_the_tokens_of_a_text_add_up_to_the_text(extended, kind):
    before, after, _ = extended
    text = "The patient received acetaminophen and colchicine."
    wanted = {"byte-level": len(text), "WordPiece": len(text.replace(" ", ""))}.get(kind, len(f"▁{text}"))
    for tokenizer in (before, after):
        (ids,) = tokenizer.encode_batch([text])
        assert tokenizer.unk not in ids
        assert count_characters(tokenizer)[ids].sum() == wanted
