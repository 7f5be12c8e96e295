"""TensorBoard, Weights & Biases and MLflow, through Composer's loggers. metrics.jsonl is written in any case."""

from __future__ import annotations

import importlib.util
import inspect
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from composer.loggers import LoggerDestination, MLFlowLogger, TensorboardLogger, WandBLogger
from composer.utils import MissingConditionalImportError

from clm_detour.train.parallel import from_first, is_first
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
    """The loggers of `train.loggers`: name -> arguments of Composer's class.

    Args:
        folder: the phase's; TensorBoard's and W&B's files go there.
        run_name: `unique_name`, and the Trainer's too: MLflow's logger finds the run to go on in by the Trainer's.

    Raises:
        UserError: a package is not installed, or an argument is not known.
    """
    return [make_logger(name, dict(keys or {}), folder, run_name) for name, keys in settings.items()]


def check_logger(name: str, keys: Mapping[str, Any]) -> None:
    """Its package is there and takes these arguments.

    Raises:
        UserError: if not.
    """
    check_arguments(name, keys)
    if importlib.util.find_spec(name) is None:
        raise not_installed(name)


def check_arguments(name: str, keys: Mapping[str, Any]) -> None:
    """Composer's class has them all."""
    for key in keys:
        one_of(key, list(inspect.signature(LOGGERS[name]).parameters), f"train.loggers.{name}")


def not_installed(name: str) -> UserError:
    """The package, or one that it needs."""
    return UserError(
        f"train.loggers: {name} is not installed; pip install 'clm-detour[{name}]', or take it out."
    )


def make_logger(name: str, keys: dict[str, Any], folder: Path, run_name: str) -> LoggerDestination:
    """One of them."""
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
    """The phase's id and a random part, made once and kept in its folder: a restarted phase goes on in the same run, another recipe's does not."""
    path = folder / "logged_as.json"
    if is_first() and not path.exists():
        write_json(path, {"name": f"{phase}-{secrets.token_hex(4)}"})
    return from_first(read_json(path)["name"] if is_first() else "")
