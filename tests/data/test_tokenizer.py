"""The tokenizer: ids like those of the tokenizers library, whole documents, and no special token out of a text."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from clm_detour.data import tokenizer as tokenizer_module
from clm_detour.data.sources import Document
from clm_detour.data.tokenize import tokenize
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from clm_detour.errors import UserError

TEXTS = [
    "The patient was given aspirin 100 mg twice daily for chest pain.",
    "Le patient a reçu de l'aspirine, 100 mg deux fois par jour.",
    "Chest pain resolved; aspirin was continued.\n\nFollow-up in 2 weeks.",
] * 20
SPELLED = ["[MASK]", "a [MASK] b", "[CLS][SEP] [PAD]", "x[UNK]", "  [MASK]\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 320, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder) -> Tokenizer:
    return load_tokenizer(str(folder))


def edited(folder: Path, copy: Path, **changes: object) -> Path:
    """A copy of a tokenizer's folder with other values at the top of its tokenizer.json."""
    shutil.copytree(folder, copy)
    spec = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps({**spec, **changes}))
    return copy


@pytest.mark.parametrize("fatal", [1, 2, 3])
def test_a_tokenizer_whose_training_was_killed_has_no_tokenizer_json_or_is_whole(
    folder, tmp_path, monkeypatch, fatal
):
    replace, writes = os.replace, 0

    def counted(*arguments):
        nonlocal writes
        writes += 1
        if writes == fatal:
            raise KeyboardInterrupt
        replace(*arguments)

    monkeypatch.setattr(os, "replace", counted)
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(TEXTS, 320, tmp_path)
    whole = {path.name for path in folder.iterdir()}
    there = {path.name for path in tmp_path.iterdir()}
    assert len(there) == fatal - 1
    assert "tokenizer.json" not in there or there == whole


def test_a_trained_tokenizer_opens_in_transformers_with_its_special_tokens(folder, tokenizer):
    theirs = AutoTokenizer.from_pretrained(folder)
    for role in ("cls", "sep", "pad", "mask", "unk"):
        assert getattr(theirs, f"{role}_token") == f"[{role.upper()}]"
        assert getattr(theirs, f"{role}_token_id") == getattr(tokenizer, role)
    assert theirs.model_input_names == ["input_ids", "attention_mask"]
    assert len(theirs) == tokenizer.vocab_size == 320
    assert theirs(TEXTS[:3])["input_ids"] == [ids.tolist() for ids in tokenizer.encode_batch(TEXTS[:3])]
    mask = theirs("chest [MASK].", add_special_tokens=False)["input_ids"]
    assert (
        mask == theirs("chest[MASK].", add_special_tokens=False)["input_ids"]
    )  # the space belongs to the mask


def test_training_is_deterministic_in_another_process(folder, tmp_path):
    script = (
        "import sys; from pathlib import Path; from clm_detour.data.tokenizer import train_tokenizer; "
        f"train_tokenizer({TEXTS!r}, 320, Path(sys.argv[1]))"
    )
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_a_vocabulary_without_room_for_all_bytes_is_refused(tmp_path):
    with pytest.raises(UserError, match="vocabulary of 100 is too small"):
        train_tokenizer(TEXTS, 100, tmp_path)
    with pytest.raises(UserError, match="no text"):
        train_tokenizer([], 320, tmp_path)


@settings(deadline=None)
@given(st.text())
def test_every_text_comes_back_up_to_unicode_normalisation(tokenizer, text):
    (ids,) = tokenizer.encode_batch([text])
    assert (ids[0], ids[-1]) == (tokenizer.cls, tokenizer.sep)
    assert tokenizer.tokenizer.decode(ids[1:-1].tolist()) == unicodedata.normalize("NFC", text)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*SPELLED, "aspirin", " "]), min_size=1).map("".join))
def test_text_that_spells_special_tokens_stays_text(tokenizer, text):
    (ids,) = tokenizer.encode_batch([text])
    assert not set(ids[1:-1].tolist()) & set(tokenizer.special_ids)
    assert tokenizer.tokenizer.decode(ids[1:-1].tolist()) == text


