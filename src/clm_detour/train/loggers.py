"""Composer's loggers for TensorBoard, Weights & Biases and MLflow. metrics.jsonl does not depend on them."""

from __future__ import annotations

import importlib.util
import inspect
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from composer.loggers import LoggerDestination, MLFlowLogger, TensorboardLogger, WandBLogger
from composer.utils import MissingConditionalImportError

from clm_detour.train.parallel import broadcast, is_main_process
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json, write_json
from clm_detour.utils.rules import one_of

LOGGERS: dict[str, type[LoggerDestination]] = {
    "tensorboard": TensorboardLogger,
    "wandb": WandBLogger,
    "mlflow": MLFlowLogger,
}


def make_loggers(
    settings: Mapping[Any, Mapping[str, Any]], folder: Path, run_name: str
) -> list[LoggerDestination]:
    """Return the loggers of `train.loggers`.

    Args:
        settings: Arguments of Composer's class, by the name of the logger.
        folder: Folder of the phase, for the files of TensorBoard and W&B.
        run_name: The phase's `unique_name`. The Trainer must have the same: MLflow's logger finds the run to
            resume by it.

    Raises:
        UserError: If a package is not installed, or an argument is not known.
    """
    return [make_logger(name, dict(keys or {}), folder, run_name) for name, keys in settings.items()]


def check_logger(name: str, keys: Mapping[str, Any]) -> None:
    """Check that a logger's package is installed and that its class takes these arguments.

    Raises:
        UserError: If it is not, or does not.
    """
    check_arguments(name, keys)
    if importlib.util.find_spec(name) is None:
        raise not_installed(name)


def check_arguments(name: str, keys: Mapping[str, Any]) -> None:
    """Raise UserError if Composer's class lacks one of the arguments."""
    for key in keys:
        one_of(key, list(inspect.signature(LOGGERS[name]).parameters), f"train.loggers.{name}")


def not_installed(name: str) -> UserError:
    """Return the error for a logger whose package, or a package that it needs, is not installed."""
    return UserError(
        f"train.loggers: {name} is not installed; pip install 'clm-detour[{name}]', or take it out."
    )


def make_logger(name: str, keys: dict[str, Any], folder: Path, run_name: str) -> LoggerDestination:
    """Return one logger; a phase that resumes continues the same run."""
    check_arguments(name, keys)
    if name == "tensorboard":
        keys = {"log_dir": str(folder / "tensorboard"), **keys}
    elif name == "wandb":
        same_run = {"id": run_name, "resume": "allow", "dir": str(folder)}
        keys = {"name": run_name, **keys, "init_kwargs": {**same_run, **(keys.get("init_kwargs") or {})}}
    else:
        keys = {"run_name": run_name, "resume": True, **keys}
    try:
        return LOGGERS[name](**keys)
    except (ImportError, MissingConditionalImportError):
        raise not_installed(name) from None


def unique_name(folder: Path, phase: str) -> str:
    """Return a name for the phase in loggers: its id and a random part, kept in its folder.

    So a phase that resumes is logged in the same run, and a phase of another recipe in a run of its own.
    """
    path = folder / "logged_as.json"
    if is_main_process() and not path.exists():
        write_json(path, {"name": f"{phase}-{secrets.token_hex(4)}"})
    return broadcast(read_json(path)["name"] if is_main_process() else "")
