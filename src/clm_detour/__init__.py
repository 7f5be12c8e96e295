"""clm-detour: make a ModernBERT encoder the best encoder of a domain, by a causal-language-modelling detour.

The public names are imported when they are first asked for, so that `import clm_detour` takes no time.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clm_detour.config import load_config
    from clm_detour.model import (
        Documents,
        ModernBertForPretraining,
        ModernBertForSequenceClassification,
        ModernBertForTokenClassification,
        ModernBertModel,
        PretrainingOutput,
        next_token_labels,
    )
    from clm_detour.run.steps import run_recipe
    from clm_detour.utils.errors import UserError

__version__ = version("clm-detour")

_NOT_IN_MODEL = {"UserError": "utils.errors", "load_config": "config", "run_recipe": "run.steps"}
__all__ = [
    "Documents",
    "ModernBertForPretraining",
    "ModernBertForSequenceClassification",
    "ModernBertForTokenClassification",
    "ModernBertModel",
    "PretrainingOutput",
    "UserError",
    "__version__",
    "load_config",
    "next_token_labels",
    "run_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_NOT_IN_MODEL.get(name, 'model')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
