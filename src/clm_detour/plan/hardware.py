"""GPUs by name, and the time that a number of operations takes on them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of


@dataclass(frozen=True)
class Device:
    """A GPU, as its maker states it.

    Args:
        bf16, tf32, fp32: Operations on dense matrices per second. None: torch has no such products there.
        memory: Bytes of memory, a little less than what a program finds.
        bandwidth: Bytes per second between the GPU and its memory.
        watts: Power of the whole board.
    """

    bf16: float
    tf32: float | None
    fp32: float
    memory: int
    bandwidth: float
    watts: int


GB = 10**9
DEVICES = {
    "A100": Device(312e12, 156e12, 19.5e12, 80 * GB, 2.039e12, 400),  # 80 GB, SXM
    "H100": Device(989e12, 495e12, 67e12, 80 * GB, 3.35e12, 700),
    "H100-PCIe": Device(756e12, 378e12, 51e12, 80 * GB, 2.0e12, 350),
    "H200": Device(989e12, 495e12, 67e12, 141 * GB, 4.8e12, 700),
    "B200": Device(2250e12, 1125e12, 75e12, 180 * GB, 8.0e12, 1000),
    "L40S": Device(362e12, 183e12, 91.6e12, 48 * GB, 0.864e12, 350),
    "A10": Device(125e12, 62.5e12, 31.2e12, 24 * GB, 0.6e12, 150),
    "RTX4090": Device(165e12, 82.6e12, 82.6e12, 24 * GB, 1.008e12, 450),
    "MI300X": Device(1307e12, None, 163.4e12, 192 * GB, 5.3e12, 750),
}
PARTS = {"NVL", "MIG"}  # in the names of slower GPUs, and of parts of a GPU, whose peaks are others
MFU = 0.2  # follows approximately from the paper's hours on 4 x H100; `clm-detour bench` measures it


def known_device(name: str) -> str | None:
    """Return the GPU that a driver's name contains as whole words: 'NVIDIA H100 80GB HBM3' -> 'H100'."""
    words = re.split(r"[\s-]+", name.upper())
    if PARTS & set(words):
        return None
    spans = {"".join(words[i : i + n]) for n in (1, 2) for i in range(len(words))}
    known = [device for device in DEVICES if device.upper().replace("-", "") in spans]
    found = max(known, key=len, default=None)
    return "H100-PCIe" if found == "H100" and "HBM2E" in words else found


def peak_of(name: str, precision: str) -> float | None:
    """Return the operations per second that a GPU can reach at most; None if this is not known.

    Args:
        name: Name of the GPU, as its driver gives it.
        precision: `bf16`, `tf32` or `fp32`.
    """
    device = known_device(name)
    if device is None:
        return None
    peak: float | None = getattr(DEVICES[device], precision)
    return peak


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
        return self.gpus * DEVICES[self.device].watts

    @property
    def memory(self) -> int:
        """Memory of each GPU in bytes."""
        return DEVICES[self.device].memory

    def seconds(self, flops: float) -> float:
        """Return the time that a number of operations takes."""
        return flops / (self.gpus * DEVICES[self.device].bf16 * self.mfu)
