"""`clm-detour check`: everything that can fail later and can be seen now, without training. A run refuses the same before it starts.

folders.py   where a run writes
model.py     config, weights and tokenizer of the model
data.py      sources, prepared shards, tasks
started.py   what the run folder holds already
doubts.py    what works but may not be what is meant
recipe.py    all of it
"""

from clm_detour.run.check.model import existing_tokenizer
from clm_detour.run.check.recipe import all_doubts, check_recipe, processes, refuse

__all__ = ["all_doubts", "check_recipe", "existing_tokenizer", "processes", "refuse"]
