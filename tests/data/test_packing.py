"""Packing: every token once, rows full, and the same rows for the same seed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from reading import write_shards

from clm_detour.data.best_fit import PackedRows, pack, pack_pieces
from clm_detour.data.packing import PackedSource, write_packing
from clm_detour.data.shards import TokenShards
from clm_detour.utils.errors import UserError

ROW = 8192
SOME_LENGTHS = arrays.arrays(np.uint32, st.integers(0, 200), elements=st.integers(1, 300))


def papers(count: int = 4000) -> np.ndarray:
    """Lengths like full papers': median 5,600 tokens, one in six over 8,192."""
    return np.random.default_rng(0).lognormal(np.log(5600), 0.4, count).astype(np.uint32)


def abstracts(count: int = 60_000) -> np.ndarray:
    """Lengths like abstracts': about 300 tokens, few under 100 or over 600."""
    return np.clip(np.random.default_rng(0).lognormal(np.log(290), 0.4, count), 20, 2000).astype(np.uint32)


def rows_of(packed: PackedRows) -> np.ndarray:
    """The row of each piece."""
    return np.repeat(np.arange(len(packed)), np.diff(packed.row_starts.astype(np.int64)))


def row_tokens(packed: PackedRows) -> np.ndarray:
    return np.bincount(rows_of(packed), weights=packed.piece_length, minlength=len(packed)).astype(int)


def needless_cuts(lengths: np.ndarray, packed: PackedRows, row_length: int) -> int:
    pieces = np.bincount(packed.piece_document, minlength=len(lengths))
    return int(((pieces > 1) & (lengths <= row_length)).sum())


@settings(deadline=None)
@given(SOME_LENGTHS, st.integers(1, 128), st.integers(0, 2**63))
def test_every_token_is_in_one_row_and_no_row_is_overfull(lengths, row_length, seed):
    packed = pack(lengths, row_length, seed)
    ends = packed.piece_start.astype(int) + packed.piece_length
    assert (ends <= lengths[packed.piece_document]).all()
    first = (np.cumsum(lengths, dtype=int) - lengths)[packed.piece_document] + packed.piece_start
    ranges = [
        np.arange(start, start + length) for start, length in zip(first, packed.piece_length, strict=True)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate([[], *ranges])), np.arange(lengths.sum()))
    assert (row_tokens(packed) > 0).all()
    assert (row_tokens(packed) <= row_length).all()


