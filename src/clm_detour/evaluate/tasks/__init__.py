"""The evaluation's tasks: one short file per family, registered by name."""

from clm_detour.evaluate.tasks.registry import TASKS, by_name, load, locate
from clm_detour.evaluate.tasks.task import SPLITS, Document, Entity, Protocol, Splits, Task

__all__ = ["SPLITS", "TASKS", "Document", "Entity", "Protocol", "Splits", "Task", "by_name", "load", "locate"]
