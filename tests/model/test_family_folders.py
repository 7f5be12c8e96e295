"""Folders of BERT and RoBERTa are read strictly, whatever form people have them in, and written unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from family_reference import KINDS, saved, theirs
from model_reference import assert_close, packed_ids, tokens
from safetensors.torch import load_file, save_file

from clm_detour.model import (
    ModernBertForPretraining,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    ModernBertModel,
)
from clm_detour.model.families import FAMILIES
from clm_detour.utils.errors import UserError

WEIGHTS = "model.safetensors"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def opened_by_transformers(kind: str, which: str, folder: Path) -> Any:
    """transformers' model of a folder, which must have exactly its weights."""
    network, info = getattr(transformers, FAMILIES[kind].prefix + which).from_pretrained(
        folder, output_loading_info=True, dtype="auto"
    )
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return network.eval()


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_that_is_read_and_written_keeps_every_byte(kind: str, tied: bool, tmp_path: Path) -> None:
    network = theirs(kind, tie_word_embeddings=tied, hidden_dropout_prob=0.25)
    model = ModernBertForPretraining.from_pretrained(saved(network, tmp_path / "a"))
    model.save_pretrained(tmp_path / "b")
    before, after = load_file(tmp_path / "a" / WEIGHTS), load_file(tmp_path / "b" / WEIGHTS)
    assert before.keys() <= after.keys()
    if not tied:  # transformers uses the second bias, and does not train the first
        first = FAMILIES[kind].names.second_bias.replace("decoder.bias", "bias")
        assert torch.equal(after[first], before.pop(FAMILIES[kind].names.second_bias))
        before.pop(first)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    again = opened_by_transformers(kind, "ForMaskedLM", tmp_path / "b")
    ids = tokens(24).view(2, 12)
    assert torch.equal(again(ids).logits, network(ids).logits)
    assert again.config.hidden_dropout_prob == 0.25
    assert again.config.architectures == [FAMILIES[kind].prefix + "ForMaskedLM"]


def test_trained_weights_open_with_equal_logits(kind: str, tmp_path: Path) -> None:
    model = ModernBertForPretraining.from_pretrained(saved(theirs(kind), tmp_path / "a"))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    model.save_pretrained(tmp_path / "b")
    ids = tokens(24).view(2, 12)
    again = opened_by_transformers(kind, "ForMaskedLM", tmp_path / "b")
    assert_close(model(ids).logits, again(ids).logits)


@pytest.mark.parametrize("form", ["sharded", "bf16", "bin", "bin shards"])
def test_weights_are_read_in_any_form(kind: str, form: str, tmp_path: Path) -> None:
    network = theirs(kind)
    if form == "bf16":
        network = network.bfloat16()
    network.save_pretrained(tmp_path, max_shard_size="5KB" if "shard" in form else "1GB")
    if form.startswith("bin"):
        as_pickled(tmp_path)
    model = ModernBertForPretraining.from_pretrained(tmp_path)
    ids = tokens(24).view(2, 12)
    assert_close(model(ids).logits, network.float()(ids).logits)


def as_pickled(folder: Path) -> None:
    """Replace the safetensors of a folder by files of `torch.save`."""
    for file in folder.glob("*.safetensors"):
        torch.save(
            load_file(file),
            folder / file.name.replace("model", "pytorch_model").replace(".safetensors", ".bin"),
        )
        file.unlink()
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(names)
        index.unlink()


