"""Adapt a ModernBERT encoder to a domain by a causal language modeling detour.

Each public name is imported at its first use, so that `import clm_detour` is quick. `__init__.pyi` declares
the names for type checkers and editors.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("clm-detour")

_MODULES = {
    "Documents": "model",
    "ModernBertForPretraining": "model",
    "ModernBertForSequenceClassification": "model",
    "ModernBertForTokenClassification": "model",
    "ModernBertModel": "model",
    "PretrainingOutput": "model",
    "Recipe": "recipe.recipe",
    "TextModel": "measure.text_model",
    "UserError": "utils.errors",
    "load_config": "config",
    "next_token_labels": "model",
    "open_model": "measure.text_model",
    "prepare_data": "run.pipeline",
    "run_recipe": "run.pipeline",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
