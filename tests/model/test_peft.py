"""PEFT's tasks for classifiers work on ours: adapters are trained, saved, opened again and merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_reference import assert_close, tiny_model, tokens

from clm_detour.model import (
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    ModernBertModel,
)
from clm_detour.utils.errors import UserError

peft = pytest.importorskip("peft")
IDS = tokens(8 * 12).view(8, 12)
MASK = (torch.arange(12) < torch.arange(5, 13)[:, None]).long()
TASKS = {
    "SEQ_CLS": (ModernBertForSequenceClassification, torch.arange(8) % 3),
    "TOKEN_CLS": (ModernBertForTokenClassification, IDS % 3),
}
MODULES = ["Wqkv", "Wo"]


@pytest.fixture(params=["with a head", "body alone"])
def folder(request: Any, tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "with a head")
    ModernBertModel.from_pretrained(tmp_path / "with a head").save_pretrained(tmp_path / "body alone")
    return tmp_path / request.param


def classifier(task: str, folder: Path, seed: int) -> Any:
    torch.manual_seed(seed)
    return TASKS[task][0].from_encoder(folder, num_labels=3)


def with_adapter(task: str, folder: Path) -> Any:
    config = peft.LoraConfig(
        task_type=task, r=4, target_modules=MODULES, modules_to_save=["head", "classifier"]
    )
    return peft.get_peft_model(classifier(task, folder, 0), config)


def train(model: Any, labels: torch.Tensor) -> list[float]:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(15):
        loss = model(input_ids=IDS, attention_mask=MASK, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("task", TASKS)
def test_an_adapter_lowers_the_loss_and_comes_back_with_the_same_logits(
    task: str, folder: Path, tmp_path: Path
) -> None:
    cls, labels = TASKS[task]
    model = with_adapter(task, folder)
    assert type(model).__name__ == f"PeftModelFor{cls.__name__.removeprefix('ModernBertFor')}"
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("classifier" in name for name in trained)
    assert all("lora" in name or "modules_to_save" in name for name in trained)
    frozen = {name: p.clone() for name, p in model.named_parameters() if name not in trained}
    losses = train(model, labels)
    assert losses[-1] < 0.5 * losses[0]
    after = dict(model.named_parameters())
    assert all(torch.equal(p, after[name]) for name, p in frozen.items())

    model.eval()
    logits = model(input_ids=IDS, attention_mask=MASK).logits.detach()
    model.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(classifier(task, folder, seed=7), tmp_path / "adapter").eval()
    assert_close(again(input_ids=IDS, attention_mask=MASK).logits.detach(), logits)
    with pytest.raises(UserError, match=r"an adapter of PEFT.*merge_and_unload"):
        cls.from_pretrained(tmp_path / "adapter")
    again.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = cls.from_pretrained(tmp_path / "merged")
    assert_close(merged(IDS, MASK).logits.detach(), logits, 1e-4)


def test_the_body_takes_an_adapter_for_its_features(folder: Path) -> None:
    body = ModernBertModel.from_pretrained(folder)
    expected = body(IDS, MASK).last_hidden_state.detach()
    config = peft.LoraConfig(task_type="FEATURE_EXTRACTION", target_modules=MODULES)
    model = peft.get_peft_model(body, config).eval()
    assert_close(model(input_ids=IDS, attention_mask=MASK).last_hidden_state.detach(), expected)
