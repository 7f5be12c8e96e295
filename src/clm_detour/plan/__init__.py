"""What a recipe takes, told before any of it is done: `make` plans it, `show` prints it.

Passes over the data, steps, operations by part, memory by part, disk, and for given hardware hours and energy. What is assumed is said: lengths of
documents before the data is prepared, the share of a GPU's peak that training reaches.
"""

from clm_detour.plan.make import PhasePlan, RecipePlan, SourcePlan, make_plan
from clm_detour.plan.show import print_plan

__all__ = ["PhasePlan", "RecipePlan", "SourcePlan", "make_plan", "print_plan"]
