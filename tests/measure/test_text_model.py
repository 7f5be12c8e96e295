"""A model is tried out on texts under both masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import ModernBertConfig, pipeline

from clm_detour import ModernBertForPretraining, UserError, open_model
from clm_detour.measure.text_model import TextModel
from clm_detour.recipe.export import write_model


@pytest.fixture(scope="module")
def folder(tiny_data, tmp_path_factory) -> Path:
    config = ModernBertConfig(
        vocab_size=800, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
        local_attention=8, initializer_range=0.2,
        **dict.fromkeys((f"{kind}_token_id" for kind in ("pad", "bos", "eos", "cls", "sep")), 0),
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    write_model(ModernBertForPretraining(config), str(tiny_data / "tokenizer"), folder)
    return folder


@pytest.fixture(scope="module")
def model(folder) -> TextModel:
    return open_model(str(folder))


def test_masks_are_filled_as_by_the_pipeline_of_transformers(model, folder):
    text = "The patient was treated with [MASK] and left."
    answers = pipeline("fill-mask", str(folder))(text, top_k=3)
    expected = [(answer["token_str"].strip(), pytest.approx(answer["score"], rel=1e-4)) for answer in answers]
    assert model.fill(text, top=3) == expected


def test_the_causal_mask_hides_the_text_after_the_mask_token(model):
    texts = ["The patient took [MASK].", "The patient took [MASK] and left the hospital."]
    causal = [model.fill(text, causal=True) for text in texts]
    assert [word for word, _ in causal[0]] == [word for word, _ in causal[1]]
    assert [share for _, share in causal[0]] == pytest.approx([share for _, share in causal[1]], rel=1e-4)
    assert model.fill(texts[0]) != model.fill(texts[1])


def test_packed_texts_have_the_perplexity_that_they_have_alone(model):
    texts = ["The patient was admitted.", "A trial of aspirin or placebo.", "Chest pain for an hour"]
    alone = [model.perplexity([text])[0] for text in texts]
    assert model.perplexity(texts) == pytest.approx(alone, rel=1e-4)


def test_hidden_states_are_those_of_the_mask_that_is_asked_for(model):
    causal, both = (model.hidden_states("The patient was admitted.", causal) for causal in (True, False))
    assert len(causal) == len(both) == 4
    torch.testing.assert_close(causal[0], both[0])
    assert not torch.allclose(causal[1], both[1])


@pytest.mark.parametrize("text", ["no mask", "[MASK] or [MASK]"])
def test_a_text_without_one_mask_token_is_refused(model, text):
    with pytest.raises(UserError, match=r"mask tokens; write \[MASK\] once"):
        model.fill(text)
