"""Measure the CKA of two random networks of 28 layers and 1,024 dimensions, without the forward passes.

    python benchmarks/cka.py

One sample has 500 texts, as in the paper, and one has 1,000. Both parts of `clm-detour compare` are timed:
the matrix of all layers by both estimators, and all estimators with 200 half-samples for the intervals and
chance levels. Memory is the peak of the process beyond the states. Writes benchmarks/results/cka-*.json.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np
import torch
from record import record

from clm_detour.analyze.cka import Alignment, half_samples
from clm_detour.analyze.similarity import States, measure

LAYERS, WIDTH, RESAMPLES = 28, 1024, 200
TEXTS = (500, 1000)


def random_states(seed: int, texts: int) -> States:
    """Return states that are a random walk over the layers, so that neighboring layers are similar."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.zeros(texts, WIDTH, dtype=torch.float64)
    means = []
    for _ in range(LAYERS + 2):
        state = state + torch.randn(texts, WIDTH, generator=generator, dtype=torch.float64)
        means.append(state)
    return States(("embeddings", *map(str, range(LAYERS)), "final_norm"), means, [x[:0] for x in means])


def memory_used() -> float:
    """Return the memory that the process uses, in GB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9


def peak_memory() -> float:
    """Return the most memory that the process has used so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure_sample(texts: int) -> dict[str, float]:
    """Return the seconds and the memory of one sample."""
    a, b = random_states(0, texts), random_states(1, texts)
    small = [x[:50, :20] for x in a.means[:2]]
    Alignment(small, small)  # starts torch's threads
    before, start = memory_used(), time.perf_counter()
    alignment = Alignment(a.means, b.means)
    for debiased in (False, True):
        alignment.matrix(debiased)
    middle = time.perf_counter()
    halves = half_samples(texts, RESAMPLES, 0)
    measure(a, b, np.arange(texts)[None], halves, 5.0, torch.device("cpu"))
    end = time.perf_counter()
    return {
        "texts": texts,
        "states_gb": round(2 * (LAYERS + 2) * texts * WIDTH * 8 / 1e9, 2),
        "matrix_seconds": round(middle - start, 2),
        "all_estimators_seconds": round(end - middle, 2),
        "memory_beyond_states_gb": round(peak_memory() - before, 2),
    }


def main() -> None:
    """Measure each size in its own process, and write the record."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        samples = pool.map(measure_sample, TEXTS, chunksize=1)
    results = {"layers": LAYERS, "width": WIDTH, "resamples": RESAMPLES, "samples": samples}
    print(results, record("cka", results, ("torch", "numpy")))


if __name__ == "__main__":
    main()
