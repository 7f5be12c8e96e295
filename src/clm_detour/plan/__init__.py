"""The cost of a recipe before it runs: `make_plan` computes it, `print_plan` prints it.

The plan has passes over the data, steps, operations and memory by part, disk, and, for given hardware, hours
and energy. Assumptions are stated: lengths of documents before the data is prepared, and the share of a GPU's
peak that training reaches.
"""

from clm_detour.plan.make import PhasePlan, RecipePlan, SourcePlan, make_plan
from clm_detour.plan.show import print_plan

__all__ = ["PhasePlan", "RecipePlan", "SourcePlan", "make_plan", "print_plan"]
