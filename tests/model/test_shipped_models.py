"""The micro-batches of the shipped models are about the largest that the plan fits into an 80 GB GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import ModernBertConfig

from clm_detour.config import load_config
from clm_detour.plan import make_plan
from clm_detour.recipe.recipe import Recipe

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = sorted(path.stem for path in (CONFIGS / "base" / "models").glob("*.yaml"))
GPUS, GB = 4, 1e9
ROOM = 72 * GB  # what the plan may say of 80 GB: it leaves out the allocator's gaps, and the context of CUDA
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
RECIPES = {
    "modernbert-base": "cpt-en-base",
    "modernbert-large": "cpt-en-large",
    "moderncamembert-base": "cpt-fr-base",
    "moderncamembert-large": "cpt-fr-large",
}


def published_config(model: str) -> ModernBertConfig:
    hidden, inner, layers, heads = SHAPES[model.rpartition("-")[2]]
    french = {"vocab_size": 32768, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return ModernBertConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        **(french | {"cls_token_id": 1, "sep_token_id": 2} if "camembert" in model else {}),
    )


@pytest.mark.parametrize("model", MODELS)
def test_the_micro_batch_of_a_shipped_model_is_the_largest_that_fits(model, monkeypatch):
    monkeypatch.setattr("clm_detour.plan.make.base_config", lambda path: published_config(model))
    recipe = CONFIGS / "paper" / f"{RECIPES.get(model, f'other-bases/{model}')}.yaml"

    def memory(rows: int | None) -> float:
        words = [] if rows is None else [f"train.micro_rows={rows}"]
        config = load_config(recipe, ["data.root=somewhere", *words])
        return sum(make_plan(Recipe(config), GPUS, read_data=False).sizes.memory.values())

    train = load_config(recipe, ["data.root=somewhere"]).train
    rows_of_a_process = train.batch_rows // GPUS
    assert rows_of_a_process % train.micro_rows == 0
    assert memory(None) <= ROOM
    larger = [
        rows for rows in range(train.micro_rows + 1, rows_of_a_process + 1) if rows_of_a_process % rows == 0
    ]
    assert not larger or memory(larger[0]) > ROOM
