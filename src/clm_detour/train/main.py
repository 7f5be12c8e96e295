"""What the composer launcher runs: `CONFIG arm=ARM phase=PHASE [key=value ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from clm_detour.config import load_config, parse_selection
from clm_detour.errors import UserError, exit_on_user_error
from clm_detour.preemption import handlers_kept, requeue_on_signals


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

    from clm_detour.progress import console
    from clm_detour.train.recipe import choose_phase

    with handlers_kept():
        from clm_detour.train.phase import train_phase

    run = choose_phase(config, chosen["arm"], chosen["phase"])
    if not train_phase(config, run):
        console.print(f"{run.id} is finished; nothing to do.")


def main() -> None:
    """Read the command line."""
    with exit_on_user_error(), requeue_on_signals():
        if len(sys.argv) < 2:
            raise UserError("Usage: train.py CONFIG arm=ARM phase=PHASE [key=value ...].")
        train(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()
