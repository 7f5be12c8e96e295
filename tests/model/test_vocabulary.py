"""A network with a larger vocabulary computes the same, and a new token starts as the mean of its pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from family_reference import KINDS, saved, theirs
from model_reference import tokens
from transformers import ModernBertConfig, ModernBertForMaskedLM

from clm_detour.model import ModernBertForPretraining
from clm_detour.model.vocabulary import with_vocabulary

PIECES = {3: (5, 6), 100: (7, 8, 9), 101: (8, 9)}  # 3 is an unused entry of 100


@pytest.fixture(params=["modernbert", *KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def network(request, kind: str, tmp_path: Path) -> ModernBertForPretraining:
    """A tiny network of each family with a vocabulary of 100, read from a folder of transformers."""
    torch.manual_seed(3)
    if kind == "modernbert":
        config = ModernBertConfig(
            vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2,
            tie_word_embeddings=request.param, decoder_bias=True,
        )  # fmt: skip
        model = ModernBertForMaskedLM(config).eval()
    else:
        model = theirs(kind, tie_word_embeddings=request.param, vocab_size=100)
    torch.nn.init.normal_(model.get_output_embeddings().bias)
    return ModernBertForPretraining.from_pretrained(saved(model, tmp_path / "old"))


def test_a_new_token_starts_as_the_mean_of_its_pieces_in_embedding_decoder_and_bias(network):
    larger = with_vocabulary(network, PIECES, 128)
    old, new = (each.state_dict() for each in (network, larger))
    for name in ("model.embeddings.tok_embeddings.weight", "decoder.weight", "decoder.bias"):
        for id, parts in PIECES.items():
            torch.testing.assert_close(new[name][id], old[name][list(parts)].mean(0))
        kept = [id for id in range(100) if id not in PIECES]
        assert torch.equal(new[name][kept], old[name][kept])
        assert len(new[name]) == 128
    same = old.keys() - {"model.embeddings.tok_embeddings.weight", "decoder.weight", "decoder.bias"}
    assert all(torch.equal(new[name], old[name]) for name in same)
    assert network.config.vocab_size == 100


def test_texts_without_new_tokens_have_the_same_logits_in_the_old_columns(network):
    ids = tokens(24).view(2, 12).remainder(90) + 5
    before, after = (model(ids).logits for model in (network, with_vocabulary(network, PIECES, 128)))
    kept = [id for id in range(100) if id not in PIECES]
    torch.testing.assert_close(after[..., kept], before[..., kept])
    assert after.shape[-1] == 128


def test_transformers_opens_a_larger_network_strictly_with_the_same_logits(network, tmp_path):
    larger = with_vocabulary(network, PIECES, 128)
    larger.save_pretrained(tmp_path / "new")
    opened, info = transformers.AutoModelForMaskedLM.from_pretrained(
        tmp_path / "new", output_loading_info=True
    )
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert opened.config.vocab_size == 128
    ids = torch.tensor([[9, 7, 100, 101, 3, 8]])
    torch.testing.assert_close(opened.eval()(ids).logits, larger(ids).logits, atol=1e-5, rtol=1e-4)
