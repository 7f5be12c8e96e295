"""Environment variables of `train.deterministic`. They must be set before a process starts to use CUDA."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass

from clm_detour.config.schema import Train
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class Variable:
    """A variable, the value that it gets if it is not set, and the starts of all values that are right."""

    name: str
    value: str
    right: tuple[str, ...]


VARIABLES = (
    Variable("CUBLAS_WORKSPACE_CONFIG", ":4096:8", (":4096:8", ":16:8")),
    # NVLink SHARP adds up in the switch, in no fixed order
    Variable("NCCL_ALGO", "Ring", ("Ring", "Tree", "^NVLS")),
)


def prepare_environment(train: Train, environment: MutableMapping[str, str]) -> None:
    """Set the variables that `train.deterministic` needs, for this process and those that it starts.

    Raises:
        UserError: If one is set to a value that is not deterministic.
    """
    for variable in VARIABLES if train.deterministic else ():
        value = environment.setdefault(variable.name, variable.value)
        if not value.startswith(variable.right):
            raise UserError(
                f"train.deterministic: {variable.name}={value} is not deterministic; unset it, or set it to "
                f"{variable.value}."
            )
