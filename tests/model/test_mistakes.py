"""What people get wrong in a notebook is one sentence with the remedy, and leaves no mark on the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_reference import VOCABULARY, same_masked_lm, tiny_config, tiny_model, tokens
from torch import nn

from clm_detour.model import ModernBertForPretraining, ModernBertForSequenceClassification, next_token_labels
from clm_detour.utils.errors import UserError

IDS = tokens(20).view(2, 10)
needs_decoder = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason="transformers < 5 has no exact decoder"
)
Model = ModernBertForPretraining


def other_decoder(model: Model) -> None:
    model.set_output_embeddings(nn.Linear(model.config.hidden_size, VOCABULARY))


def other_embedding(model: Model) -> None:
    model.set_input_embeddings(nn.Embedding(VOCABULARY, model.config.hidden_size))


@pytest.mark.parametrize("replace", [other_decoder, other_embedding])
def test_a_decoder_that_is_no_longer_the_embedding_is_not_saved_as_if_it_were(
    replace: Callable[[Model], None], tmp_path: Path
) -> None:
    model = tiny_model()
    replace(model)
    with pytest.raises(UserError, match="call tie_weights"):
        model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path)
    assert torch.equal(Model.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)


@needs_decoder
def test_a_decoder_that_is_no_longer_the_embedding_does_not_become_a_decoder() -> None:
    model = tiny_model()
    other_decoder(model)
    model.causal = True
    with pytest.raises(UserError, match="tie_word_embeddings"):
        model.to_decoder()


def test_a_decoder_said_to_be_untied_is_saved_beside_the_embedding(tmp_path: Path) -> None:
    model = tiny_model()
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path)
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert again.decoder.weight is not again.get_input_embeddings().weight


@needs_decoder
@pytest.mark.parametrize("model", [tiny_model(), same_masked_lm(tiny_model(), "sdpa"), "a/path", None])
def test_only_a_decoder_comes_from_a_decoder(model: Any) -> None:
    with pytest.raises(UserError, match="open the folder of a masked model with from_pretrained"):
        Model.from_decoder(model)


@needs_decoder
def test_a_config_that_the_decoder_does_not_accept_is_said() -> None:
    model = tiny_model(pad_token_id=None)
    model.causal = True
    with pytest.raises(UserError, match="pad_token_id"):
        model.to_decoder()


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (IDS.tolist(), "input_ids is a list, not a tensor; .* return_tensors='pt'"),
        (IDS[0], r"input_ids has shape \(10,\)"),
        (IDS.float(), "input_ids are torch.float32; give token ids as torch.long"),
        (IDS.bool(), "input_ids are torch.bool"),
        (IDS - 50, f"A token id is -.* the vocabulary has {VOCABULARY} entries"),
        (IDS + VOCABULARY, "encode the texts with the model's own tokenizer"),
    ],
)
def test_ids(ids: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        tiny_model()(ids)


def test_ids_at_padding_are_not_looked_at() -> None:
    mask = torch.ones_like(IDS)
    mask[1, 5:] = 0
    model, odd = tiny_model(), IDS.masked_fill(mask == 0, 10**6)
    assert torch.equal(model(odd, attention_mask=mask).logits, model(IDS, attention_mask=mask).logits)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"attention_mask": [[1] * 10] * 2}, "attention_mask is a list"),
        ({"document_ids": [[1] * 10] * 2}, "document_ids is a list"),
        ({"labels": IDS.tolist()}, "labels is a list"),
        ({"document_lengths": [10, 10]}, "document_lengths must be 2 lists"),
        ({"document_lengths": [[5.0, 5.0], [10.0]]}, "document_lengths must be 2 lists"),
    ],
)
def test_what_comes_beside_ids(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        tiny_model()(IDS, **inputs)


def test_next_token_labels_are_int64_whatever_the_ids() -> None:
    assert torch.equal(next_token_labels(IDS.int()), next_token_labels(IDS))
    assert next_token_labels(IDS.int()).dtype == torch.int64
    with pytest.raises(UserError, match=r"\(rows, positions\)"):
        next_token_labels(IDS[0])


def classifier(**keys: Any) -> ModernBertForSequenceClassification:
    return ModernBertForSequenceClassification(tiny_config(num_labels=3, **keys)).eval()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0.0, 1.0]), "labels has shape"),
        (torch.tensor([0, 1], dtype=torch.uint8), "give them as torch.long"),
        (torch.tensor([[0, 1, 0], [1, 0, 0]]), "labels has shape"),
        ([0, 1], "labels is a list"),
    ],
)
def test_refused_labels_settle_nothing(labels: Any, said: str) -> None:
    model = classifier()
    with pytest.raises(UserError, match=said):
        model(IDS, labels=labels)
    assert model.config.problem_type is None
    assert model(IDS, labels=torch.tensor([0, 1])).loss.isfinite()


def test_labels_of_several_classes_are_from_0_to_1() -> None:
    with pytest.raises(UserError, match="from 0 to 1"):
        classifier()(IDS, labels=torch.tensor([[-100.0, 1, 1], [1, 0, 0]]))


def test_an_unknown_problem_type_is_not_another_loss() -> None:
    model = classifier()
    model.config.problem_type = "regresion"
    with pytest.raises(UserError, match="'regresion' is not known"):
        model(IDS, labels=torch.zeros(2, 3))


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification"])
def test_no_documents_have_no_loss(problem_type: str) -> None:
    loss = classifier(problem_type=problem_type)(IDS[:0], labels=torch.zeros(0, 3)).loss
    assert loss == 0


def test_a_dtype_may_be_a_name(tmp_path: Path) -> None:
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
    for name, dtype in (("auto", torch.bfloat16), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        assert Model.from_pretrained(tmp_path, dtype=name).dtype == dtype
    for wrong in ("float23", torch.int8, "load"):
        with pytest.raises(UserError, match="is none that weights can have"):
            Model.from_pretrained(tmp_path, dtype=wrong)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads 0"),
        ({"num_attention_heads": -2}, "num_attention_heads -2"),
        ({"pad_token_id": 9999}, "pad_token_id 9999 is not in the vocabulary"),
    ],
)
def test_configs(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **keys}))
    with pytest.raises(UserError, match=said):
        Model.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", "[]", "does not compute; it computes modernbert, bert"),
        ("config.json", "{", "save or fetch the model again"),
        ("model.safetensors.index.json", "{}", "weight_map"),
        ("model.safetensors.index.json", '{"weight_map": []}', "weight_map"),
    ],
)
def test_damaged_folders(name: str, content: str, said: str, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    if "index" in name:
        (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=said):
        Model.from_pretrained(tmp_path)


def test_paths_that_are_no_folders(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is missing"):
        Model.from_pretrained(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="not a ModernBertForPretraining"):
        Model.from_pretrained(tiny_model())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"id2label": ["a", "b"]}, "by their numbers"),
        ({"id2label": {"a": 0, "b": 1}}, "by their numbers"),
        ({"num_labels": "3"}, "Give num_labels"),
        ({"num_labels": 2, "classifier_dropout": 1.5}, "classifier_dropout is a probability"),
    ],
)
def test_labels_of_a_fresh_classifier(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=said):
        ModernBertForSequenceClassification.from_encoder(tmp_path, **options)


def test_transformers_trainer_saves_by_its_own_words(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "none", state_dict=model.state_dict(), is_main_process=False)
    assert not (tmp_path / "none").exists()
    model.save_pretrained(tmp_path / "one", state_dict=model.state_dict(), is_main_process=True)
    assert torch.equal(Model.from_pretrained(tmp_path / "one")(IDS).logits, model(IDS).logits)


def without(name: str) -> dict[str, torch.Tensor]:
    weights = tiny_model().state_dict()
    weights.pop(name)
    return weights


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, r"missing: model\.embeddings\.tok_embeddings\.weight, .* and \d+ more"),
        (
            {f"module.{name}": w for name, w in tiny_model().state_dict().items()},
            r"named with 'module\.' before each name",
        ),
        (without("head.dense.weight"), r"\(missing: head\.dense\.weight\)"),
        (
            without("model.embeddings.tok_embeddings.weight"),
            "missing: model.embeddings.tok_embeddings.weight",
        ),
        ({**tiny_model().state_dict(), "more": torch.zeros(1)}, r"\(unexpected: more\)"),
        (tiny_model(intermediate_size=48).state_dict(), r"of another shape: model.layers.0.mlp.Wi.weight"),
    ],
    ids=["none", "prefix", "missing", "no embedding", "unexpected", "shape"],
)
def test_weights_that_are_not_the_models_are_not_saved(
    weights: dict[str, torch.Tensor], said: str, tmp_path: Path
) -> None:
    remedy = "; (merge adapters first, and give as state_dict|save the model inside it)"
    with pytest.raises(UserError, match=f"{said}.*{remedy}"):
        tiny_model().save_pretrained(tmp_path / "new", state_dict=weights)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tied", [True, False])
def test_weights_that_have_no_values_are_not_saved(tied: bool, tmp_path: Path) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    on_meta = {name: weight.to("meta") for name, weight in model.state_dict().items()}
    with pytest.raises(
        UserError, match="meta device, which holds no values; load or gather all weights first"
    ):
        model.save_pretrained(tmp_path / "given", state_dict=on_meta)
    with pytest.raises(UserError, match="meta device"):
        model.to("meta").save_pretrained(tmp_path / "own")
    assert not list(tmp_path.iterdir())


def test_a_tied_decoder_may_be_left_out_of_what_is_saved_and_no_other(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path, state_dict=without("decoder.weight"))
    assert torch.equal(Model.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)
    with pytest.raises(UserError, match=r"missing: decoder\.weight"):
        tiny_model(tie_word_embeddings=False).save_pretrained(tmp_path, state_dict=without("decoder.weight"))


def test_adapters_are_merged_before_a_model_is_saved(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny_model(), peft.LoraConfig(target_modules=["Wo"]))
    with pytest.raises(UserError, match="merge adapters first"):
        adapted.get_base_model().save_pretrained(tmp_path)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path)
    assert torch.equal(Model.from_pretrained(tmp_path)(IDS).logits, merged(IDS).logits)


def test_saving_throws_no_dice(tmp_path: Path) -> None:
    model, before = tiny_model(), torch.get_rng_state()
    model.save_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
