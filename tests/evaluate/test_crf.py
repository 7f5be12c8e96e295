"""The CRF over BIOUL tags gives the probabilities that enumerating all paths gives."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch

from clm_detour.evaluate.finetune.crf import BEGIN, INSIDE, LAST, OUTSIDE, UNIT, BioulCrf

CASES = [(1, 1), (1, 4), (2, 2), (2, 3)]  # types, words


def random_crf(types: int, seed: int = 0) -> BioulCrf:
    torch.manual_seed(seed)
    crf = BioulCrf(types).double()
    for weight in crf.parameters():
        torch.nn.init.normal_(weight)
    return crf


def is_allowed(path: tuple[int, ...]) -> bool:
    """Say by the definition whether a path may occur, by the type that is open after each tag."""
    closed, open_type = True, None
    for tag in path:
        kind, place = (None, None) if tag == OUTSIDE else divmod(tag - 1, 4)
        if kind != open_type:
            enters = tag == OUTSIDE or place in (BEGIN, UNIT)
            if not (closed and enters):
                return False
        open_type = kind
        closed = tag == OUTSIDE or place in (LAST, UNIT)
    return closed


def scored_paths(crf: BioulCrf, emissions_WG: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Return the score of every path that may occur."""
    words, tags = emissions_WG.shape
    found = {}
    for path in product(range(tags), repeat=words):
        if is_allowed(path):
            score = crf.first[path[0]] + crf.last[path[-1]]
            score = score + sum(emissions_WG[word, tag] for word, tag in enumerate(path))
            found[path] = float(score + sum(crf.transitions[a, b] for a, b in pairwise(path)))
    return found


@pytest.mark.parametrize(("types", "words"), CASES)
def test_partition_and_marginals_are_those_of_all_paths(types, words):
    crf = random_crf(types)
    emissions = torch.randn(1, words, 1 + 4 * types)
    marginals, partition = crf.log_marginals(emissions, torch.tensor([words]))
    paths = scored_paths(crf, emissions[0].double())
    total = torch.tensor(list(paths.values())).logsumexp(0)
    assert float(partition) == pytest.approx(float(total), abs=1e-5)
    expected = torch.zeros(words, 1 + 4 * types)
    for path, score in paths.items():
        for word, tag in enumerate(path):
            expected[word, tag] += (score - total).exp()
    torch.testing.assert_close(marginals[0].exp().float(), expected, atol=1e-5, rtol=1e-4)


def test_marginals_are_the_gradient_of_the_partition():
    crf, lengths = random_crf(2), torch.tensor([4, 2, 1])
    emissions = torch.randn(3, 4, 9, requires_grad=True)
    marginals, partition = crf.log_marginals(emissions, lengths)
    (gradient,) = torch.autograd.grad(partition.sum(), emissions, retain_graph=True)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            marginals[row, :length].exp().float(), gradient[row, :length], atol=1e-5, rtol=1e-4
        )
        assert not gradient[row, length:].any()


def test_padding_does_not_change_a_sequence():
    crf = random_crf(2)
    emissions = torch.randn(2, 5, 9)
    emissions[1, 3:] = 1e3
    padded, sums = crf.log_marginals(emissions, torch.tensor([5, 3]))
    alone, alone_sum = crf.log_marginals(emissions[1:, :3], torch.tensor([3]))
    torch.testing.assert_close(padded[1, :3], alone[0])
    torch.testing.assert_close(sums[1:], alone_sum)


def test_tags_that_may_not_be_first_or_last_have_no_probability():
    crf = random_crf(2)
    emissions = torch.zeros(1, 3, 9)
    emissions[0, 0, 1 + LAST] = emissions[0, 2, 1 + INSIDE] = 50.0  # an end at the start, and no end
    marginals, _ = crf.log_marginals(emissions, torch.tensor([3]))
    assert marginals[0, 0, 1 + LAST].exp() < 1e-6
    assert marginals[0, 2, 1 + INSIDE].exp() < 1e-6
    torch.testing.assert_close(marginals.exp().sum(-1), torch.ones(1, 3, dtype=marginals.dtype))


def test_entities_inside_one_of_their_type_are_a_path_and_those_of_another_are_not():
    crf = random_crf(2)
    emissions = torch.zeros(1, 4, 9)
    for word, tag in enumerate((1 + BEGIN, 1 + BEGIN, 1 + LAST, 1 + LAST)):  # [a [b c] d]
        emissions[0, word, tag] = 100.0
    marginals, _ = crf.log_marginals(emissions, torch.tensor([4]))
    assert marginals.exp().max(-1).values.min() > 0.99
    emissions[0, 1, 5 + BEGIN] = emissions[0, 2, 5 + LAST] = 500.0  # b c of the other type
    marginals, _ = crf.log_marginals(emissions, torch.tensor([4]))
    assert marginals[0, 0, 1 + BEGIN].exp() < 1e-6
