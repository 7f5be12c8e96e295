"""An audit measures the losses of rows and the probabilities of secrets on a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from clm_detour.audit.membership import membership
from clm_detour.audit.rows import PARTS, OnePart, RowId, Rows, row_losses
from clm_detour.audit.secrets import Sentence, log_probabilities, rank, sentence_of
from clm_detour.data.canaries import Canary, random_secrets
from clm_detour.data.loader import collate, make_example
from clm_detour.data.objectives import IGNORED, Objective
from clm_detour.data.packing import Row
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.measure.scorer import score
from clm_detour.measure.token_losses import token_losses
from clm_detour.model import ModernBertForPretraining
from clm_detour.recipe.start import fresh_config
from clm_detour.records.audit import MASKS, AuditSettings

SETTINGS = AuditSettings(
    rows=8, tokens=32, alternatives=9, mask_rate=0.15, passes=3, precision="fp32", seed=1
)
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass
class RandomRows:
    """Rows of random tokens, two documents each."""

    seed: int
    longest: None = None

    def __len__(self) -> int:
        return 40

    def row(self, number: int) -> Row:
        tokens = np.random.default_rng((self.seed, number)).integers(300, 700, 40)
        return Row(tokens, np.array([25, 15]))


@pytest.fixture(scope="module")
def tokenizer(tiny_data) -> Tokenizer:
    return load_tokenizer(str(tiny_data / "tokenizer"))


def new_network(tokenizer: Tokenizer, seed: int = 0) -> ModernBertForPretraining:
    torch.manual_seed(seed)
    return ModernBertForPretraining(fresh_config(SIZES, tokenizer)).eval()


def rows_of(seed: int = 0) -> Rows:
    return Rows({"train": {"a": RandomRows(seed)}, "held_out": {"a": RandomRows(seed + 1000)}}, 32)  # type: ignore[dict-item]


def batch_of(tokenizer: Tokenizer, objective: Objective, count: int = 8):
    rows = rows_of()
    made = [
        make_example(*rows.get(RowId("a", "train", i)), objective, tokenizer.vocabulary, 32, (0, i))
        for i in range(count)
    ]
    return collate(made)


@pytest.mark.parametrize("objective", [Objective("clm"), Objective("mlm", 0.3)])
def test_the_losses_of_tokens_add_up_to_the_score(objective, tokenizer):
    network, batch = new_network(tokenizer), batch_of(tokenizer, objective)
    whole = score(network, [batch], objective.causal)
    places, losses = token_losses(
        network, batch["input_ids"], batch["document_lengths"], batch["labels"], objective.causal
    )
    assert len(places) == len(losses) == whole.predicted
    assert float(losses.sum()) == pytest.approx(whole.loss, rel=1e-5)


def test_rows_are_cut_at_the_tokens_that_are_scored():
    tokens, lengths = rows_of().get(RowId("a", "train", 3))
    assert len(tokens) == 32
    assert lengths.tolist() == [25, 7]


@pytest.mark.parametrize("mask", MASKS)
def test_the_loss_of_a_row_does_not_depend_on_the_other_rows(mask, tokenizer):
    network, rows = new_network(tokenizer), rows_of()
    ids = [RowId("a", "train", number) for number in range(7)]

    def losses(chosen):
        found = row_losses(network, rows, chosen, mask, SETTINGS, tokenizer.vocabulary, lambda *_: None)
        return dict(zip(chosen, found, strict=True))

    alone, together = losses(ids[4:5]), losses(ids)
    assert alone[ids[4]] == pytest.approx(together[ids[4]], rel=1e-5)
    assert len({round(loss, 6) for loss in together.values()}) == 7


def test_the_passes_predict_every_ordinary_token_once(tokenizer):
    vocabulary = tokenizer.vocabulary
    tokens = np.array([tokenizer.cls, *range(300, 360), tokenizer.sep])
    labels = [
        OnePart("mlm", 1 / PARTS, part=part).apply(tokens, np.array([62]), vocabulary, (1, 2))[1]
        for part in range(PARTS)
    ]
    predicted = np.stack(labels) != IGNORED
    assert predicted.sum(axis=0).tolist() == [0, *[1] * 60, 0]
    assert predicted.sum(axis=1).max() - predicted.sum(axis=1).min() <= 3


def test_a_planted_leak_is_found_ten_times_of_ten(tokenizer):
    members = [RowId("a", "train", number) for number in range(20)]
    others = [RowId("a", "held_out", number) for number in range(40)]
    for seed in range(10):
        rows, network = rows_of(seed), new_network(tokenizer, seed)
        overfit(network, rows, members[:8], tokenizer)
        for mask in MASKS:
            losses = [
                row_losses(network, rows, ids, mask, SETTINGS, tokenizer.vocabulary, lambda *_: None)
                for ids in (members[:8], others, members[8:])
            ]
            leak, unread = (membership(-losses[i], -losses[1]) for i in (0, 2))
            assert leak.auc > 0.9
            assert leak.auc == 1 or leak.interval[0] > 0.5
            assert abs(unread.auc - 0.5) < 0.4  # rows that were not read are not found


def overfit(network: ModernBertForPretraining, rows: Rows, ids: list[RowId], tokenizer: Tokenizer) -> None:
    """Train on a few rows, under both masks."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(30):
        for objective in (Objective("clm"), Objective("mlm", 0.3)):
            batch = collate(
                [
                    make_example(*rows.get(row), objective, tokenizer.vocabulary, 32, (step, row.number))
                    for row in ids
                ]
            )
            network(
                batch["input_ids"],
                labels=batch["labels"],
                document_lengths=batch["document_lengths"],
                causal=objective.causal,
            ).loss.backward()
            optimizer.step()
            optimizer.zero_grad()


