"""Shards: what is written comes back, and damage of any kind is noticed."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from reading import FINGERPRINT, write_shards

from clm_detour.data.shards import ShardWriter, TokenShards, token_dtype
from clm_detour.utils.errors import UserError


def some_documents(count: int = 50, vocab_size: int = 50_368, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(vocab_size, size=random.integers(2, 40), dtype=np.uint32) for _ in range(count)]


def write(
    folder: Path, documents: list[np.ndarray], vocab_size: int = 50_368, shard_tokens: int = 200
) -> Path:
    return write_shards(folder, documents, vocab_size, shard_tokens, dropped={"empty": 2})


def read(shards: TokenShards) -> list[np.ndarray]:
    documents: list[np.ndarray] = []
    for shard in range(len(shards)):
        documents += np.split(shards.tokens(shard), np.cumsum(shards.lengths(shard))[:-1])
    return documents


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(50_368, "uint16"), (65_536, "uint16"), (65_537, "uint32")]
)
def test_documents_come_back_in_the_smallest_dtype_that_holds_them(tmp_path, vocab_size, dtype):
    documents = some_documents(vocab_size=vocab_size)
    documents[0][0] = vocab_size - 1
    shards = TokenShards.open(write(tmp_path, documents, vocab_size), FINGERPRINT)
    assert len(shards) > 3
    assert shards.tokens(0).dtype == token_dtype(vocab_size) == np.dtype(dtype)
    for ours, theirs in zip(read(shards), documents, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert shards.documents == len(documents)
    assert shards.num_tokens == sum(map(len, documents))
    assert shards.index["dropped"] == {"empty": 2}
    shards.verify()


def test_shards_close_at_the_first_document_that_fills_them(tmp_path):
    shards = TokenShards.open(write(tmp_path, [np.arange(30)] * 20))
    assert [shard["tokens"] for shard in shards.index["shards"]] == [210, 210, 180]


def test_a_split_may_be_empty(tmp_path):
    shards = TokenShards.open(write(tmp_path, []))
    assert (len(shards), shards.documents, shards.num_tokens) == (0, 0, 0)
    shards.verify()


def test_writing_again_leaves_nothing_of_the_shards_before(tmp_path):
    first = write(tmp_path / "a", some_documents(5))
    write(tmp_path / "b", some_documents(50))
    (tmp_path / "b" / "rows-64.json").write_text("{}")
    (tmp_path / "b" / "notes.txt").write_text("mine")
    write(tmp_path / "b", some_documents(5))
    (tmp_path / "b" / "notes.txt").unlink()
    files = sorted(file.name for file in first.iterdir())
    assert sorted(file.name for file in (tmp_path / "b").iterdir()) == files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_an_unfinished_folder_is_not_opened(tmp_path):
    writer = ShardWriter(tmp_path, 50_368, shard_tokens=10)
    writer.add(np.arange(20))
    with pytest.raises(
        UserError, match=r"holds no finished shards \(no index\.json\): run `clm-detour prepare`"
    ):
        TokenShards.open(tmp_path)
    with pytest.raises(UserError, match="holds no finished shards"):
        TokenShards.open(tmp_path / "nowhere")


def test_a_writer_goes_on_after_the_last_whole_shard(tmp_path):
    documents = some_documents(50)
    whole = write(tmp_path / "whole", documents)
    for damaged in ("shard-00002.json", "tokens-00002.bin", "lengths-00002.npy"):
        broken = tmp_path / damaged
        shutil.copytree(whole, broken)
        (broken / "index.json").unlink()
        (broken / damaged).unlink()
        (broken / f".{damaged}.tmp123").write_text("half")
        writer = ShardWriter(broken, 50_368, shard_tokens=200)
        assert len(writer.shards) == 2
        for document in documents[writer.documents :]:
            writer.add(document)
        writer.finish()
        assert {path.name: path.read_bytes() for path in broken.iterdir()} == {
            path.name: path.read_bytes() for path in whole.iterdir() if path.name != "index.json"
        }


def test_another_tokenizer_is_refused(tmp_path):
    write(tmp_path, some_documents())
    with pytest.raises(
        UserError, match=r"made with another tokenizer \(fingerprint ffffffffffff, not 000000000000\)"
    ):
        TokenShards.open(tmp_path, "0" * 64)


@pytest.mark.parametrize("name", ["tokens-00001.bin", "lengths-00002.npy"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "is missing: delete the folder and run"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"is truncated \([\d,]+ bytes, not [\d,]+\)"),
        (lambda file: file.write_bytes(file.read_bytes() + b"\0"), "is longer than what was written"),
    ],
)
def test_a_missing_truncated_or_lengthened_file_is_noticed_on_opening(tmp_path, name, damage, message):
    write(tmp_path, some_documents())
    damage(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} {message}"):
        TokenShards.open(tmp_path)


@pytest.mark.parametrize("name", ["tokens-00001.bin", "lengths-00002.npy"])
def test_one_flipped_bit_is_found_by_verify(tmp_path, name):
    write(tmp_path, some_documents())
    content = bytearray((tmp_path / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged \(its checksum does not match the index\)"):
        TokenShards.open(tmp_path).verify()


def test_a_broken_or_foreign_index_says_so(tmp_path):
    write(tmp_path, some_documents())
    for content, message in (
        ("{", "not valid JSON"),
        ("[]", "not of format 1"),
        ('{"format": 99}', "not of format 1"),
    ):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(UserError, match=message):
            TokenShards.open(tmp_path)


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="Cannot write"):
        ShardWriter(tmp_path / "file" / "train", 50_368)


def test_sending_shards_to_another_process_does_not_send_the_tokens(tmp_path):
    shards = TokenShards.open(write(tmp_path, some_documents()))
    shards.tokens(0)
    sent = pickle.dumps(shards)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).tokens(0), shards.tokens(0))
