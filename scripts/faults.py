"""The faults of `fault_trials.py`. Each happens inside a running process, at an exact place."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import torch

from clm_detour.train.composer_model import PretrainingModel

Fault = Callable[[], None]  # called in the process before the run starts


def at_call(module: object, name: str, number: int, action: Callable[[], object]) -> Fault:
    """Return a fault that runs `action` just before the `number`-th call of a function."""

    def install() -> None:
        original, calls = getattr(module, name), [0]

        def counted(*args: object, **kwargs: object) -> object:
            calls[0] += 1
            if calls[0] == number:
                action()
            return original(*args, **kwargs)

        setattr(module, name, counted)

    return install


def die() -> None:
    """Kill this process, as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_step(number: int, action: Callable[[], object] = die) -> Fault:
    """Return a fault in a step, after its gradients are computed and before its weights are updated."""
    return at_call(torch.optim.AdamW, "step", number, action)


def in_write(number: int, action: Callable[[], object] = die) -> Fault:
    """Return a fault that happens when a file is written, but does not have its name yet."""
    return at_call(os, "replace", number, action)


def nan_at(number: int) -> Fault:
    """Return a fault that makes the loss and the gradients of a step NaN."""

    def install() -> None:
        original, calls = PretrainingModel.loss, [0]

        def loss(self: PretrainingModel, outputs: object, batch: object) -> torch.Tensor:
            calls[0] += 1
            return original(self, outputs, batch) * (float("nan") if calls[0] == number else 1.0)  # type: ignore[arg-type]

        PretrainingModel.loss = loss  # type: ignore[method-assign,assignment]

    return install


def raise_disk_full() -> None:
    """Raise the error of a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def kill_after(seconds: float, child: int) -> None:
    """Kill a child and its own children from outside, as `kill -9` does."""
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def send_sigterm() -> None:
    """Send SIGTERM to the run and its loader processes from another process, as a cluster does."""
    subprocess.run(["kill", "-s", "TERM", "--", f"-{os.getpgrp()}"], check=False)
    time.sleep(0.2)


def press_ctrl_c() -> None:
    """Send SIGINT to the run and its loader processes, as a terminal does."""
    os.killpg(os.getpgrp(), signal.SIGINT)


def kill_children() -> None:
    """Kill the children of this process, which are the loader processes of a run."""
    for child in psutil.Process().children():
        child.kill()
    time.sleep(0.2)
