"""The body without a head: equal to transformers' `ModernBertModel`, and in and out of its folders."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_reference import (
    assert_close,
    gradients,
    packed_ids,
    padded,
    randomise,
    same_masked_lm,
    tiny_config,
    tiny_model,
    tokens,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from clm_detour.model import (
    ModernBertForPretraining,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    ModernBertModel,
)
from clm_detour.utils.errors import UserError

LENGTHS = [9, 1, 23, 4]
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias"), True),
    "other shape": {"num_hidden_layers": 5, "global_attn_every_n_layers": 2},
}
CLASSIFIERS = [ModernBertForSequenceClassification, ModernBertForTokenClassification]


def body(**keys: Any) -> ModernBertModel:
    model = ModernBertModel(tiny_config(**keys))
    randomise(model)
    return model.eval()


def theirs(**keys: Any) -> transformers.ModernBertModel:
    config = tiny_config(**keys, attn_implementation="eager")
    config.reference_compile = False
    model = transformers.ModernBertModel(config)
    randomise(model)
    return model.eval()


def batch(side: str = "right") -> dict[str, torch.Tensor]:
    ids = tokens(sum(LENGTHS))
    return {
        "input_ids": padded(ids, LENGTHS, 0, side),
        "attention_mask": padded(torch.ones_like(ids), LENGTHS, 0, side),
    }


@pytest.mark.parametrize("keys", CONFIGS.values(), ids=CONFIGS)
def test_states_and_gradients_are_those_of_transformers(keys: dict[str, Any], tmp_path: Path) -> None:
    other = theirs(**keys)
    other.save_pretrained(tmp_path)
    model = ModernBertModel.from_pretrained(tmp_path)
    real = batch()["attention_mask"] == 1
    expected = other(**batch(), output_hidden_states=True)
    output = model(**batch(), output_hidden_states=True)
    assert_close(output.last_hidden_state[real], expected.last_hidden_state[real].detach())
    assert (output.last_hidden_state[~real] == 0).all()
    assert len(output.hidden_states) == len(expected.hidden_states) == model.config.num_hidden_layers + 1
    for ours, state in zip(output.hidden_states[:-1], expected.hidden_states[:-1], strict=True):
        assert_close(ours[real], state[real].detach())
    expected.last_hidden_state[real].square().sum().backward()
    output.last_hidden_state[real].square().sum().backward()
    found = gradients(model)
    for name, gradient in gradients(other).items():
        assert_close(found[f"model.{name}"], gradient)


def test_packed_documents_have_the_states_that_they_have_alone() -> None:
    model, ids = body(), tokens(sum(LENGTHS))
    packed = model(ids[None], document_ids=packed_ids(LENGTHS)).last_hidden_state[0]
    by_lengths = model(ids[None], document_lengths=[LENGTHS]).last_hidden_state[0]
    alone = torch.cat([model(document[None]).last_hidden_state[0] for document in ids.split(LENGTHS)])
    assert_close(packed, alone)
    assert torch.equal(packed, by_lengths)
    assert model(ids[None]).hidden_states is None


def test_the_keywords_of_transformers_are_taken_or_refused_by_name() -> None:
    model, given = body(), batch()
    expected = model(**given)[0]
    nothing = dict.fromkeys(("output_attentions", "position_ids", "token_type_ids", "inputs_embeds"))
    assert torch.equal(model(**given, **nothing, return_dict=True).last_hidden_state, expected)
    (states,) = model(**given, return_dict=False)
    assert torch.equal(states, expected)
    embeds = model.get_input_embeddings()(given["input_ids"])
    assert_close(model(inputs_embeds=embeds, attention_mask=given["attention_mask"])[0], expected)
    assert not torch.equal(model(**given, causal=True)[0], expected)
    with pytest.raises(UserError, match="output_attentions"):
        model(**given, output_attentions=True)
    with pytest.raises(UserError, match="labels"):
        model(**given, labels=given["input_ids"])


def test_the_mask_is_saved_and_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = body()
    model.causal = True
    model.save_pretrained(tmp_path)
    assert ModernBertModel.from_pretrained(tmp_path).causal
    assert "saved with the causal mask" in caplog.text
    assert not ModernBertModel.from_pretrained(tmp_path, causal=False).causal


def test_a_causal_body_does_not_see_what_is_right_of_a_token() -> None:
    model, ids = body(), tokens(20)[None]
    other = ids.clone()
    other[0, -1] = ids[0, 0]
    for causal in (True, False):
        model.causal = causal
        same = torch.equal(model(ids).last_hidden_state[0, 0], model(other).last_hidden_state[0, 0])
        assert same is causal
    pretrained = tiny_model()
    model.model.load_state_dict(pretrained.model.state_dict())
    model.causal = pretrained.causal = True
    assert torch.equal(model(ids).last_hidden_state, pretrained(ids).last_hidden_state)


def test_what_is_saved_is_a_folder_of_transformers_body(tmp_path: Path) -> None:
    model = body()
    model.save_pretrained(tmp_path)
    other, told = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(other) is transformers.ModernBertModel
    assert not any(told.values())
    assert load_file(tmp_path / "model.safetensors").keys() == other.state_dict().keys()
    assert_close(model(**batch()).last_hidden_state, ModernBertModel.from_pretrained(tmp_path)(**batch())[0])
    ModernBertModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_trainers_saving_passes_the_weights_in_memory_and_writes_the_same_folder(tmp_path: Path) -> None:
    model = body()
    model.save_pretrained(tmp_path / "plain")
    model.save_pretrained(tmp_path / "given", state_dict=model.state_dict())
    plain, given = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "given"))
    assert plain.keys() == given.keys()
    assert all(torch.equal(plain[name], given[name]) for name in plain)


@pytest.mark.parametrize("writer", ["ours", "transformers"])
def test_the_body_of_a_model_with_a_head_is_taken_and_the_rest_is_named(
    writer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrained = tiny_model()
    (pretrained if writer == "ours" else same_masked_lm(pretrained, "eager")).save_pretrained(tmp_path)
    model = ModernBertModel.from_pretrained(tmp_path)
    assert torch.equal(model(**batch())[0], pretrained(**batch()).last_hidden_state)
    assert [r.getMessage() for r in caplog.records if r.name.startswith("clm_detour")] == [
        f"ModernBertModel from {tmp_path}: the model is taken over, decoder and head left out."
    ]
    model.save_pretrained(tmp_path / "body")
    caplog.clear()
    ModernBertModel.from_pretrained(tmp_path / "body")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and "left out" in r.getMessage()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"final_norm.weight": None}, r"of a ModernBertModel .*missing: model\.final_norm\.weight\)"),
        ({"pooler.weight": torch.zeros(2)}, r"unexpected: model\.pooler\.weight"),
        ({"layers.1.mlp.Wi.weight": torch.zeros(2, 2)}, r"Wi\.weight \(2, 2\) instead of \(80, 24\)"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_folder_that_does_not_fit_is_refused(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    body().save_pretrained(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(UserError, match=message):
        ModernBertModel.from_pretrained(tmp_path)


def edit(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    weights = {**load_file(folder / "model.safetensors"), **change}
    kept = {name: weight for name, weight in weights.items() if weight is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("cls", CLASSIFIERS)
def test_a_classifier_on_a_body_draws_its_head_as_a_new_model_does(
    cls: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {"hidden_size": 96, "classifier_bias": True, "norm_bias": True}
    source = theirs(**keys)
    source.save_pretrained(tmp_path)
    torch.manual_seed(3)
    model = cls.from_encoder(tmp_path, num_labels=3)
    (line,) = (r.getMessage() for r in caplog.records if r.name.startswith("clm_detour"))
    assert line == (
        f"{cls.__name__} from {tmp_path}: the model is taken over, the prediction head and the classifier "
        "are new and must be trained."
    )
    expected = source.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in model.model.state_dict().items())
    new = cls(tiny_config(**keys, num_labels=3))
    found, expected = (each.head.dense.weight.detach() for each in (model, new))
    assert found.std() / expected.std() == pytest.approx(1, abs=0.1)
    assert found.abs().max() / expected.abs().max() == pytest.approx(1, abs=0.05)
    assert (model.head.norm.weight == 1).all()
    for bias in (model.head.dense.bias, model.head.norm.bias, model.classifier.bias):
        assert (bias == 0).all()
    torch.manual_seed(3)
    again = cls.from_encoder(tmp_path, num_labels=3).state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in model.state_dict().items())
    assert model(**batch()).logits.isfinite().all()


def test_a_classifier_starts_bidirectional_and_says_so_of_a_causal_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = body()
    model.save_pretrained(tmp_path / "bidirectional")
    model.causal = True
    model.save_pretrained(tmp_path / "causal")
    for kind in ("bidirectional", "causal"):
        caplog.clear()
        classifier = ModernBertForSequenceClassification.from_encoder(tmp_path / kind, num_labels=2)
        assert not classifier.causal
        assert ("sees in both directions" in caplog.text) is (kind == "causal")


@pytest.mark.parametrize("says_so", [True, False], ids=["with its class in config", "without"])
def test_a_body_is_not_opened_as_a_model_with_a_head(says_so: bool, tmp_path: Path) -> None:
    body().save_pretrained(tmp_path)
    if not says_so:
        keys = json.loads((tmp_path / "config.json").read_text())
        del keys["architectures"]
        (tmp_path / "config.json").write_text(json.dumps(keys))
    for cls in (ModernBertForPretraining, *CLASSIFIERS):
        with pytest.raises(UserError, match=r"body of a model without its head.*from_encoder"):
            cls.from_pretrained(tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_weights_of_a_wrapper_are_refused_with_the_reason(prefix: str, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({prefix + name: w for name, w in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=rf"named with '{prefix}' before each name.*save the model inside"):
        ModernBertForPretraining.from_pretrained(tmp_path)


def test_a_folder_with_pickled_weights_alone_is_read(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    ids = tokens(20).view(2, 10)
    for open_it in (
        ModernBertForPretraining.from_pretrained,
        ModernBertModel.from_pretrained,
        lambda path: ModernBertForSequenceClassification.from_encoder(path, num_labels=2),
    ):
        assert torch.equal(open_it(tmp_path).encode(ids)[0], model.encode(ids)[0])


def test_a_folder_of_another_form_is_refused_with_where_the_model_is(tmp_path: Path) -> None:
    sentence = tmp_path / "sentence"
    body().save_pretrained(sentence / "0_Transformer")
    (sentence / "modules.json").write_text("[]")
    with pytest.raises(UserError, match=r"its encoder lies in .*0_Transformer; give that folder"):
        ModernBertModel.from_pretrained(sentence)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"an adapter of PEFT.*merge_and_unload"):
        ModernBertModel.from_pretrained(adapter)
