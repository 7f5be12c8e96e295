"""Check a recipe for whatever could stop its run, without training."""

from clm_detour.run.check.recipe import check_before_run, check_recipe, plan_with_warnings

__all__ = ["check_before_run", "check_recipe", "plan_with_warnings"]
