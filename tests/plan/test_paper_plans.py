"""Every config of the paper fits into 4 x H100 at the micro-batch that the plan chooses."""

from __future__ import annotations

import sys

import pytest
from transformers import AutoConfig, ModernBertConfig, PreTrainedConfig

from clm_detour.__main__ import main
from clm_detour.config import load_config
from clm_detour.config.shipped import CONFIGS
from clm_detour.plan import make_plan
from clm_detour.plan.hardware import Hardware
from clm_detour.plan.memory import divisors
from clm_detour.recipe.recipe import Recipe

PAPER = sorted((CONFIGS / "paper").rglob("*.yaml"))
GPUS, H100 = 4, Hardware(4, "H100")
SHAPES = {  # hidden size, size of the gated unit, layers, heads: of the published configs
    "17m": (256, 384, 7, 4),
    "32m": (384, 576, 10, 6),
    "68m": (512, 768, 19, 8),
    "150m": (768, 1152, 22, 12),
    "base": (768, 1152, 22, 12),
    "400m": (1024, 2624, 28, 16),
    "large": (1024, 2624, 28, 16),
    "1b": (1792, 3840, 28, 28),
}


CAMEMBERT2 = {"vocab_size": 32768, "max_position_embeddings": 1025, "pad_token_id": 0}
OTHERS = {  # vocabulary and positions of the BERT-base and RoBERTa-base configs
    "camembertv2-base": ("roberta", CAMEMBERT2),
    "biomednlp-biomedbert-base-uncased-abstract-fulltext": ("bert", {"vocab_size": 30522}),
    "biobert-v1.1": ("bert", {"vocab_size": 28996}),
    "camembert-bio-base": ("camembert", {"vocab_size": 32005, "max_position_embeddings": 514}),
    "xlm-roberta-base": ("xlm-roberta", {"vocab_size": 250002, "max_position_embeddings": 514}),
}


def published_config(model: str) -> PreTrainedConfig:
    name = model.rpartition("/")[2]
    if name in OTHERS:
        return AutoConfig.for_model(OTHERS[name][0], **OTHERS[name][1])
    hidden, inner, layers, heads = SHAPES[model.rpartition("-")[2]]
    french = {"vocab_size": 32768, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return ModernBertConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        **(french | {"cls_token_id": 1, "sep_token_id": 2} if "camembert" in model else {}),
    )


@pytest.fixture
def published(monkeypatch):
    """The configs of the published models, without the network."""
    monkeypatch.setattr("clm_detour.plan.make.base_config", lambda path: published_config(path.lower()))


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_config_of_the_paper_fits_at_the_largest_micro_batch_that_does(published, path):
    recipe = Recipe(load_config(path, ["data.root=somewhere"]))
    assert recipe.config.train.micro_rows == "auto"

    def planned(rows: int | str) -> tuple[dict[str, int], int]:
        recipe.config.train.micro_rows = rows
        sizes = make_plan(recipe, GPUS, read_data=False, gpu_memory=H100.memory).sizes
        return sizes.micro_rows, sum(sizes.memory.values())

    chosen, memory = planned("auto")
    assert chosen.keys() == recipe.phases.keys()
    assert memory <= 0.9 * H100.memory
    rows = recipe.config.train.batch_rows // GPUS
    assert all(rows % each == 0 for each in chosen.values())
    least = min(chosen.values())
    larger = [size for size in divisors(rows) if size > least]
    assert not larger or planned(larger[-1])[1] > 0.9 * H100.memory


def test_the_plan_shows_the_micro_batch_as_an_estimate(published, monkeypatch, capsys):
    path = CONFIGS / "paper" / "cpt-en-base.yaml"
    words = [
        "plan",
        str(path),
        "data.root=somewhere",
        "tokenizer.path=nowhere",
        "--gpus",
        "4",
        "--device",
        "H100",
    ]
    monkeypatch.setattr(sys, "argv", ["clm-detour", *words])
    monkeypatch.setattr(Recipe, "has_tokenizer", False)
    with pytest.raises(SystemExit) as left:
        main()
    said = " ".join(capsys.readouterr().err.split())
    assert not left.value.code, said
    assert "Micro-batch of each process: 16 rows, estimated to fill at most 90% of each GPU" in said
