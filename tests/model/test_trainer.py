"""transformers' Trainer trains, evaluates and saves these models by its own words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_reference import SPECIAL, VOCABULARY, tiny_config, tiny_model, tokens
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

from clm_detour import (
    ModernBertForPretraining,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    next_token_labels,
)

pytest.importorskip("accelerate")
GUIDE = Path(__file__).parents[2] / "docs" / "training.md"
IDS = tokens(12 * 10).view(12, 10)


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    return TrainingArguments(
        str(folder), report_to="none", use_cpu=True, disable_tqdm=True, per_device_eval_batch_size=4,
        **{"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", **options},
    )  # fmt: skip


def examples(labels: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": ids, "labels": label} for ids, label in zip(IDS, labels, strict=True)]


LABELS = {
    ModernBertForPretraining: (IDS, VOCABULARY),
    ModernBertForSequenceClassification: (torch.arange(12) % 3, 3),
    ModernBertForTokenClassification: (IDS % 3, 3),
}


@pytest.mark.parametrize("cls", LABELS)
def test_compute_metrics_gets_the_logits(cls: type[Any], tmp_path: Path) -> None:
    labels, outputs = LABELS[cls]
    model = cls(tiny_config(num_labels=3))
    seen: list[Any] = []

    def metrics(prediction: Any) -> dict[str, float]:
        seen.append(prediction.predictions)
        return {"right": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    rows = examples(labels)
    trainer = Trainer(
        model, arguments(tmp_path), train_dataset=rows, eval_dataset=rows, compute_metrics=metrics
    )  # type: ignore[arg-type]
    trainer.train()
    found = trainer.evaluate()
    model.eval()
    with torch.no_grad():
        output = model(IDS, labels=labels)
    assert seen[0].shape == (*labels.shape, outputs)
    np.testing.assert_allclose(seen[0], output.logits, rtol=1e-4, atol=1e-5)
    assert found["eval_right"] == pytest.approx((output.logits.argmax(-1) == labels).float().mean().item())
    assert found["eval_loss"] == pytest.approx(output.loss.item(), rel=1e-5)


def test_logits_are_never_held_whole_in_training() -> None:
    model = tiny_model().train()
    assert model(IDS, labels=IDS).logits is None
    model.eval()
    assert model(IDS, labels=IDS).logits is None  # gradients are on
    with torch.no_grad():
        assert model(IDS, labels=IDS).logits.shape == (12, 10, VOCABULARY)
        assert model(IDS, labels=IDS, return_logits=False).logits is None
        model.train()
        assert model(IDS, labels=IDS).logits is None


@pytest.mark.parametrize("shift", [False, True])
def test_the_loss_of_a_step_is_the_mean_over_its_micro_batches(shift: bool) -> None:
    """Two micro-batches with different numbers of labels add up to the mean over both."""
    model = tiny_model()
    model.causal = True
    labels = IDS.clone() if shift else next_token_labels(IDS)
    labels[:6, 5:] = -100
    total = (labels != -100).sum()
    parts = [
        model(ids, labels=each, shift=shift, num_items_in_batch=total)
        for ids, each in zip(IDS.split(6), labels.split(6), strict=True)
    ]
    whole = model(IDS, labels=labels, shift=shift)
    assert sum(int(part.predicted) for part in parts) == whole.predicted
    tolerance = 0.02 if shift else 1e-5  # Trainer counts the first label of a row, which nothing predicts
    assert sum(part.loss for part in parts).item() == pytest.approx(whole.loss.item(), rel=tolerance)
    alone = model(IDS, labels=labels, shift=shift, num_items_in_batch=total)
    assert alone.loss.item() == pytest.approx(whole.loss.item(), rel=1e-5)


@pytest.mark.parametrize("none", [0, torch.tensor(0)], ids=["int", "tensor"])
def test_a_step_without_any_label_has_loss_and_gradients_of_zero(none: int | torch.Tensor) -> None:
    model = tiny_model()
    loss = model(IDS, labels=torch.full_like(IDS, -100), num_items_in_batch=none).loss
    loss.backward()
    assert loss == 0
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


def test_accumulated_steps_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    """Trainer passes a step's number of labels, so micro-batches of few labels do not weigh more."""
    labels = IDS.clone()
    labels[::2, 2:] = -100
    weights = []
    for rows, accumulation in ((4, 1), (1, 4)):
        model = tiny_model()
        options: dict[str, Any] = {
            "per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation, "max_steps": 3,
            "optim": "sgd", "learning_rate": 0.1, "seed": 1, "max_grad_norm": 0.0,
        }  # fmt: skip
        Trainer(model, arguments(tmp_path, **options), train_dataset=examples(labels)).train()  # type: ignore[arg-type]
        weights.append(model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-5)
    assert not torch.equal(weights[0]["head.dense.weight"], tiny_model().state_dict()["head.dense.weight"])


def test_what_trainer_saves_says_nothing_of_trainer(tmp_path: Path) -> None:
    trainer = Trainer(tiny_model(), arguments(tmp_path))
    trainer.save_model()
    text = (tmp_path / "config.json").read_text()
    assert "keys_to_ignore" not in text
    ignored = getattr(  # transformers 5.24 has no such attribute any more
        AutoModelForMaskedLM.from_pretrained(tmp_path).config, "keys_to_ignore_at_inference", None
    )
    assert ignored in (None, ["past_key_values"])


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `runs/quickstart/models/detour` is a model with its tokenizer."""
    folder = tmp_path / "runs" / "quickstart" / "models" / "detour"
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"word{i}" for i in range(92))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", SPECIAL["sep_token_id"])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip
    tiny_model().save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_guides_notebook_runs(quickstart: Path) -> None:
    (section,) = re.findall(r"\n## In a notebook\n(.*?)\n## ", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    before = tiny_model().state_dict()
    trained = ModernBertForPretraining.from_pretrained(quickstart / "my-model")
    assert trained.causal
    assert (quickstart / "my-model" / "tokenizer.json").exists()
    assert not torch.equal(trained.state_dict()["head.dense.weight"], before["head.dense.weight"])
    assert ModernBertForSequenceClassification.from_pretrained(quickstart / "my-classifier").num_labels == 4
