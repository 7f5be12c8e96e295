"""Names of the Hugging Face hub, which a path of two parts may look like."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from clm_detour.config.schema import Config


def is_hub_id(path: str) -> bool:
    """Return whether a model or data set is opened from the hub: what lies here is not, whatever its name."""
    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return not Path(path).exists()


def hub_names(config: Config) -> list[str]:
    """Return those of a recipe's base model and data sets that are opened from the hub, in the folder that the process runs in."""
    datasets = [source.path for source in config.data.sources.values() if source.format == "hub"]
    named = [*([config.model.base] if config.model.base else []), *datasets]
    return [name for name in dict.fromkeys(named) if is_hub_id(name)]
