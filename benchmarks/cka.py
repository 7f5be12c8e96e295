"""What a comparison costs beyond the forward passes: CKA of two made-up networks of 28 layers x 1,024 dimensions.

    python benchmarks/cka.py

Times one sample of 500 texts (the paper's) and one of 1,000, as `clm-detour compare` computes them: the matrix of all layers by both estimators;
and all estimators with 200 half-samples for the intervals and chance levels. Memory is the most that the process held beyond what it held with the
states. Writes benchmarks/results/cka-*.json.
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


def made_up(seed: int, texts: int) -> States:
    """A random walk over the layers, so that neighbours are alike."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.zeros(texts, WIDTH, dtype=torch.float64)
    means = []
    for _ in range(LAYERS + 2):
        state = state + torch.randn(texts, WIDTH, generator=generator, dtype=torch.float64)
        means.append(state)
    return States(("embeddings", *map(str, range(LAYERS)), "final_norm"), means, [x[:0] for x in means])


def held() -> float:
    """Memory that the process holds, GB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9


def most_held() -> float:
    """The most that it has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measured(texts: int) -> dict[str, float]:
    """One sample."""
    a, b = made_up(0, texts), made_up(1, texts)
    small = [x[:50, :20] for x in a.means[:2]]
    Alignment(small, small)  # starts torch's threads
    before, start = held(), time.perf_counter()
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
        "memory_beyond_states_gb": round(most_held() - before, 2),
    }


def main() -> None:
    """Measure each size in a process of its own, and record."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        samples = pool.map(measured, TEXTS, chunksize=1)
    results = {"layers": LAYERS, "width": WIDTH, "resamples": RESAMPLES, "samples": samples}
    print(results, record("cka", results, ("torch", "numpy")))


if __name__ == "__main__":
    main()