@settings(deadline=None)
@given(SOME_LENGTHS, st.integers(8, 128), st.integers(1, 7), st.integers(0, 2**63))
def test_documents_are_cut_at_the_positions_of_a_model_and_rows_stay_full(lengths, row_length, longest, seed):
    packed = pack_pieces(lengths, row_length, seed, longest)
    assert (packed.piece_length <= longest).all()
    assert (packed.piece_start // longest == (packed.piece_start + packed.piece_length - 1) // longest).all()
    first = (np.cumsum(lengths, dtype=int) - lengths)[packed.piece_document] + packed.piece_start
    ranges = [
        np.arange(start, start + length) for start, length in zip(first, packed.piece_length, strict=True)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate([[], *ranges])), np.arange(lengths.sum()))
    total = int(lengths.sum())
    assert (row_tokens(packed) <= row_length).all()
    assert len(packed) == -(-total // row_length) or total >= 0.999 * len(packed) * row_length


@settings(deadline=None)
@given(SOME_LENGTHS, st.integers(1, 128), st.integers(0, 2**63))
def test_rows_are_as_few_as_possible_or_full_to_99_9_percent(lengths, row_length, seed):
    total = int(lengths.sum())
    rows = len(pack(lengths, row_length, seed))
    assert rows == -(-total // row_length) or total >= 0.999 * rows * row_length


@settings(deadline=None)
@given(SOME_LENGTHS, st.integers(1, 128), st.integers(0, 2**63))
def test_the_same_seed_gives_the_same_rows(lengths, row_length, seed):
    one, two = pack(lengths, row_length, seed), pack(lengths, row_length, seed)
    for name in ("piece_document", "piece_start", "piece_length", "row_starts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_the_rows_of_a_seed_stay_what_they_are():
    packed = pack(np.array([3, 5, 9, 2, 4, 7]), 8, seed=42)
    assert packed.piece_document.tolist() == [5, 2, 3, 4, 2, 1, 0]
    assert packed.piece_start.tolist() == [0, 8, 0, 0, 0, 0, 0]
    assert packed.piece_length.tolist() == [7, 1, 2, 4, 8, 5, 3]
    assert packed.row_starts.tolist() == [0, 2, 4, 5, 7]


@pytest.mark.parametrize("lengths", [papers(), abstracts()], ids=["papers", "abstracts"])
def test_papers_and_abstracts_fill_rows_to_99_9_percent(lengths):
    packed = pack(lengths, ROW, seed=1)
    assert lengths.sum() >= 0.999 * ROW * (len(packed) - 1)
    np.testing.assert_array_equal(packed.piece_document.dtype, np.uint32)
    assert packed.row_starts.dtype == np.uint64


def test_few_documents_are_cut_that_need_not_be():
    assert needless_cuts(abstracts(), pack(abstracts(), ROW, 1), ROW) < 0.01 * len(abstracts())
    assert needless_cuts(papers(), pack(papers(), ROW, 1), ROW) < 0.1 * len(papers())
    fitting = np.array([4096] * 100 + [2048] * 100 + [8192] * 10)
    assert needless_cuts(fitting, pack(fitting, ROW, 1), ROW) == 0


def test_pieces_of_a_document_never_meet_in_a_row():
    packed = pack(papers(), ROW, 1)
    pairs = np.stack([rows_of(packed), packed.piece_document])
    assert len(np.unique(pairs, axis=1).T) == len(packed.piece_document)


@pytest.mark.parametrize("lengths", [papers(), abstracts()], ids=["papers", "abstracts"])
def test_neither_rows_nor_places_in_a_row_are_sorted_by_length(lengths):
    packed = pack(lengths, ROW, seed=3)
    row = rows_of(packed)
    starts = packed.row_starts.astype(np.int64)
    place = (np.arange(len(row)) - starts[row] + 0.5) / np.diff(starts)[row]
    long = np.argsort(np.argsort(packed.piece_length))
    for order in (row, place):
        assert abs(np.corrcoef(order, long)[0, 1]) < 0.06
    halves = [
        np.mean(packed.piece_length[half]) for half in (row < len(packed) // 2, row >= len(packed) // 2)
    ]
    assert halves[0] == pytest.approx(halves[1], rel=0.05)


def test_documents_of_one_length_are_shuffled_by_the_seed():
    lengths = np.full(1000, 64)
    first, second = (pack(lengths, 128, seed).piece_document for seed in (1, 2))
    assert (first == second).mean() < 0.05
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three shards of documents that know where they are: token = 100 * document + position."""
    lengths = np.random.default_rng(5).integers(2, 99, size=30)
    documents = (100 * document + np.arange(length) for document, length in enumerate(lengths))
    return write_shards(tmp_path, documents, vocab_size=2**32, shard_tokens=500)


def test_rows_on_disk_give_back_every_document(folder):
    assert write_packing(folder, 64, seed=1)
    source, shards = PackedSource.open(folder, 64, "f" * 64), TokenShards.open(folder)
    lengths = np.concatenate([shards.lengths(shard) for shard in range(len(shards))])
    documents = [np.full(length, -1) for length in lengths]
    for number in range(len(source)):
        row, pieces = source.row(number), source.pieces(number)
        assert len(row.tokens) == row.lengths.sum() <= 64
        parts = np.split(row.tokens, np.cumsum(row.lengths)[:-1])
        for part, document, start, length in zip(parts, *pieces, strict=True):
            assert (documents[document][start : start + length] == -1).all()
            documents[document][start : start + length] = part
    for number, document in enumerate(documents):
        np.testing.assert_array_equal(document, 100 * number + np.arange(len(document)))
    assert source.num_tokens == sum(lengths)
    assert source.fullness > 0.8
    source.verify()


def test_a_row_never_needs_two_shards(folder):
    write_packing(folder, 64, seed=1)
    source = PackedSource.open(folder, 64)
    ends = np.cumsum([shard["documents"] for shard in source.shards.index["shards"]])
    for number in range(len(source)):
        assert len(set(np.searchsorted(ends, source.pieces(number).document, side="right"))) == 1


def test_packing_is_done_again_only_for_another_length_or_seed(folder):
    assert write_packing(folder, 64, seed=1)
    before = PackedSource.open(folder, 64)
    assert not write_packing(folder, 64, seed=1)
    assert write_packing(folder, 32, seed=1)
    assert PackedSource.open(folder, 64).fingerprint == before.fingerprint  # lengths live side by side
    assert write_packing(folder, 64, seed=2)
    assert PackedSource.open(folder, 64).fingerprint != before.fingerprint
    assert write_packing(folder, 64, seed=1)
    assert PackedSource.open(folder, 64).fingerprint == before.fingerprint
    assert write_packing(folder, 64, seed=1, longest=20)
    assert not write_packing(folder, 64, seed=1, longest=20)
    cut = PackedSource.open(folder, 64)
    assert (cut.longest, before.longest) == (20, None)
    assert max(max(cut.row(number).lengths) for number in range(len(cut))) <= 20
    assert cut.fingerprint != before.fingerprint
    assert write_packing(folder, 64, seed=1)
    assert PackedSource.open(folder, 64).fingerprint == before.fingerprint


def test_what_is_not_packed_damaged_or_of_other_shards_says_so(folder):
    with pytest.raises(UserError, match="is not packed into rows of 64 tokens: run `clm-detour prepare`"):
        PackedSource.open(folder, 64)
    write_packing(folder, 64, seed=1)
    with pytest.raises(UserError, match="another tokenizer"):
        PackedSource.open(folder, 64, "0" * 64)

    rows = folder / "rows-64-00001.bin"
    content = bytearray(rows.read_bytes())
    content[-2] ^= 1
    rows.write_bytes(content)
    with pytest.raises(UserError, match=r"rows-64-00001\.bin is damaged"):
        PackedSource.open(folder, 64).verify()
    rows.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"rows-64-00001\.bin is truncated"):
        PackedSource.open(folder, 64)
    assert write_packing(folder, 64, seed=1)  # puts it right
    PackedSource.open(folder, 64).verify()

    index = (folder / "rows-64.json").read_bytes()
    write_shards(folder, [np.arange(10)], 2**32)
    (folder / "rows-64.json").write_bytes(index)
    with pytest.raises(UserError, match=r"rows-64\.json belongs to other shards"):
        PackedSource.open(folder, 64)


@pytest.mark.parametrize("kind", ["tokens-00001.bin", "rows-64-00001.bin"])
def test_with_a_flipped_byte_a_row_is_right_or_refused(folder, kind):
    write_packing(folder, 64, seed=1)
    whole = PackedSource.open(folder, 64)
    rows = [whole.row(number) for number in range(len(whole))]
    content = (folder / kind).read_bytes()
    for place in range(0, len(content), 13):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        (folder / kind).write_bytes(damaged)
        source = PackedSource.open(folder, 64)
        refused = 0
        for number, row in enumerate(rows):
            try:
                again = source.row(number)
            except UserError as error:
                refused += kind in str(error) and "is damaged" in str(error)
            else:
                np.testing.assert_array_equal(again.tokens, row.tokens)
                np.testing.assert_array_equal(again.lengths, row.lengths)
        assert refused or kind != "tokens-00001.bin"  # some bits of the other decide nothing


def test_rows_packed_by_an_older_release_are_packed_again(folder):
    write_packing(folder, 64, seed=1)
    index = (folder / "rows-64.json").read_text()
    (folder / "rows-64.json").write_text(index.replace('"format": 2', '"format": 1'))
    with pytest.raises(UserError, match=r"rows-64\.json is not of format 2: run `clm-detour prepare` again"):
        PackedSource.open(folder, 64)
    assert write_packing(folder, 64, seed=1)


def test_sending_rows_to_another_process_does_not_send_the_tokens(folder):
    write_packing(folder, 64, seed=1)
    source = PackedSource.open(folder, 64)
    row = source.row(3)
    sent = pickle.dumps(source)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).row(3).tokens, row.tokens)
