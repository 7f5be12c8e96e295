"""What the composer launcher runs: `CONFIG arm=ARM phase=PHASE [key=value ...]`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from clm_detour.config import load_config, parse_selection
from clm_detour.utils.errors import UserError, exit_on_user_error
from clm_detour.utils.signals import handlers_kept, requeue_on_signals

OTHERS_SECONDS = 5.0
LOST = ("Connection closed by peer", "Connection reset by peer", "remote process exited")  # of gloo and NCCL


def train(path: str, overrides: Sequence[str]) -> None:
    """Train the one phase that `arm=` and `phase=` choose.

    Raises:
        UserError: no phase is chosen, or it cannot be trained.
    """
    chosen, rest = parse_selection(overrides, ("arm", "phase"))
    config = load_config(path, rest)
    if set(chosen) != {"arm", "phase"}:
        raise UserError(
            f"Say which phase to train: arm=ARM phase=PHASE (arms here: {', '.join(config.arms)})."
        )

    from clm_detour.recipe.phases import choose_phase
    from clm_detour.utils.progress import console

    with handlers_kept():
        from clm_detour.train.phase import train_phase

    run = choose_phase(config, chosen["arm"], chosen["phase"])
    if not train_phase(config, run):
        console.print(f"{run.id} is finished; nothing to do.")


@contextmanager
def others_first() -> Iterator[None]:
    """Let a process leave with an error only after another that knows better could, upon which a launcher ends this one.

    The first process says a mistake that all of them find, since a launcher shows only its output at once. A process that has lost
    contact to another cannot know why.
    """
    try:
        yield
    except UserError:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(OTHERS_SECONDS)
        raise
    except RuntimeError as error:
        if not any(words in str(error) for words in LOST):
            raise
        time.sleep(OTHERS_SECONDS)
        raise UserError("Another process of this phase ended; what that one printed says why.") from error


def main() -> None:
    """Read the command line."""
    with exit_on_user_error(), others_first(), requeue_on_signals():
        if len(sys.argv) < 2:
            raise UserError("Usage: train.py CONFIG arm=ARM phase=PHASE [key=value ...].")
        train(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()
