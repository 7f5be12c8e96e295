"""The average of models: exact, strict about what is averaged, and open to transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, ModernBertConfig

from clm_detour import ModernBertForPretraining
from clm_detour.recipe.merge import merge
from clm_detour.utils.errors import UserError

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def models(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Folders of three models that differ in their weights only."""
    root = tmp_path_factory.mktemp("parents")
    tokenizer = AutoTokenizer.from_pretrained(tiny_data / "tokenizer")
    for seed in range(3):
        torch.manual_seed(seed)
        config = ModernBertConfig(vocab_size=832, pad_token_id=tokenizer.pad_token_id, **SIZES)
        ModernBertForPretraining(config).save_pretrained(root / f"seed{seed}")
        tokenizer.save_pretrained(root / f"seed{seed}")
    return [str(root / f"seed{seed}") for seed in range(3)]


def weights_of(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def test_each_weight_is_the_weighted_mean(models: list[str], tmp_path: Path) -> None:
    merge(models, tmp_path / "soup", [2, 1, 1])
    parents = [weights_of(model) for model in models]
    for name, found in weights_of(tmp_path / "soup").items():
        a, b, c = (parent[name].double() for parent in parents)
        assert torch.equal(found, (a * 0.5 + b * 0.25 + c * 0.25).float()), name


def test_the_average_of_a_model_with_itself_is_that_model(models: list[str], tmp_path: Path) -> None:
    merge([models[0], models[0]], tmp_path / "soup")
    for name, found in weights_of(tmp_path / "soup").items():
        assert torch.equal(found, weights_of(models[0])[name]), name


def test_transformers_opens_it_and_its_card_names_the_parents(models: list[str], tmp_path: Path) -> None:
    merge(models[:2], tmp_path / "soup")
    network = AutoModelForMaskedLM.from_pretrained(tmp_path / "soup")
    ids = AutoTokenizer.from_pretrained(tmp_path / "soup")("The patient left.", return_tensors="pt")
    assert network(**ids).logits.isfinite().all()
    text = ModelCard.load(tmp_path / "soup" / "README.md").content
    assert "seed0: 0.5" in text
    assert "seed1: 0.5" in text
    assert str(Path(models[0]).parent) not in text


def changed(model: str, folder: Path, file: str, **keys: object) -> str:
    """Return a copy of a model with other keys in one of its JSON files."""
    shutil.copytree(model, folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **keys}))
    return str(folder)


def test_models_that_differ_in_more_than_weights_are_refused(models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "soup"
    with pytest.raises(UserError, match="local_attention"):
        merge([models[0], changed(models[1], tmp_path / "a", "config.json", local_attention=32)], out)
    with pytest.raises(UserError, match="different tokenizers"):
        merge([models[0], changed(models[1], tmp_path / "b", "tokenizer.json", pre_tokenizer=None)], out)
    larger = ModernBertConfig(vocab_size=832, pad_token_id=0, **SIZES | {"intermediate_size": 64})
    ModernBertForPretraining(larger).save_pretrained(tmp_path / "c")
    with pytest.raises(UserError, match="intermediate_size: 48 and 64"):
        merge([models[0], str(tmp_path / "c")], out)
    assert not out.exists()


def test_a_weight_that_one_model_lacks_is_named(models: list[str], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(models[1], tmp_path / "cut")
    weights = weights_of(models[1])
    del weights["head.norm.weight"]
    save_file(weights, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"head\.norm\.weight is of shape \(32,\) .* and missing"):
        merge([models[0], str(tmp_path / "cut")], tmp_path / "soup")


@pytest.mark.parametrize(
    ("count", "shares", "message"),
    [(1, None, "at least two"), (2, [1.0], "one weight for each"), (2, [1.0, 0.0], "not positive")],
)
def test_wrong_numbers_are_refused(
    models: list[str], count: int, shares: list[float] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        merge(models[:count], tmp_path / "soup", shares)
