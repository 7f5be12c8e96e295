"""Gather sharded weights and reduce their gradients once a step, not once for each micro-batch."""

from __future__ import annotations

from composer.core import Callback, State
from composer.loggers import Logger
from torch.distributed.fsdp import FSDPModule

from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.train.parallel import keeps_whole


class GradientSync(Callback):
    """Keeps whole weights and adds up whole gradients until the last micro-batch of a step.

    Composer does the same for a model under DDP.

    Args:
        network: A sharded network.
    """

    def __init__(self, network: FSDPModule):
        self.network = network
        self.rows_left = 0

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Count the rows of the step."""
        self.rows_left = len(state.batch["predicted"])

    def before_forward(self, state: State, logger: Logger) -> None:
        """Turn communication off, or on for the micro-batch with the last rows of the step."""
        self.rows_left -= len(state.batch["predicted"])
        self.network.set_requires_gradient_sync(self.rows_left <= 0)
        self.network.set_reshard_after_backward(self.rows_left <= 0)


def gradient_sync(network: ModernBertForPretraining, bf16: bool) -> GradientSync | None:
    """Return the callback if the network is sharded and memory allows it. Every process must call it.

    Args:
        bf16: Whether the matrices are gathered in bf16.
    """
    if not isinstance(network, FSDPModule) or not keeps_whole(network, bf16):
        return None
    return GradientSync(network)
