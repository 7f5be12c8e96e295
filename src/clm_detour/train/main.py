"""The command that trains one phase, in one process or under a launcher. Each of these starts it:

clm-detour train CONFIG arm=ARM phase=PHASE
torchrun --nproc-per-node 4 -m clm_detour.train CONFIG arm=ARM phase=PHASE
composer -n 4 -m clm_detour.train CONFIG arm=ARM phase=PHASE
composer -n 4 scripts/train.py CONFIG arm=ARM phase=PHASE
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from clm_detour.config import load_config, parse_selection
from clm_detour.train import require_composer
from clm_detour.train.nested import check_not_a_task_of_many
from clm_detour.utils.errors import UserError, exit_on_user_error
from clm_detour.utils.signals import handlers_kept, requeue_on_signals

ERROR_DELAY = 5.0  # seconds
CONNECTION_LOST = (  # in messages of gloo and NCCL
    "Connection closed by peer",
    "Connection reset by peer",
    "remote process exited",
)


def train(path: str, overrides: Sequence[str]) -> None:
    """Train the phase that `arm=` and `phase=` select.

    Raises:
        UserError: If no phase is selected, it cannot be trained, or Composer is not installed.
    """
    require_composer()
    check_not_a_task_of_many()
    selected, rest = parse_selection(overrides, ("arm", "phase"))
    config = load_config(path, rest)
    if set(selected) != {"arm", "phase"}:
        raise UserError(
            f"Say which phase to train: arm=ARM phase=PHASE (arms here: {', '.join(config.arms)})."
        )

    from clm_detour.recipe.recipe import Recipe
    from clm_detour.utils.progress import console

    with handlers_kept():
        from clm_detour.train.phase import train_phase

    recipe = Recipe(config)
    run = recipe.phase(selected["arm"], selected["phase"])
    if not train_phase(recipe, run):
        console.print(f"{run.id} is finished; nothing to do.")


@contextmanager
def delay_errors() -> Iterator[None]:
    """Delay errors that another process can explain better, since a launcher ends all after the first error.

    If all processes find the same user error, the main process reports it, since a launcher shows only the
    output of that one at once. A process that lost its connection to another does not know why, so it waits
    for the other's message.
    """
    try:
        yield
    except UserError:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(ERROR_DELAY)
        raise
    except RuntimeError as error:
        if not any(words in str(error) for words in CONNECTION_LOST):
            raise
        time.sleep(ERROR_DELAY)
        raise UserError("Another process of this phase ended; its own message says why.") from error


def main() -> None:
    """Train the phase that the command line selects."""
    with exit_on_user_error(), delay_errors(), requeue_on_signals():
        if len(sys.argv) < 2:
            raise UserError("Usage: python -m clm_detour.train CONFIG arm=ARM phase=PHASE [key=value ...].")
        train(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()
