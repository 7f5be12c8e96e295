"""The end of a Composer `Trainer`, of which one process may have many, one after another."""

from __future__ import annotations

import atexit

from composer import Trainer
from composer.core import Engine


def close(trainer: Trainer) -> None:
    """End the callbacks of `trainer`, the only one open, and let go of its model, gradients, moments and loader.

    Composer would hold them until the process ends, for a hook that only an engine that was never closed takes back; and its state
    and logger refer to each other, so without that hook they would still wait for the garbage collector.
    """
    trainer.engine.close()
    atexit.unregister(Engine._close)
    vars(trainer.state).clear()
