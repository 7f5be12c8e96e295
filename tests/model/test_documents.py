"""Boundaries, positions and labels follow from document ids and attention masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clm_detour.model.documents import Documents, next_token_labels, unpad
from clm_detour.utils.errors import UserError

CPU = torch.device("cpu")


def test_documents_are_maximal_runs_within_a_row() -> None:
    ids = torch.tensor([[0, 0, 1, 0], [0, 0, 0, -1]])
    documents = unpad((2, 4), CPU, document_ids=ids).documents
    assert documents.lengths == [2, 1, 1, 3, 1]
    assert documents.positions.tolist() == [0, 1, 0, 0, 0, 1, 2, 0]
    assert documents.index.tolist() == [0, 0, 1, 2, 3, 3, 3, 4]
    assert documents.cu_seqlens.dtype == torch.int32


def test_what_a_mask_leaves_of_a_row_closes_up() -> None:
    mask = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])
    rows = unpad((3, 4), CPU, attention_mask=mask)
    assert rows.documents.lengths == [2, 3]
    assert rows.kept is not None
    assert rows.kept.tolist() == [1, 3, 8, 9, 10]


def test_padding_between_runs_of_one_id_keeps_them_apart() -> None:
    ids = torch.tensor([[0, 0, -1, 0, 0]])
    mask = torch.tensor([[1, 1, 0, 1, 1]])
    assert unpad((1, 5), CPU, mask, ids).documents.lengths == [2, 2]


@given(st.data())
def test_taking_out_and_putting_back_gives_the_rows_with_zeros(data: st.DataObject) -> None:
    rows, length = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 6))
    bits = st.lists(st.integers(0, 1), min_size=rows * length, max_size=rows * length)
    mask = torch.tensor(data.draw(bits)).view(rows, length)
    values = torch.arange(1, rows * length + 1).view(rows, length)
    unpadded = unpad((rows, length), CPU, attention_mask=mask)
    assert torch.equal(unpadded.put_back(unpadded.take(values)), values * mask)
    assert sum(unpadded.documents.lengths) == unpadded.documents.tokens == mask.sum()


def test_labels_stop_where_documents_end() -> None:
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 8]])
    documents = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])
    expected = [[6, -100, 8, -100], [6, 7, 8, -100]]
    assert next_token_labels(ids, document_ids=documents).tolist() == expected
    assert next_token_labels(ids).tolist() == [[6, 7, 8, -100]] * 2


def test_labels_never_come_from_padding() -> None:
    ids = torch.tensor([[5, 6, 7, 0], [0, 0, 7, 8]])
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]])
    expected = [[6, 7, -100, -100], [-100, -100, 8, -100]]
    assert next_token_labels(ids, attention_mask=mask).tolist() == expected


def test_masks_are_made_once() -> None:
    documents = Documents([3])
    made = [documents.once("mask", lambda: torch.zeros(1)) for _ in range(2)]
    assert made[0] is made[1]


def test_a_shape_that_differs_is_named() -> None:
    with pytest.raises(UserError, match=r"document_ids has shape \(1, 3\) but input_ids \(1, 4\)"):
        unpad((1, 4), CPU, document_ids=torch.zeros(1, 3))


def test_an_empty_document_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        Documents([3, 0])


def test_lengths_from_the_loader_say_the_same_as_ids():
    ids = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 1]])
    by_ids = unpad((2, 4), CPU, document_ids=ids).documents
    by_lengths = unpad((2, 4), CPU, document_lengths=[[2, 1, 1], [1, 3]]).documents
    assert by_ids.lengths == by_lengths.lengths == [2, 1, 1, 1, 3]
    assert torch.equal(by_ids.cu_seqlens, by_lengths.cu_seqlens)


@pytest.mark.parametrize("lengths", [[[2, 1], [1, 3]], [[4]], [[4], [3], [1]]])
def test_lengths_that_do_not_fit_the_rows_are_refused(lengths):
    with pytest.raises(UserError, match="2 lists that each add up to 4"):
        unpad((2, 4), CPU, document_lengths=lengths)


def test_lengths_beside_ids_are_refused():
    with pytest.raises(UserError, match="leave document_ids and attention_mask out"):
        unpad((1, 2), CPU, document_ids=torch.zeros(1, 2), document_lengths=[[2]])