def test_long_documents_are_neither_cut_nor_padded(folder, tokenizer, tmp_path):
    truncation = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    cutting = load_tokenizer(
        str(edited(folder, tmp_path / "cutting", truncation=truncation, padding=padding))
    )
    texts = ["aspirin " * 5000, "x"]
    for ours, theirs in zip(tokenizer.encode_batch(texts), cutting.encode_batch(texts), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(cutting.encode_batch(texts)[0]) > 5000
    assert cutting.fingerprint == tokenizer.fingerprint


def test_the_frame_does_not_depend_on_the_post_processor(folder, tokenizer, tmp_path):
    bare = load_tokenizer(str(edited(folder, tmp_path / "bare", post_processor=None)))
    np.testing.assert_array_equal(bare.encode_batch(["x y"])[0], tokenizer.encode_batch(["x y"])[0])


def test_the_fingerprint_is_of_what_decides_the_ids(folder, tokenizer, tmp_path):
    spec = json.loads((folder / "tokenizer.json").read_text())
    joined = {**spec["model"], "merges": [" ".join(merge) for merge in spec["model"]["merges"]], "new": None}
    assert (
        load_tokenizer(str(edited(folder, tmp_path / "a", model=joined))).fingerprint == tokenizer.fingerprint
    )
    for name, change in {
        "normalizer": {"normalizer": {"type": "NFKC"}},
        "merges": {"model": {**spec["model"], "merges": spec["model"]["merges"][:-1]}},
    }.items():
        assert (
            load_tokenizer(str(edited(folder, tmp_path / name, **change))).fingerprint
            != tokenizer.fingerprint
        )
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert load_tokenizer(str(tmp_path / "saved")).fingerprint == tokenizer.fingerprint


def test_special_tokens_come_from_the_configuration_and_else_from_their_usual_names(
    folder, tokenizer, tmp_path
):
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        copy = tmp_path / file
        shutil.copytree(folder, copy)
        (copy / file).unlink()
        assert load_tokenizer(str(copy)).mask == tokenizer.mask
    (copy / "tokenizer_config.json").unlink()
    assert load_tokenizer(str(copy)).special_ids == tokenizer.special_ids
    (copy / "tokenizer_config.json").write_text('{"mask_token": {"content": "[UNK]", "lstrip": true}}')
    assert load_tokenizer(str(copy)).mask == tokenizer.unk
    (copy / "tokenizer_config.json").write_text('{"mask_token": "<gone>"}')
    with pytest.raises(UserError, match=r"has no mask token: name one in tokenizer_config\.json"):
        load_tokenizer(str(copy))


def test_what_is_not_a_tokenizer_says_so(tmp_path):
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    for content, message in (
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "is not a tokenizer that"),
    ):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match=message):
            load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", ["nobody/nothing", "no-such-folder/", "../x/y/z", "nothing"])
def test_a_name_that_is_neither_a_folder_nor_on_the_hub_says_so(name):
    with pytest.raises(
        UserError, match=r"not a folder here and could not be fetched from the Hugging Face hub"
    ):
        load_tokenizer(name)


def test_streaming_gives_what_a_single_batch_gives_and_in_order(tokenizer, monkeypatch):
    monkeypatch.setattr("clm_detour.data.tokenize.BATCH_CHARACTERS", 1000)
    texts = [f"{number} " * (1 + number % 400) for number in range(0, 20_000, 173)]
    for threads in (1, 2):
        documents = (Document(text, copies=1) for text in texts)
        streamed = [pair for batch in tokenize(documents, tokenizer, lambda: threads) for pair in batch]  # noqa: B023
        assert [document.text for document, _ in streamed] == texts
        for (_, ids), expected in zip(streamed, tokenizer.encode_batch(texts), strict=True):
            np.testing.assert_array_equal(ids, expected)


def test_a_tokenizer_sent_to_another_process_is_the_same(tokenizer):
    sent = pickle.loads(pickle.dumps(tokenizer))
    text = "a [MASK] is text"
    assert sent.encode_batch([text])[0].tolist() == tokenizer.encode_batch([text])[0].tolist()
    assert tokenizer.mask not in sent.encode_batch([text])[0]


@given(text=st.text(st.sampled_from("ab1 .\n\t\u0301é")))
def test_a_long_text_in_pieces_has_the_ids_of_the_whole(tokenizer, text):
    (whole,) = tokenizer.encode_batch([text])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "LONG_CHARACTERS", 8)
        (pieces,) = tokenizer.encode_batch([text])
    np.testing.assert_array_equal(pieces, whole)


def test_a_long_text_is_cut_often_and_one_without_blanks_not_at_all(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "LONG_CHARACTERS", 100)
    monkeypatch.setattr(tokenizer_module, "LONGEST_PIECE", 400)
    assert len(tokenizer.cuts("some words " * 1000)) > 50
    assert tokenizer.cuts("x" * 400) == []
    assert tokenizer.cuts("x" * 401) is None
    with pytest.raises(UserError, match="A text of 401 characters cannot be tokenised in pieces"):
        tokenizer.encode_batch(["x" * 401])


@pytest.mark.shared
def test_the_real_tokenizer_keeps_what_is_special_apart(shared_data):
    folder = shared_data / "tokenizer" / "modernbert"
    real = load_tokenizer(str(folder))
    assert (real.vocab_size, real.unk, real.cls, real.sep, real.pad, real.mask) == (
        50368,
        *range(50280, 50285),
    )
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "BP 120/80.  Call |||PHONE_NUMBER||| [unused3]."  # these two are added tokens, but not special
    assert real.encode_batch([text])[0].tolist() == raw.encode(text).ids
    assert raw.token_to_id("|||PHONE_NUMBER|||") in real.encode_batch([text])[0]
    (ids,) = real.encode_batch(["a [MASK] <|endoftext|> <|padding|>"])
    assert not set(ids[1:-1].tolist()) & set(real.special_ids)
