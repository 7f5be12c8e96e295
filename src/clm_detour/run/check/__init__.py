"""Check a recipe for whatever could stop its run, without training."""

from clm_detour.run.check.model import check_tokenizer
from clm_detour.run.check.recipe import check_before_run, check_recipe, plan_with_warnings
from clm_detour.run.check.sources import check_shards, recipe_sources

__all__ = [
    "check_before_run",
    "check_recipe",
    "check_shards",
    "check_tokenizer",
    "plan_with_warnings",
    "recipe_sources",
]
