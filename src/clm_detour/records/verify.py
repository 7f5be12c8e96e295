"""The records of `clm-detour doctor --verify`: the file of `--json`, and which machines have passed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "FAILED", "left out"]


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Args:
        group: Name of the group of checks.
        name: Name of the check, unique within its group.
        figure: The measured value in words; empty if there is none.
        limit: The limit in words; empty for a figure that has none.
        why: Why the check failed or was left out; empty if it was passed.
        value: The measured value; None if it is not a number, or was not measured.
    """

    group: str
    name: str
    status: Status
    figure: str = ""
    limit: str = ""
    why: str = ""
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All checks of one run of the command.

    Args:
        environment: Versions and hardware, as `utils.environment.describe_environment` returns them.
        processes: Number of processes of the checks that need several.
        seconds: Wall time.
    """

    format: int = 1
    environment: dict[str, Any]
    device: str
    processes: int
    seconds: float
    checks: list[Check]

    @property
    def failed(self) -> list[Check]:
        """Checks that were not passed."""
        return [check for check in self.checks if check.status == "FAILED"]


@dataclass
class Remembered:
    """Results of the machines of one user: `verified.json` in the user's cache folder.

    Args:
        passed: Key of a machine with its versions -> time at which the checks were passed.
        hinted: Keys for which `clm-detour run` has pointed to the checks.
    """

    format: int = 1
    passed: dict[str, str] = field(default_factory=dict)
    hinted: list[str] = field(default_factory=list)
