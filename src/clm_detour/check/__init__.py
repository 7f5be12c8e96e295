"""`clm-detour check`: everything that can fail later and can be seen now, without training."""

from clm_detour.check.recipe import check_recipe, existing_tokenizer, processes

__all__ = ["check_recipe", "existing_tokenizer", "processes"]