class Dangerous:
    """An object whose unpickling would write a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs("bert").config.save_pretrained(tmp_path)
    torch.save({"bert.weight": Dangerous()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read as weights without running code"):
        ModernBertForPretraining.from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_old_names_and_what_is_not_used_are_understood(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = theirs("bert", "ForPreTraining")
    saved(network, tmp_path)
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): weight
        for name, weight in load_file(tmp_path / WEIGHTS).items()
    }
    weights["bert.embeddings.position_ids"] = torch.arange(32)[None]
    weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"].clone()
    save_file(weights, tmp_path / WEIGHTS)
    model = ModernBertForPretraining.from_pretrained(tmp_path)
    ids = tokens(24).view(2, 12)
    assert_close(model(ids).logits, network(ids).prediction_logits)
    assert "cls.seq_relationship.weight" in caplog.text
    assert "bert.pooler.dense.weight" in caplog.text


def test_a_wrong_weight_is_named(kind: str, tmp_path: Path) -> None:
    saved(theirs(kind), tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    key = next(name for name in weights if ".0.attention.self.key.weight" in name)
    kept = {name: weight for name, weight in weights.items() if name != key}
    save_file(kept, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=r"missing: model.layers.0.attn.Wqkv.weight.*self.query.weight"):
        ModernBertForPretraining.from_pretrained(tmp_path)
    save_file({**weights, "surprise": torch.ones(1)}, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match="unexpected: surprise"):
        ModernBertForPretraining.from_pretrained(tmp_path)


def test_two_different_biases_of_the_vocabulary_are_refused(kind: str, tmp_path: Path) -> None:
    saved(theirs(kind), tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    second = FAMILIES[kind].names.second_bias
    save_file({**weights, second: torch.ones(97)}, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match="two different biases of the vocabulary"):
        ModernBertForPretraining.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "which", ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"]
)
def test_a_body_is_taken_from_any_folder(kind: str, which: str, tmp_path: Path) -> None:
    network = theirs(kind, which)
    model = ModernBertModel.from_pretrained(saved(network, tmp_path / "a"))
    body = network if which == "Model" else network.base_model
    ids = tokens(24).view(2, 12)
    expected = body(ids).last_hidden_state
    assert_close(model(ids).last_hidden_state, expected)
    model.save_pretrained(tmp_path / "b")
    again = getattr(transformers, FAMILIES[kind].prefix + "Model").from_pretrained(tmp_path / "b")
    assert_close(again.eval()(ids).last_hidden_state, expected)


@pytest.mark.parametrize("which", ["Model", "ForSequenceClassification", "ForTokenClassification"])
def test_a_folder_without_a_masked_head_gets_a_new_one(
    kind: str, which: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = theirs(kind, which)
    saved(network, tmp_path)
    torch.manual_seed(3)
    model = ModernBertForPretraining.from_encoder(tmp_path)
    assert "the prediction head is new" in caplog.text
    assert not model.decoder.bias.any()
    ids = tokens(24).view(2, 12)
    body = network if which == "Model" else network.base_model
    assert_close(model(ids).last_hidden_state, body(ids).last_hidden_state)
    torch.manual_seed(3)
    same = ModernBertForPretraining.from_encoder(tmp_path)
    assert torch.equal(same.head.dense.weight, model.head.dense.weight)
    with pytest.raises(UserError, match=r"without its head|open it with that class"):
        ModernBertForPretraining.from_pretrained(tmp_path)


def test_a_modernbert_body_gets_a_new_head_too(tmp_path: Path) -> None:
    from model_reference import tiny_config

    network = transformers.ModernBertModel(tiny_config()).eval()
    model = ModernBertForPretraining.from_encoder(saved(network, tmp_path))
    ids = tokens(24).view(2, 12)
    assert_close(model(ids).last_hidden_state, network(ids).last_hidden_state)


@pytest.mark.parametrize(
    ("cls", "which"),
    [
        (ModernBertForSequenceClassification, "ForSequenceClassification"),
        (ModernBertForTokenClassification, "ForTokenClassification"),
    ],
)
def test_classifiers_equal_those_of_transformers(kind: str, cls: Any, which: str, tmp_path: Path) -> None:
    network = theirs(kind, which, num_labels=3)
    model = cls.from_pretrained(saved(network, tmp_path / "a"))
    ids = tokens(36).view(3, 12)
    logits = network(ids).logits
    assert_close(model(ids).logits, logits)
    packed = model(ids.view(1, 36), document_ids=packed_ids([12, 12, 12])).logits
    assert_close(packed.view_as(logits), logits)
    model.save_pretrained(tmp_path / "b")
    assert torch.equal(opened_by_transformers(kind, which, tmp_path / "b")(ids).logits, logits)


@pytest.mark.parametrize("cls", [ModernBertForSequenceClassification, ModernBertForTokenClassification])
def test_a_classifier_starts_from_a_masked_model(kind: str, cls: Any, tmp_path: Path) -> None:
    network = theirs(kind)
    model = cls.from_encoder(saved(network, tmp_path), num_labels=2)
    ids = tokens(24).view(2, 12)
    body = network.base_model(ids).last_hidden_state
    states = model.encode(ids)[0].view_as(body)
    assert_close(states, body)
    head = torch.tanh(model.head.dense(body[:, 0])) if cls is ModernBertForSequenceClassification else body
    assert_close(model(ids).logits, model.classifier(head))


def test_a_pooler_is_kept_where_there_is_one(tmp_path: Path) -> None:
    network = theirs("bert", "ForPreTraining")
    model = ModernBertForSequenceClassification.from_encoder(saved(network, tmp_path), num_labels=2)
    assert torch.equal(model.head.dense.weight, network.bert.pooler.dense.weight)


def test_pooling_is_fixed_where_transformers_fixes_it(tmp_path: Path) -> None:
    saved(theirs("bert"), tmp_path)
    with pytest.raises(UserError, match="classifier_pooling 'mean' is not known for this model"):
        ModernBertForSequenceClassification.from_encoder(tmp_path, num_labels=2, classifier_pooling="mean")


def test_the_configs_positions_are_what_is_written(kind: str, tmp_path: Path) -> None:
    model = ModernBertForPretraining.from_pretrained(saved(theirs(kind), tmp_path / "a"))
    model.save_pretrained(tmp_path / "b")
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in "ab")
    ignored = {"dtype", "torch_dtype", "transformers_version"}
    assert {k: v for k, v in before.items() if k not in ignored}.items() <= after.items()
