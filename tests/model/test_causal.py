"""The mask is never another than it says: it is saved, shown, and reaches the model through every wrapper."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_reference import packed_ids, tiny_config, tiny_model, tokens
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from transformers import AutoConfig, AutoModelForMaskedLM

from clm_detour import (
    ModernBertForPretraining,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    UserError,
    next_token_labels,
)
from clm_detour.model import wrappers

IDS = tokens(80).view(2, 40)


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def under(causal: bool) -> torch.Tensor:
    """The logits that are right."""
    model = tiny_model()
    model.causal = causal
    return model(IDS).logits


def lora(model: nn.Module) -> nn.Module:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["Wqkv", "Wo"]))


def lora_tuner(model: nn.Module) -> Any:
    return lora(model).base_model


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def ddp_of_lora(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(lora(model))


WRAPPERS: list[Callable[[nn.Module], nn.Module]] = [
    DistributedDataParallel, nn.DataParallel, AveragedModel, lora, lora_tuner, ddp_of_lora,
]  # fmt: skip


@pytest.mark.parametrize("wrap", WRAPPERS, ids=lambda wrap: wrap.__name__)
def test_the_mask_that_is_set_on_a_wrapper_is_the_models(
    wrap: Callable[[nn.Module], nn.Module], process_group: None
) -> None:
    wrapped: Any = wrap(tiny_model()).eval()
    assert wrapped.causal is False
    for causal in (True, False, True):
        wrapped.causal = causal
        assert wrapped.causal is causal
        assert torch.equal(wrapped(input_ids=IDS).logits, under(causal))
    assert torch.equal(wrapped(input_ids=IDS, causal=False).logits, under(False))


def test_the_mask_that_is_set_on_a_compiled_model_is_the_models() -> None:
    """Compiled anew for the other mask: code that was compiled for one is not run for both."""
    model = tiny_model(num_hidden_layers=1)
    ids, wrapped = IDS[:1], compiled(model)
    for causal in (False, True):
        model.causal = causal
        expected = model(ids).logits
        model.causal = not causal
        wrapped.causal = causal
        assert model.causal is causal
        output = wrapped(ids, labels=ids, return_logits=True)  # nor are labels looked at under compile
        torch.testing.assert_close(output.logits, expected)


def test_wrappers_of_other_models_keep_their_own_attribute(process_group: None) -> None:
    DistributedDataParallel(tiny_model())
    other: Any = DistributedDataParallel(nn.Linear(2, 2))
    assert not hasattr(other, "causal")
    other.causal = "their own"
    assert other.causal == "their own"
    assert not hasattr(other.module, "causal")


def test_every_wrapper_that_is_named_exists() -> None:
    import importlib

    for place, name in wrappers.WRAPPERS:
        if place.split(".")[0] in ("torch", "peft"):
            pytest.importorskip(place.split(".")[0])
            assert hasattr(importlib.import_module(place), name)


def test_the_mask_of_a_call_is_that_of_the_attribute() -> None:
    model = tiny_model()
    assert torch.equal(model(IDS, causal=True).logits, under(True))
    assert model.causal is False
    model.causal = True
    assert torch.equal(model(IDS, causal=False).logits, under(False))
    tagger = ModernBertForTokenClassification(tiny_config(num_labels=3)).eval()
    tagged = tagger(IDS, causal=True).logits
    tagger.causal = True
    assert torch.equal(tagger(IDS).logits, tagged)


def test_repr_shows_the_mask() -> None:
    model = tiny_model()
    assert "causal=False" in repr(model)
    model.causal = True
    assert "causal=True" in repr(model)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("clm_detour")]


@pytest.mark.parametrize(
    "cls",
    [ModernBertForPretraining, ModernBertForSequenceClassification, ModernBertForTokenClassification],
)
def test_a_folder_saved_causal_opens_causal_and_says_so(
    cls: type[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = cls(tiny_config(num_labels=3, classifier_pooling="mean")).eval()
    model.causal = True
    model.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)
    assert again.causal is True
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    (said,) = warnings(caplog)
    assert f"{tmp_path} was saved with the causal mask" in said
    caplog.clear()
    for causal in (True, False):
        assert cls.from_pretrained(tmp_path, causal=causal).causal is causal
    assert not warnings(caplog)


def test_a_bidirectional_folder_says_nothing_of_the_mask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    model.causal = True
    model.save_pretrained(tmp_path / "causal")
    assert json.loads((tmp_path / "causal" / "config.json").read_text())["causal"] is True
    back = ModernBertForPretraining.from_pretrained(tmp_path / "causal", causal=False)
    back.save_pretrained(tmp_path / "back")
    assert "causal" not in json.loads((tmp_path / "back" / "config.json").read_text())
    assert ModernBertForPretraining.from_pretrained(tmp_path / "back").causal is False
    assert not warnings(caplog)


def test_transformers_takes_no_notice_of_the_key(tmp_path: Path) -> None:
    model = tiny_model()
    model.causal = True
    model.save_pretrained(tmp_path)
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(theirs(IDS).logits, under(False), rtol=1e-4, atol=1e-4)


def test_a_config_alone_makes_no_model_causal(tmp_path: Path) -> None:
    model = tiny_model()
    model.causal = True
    model.save_pretrained(tmp_path)
    new = ModernBertForPretraining(AutoConfig.from_pretrained(tmp_path))
    assert not new.causal
    classifier = ModernBertForSequenceClassification.from_encoder(tmp_path, num_labels=2)
    assert not classifier.causal
    assert not hasattr(classifier.config, "causal")


@pytest.fixture
def causal_model() -> ModernBertForPretraining:
    model = tiny_model()
    model.causal = True
    return model


def test_labels_that_are_the_inputs_are_refused_until_they_are_not(
    causal_model: ModernBertForPretraining,
) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"shift=True, or labels made by next_token_labels"):
            causal_model(IDS, labels=IDS)
    padded = torch.ones_like(IDS)
    padded[:, 30:] = 0
    with pytest.raises(UserError, match="shift=True"):
        causal_model(IDS, attention_mask=padded, labels=IDS.where(padded == 1, -100))
    with pytest.raises(UserError, match="shift=True"):
        causal_model(IDS, document_lengths=[[10, 30], [40]], labels=IDS)
    causal_model(IDS, labels=next_token_labels(IDS))
    causal_model(IDS, labels=IDS)  # the labels were seen to be shifted


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        (IDS[:, :15], IDS[:, :15]),
        (torch.full_like(IDS, 7), torch.full_like(IDS, 7)),
        (IDS, torch.full_like(IDS, -100)),
    ],
    ids=["few", "one id", "none"],
)
def test_labels_that_say_nothing_neither_pass_nor_fail(
    causal_model: ModernBertForPretraining, ids: torch.Tensor, labels: torch.Tensor
) -> None:
    causal_model(ids, labels=labels)
    with pytest.raises(UserError, match="shift=True"):
        causal_model(IDS, labels=IDS)


def test_labels_are_looked_at_only_where_a_copier_would_be_trained() -> None:
    model = tiny_model()
    model(IDS, labels=IDS)  # in both directions it is transformers' loss
    model.causal = True
    model(IDS, labels=IDS, document_lengths=[[40], [40]], predicted=80)  # a loader that knows the number
    model(inputs_embeds=model.get_input_embeddings()(IDS), labels=IDS)  # which are nobody's ids


def test_shifted_labels_are_those_of_the_next_token(causal_model: ModernBertForPretraining) -> None:
    mask = torch.ones_like(IDS)
    mask[1, :7], mask[0, 35:] = 0, 0
    documents = torch.cat([packed_ids([15, 25]), packed_ids([30, 10])])
    for given in (
        {},
        {"attention_mask": mask},
        {"document_ids": documents},
        {"attention_mask": mask, "document_ids": documents},
    ):
        expected = causal_model(IDS, labels=next_token_labels(IDS, **given), **given)
        shifted = causal_model(IDS, labels=IDS, shift=True, **given)
        assert shifted.loss == expected.loss
        assert shifted.predicted == expected.predicted
    lengths = [[15, 25], [30, 10]]
    packed = causal_model(IDS, labels=IDS, shift=True, document_lengths=lengths, predicted=76)
    assert packed.loss == causal_model(IDS, labels=IDS, shift=True, document_ids=documents).loss


def test_labels_left_out_stay_left_out_when_shifted(causal_model: ModernBertForPretraining) -> None:
    """As in transformers: the label at a position is predicted by the position before it."""
    labels = IDS.clone()
    labels[:, 20:30] = -100
    by_hand = torch.full_like(labels, -100)
    by_hand[:, :-1] = labels[:, 1:]
    shifted = causal_model(IDS, labels=labels, shift=True)
    assert shifted.loss == causal_model(IDS, labels=by_hand).loss
    assert shifted.predicted == 2 * 29


def test_shifting_needs_the_causal_mask() -> None:
    with pytest.raises(UserError, match="set causal = True"):
        tiny_model()(IDS, labels=IDS, shift=True)
    assert tiny_model()(IDS, labels=IDS, shift=True, causal=True).loss.isfinite()


def test_a_shift_without_labels_to_shift_is_refused() -> None:
    with pytest.raises(UserError, match="label_smoothing_factor"):
        tiny_model()(IDS, shift=True, causal=True)


@pytest.mark.parametrize("value", ["no", None, 1])
def test_the_mask_is_true_or_false_and_nothing_else(value: Any) -> None:
    model = tiny_model()
    with pytest.raises(UserError, match="set it to True or False"):
        model.causal = value
    assert model.causal is False
    if value is not None:
        with pytest.raises(UserError, match="set it to True or False"):
            model(IDS, causal=value)
    model.causal = np.bool_(True)
    assert model.causal is True


def test_without_labels_the_loss_is_no_measurement_and_no_step() -> None:
    model, nothing = tiny_model(), torch.full_like(IDS, -100)
    with torch.no_grad():
        assert model(IDS, labels=nothing).loss.isnan()
    loss = model(IDS, labels=nothing).loss
    loss.backward()
    assert loss == 0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_an_adapter_on_the_decoder_is_not_left_out_of_the_loss() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_model(), peft.LoraConfig(target_modules=["decoder"]))
    with pytest.raises(UserError, match="target_modules"):
        model(input_ids=IDS, labels=IDS)


def test_adapters_and_prompts_of_peft_train_a_causal_model() -> None:
    peft = pytest.importorskip("peft")
    task = {"task_type": "CAUSAL_LM"}
    prompts = peft.PromptTuningConfig(
        num_virtual_tokens=4, num_layers=4, num_attention_heads=2, token_dim=24, **task
    )
    for settings in (peft.LoraConfig(target_modules=["Wqkv"], **task), prompts):
        model: Any = peft.get_peft_model(tiny_model(), settings)
        model.causal = True
        model(input_ids=IDS, labels=IDS, shift=True).loss.backward()
        trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert trained
        assert all(grad is not None for grad in trained.values())
        with pytest.raises(UserError, match=r"to_decoder\(\)"):
            model.generate(input_ids=IDS)
