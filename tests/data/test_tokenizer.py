"""The tokenizer: ids like those of the library, whole documents, no special token from a text."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, ModernBertConfig

from clm_detour.config import load_config
from clm_detour.data import tokenizer as tokenizer_module
from clm_detour.data.auto_tokenizer import check_auto_tokenizer
from clm_detour.data.sources import Document
from clm_detour.data.tokenization import tokenize
from clm_detour.data.tokenizer import Tokenizer, copy_tokenizer, load_tokenizer
from clm_detour.data.tokenizer_training import set_max_length, train_tokenizer
from clm_detour.evaluate.finetune.windows import WordEncoder, frame_text
from clm_detour.model.pretrained import load_fast_tokenizer
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import check_fit
from clm_detour.run.before_training import prepare_tokenizer
from clm_detour.run.engine import StepRunner
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import write_json

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
        "import sys; from pathlib import Path; "
        "from clm_detour.data.tokenizer_training import train_tokenizer; "
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
    padding = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    cutting = load_tokenizer(
        str(edited(folder, tmp_path / "cutting", truncation=truncation, padding=padding))
    )
    texts = ["aspirin " * 5000, "x"]
    for ours, theirs in zip(tokenizer.encode_batch(texts), cutting.encode_batch(texts), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(cutting.encode_batch(texts)[0]) > 5000
    assert cutting.fingerprint == tokenizer.fingerprint


def template(*single: str, ids: dict[str, int]) -> dict[str, Any]:
    """A post-processor that writes these tokens, "$" for the text."""
    pieces = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if token == "$"
        else {"SpecialToken": {"id": token, "type_id": 0}}
        for token in single
    ]
    special = {token: {"id": token, "ids": [id], "tokens": [token]} for token, id in ids.items()}
    pair = [*pieces, {"Sequence": {"id": "B", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": pieces, "pair": pair, "special_tokens": special}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize("writes_nothing", [None, BYTE_LEVEL])
def test_where_a_tokenizer_writes_no_frame_training_and_the_exported_one_write_cls_and_sep(
    folder, tokenizer, tmp_path, writes_nothing
):
    bare = edited(folder, tmp_path / "bare", post_processor=writes_nothing)
    loaded = load_tokenizer(str(bare))
    np.testing.assert_array_equal(loaded.encode_batch(TEXTS[:1])[0], tokenizer.encode_batch(TEXTS[:1])[0])
    assert (
        AutoTokenizer.from_pretrained(bare)(TEXTS[0])["input_ids"]
        != loaded.encode_batch(TEXTS[:1])[0].tolist()
    )
    (tmp_path / "exported").mkdir()
    copy_tokenizer(str(bare), tmp_path / "exported")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert theirs(TEXTS[0])["input_ids"] == loaded.encode_batch(TEXTS[:1])[0].tolist()
    assert load_tokenizer(str(tmp_path / "exported")).fingerprint == loaded.fingerprint
    check_auto_tokenizer(str(bare), loaded)


def test_a_tokenizer_that_writes_its_frame_is_exported_byte_for_byte(folder, tmp_path):
    copy_tokenizer(str(folder), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_the_frame_is_the_one_that_the_post_processor_writes_whatever_cls_and_sep_are_named(
    folder, tokenizer, tmp_path
):
    spec = json.loads((folder / "tokenizer.json").read_text())
    more = [
        {**spec["added_tokens"][0], "id": 320 + place, "content": content}
        for place, content in enumerate(("<s>", "</s>"))
    ]
    two = edited(
        folder,
        tmp_path / "two",
        added_tokens=[*spec["added_tokens"], *more],
        post_processor=template("<s>", "$", "</s>", ids={"<s>": 320, "</s>": 321}),
    )
    loaded = load_tokenizer(str(two))
    assert (loaded.cls, loaded.sep, loaded.vocab_size) == (320, 321, 322)
    assert loaded.frame_example() == "<s> the patient had fever </s>"
    assert {tokenizer.cls, tokenizer.sep, 320, 321} <= set(loaded.special_ids)
    assert loaded.fingerprint != tokenizer.fingerprint
    ids = {"cls_token_id": tokenizer.cls, "sep_token_id": tokenizer.sep, "pad_token_id": tokenizer.pad}
    check_fit(ModernBertConfig(vocab_size=384, bos_token_id=320, eos_token_id=321, **ids), loaded)
    with pytest.raises(UserError, match="use the tokenizer that the model was trained with"):
        check_fit(ModernBertConfig(vocab_size=384, bos_token_id=5, eos_token_id=6, **ids), loaded)
    theirs = AutoTokenizer.from_pretrained(two)
    assert theirs(TEXTS[:3])["input_ids"] == [ids.tolist() for ids in loaded.encode_batch(TEXTS[:3])]
    check_auto_tokenizer(str(two), loaded)


@pytest.mark.parametrize("single", [("[CLS]", "$"), ("$", "[SEP]"), ("[CLS]", "[CLS]", "$", "[SEP]")])
def test_a_frame_of_other_than_one_token_before_and_after_is_refused_with_a_remedy(folder, tmp_path, single):
    odd = edited(folder, tmp_path / "odd", post_processor=template(*single, ids={"[CLS]": 1, "[SEP]": 2}))
    with pytest.raises(
        UserError, match=r"needs one special token before a text and one after.*TemplateProcessing"
    ):
        load_tokenizer(str(odd))


@pytest.mark.parametrize(
    ("one", "other"),
    [("mask", "cls"), ("mask", "sep"), ("mask", "pad"), ("mask", "unk"), ("pad", "cls"), ("pad", "sep")],
)
def test_roles_that_must_differ_and_share_a_token_are_refused(folder, tmp_path, one, other):
    copy = edited(folder, tmp_path / "copy")
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**config, f"{one}_token": f"[{other.upper()}]"}))
    with pytest.raises(UserError, match=rf"as its {one} token and as its {other} token, which must differ"):
        load_tokenizer(str(copy))


def test_the_unknown_token_may_serve_as_padding_or_frame(folder, tmp_path):
    copy = edited(folder, tmp_path / "copy")
    config = json.loads((copy / "tokenizer_config.json").read_text())
    for token in ("[PAD]", "[SEP]"):
        (copy / "tokenizer_config.json").write_text(json.dumps({**config, "unk_token": token}))
        assert load_tokenizer(str(copy)).tokenizer.token_to_id(token) == load_tokenizer(str(copy)).unk


def test_text_that_spells_a_special_token_of_a_unigram_vocabulary_is_unknown_text(tmp_path):
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<pad>", "<mask>"]
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    names = {"unk": "<unk>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "mask": "<mask>"}
    config = {f"{role}_token": name for role, name in names.items()}
    write_json(tmp_path / "tokenizer_config.json", {**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    loaded = load_tokenizer(str(tmp_path))
    assert made.token_to_id("<mask>") in made.encode("pain <mask>.").ids
    (ids,) = loaded.encode_batch(["pain <mask> <s></s><pad>."])
    assert not set(ids[1:-1].tolist()) & {loaded.cls, loaded.sep, loaded.pad, loaded.mask}
    assert loaded.unk in ids
    words = WordEncoder(AutoTokenizer.from_pretrained(tmp_path))
    assert [*words.opening, *words.tokens(["pain <mask>."])[0], *words.closing] == loaded.encode_batch(
        ["pain <mask>."]
    )[0].tolist()


@pytest.mark.parametrize("text", SPELLED)
def test_fine_tuning_reads_text_as_preparing_does(folder, tokenizer, text):
    ids, _ = frame_text(load_fast_tokenizer(str(folder)), [text, TEXTS[0]], 512)
    assert ids == [each.tolist() for each in tokenizer.encode_batch([text, TEXTS[0]])]


def test_a_configuration_that_transformers_reads_otherwise_is_refused(folder, tmp_path, monkeypatch):
    loaded = load_tokenizer(str(folder))
    check_auto_tokenizer(str(folder), loaded)
    unnamed = edited(folder, tmp_path / "unnamed")
    (unnamed / "special_tokens_map.json").unlink()
    (unnamed / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(
        UserError, match=r"mask token .* has the id 4 here and None in transformers; name it as mask_token"
    ):
        check_auto_tokenizer(str(unnamed), load_tokenizer(str(unnamed)))
    other = AutoTokenizer.from_pretrained(folder)
    other.backend_tokenizer.post_processor = None
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: other)
    with pytest.raises(
        UserError,
        match=r'differently: "\[CLS\] .* \[SEP\]" here.*in its tokenizer_config',
    ):
        check_auto_tokenizer(str(folder), loaded)


def test_a_trained_tokenizer_carries_the_length_that_it_was_trained_for(tmp_path):
    train_tokenizer(TEXTS, 320, tmp_path, 128)
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 128
    before = (tmp_path / "tokenizer_config.json").stat().st_mtime_ns
    set_max_length(tmp_path, 128)
    assert (tmp_path / "tokenizer_config.json").stat().st_mtime_ns == before
    set_max_length(tmp_path, 64)
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 64


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
    (copy / "tokenizer_config.json").write_text('{"pad_token": {"content": "[UNK]", "lstrip": true}}')
    assert load_tokenizer(str(copy)).pad == tokenizer.unk
    (copy / "tokenizer_config.json").write_text('{"mask_token": "<gone>"}')
    with pytest.raises(UserError, match=r"has no mask token <gone> in its tokenizer\.json, though"):
        load_tokenizer(str(copy))
    spec = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer_config.json").write_text("{}")
    left = [token for token in spec["added_tokens"] if token["content"] != "[MASK]"]
    (copy / "tokenizer.json").write_text(json.dumps({**spec, "added_tokens": left}))
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
    monkeypatch.setattr("clm_detour.data.tokenization.BATCH_CHARACTERS", 1000)
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
    with pytest.raises(UserError, match="A text of 401 characters cannot be tokenized in pieces"):
        tokenizer.encode_batch(["x" * 401])


@pytest.mark.shared
def test_the_real_tokenizer_keeps_what_is_special_apart(shared_data):
    folder = shared_data / "tokenizer" / "modernbert"
    real = load_tokenizer(str(folder))
    assert (real.vocab_size, real.unk, real.cls, real.sep, real.pad, real.mask) == (
        50368,
        *range(50280, 50285),
    )
    assert real.fingerprint == "adef5c67a54997f33c56c234fa8d7e8d9eb775b9586378699fccb611b815733c"
    assert (real.frame_example(), real.spelled) == ("[CLS] the patient had fever [SEP]", ())
    check_auto_tokenizer(str(folder), real)
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "BP 120/80.  Call |||PHONE_NUMBER||| [unused3]."  # these two are added tokens, but not special
    assert real.encode_batch([text])[0].tolist() == raw.encode(text).ids
    assert raw.token_to_id("|||PHONE_NUMBER|||") in real.encode_batch([text])[0]
    (ids,) = real.encode_batch(["a [MASK] <|endoftext|> <|padding|>"])
    assert not set(ids[1:-1].tolist()) & set(real.special_ids)


def test_a_run_trains_its_tokenizer_for_its_rows_and_follows_their_length(tmp_path):
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    recipe = {
        "run_dir": str(tmp_path / "run"),
        "data": {
            "sequence_length": 64,
            "sources": {"texts": {"path": str(tmp_path / "texts.jsonl")}},
            "mixtures": {"all": {"texts": 1.0}},
        },
        "tokenizer": {"train": {"vocab_size": 320, "documents": 60}},
        "model": {"config": {"hidden_size": 32}},
        "phases": {
            "clm": {
                "objective": "clm",
                "mixture": "all",
                "duration": "1ktok",
                "schedule": {"name": "linear", "peak": 1e-3},
            }
        },
        "arms": {"one": ["clm"]},
    }  # fmt: skip
    write_json(tmp_path / "recipe.json", recipe)
    config = load_config(tmp_path / "recipe.json")
    for length, trained in ((64, True), (128, False)):
        config.data.sequence_length = length
        runner = StepRunner(tmp_path / "steps.json")
        prepare_tokenizer(runner, config.data, config.tokenizer.train, Recipe(config).folder)
        assert (runner.ran == 1) is trained
        assert AutoTokenizer.from_pretrained(tmp_path / "run" / "tokenizer").model_max_length == length


def test_a_vocabulary_of_bert_is_converted_to_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chest", "pain", "##ful", ".", "aspirin"]
    older = tmp_path / "older"
    older.mkdir()
    (older / "vocab.txt").write_text("\n".join(words))
    write_json(older / "config.json", {"model_type": "bert"})
    write_json(older / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    loaded = load_tokenizer(str(older))
    (ids,) = loaded.encode_batch(["Chest painful."])
    assert [words[id] for id in ids] == ["[CLS]", "chest", "pain", "##ful", ".", "[SEP]"]
    assert (loaded.pad, loaded.mask, loaded.unk) == (0, 4, 1)
    copy_tokenizer(str(older), tmp_path)
    assert load_tokenizer(str(tmp_path)).fingerprint == loaded.fingerprint
    assert not (older / "tokenizer.json").exists()


def test_a_folder_without_any_file_of_a_tokenizer_is_refused(tmp_path: Path):
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        load_tokenizer(str(tmp_path))