@pytest.fixture(scope="module")
def sentence(tokenizer) -> Sentence:
    return sentence_of(Canary("The record number of Ada Keller is", "7 3 9 1 4 2", 1), others(), tokenizer)


def others() -> list[str]:
    return random_secrets(20, 5)


def test_a_sentence_is_divided_into_what_is_said_and_the_secret(sentence, tokenizer):
    texts = [tokenizer.tokenizer.decode(each.tolist()).strip() for each in sentence.candidates]
    assert [text.replace(" ", "") for text in texts] == [
        each.replace(" ", "") for each in ("7 3 9 1 4 2", *others())
    ]
    whole = np.concatenate([sentence.before, sentence.candidates[0], sentence.after])
    (expected,) = tokenizer.encode_batch(["The record number of Ada Keller is 7 3 9 1 4 2."])
    assert whole.tolist() == expected.tolist()


def test_the_probability_of_a_secret_is_the_product_of_those_of_its_tokens(sentence, tokenizer):
    network = new_network(tokenizer)
    secret, first = sentence.candidates[3], len(sentence.before)
    places = range(first, first + len(secret))
    (causal,) = log_probabilities(network, [sentence], "causal", tokenizer.mask, lambda *_: None)
    whole = torch.from_numpy(np.concatenate([sentence.before, secret, sentence.after]))
    with torch.no_grad():
        logits = network(whole[None], causal=True).logits[0].double().log_softmax(-1)
        expected = sum(logits[place - 1, whole[place]].item() for place in places)
        assert causal[3] == pytest.approx(expected, rel=1e-5)
        whole[list(places)] = tokenizer.mask
        logits = network(whole[None], causal=False).logits[0].double().log_softmax(-1)
    (masked,) = log_probabilities(network, [sentence], "bidirectional", tokenizer.mask, lambda *_: None)
    expected = sum(logits[place, token].item() for place, token in zip(places, secret, strict=True))
    assert masked[3] == pytest.approx(expected, rel=1e-5)


def test_secrets_of_different_length_are_compared(tokenizer):
    sentence = Sentence(np.array([300, 301]), np.array([302]), [np.array([400]), np.array([401, 402])])
    network = new_network(tokenizer)
    for mask in MASKS:
        (found,) = log_probabilities(network, [sentence], mask, tokenizer.mask, lambda *_: None)
        assert (found < 0).all()
        assert rank(found)[0] in (1.0, 2.0)
