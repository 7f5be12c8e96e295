"""TensorBoard, Weights & Biases and MLflow by Composer's classes, on one axis over an arm.

A phase is a run of its own, since arms may share it. Its values are logged at the tokens since the start of
the arm, so the phases of an arm continue each other. Composer logs its own clock, loss and settings at the
steps of a phase; these classes ignore them, so that each value has one name and one axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from composer.core import State
from composer.loggers import Logger, LoggerDestination, MLFlowLogger, TensorboardLogger, WandBLogger
from composer.utils import dist

MAX_PARAMETER = 500  # characters, which every store of MLflow takes


class Tracker(LoggerDestination):
    """A logger that ignores what Composer logs. `record` and `describe` are called on the main process."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Ignore metrics of Composer."""

    def log_hyperparameters(self, hyperparameters: dict[str, Any]) -> None:
        """Ignore settings of Composer."""

    def record(self, values: Mapping[str, float], tokens: int) -> None:
        """Log values at a number of tokens since the start of the arm."""
        raise NotImplementedError

    def describe(self, about: Mapping[str, Any]) -> None:
        """Log the names of recipe, arms and phase, and the config."""
        raise NotImplementedError


class TensorBoard(Tracker, TensorboardLogger):
    """Event files in `log_dir/NAME OF THE RUN`. They are complete up to the last logged step at any time."""

    def init(self, state: State, logger: Logger) -> None:
        """Open the event file, on the main process only."""
        if dist.get_global_rank() == 0:
            super().init(state, logger)

    def record(self, values: Mapping[str, float], tokens: int) -> None:
        """Log values at a number of tokens since the start of the arm."""
        TensorboardLogger.log_metrics(self, dict(values), tokens)
        self._flush()

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write the config as a text."""
        text = yaml.safe_dump(dict(about), sort_keys=False, allow_unicode=True)
        assert self.writer is not None
        self.writer.add_text("recipe", f"```yaml\n{text}```")
        self._flush()

    def _flush(self, logger: Logger | None = None) -> None:
        """Write what is logged. Composer would also begin a new file each time."""
        if self.writer is not None:
            self.writer.flush()

    def close(self, state: State, logger: Logger) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class WeightsAndBiases(Tracker, WandBLogger):
    """A run whose charts have the tokens since the start of the arm as their axis."""

    def init(self, state: State, logger: Logger) -> None:
        """Start or continue the run, and define the axis."""
        super().init(state, logger)
        if self._enabled:
            import wandb

            wandb.define_metric("tokens", hidden=True)
            wandb.define_metric("*", step_metric="tokens")

    def record(self, values: Mapping[str, float], tokens: int) -> None:
        """Log values at a number of tokens since the start of the arm.

        W&B counts its own steps. As steps it would refuse the tokens at which a run is continued.
        """
        WandBLogger.log_metrics(self, {"tokens": tokens, **values})

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write the config of the run."""
        import wandb

        wandb.config.update(dict(about), allow_val_change=True)


class MLflow(Tracker, MLFlowLogger):
    """A run whose steps are the tokens since the start of the arm."""

    def record(self, values: Mapping[str, float], tokens: int) -> None:
        """Log values at a number of tokens since the start of the arm."""
        MLFlowLogger.log_metrics(self, dict(values), tokens)

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write the parameters that the run does not have yet; MLflow refuses to change one."""
        known = self._mlflow_client.get_run(self._run_id).data.params
        parameters = {name: str(value)[:MAX_PARAMETER] for name, value in flat(about).items()}
        new = {name: value for name, value in parameters.items() if name not in known}
        MLFlowLogger.log_hyperparameters(self, new)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by names like `train.batch_rows`."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}


def default_settings(
    name: str, keys: Mapping[str, Any], root: Path, run_name: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a tracker: those of the recipe, and what it leaves open.

    Args:
        name: `tensorboard`, `wandb` or `mlflow`.
        keys: Arguments that the recipe sets.
        root: Folder of the run, for files.
        run_name: Name by which a phase that resumes finds its run.
        about: Names of recipe, arms, phase and objective.
    """
    recipe, phase, title = about["recipe"], about["phase"], f"{about['recipe']} {about['phase']}"
    if name == "tensorboard":
        return {"log_dir": str(root / "tensorboard"), **keys}
    if name == "wandb":
        tags = [*about["arms"], about["objective"]]
        same_run = {"id": run_name, "resume": "allow", "dir": str(root)}
        job = {"job_type": phase.rsplit(".", 1)[-1]}
        init = {**same_run, **job, **(keys.get("init_kwargs") or {})}
        return {"name": title, "group": recipe, "tags": tags, **keys, "init_kwargs": init}
    words = {key: ", ".join(value) if isinstance(value, list) else value for key, value in about.items()}
    return {
        "run_name": title,
        "run_group": recipe,
        "resume": True,
        **keys,
        "tags": {**words, **(keys.get("tags") or {})},
    }
