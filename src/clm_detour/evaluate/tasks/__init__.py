"""The tasks on which encoders are fine-tuned and compared. Each file in `library/` describes one."""

from clm_detour.config.protocols import Protocol
from clm_detour.evaluate.tasks.registry import TASKS, load, locate
from clm_detour.evaluate.tasks.task import METRICS, SPLITS, Document, Entity, Splits, Task
from clm_detour.evaluate.tasks.yaml_task import from_yaml

__all__ = [
    "METRICS",
    "SPLITS",
    "TASKS",
    "Document",
    "Entity",
    "Protocol",
    "Splits",
    "Task",
    "from_yaml",
    "load",
    "locate",
]
