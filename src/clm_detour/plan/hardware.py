"""GPUs by name, and the time that a number of operations takes on them."""

from __future__ import annotations

from dataclasses import dataclass

from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of

# Dense bf16 operations per second and watts of the whole board, as their makers state them.
DEVICES = {
    "A100": (312e12, 400),
    "H100": (989e12, 700),
    "H100-PCIe": (756e12, 350),
    "H200": (989e12, 700),
    "B200": (2250e12, 1000),
    "L40S": (362e12, 350),
    "A10": (125e12, 150),
    "RTX4090": (165e12, 450),
    "MI300X": (1307e12, 750),
}
# Bytes of memory, as their makers state them: a little less than what a program finds.
MEMORY = {
    "A100": 80 * 10**9,
    "H100": 80 * 10**9,
    "H100-PCIe": 80 * 10**9,
    "H200": 141 * 10**9,
    "B200": 180 * 10**9,
    "L40S": 48 * 10**9,
    "A10": 24 * 10**9,
    "RTX4090": 24 * 10**9,
    "MI300X": 192 * 10**9,
}
MFU = 0.2  # follows approximately from the paper's hours on 4 x H100; `clm-detour bench` measures it


@dataclass(frozen=True)
class Hardware:
    """A number of GPUs of one kind.

    Args:
        device: Key of `DEVICES`.
        mfu: Share of the peak that the operations of `model.flops` reach.
    """

    gpus: int
    device: str
    mfu: float = MFU

    def __post_init__(self) -> None:
        one_of(self.device, DEVICES, "--device")
        if not 0 < self.mfu <= 1:
            raise UserError(f"--mfu: {self.mfu:g} is not a share of the peak above 0 and up to 1, like 0.3.")

    @property
    def watts(self) -> int:
        """Power of all boards under full load, without the machines that hold them."""
        return self.gpus * DEVICES[self.device][1]

    @property
    def memory(self) -> int:
        """Memory of each GPU in bytes."""
        return MEMORY[self.device]

    def seconds(self, flops: float) -> float:
        """Return the time that a number of operations takes."""
        return flops / (self.gpus * DEVICES[self.device][0] * self.mfu)
