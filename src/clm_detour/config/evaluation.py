"""What must hold of an evaluation before any work: each rule is one line here and one sentence for the user."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from clm_detour.config.protocols import Protocol
from clm_detour.config.schema import Evaluation, FineTuning
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of, require

NOT_SET_HERE = ("seeds",)  # they have a key of their own


def check_evaluation(evaluation: Evaluation) -> None:
    """Raise a UserError for the first rule that a `clm-detour evaluate` file breaks."""
    check_fine_tuning(evaluation, "")
    require(bool(evaluation.models), "There is no model to evaluate; add --model name=path.")
    for name in evaluation.models:
        usable = re.fullmatch(r"[\w.-]+", name)
        require(bool(usable), f"models.{name}: use letters, digits, ., - and _ only (it becomes a folder).")


def check_fine_tuning(settings: FineTuning, where: str) -> None:
    """The part that recipes have too.

    Args:
        where: in the file, like `evaluate.tasks.`.
    """
    require(bool(settings.tasks), f"{where}tasks is empty; `clm-detour tasks` lists those that there are.")
    twice = len(set(settings.tasks)) < len(settings.tasks)
    require(not twice, f"{where}tasks names a task twice; remove one.")
    for group, names in settings.groups.items():
        require(bool(names), f"{where}groups.{group} is empty; name its tasks.")
        for name in names:
            one_of(name, settings.tasks, f"{where}groups.{group}")
    check_changes(settings.protocol, f"{where}protocol")
    for task, changes in settings.protocols.items():
        one_of(task, settings.tasks, f"{where}protocols")
        check_changes(changes, f"{where}protocols.{task}")
    check_seeds(settings.seeds, f"{where}seeds")
    require(all(rate > 0 for rate in settings.learning_rates), f"{where}learning_rates must be positive.")
    for key in ("patience", "documents"):
        value = getattr(settings, key)
        require(value is None or value > 0, f"{where}{key}: {value} is not positive; leave it out.")
    if settings.pooling is not None:
        one_of(settings.pooling, ("cls", "mean"), f"{where}pooling")
    one_of(settings.precision, ("fp32", "bf16"), f"{where}precision")
    bound = settings.equivalence_points
    require(
        bound is None or 0 < bound < 100,
        f"{where}equivalence_points: {bound} is not between 0 and 100 points; leave it out for no test of equivalence.",
    )
    require(settings.jobs > 0, f"{where}jobs: {settings.jobs} is not positive; use 1 for one run at a time.")


def check_seeds(seeds: Sequence[int] | None, where: str) -> None:
    """Of fine-tuning: some, each once."""
    require(seeds is None or bool(seeds), f"{where} is empty; leave it out for the protocol's.")
    require(min(seeds or [0]) >= 0, f"{where}: a seed may not be negative.")
    require(len(set(seeds or [])) == len(seeds or []), f"{where} names a seed twice; remove one.")


def check_changes(changes: dict[str, object], where: str) -> None:
    """Changes to a protocol: its keys, and values of their kind."""
    known = [field.name for field in dataclasses.fields(Protocol) if field.name not in NOT_SET_HERE]
    for key, value in changes.items():
        one_of(key, known, where)
        default = getattr(Protocol(), key)
        kinds = (bool,) if isinstance(default, bool) else (int,) if key in WHOLE else (int, float)
        optional = value is None and default is None
        if not (
            optional or (isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool))
        ):
            raise UserError(
                f"{where}.{key}: {value!r} is not {'true or false' if bool in kinds else 'a number'} that fits."
            )
        if not isinstance(default, bool) and value is not None:
            low = 0 if key in MAY_BE_ZERO else LEAST.get(key, 1e-12)
            require(float(value) >= low, f"{where}.{key}: {value} is too small.")  # type: ignore[arg-type]


WHOLE = ("batch_size", "epochs", "steps", "max_tokens")
MAY_BE_ZERO = ("weight_decay", "warmup")
LEAST = {"batch_size": 1, "epochs": 1, "steps": 1, "max_tokens": 8}
